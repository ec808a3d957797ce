//! What a copy must look like, worked out from the description of the layout and not by the code under test.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bytes::Bytes;
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::s3::embedded::StoredObject;

/// What stands before an object's name in the hashed namespace: md5 of `account/container` as a number modulo 16^6,
/// in hex without leading zeros, then account and container.
#[must_use]
pub fn hashed(account: &str, container: &str) -> String {
    format!("{}/{account}/{container}", hashed_root(account, container))
}

fn hashed_root(account: &str, container: &str) -> String {
    let digits = md5_hex(format!("{account}/{container}").as_bytes());
    let last = digits[26..].trim_start_matches('0');
    if last.is_empty() { "0" } else { last }.to_owned()
}

/// The key of a manifest in the hashed namespace.
#[must_use]
pub fn hashed_manifest(account: &str, container: &str, object: &str) -> String {
    let root = hashed_root(account, container);
    format!(
        "{root}/.manifests/{account}/{container}/{}",
        manifest_name(object)
    )
}

/// The last segment of a manifest's key.
#[must_use]
pub fn manifest_name(object: &str) -> String {
    format!("{}.swift_slo_manifest", hex::encode(Sha256::digest(object)))
}

/// md5 in hex: the ETag of a plain object.
#[must_use]
pub fn md5_hex(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}

/// The ETag of a multipart upload of these parts.
#[must_use]
pub fn etag_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let (mut all, mut count) = (Md5::new(), 0);
    for part in parts {
        all.update(Md5::digest(part));
        count += 1;
    }
    format!("{}-{count}", hex::encode(all.finalize()))
}

/// What the mark says of where a copy came from.
#[must_use]
pub fn source(account: &str, container: &str, object: &str) -> String {
    hex::encode(Sha256::digest(format!("{account}/{container}/{object}")))
}

/// Whether this is the marked copy of a plain object with this body. `source` is `account/container/object`.
///
/// # Errors
/// What is wrong with it.
pub fn is_copy(
    copy: Option<&StoredObject>,
    body: &[u8],
    (account, container, object): (&str, &str, &str),
) -> Result<()> {
    let Some(copy) = copy else {
        anyhow::bail!("{container}/{object} is not there");
    };
    let etag = md5_hex(body);
    ensure!(copy.body == body, "{container}/{object}: another body");
    ensure!(copy.etag == etag, "{container}/{object}: ETag {}", copy.etag);
    marked(&copy.headers.metadata, &etag, &source(account, container, object))
}

/// Whether metadata carry a whole mark of this source and ETag.
///
/// # Errors
/// What is missing or another.
pub fn marked(metadata: &BTreeMap<String, String>, etag: &str, source: &str) -> Result<()> {
    let expected = [
        ("onespace-etag", etag),
        ("onespace-source", source),
        ("onespace-mode", "Sync"),
    ];
    for (name, value) in expected {
        let found = metadata.get(name).map(String::as_str);
        ensure!(found == Some(value), "{name} is {found:?} in {metadata:?}");
    }
    for name in ["onespace-data-time", "onespace-time", "onespace-mapping"] {
        ensure!(metadata.contains_key(name), "{name} is missing in {metadata:?}");
    }
    Ok(())
}

/// A body of so many bytes in which every place differs from its neighbours, and every `seed` from every other.
#[must_use]
pub fn body(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(bytes)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_1space_was_seen_to_write() {
        assert_eq!(hashed("AUTH_test", "plain"), "19dae2/AUTH_test/plain");
        assert_eq!(hashed("AUTH_test2", "one"), "76cbb/AUTH_test2/one");
    }

    #[test]
    fn an_etag_of_parts_counts_them() {
        assert_eq!(
            etag_of_parts([b"".as_slice()]),
            format!("{}-1", md5_hex(&Md5::digest(b"")))
        );
    }
}
