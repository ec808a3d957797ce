//! From the bytes of the files to the mappings that an agent runs.
//!
//! A set is loaded whole or not at all: whatever does not match the index, be it half written, edited by hand or of
//! another version, is an error, and the agent keeps what it has. One mapping that cannot be understood is refused
//! alone, and the others run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::credentials::Credentials;
use crate::limits::Schedule;
use crate::loader::Loader;
use crate::mapping::{
    ALL_CONTAINERS, FEATURES, FORMAT_VERSION, Index, Mapping, MappingId, MappingState, Mode, Protocol,
};
use crate::reason::RefuseReason;
use crate::select::Selector;

/// The bytes of shards, by their two digits.
pub type Shards = BTreeMap<String, Arc<[u8]>>;

/// The bytes of a set of files. Shards are under their two digits, `00` to `15`; those that two sets have in common are in memory
/// once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// `mappings/index.json`.
    pub index: Vec<u8>,
    /// `mappings/NN.json`.
    pub mappings: Shards,
    /// `credentials/NN.json`.
    pub credentials: Shards,
}

/// The credential files hold passwords: only names and sizes are shown.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes = |files: &Shards| -> BTreeMap<String, usize> {
            files
                .iter()
                .map(|(name, bytes)| (name.clone(), bytes.len()))
                .collect()
        };
        f.debug_struct("Files")
            .field("index", &self.index.len())
            .field("mappings", &sizes(&self.mappings))
            .field("credentials", &sizes(&self.credentials))
            .finish()
    }
}

/// What a set of files says.
#[derive(Clone, Debug, Default)]
pub struct LoadedSet {
    /// The revision of the whole set.
    pub revision: String,
    /// The mappings to run, each with the containers taken out of it, in the order of their ids.
    pub mappings: Vec<Arc<Mapping>>,
    /// The mappings that are not run.
    pub refused: Vec<Refused>,
    /// Credentials by the id that `Mapping.target.credential` names.
    pub credentials: BTreeMap<String, Arc<Credentials>>,
}

/// One mapping that is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its id; empty where even that cannot be read.
    pub id: MappingId,
    /// Why.
    pub reason: RefuseReason,
    /// Why in words, and what to do.
    pub message: String,
}

/// Why a set of files is not loaded. The agent keeps the last good one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not JSON of the form that is expected. The content is not quoted: it may be a password.
    #[error(
        "{file} cannot be read at line {line}, column {column}: {what}; write the files anew with `onespace render`"
    )]
    Malformed {
        /// Which file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Of another version.
    #[error(
        "{file} has format version {found}, this program reads {FORMAT_VERSION}: run a program of the version that wrote it"
    )]
    Version {
        /// Which file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// The index names a file that is not there.
    #[error(
        "{file} is not there, but mappings/index.json names it: wait until all files are written, or write them anew with `onespace render`"
    )]
    Missing {
        /// Which file.
        file: String,
    },
    /// A file is not the one that the index means.
    #[error(
        "{file} is not the one that mappings/index.json names (its {what} differs): wait until all files are written, or write them anew with `onespace render`; do not edit them"
    )]
    Mismatch {
        /// Which file.
        file: String,
        /// Revision or sha256.
        what: &'static str,
    },
    /// A shard of a name that cannot be.
    #[error(
        "mappings/index.json names the shard {shard:?}, but shards are 00 to 15: write the files anew with `onespace render`"
    )]
    ShardName {
        /// The name.
        shard: String,
    },
    /// Two mappings of one id.
    #[error("two mappings have the id {id}: write the files anew with `onespace render`")]
    Twice {
        /// The id.
        id: String,
    },
}

/// Reads the index alone: a program looks there first to know which files to read.
///
/// # Errors
/// When it is not an index, or one of another version.
pub fn load_index(bytes: &[u8]) -> Result<Index, LoadError> {
    let file = "mappings/index.json";
    let index: Index = parse(file, bytes)?;
    version(file, index.format_version)?;
    for shard in index.mappings.keys().chain(index.credentials.keys()) {
        let known = (0..crate::mapping::SHARDS).any(|number| *shard == format!("{number:02}"));
        if !known {
            return Err(LoadError::ShardName {
                shard: shard.chars().take(40).collect(),
            });
        }
    }
    Ok(index)
}

/// Loads a set of files.
///
/// # Errors
/// When they do not all belong together; the message names the file, the place and what to do.
pub fn load(files: &Files) -> Result<LoadedSet, LoadError> {
    Loader::default().load(files)
}

/// One mapping, if this program can honour it.
pub(crate) fn one(value: Value) -> Result<Mapping, Refused> {
    let id = value.get("id").and_then(Value::as_str).unwrap_or_default();
    let id = MappingId(id.chars().take(64).collect());
    let refuse = |reason, message| Refused {
        id: id.clone(),
        reason,
        message,
    };
    let texts = value
        .get("requires")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    if let Some(unknown) = texts
        .filter_map(Value::as_str)
        .find(|feature| !FEATURES.contains(feature))
    {
        let unknown: String = unknown.chars().take(64).collect();
        let message =
            format!("it needs the feature {unknown:?}, which this program does not have: update it");
        return Err(refuse(RefuseReason::FeatureUnknown, message));
    }
    let mapping: Mapping = serde_json::from_value(value).map_err(|error| {
        let error: String = error.to_string().chars().take(200).collect();
        let message = format!("it cannot be read ({error}): write the files anew with `onespace render`");
        refuse(RefuseReason::Unparseable, message)
    })?;
    if mapping.mode != Mode::Sync || mapping.target.protocol != Protocol::S3 {
        let message =
            "this program knows mode Sync with protocol S3 only: update it, or change the policy".to_owned();
        return Err(refuse(RefuseReason::FeatureUnknown, message));
    }
    if mapping.source.is_account_wide() && mapping.target.prefix.is_some() {
        let message = "it is account-wide and has a prefix, its containers would overwrite each other: correct the policy";
        return Err(refuse(RefuseReason::Unparseable, message.to_owned()));
    }
    if let Err(error) = Selector::new(mapping.exclude.as_deref(), mapping.select.as_ref()) {
        return Err(refuse(
            RefuseReason::Unparseable,
            format!("{error}: correct the policy"),
        ));
    }
    if let Some(Err(error)) = mapping.limits.as_ref().map(Schedule::new) {
        let message = format!("limits.{error}");
        return Err(refuse(RefuseReason::Unparseable, message));
    }
    Ok(mapping)
}

/// Takes containers that have a policy of their own out of account-wide mappings, even when that policy's mapping is
/// refused: its objects must not go elsewhere meanwhile. `own` are accounts and containers that have one.
pub(crate) fn carve(mappings: &mut [Arc<Mapping>], own: &[&(String, String)]) {
    for mapping in mappings
        .iter_mut()
        .filter(|mapping| mapping.source.is_account_wide())
    {
        let taken = own
            .iter()
            .filter(|(account, _)| *account == mapping.source.account);
        let mut carved_out: Vec<String> = taken.map(|(_, container)| container.clone()).collect();
        carved_out.sort();
        carved_out.dedup();
        Arc::make_mut(mapping).carved_out = carved_out;
    }
}

/// The account and container of a policy for one container.
pub(crate) fn single_container(mapping: &Value) -> Option<(String, String)> {
    let removing = serde_json::to_value(MappingState::Removing).ok();
    if mapping.get("state") == removing.as_ref() {
        return None;
    }
    let source = mapping.get("source")?;
    let text = |name| source.get(name).and_then(Value::as_str).map(str::to_owned);
    let container = text("container").filter(|container| container != ALL_CONTAINERS)?;
    Some((text("account")?, container))
}

pub(crate) fn present<'a>(file: &str, files: &'a Shards, shard: &str) -> Result<&'a [u8], LoadError> {
    let missing = || LoadError::Missing {
        file: file.to_owned(),
    };
    files.get(shard).map(AsRef::as_ref).ok_or_else(missing)
}

pub(crate) fn matches(file: &str, what: &'static str, equal: bool) -> Result<(), LoadError> {
    if equal {
        Ok(())
    } else {
        Err(LoadError::Mismatch {
            file: file.to_owned(),
            what,
        })
    }
}

pub(crate) fn version(file: &str, found: u32) -> Result<(), LoadError> {
    if found == FORMAT_VERSION {
        Ok(())
    } else {
        Err(LoadError::Version {
            file: file.to_owned(),
            found,
        })
    }
}

pub(crate) fn parse<'de, T: serde::Deserialize<'de>>(file: &str, bytes: &'de [u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|error| LoadError::Malformed {
        file: file.to_owned(),
        line: error.line(),
        column: error.column(),
        what: match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => "a field is missing or has another form",
            _ => "it is not JSON",
        },
    })
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
