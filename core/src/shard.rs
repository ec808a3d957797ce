//! Folding mappings and credentials into the files that carry them to agents.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::credentials::{CredentialShard, Credentials};
use crate::load::{Files, Shards};
use crate::mapping::{FORMAT_VERSION, Index, Mapping, MappingId, MappingShard, SHARDS, ShardEntry};

/// Mappings that cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Two mappings of one id: conflicts must have been settled before.
    #[error("two mappings have the id {0}: settle the conflict between their policies first")]
    Twice(String),
    /// An id that does not start with a hexadecimal digit.
    #[error("{0:?} is no id of a mapping or credential: report this as a bug of onespace")]
    Id(String),
    /// A value that JSON cannot hold.
    #[error("a mapping cannot be written: {0}; report this as a bug of onespace")]
    Json(String),
}

/// The shard of an id: its first hexadecimal digit, written as `00` to `15`.
#[must_use]
pub fn shard_of(id: &str) -> Option<String> {
    let digit = id.chars().next()?.to_digit(16)?;
    (usize::try_from(digit).ok()? < SHARDS).then(|| format!("{digit:02}"))
}

/// Folds mappings and credentials into files. Equal input gives equal mapping files and an equal index.
///
/// The revision of a credential shard must tell nothing of its content (a hash would be a guessable hash of a
/// password): a shard whose credentials are those of `previous` keeps its revision, any other gets `fresh`, which the
/// caller never uses twice.
///
/// # Errors
/// When two mappings share an id.
pub fn fold<M: Borrow<Mapping>>(
    mappings: &[M],
    credentials: &BTreeMap<String, Credentials>,
    previous: &Files,
    fresh: &str,
) -> Result<Files, FoldError> {
    let mut files = Files::default();
    let mut index = Index {
        format_version: FORMAT_VERSION,
        ..Index::default()
    };

    for (shard, credentials) in by_shard(
        credentials
            .iter()
            .map(|(id, credentials)| (id.clone(), credentials)),
    )? {
        let mut content = CredentialShard {
            revision: String::new(),
            credentials: credentials
                .into_iter()
                .map(|(id, credentials)| (id, credentials.clone()))
                .collect(),
        };
        content.revision =
            kept_revision(&content, previous.credentials.get(&shard)).unwrap_or_else(|| fresh.to_owned());
        index.credentials.insert(
            shard.clone(),
            ShardEntry {
                revision: content.revision.clone(),
                sha256: None,
            },
        );
        let bytes = shared(json(&content)?, previous.credentials.get(&shard));
        files.credentials.insert(shard, bytes);
    }

    let mut sorted: Vec<&Mapping> = mappings.iter().map(Borrow::borrow).collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(FoldError::Twice(twice[0].id.0.clone()));
    }
    for (shard, mappings) in by_shard(sorted.into_iter().map(|mapping| (mapping.id.0.clone(), mapping)))? {
        let values: Result<Vec<_>, _> = mappings
            .into_iter()
            .map(|(_, mapping)| serde_json::to_value(mapping))
            .collect();
        let mut content = MappingShard {
            format_version: FORMAT_VERSION,
            revision: String::new(),
            mappings: values.map_err(|error| FoldError::Json(error.to_string()))?,
        };
        content.revision = digest(&json(&content)?);
        let bytes = json(&content)?;
        let sha256 = Some(hex::encode(Sha256::digest(&bytes)));
        index.mappings.insert(
            shard.clone(),
            ShardEntry {
                revision: content.revision,
                sha256,
            },
        );
        let bytes = shared(bytes, previous.mappings.get(&shard));
        files.mappings.insert(shard, bytes);
    }

    index.revision = digest(&json(&index)?);
    files.index = json(&index)?;
    Ok(files)
}

/// A file's bytes: those of before, if they are the same.
fn shared(bytes: Vec<u8>, before: Option<&Arc<[u8]>>) -> Arc<[u8]> {
    let same = before.filter(|before| ***before == *bytes);
    same.cloned().unwrap_or_else(|| bytes.into())
}

/// One file of a set that is to be replaced, or to go where there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// `credentials/NN.json`.
    Credentials(&'a str, Option<&'a [u8]>),
    /// `mappings/NN.json`.
    Mappings(&'a str, Option<&'a [u8]>),
    /// `mappings/index.json`.
    Index(&'a [u8]),
}

/// How to get from one set of files to another, in an order in which no reader ever loads a mixture: credentials,
/// mappings, the index; what no index names any more goes last. Until the new index is there the old one does not match
/// what was changed already.
#[must_use]
pub fn steps<'a>(now: &'a Files, next: &'a Files) -> Vec<Step<'a>> {
    fn written<'a>(now: &'a Shards, next: &'a Shards) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        next.iter()
            .filter(|(shard, bytes)| now.get(*shard) != Some(bytes))
            .map(|(shard, bytes)| (shard.as_str(), Some(bytes.as_ref())))
    }
    fn gone<'a>(now: &'a Shards, next: &'a Shards) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        now.keys()
            .filter(|shard| !next.contains_key(*shard))
            .map(|shard| (shard.as_str(), None))
    }
    let credentials = |(shard, bytes)| Step::Credentials(shard, bytes);
    let mappings = |(shard, bytes)| Step::Mappings(shard, bytes);
    let index = (now.index != next.index).then_some(Step::Index(&next.index));
    written(&now.credentials, &next.credentials)
        .map(credentials)
        .chain(written(&now.mappings, &next.mappings).map(mappings))
        .chain(index)
        .chain(gone(&now.mappings, &next.mappings).map(mappings))
        .chain(gone(&now.credentials, &next.credentials).map(credentials))
        .collect()
}

/// The name of a credential in the files: made of where it comes from, never of what it is.
#[must_use]
pub fn credential_id(namespace: &str, secret: &str) -> String {
    let digest = Sha256::digest(format!("onespace credential\n{namespace}\n{secret}"));
    hex::encode(&digest[..16])
}

impl MappingId {
    /// The shard that holds this mapping, `00` to `15`.
    #[must_use]
    pub fn shard(&self) -> Option<String> {
        shard_of(&self.0)
    }
}

fn by_shard<T>(
    items: impl Iterator<Item = (String, T)>,
) -> Result<BTreeMap<String, Vec<(String, T)>>, FoldError> {
    let mut shards: BTreeMap<String, Vec<(String, T)>> = BTreeMap::new();
    for (id, item) in items {
        let Some(shard) = shard_of(&id) else {
            return Err(FoldError::Id(id));
        };
        shards.entry(shard).or_default().push((id, item));
    }
    Ok(shards)
}

/// The revision of the shard as it was, if it holds the same credentials.
fn kept_revision(content: &CredentialShard, previous: Option<&Arc<[u8]>>) -> Option<String> {
    let previous: CredentialShard = serde_json::from_slice(previous?).ok()?;
    let same = serde_json::to_value(&previous.credentials).ok()?
        == serde_json::to_value(&content.credentials).ok()?;
    (same && !previous.revision.is_empty()).then_some(previous.revision)
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, FoldError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| FoldError::Json(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}
