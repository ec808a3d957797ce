//! Between the SDK's types and ours.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use aws_smithy_types::DateTime;
use onespace_core::mapping::Encryption;
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use onespace_core::timestamp::Timestamp;

/// An ETag without quotes and without a weak mark.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// An ETag as conditions want it.
pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// Whether this ETag is the md5 of a body by its form.
pub(super) fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The number of parts that an ETag names: `md5-N`.
pub(super) fn part_count(etag: &str) -> Option<usize> {
    let (digest, parts) = etag.split_once('-')?;
    (is_md5(digest))
        .then(|| parts.parse().ok())
        .flatten()
        .filter(|parts| *parts > 0)
}

/// ETag of a multipart object with these parts.
pub(super) fn joined_etag(parts: &[[u8; 16]]) -> String {
    use md5::{Digest, Md5};
    format!("{}-{}", hex::encode(Md5::digest(parts.concat())), parts.len())
}

/// `Last-Modified` on the remote's clock; the epoch where it says none.
pub(super) fn moment(time: Option<&DateTime>) -> Timestamp {
    let Some(time) = time else {
        return Timestamp::default();
    };
    let seconds = u64::try_from(time.secs()).unwrap_or_default();
    Timestamp::from_unix_seconds(seconds).plus(Duration::from_nanos(time.subsec_nanos().into()))
}

/// A size as the SDK has it; negative ones do not happen.
pub(super) fn size(length: Option<i64>) -> u64 {
    length
        .and_then(|length| u64::try_from(length).ok())
        .unwrap_or_default()
}

/// How uploads ask for encryption: algorithm and key.
pub(super) fn encryption(encryption: &Encryption) -> (Option<ServerSideEncryption>, Option<String>) {
    match encryption {
        Encryption::None => (None, None),
        Encryption::AES256 => (Some(ServerSideEncryption::Aes256), None),
        Encryption::KMS { kms_key_id } => (Some(ServerSideEncryption::AwsKms), kms_key_id.clone()),
    }
}

/// Whether an object that is encrypted like this has an ETag that is no md5.
pub(super) fn hides_md5(used: Option<&ServerSideEncryption>) -> bool {
    matches!(
        used,
        Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
    )
}

/// STANDARD is what an absent storage class means.
pub(super) fn storage_class(class: Option<&StorageClass>) -> Option<String> {
    class
        .map(StorageClass::as_str)
        .filter(|class| *class != "STANDARD")
        .map(str::to_owned)
}

/// The fields of a HEAD or GET that make up an object.
pub(super) struct Seen<'a> {
    pub etag: Option<&'a str>,
    pub size: u64,
    pub last_modified: Option<&'a DateTime>,
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    pub content_disposition: Option<&'a str>,
    pub cache_control: Option<&'a str>,
    pub metadata: Option<&'a HashMap<String, String>>,
    pub storage_class: Option<&'a StorageClass>,
    pub encryption: Option<&'a ServerSideEncryption>,
}

impl From<Seen<'_>> for RemoteObject {
    fn from(seen: Seen<'_>) -> Self {
        let Seen {
            etag,
            size,
            last_modified,
            content_type,
            content_encoding,
            content_disposition,
            cache_control,
            metadata,
            storage_class: class,
            encryption,
        } = seen;
        Self {
            etag: unquoted(etag.unwrap_or_default()),
            opaque_etag: hides_md5(encryption),
            size,
            last_modified: moment(last_modified),
            headers: RemoteHeaders {
                content_type: content_type.map(str::to_owned),
                content_encoding: content_encoding.map(str::to_owned),
                content_disposition: content_disposition.map(str::to_owned),
                cache_control: cache_control.map(str::to_owned),
                metadata: metadata
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                    .collect(),
            },
            storage_class: storage_class(class),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_lose_their_quotes_and_nothing_else() {
        assert_eq!(unquoted("\"abc-2\""), "abc-2");
        assert_eq!(unquoted("W/\"abc\""), "abc");
        assert_eq!(unquoted("abc"), "abc");
    }

    #[test]
    fn a_time_of_the_remote_keeps_its_fraction() {
        let time = DateTime::from_secs_and_nanos(1_700_000_000, 250_000_000);
        assert_eq!(moment(Some(&time)).ticks(), 170_000_000_025_000);
        assert_eq!(moment(None), Timestamp::default());
    }

    #[test]
    fn the_parts_of_a_multipart_etag_are_counted() {
        assert_eq!(part_count("d41d8cd98f00b204e9800998ecf8427e-12"), Some(12));
        assert_eq!(part_count("d41d8cd98f00b204e9800998ecf8427e"), None);
        assert_eq!(part_count("d41d8cd98f00b204e9800998ecf8427e-0"), None);
        assert_eq!(part_count("something-3"), None);
    }

    #[test]
    fn the_etag_of_parts_is_the_md5_of_their_md5s() {
        // md5 of two empty md5s, computed with md5sum.
        let empty: [u8; 16] = hex::decode("d41d8cd98f00b204e9800998ecf8427e")
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(joined_etag(&[empty, empty]), "5873dd45edd01f09c1ef2e7819369e8e-2");
    }
}
