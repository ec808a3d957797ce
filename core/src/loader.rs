//! Loading one set after the other: of each only the shards that differ from those before are read and parsed. So an agent of
//! thousands of mappings takes up a change of one at the cost of a sixteenth, and keeps what it has of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::credentials::{CredentialShard, Credentials};
use crate::load::{
    Files, LoadError, LoadedSet, Refused, carve, load_index, matches, one, parse, present, single_container,
    version,
};
use crate::mapping::{Index, Mapping, MappingId, MappingShard, ShardEntry};
use crate::reason::RefuseReason;

/// What the last set that was loaded consists of.
#[derive(Debug, Default)]
pub struct Loader {
    mappings: BTreeMap<String, Arc<Shard>>,
    credentials: BTreeMap<String, Arc<Logins>>,
}

/// One shard of mappings.
#[derive(Debug)]
struct Shard {
    entry: ShardEntry,
    mappings: Vec<Result<Arc<Mapping>, Refused>>,
    /// Account and container of each policy for one container, also of those that are refused.
    own: Vec<(String, String)>,
}

/// One shard of credentials.
#[derive(Debug)]
struct Logins {
    entry: ShardEntry,
    by_id: BTreeMap<String, Arc<Credentials>>,
}

/// Names of shards whose files are to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Of mappings.
    pub mappings: Vec<String>,
    /// Of credentials.
    pub credentials: Vec<String>,
}

impl Loader {
    /// The shards of this index that are not those of the last set.
    #[must_use]
    pub fn lacking(&self, index: &Index) -> Lacking {
        let mappings = index.mappings.iter();
        let credentials = index.credentials.iter();
        Lacking {
            mappings: mappings
                .filter(|(shard, entry)| self.shard(shard, entry).is_none())
                .map(|(shard, _)| shard.clone())
                .collect(),
            credentials: credentials
                .filter(|(shard, entry)| self.logins(shard, entry).is_none())
                .map(|(shard, _)| shard.clone())
                .collect(),
        }
    }

    /// Loads the set of this index. Of the shards it needs those that are [`Loader::lacking`].
    ///
    /// # Errors
    /// When they do not all belong together; the message names the file, the place and what to do. The last set stays.
    pub fn load(&mut self, files: &Files) -> Result<LoadedSet, LoadError> {
        let index = load_index(&files.index)?;
        let credentials = index.credentials.iter().map(|(shard, entry)| {
            let logins = match self.logins(shard, entry) {
                Some(logins) => logins.clone(),
                None => Arc::new(self.read_logins(shard, entry, files)?),
            };
            Ok((shard.clone(), logins))
        });
        let credentials: BTreeMap<_, _> = credentials.collect::<Result<_, LoadError>>()?;
        let mappings = index.mappings.iter().map(|(shard, entry)| {
            let mappings = match self.shard(shard, entry) {
                Some(mappings) => mappings.clone(),
                None => Arc::new(self.read_shard(shard, entry, files)?),
            };
            Ok((shard.clone(), mappings))
        });
        let loader = Self {
            mappings: mappings.collect::<Result<_, LoadError>>()?,
            credentials,
        };
        let set = loader.set(index.revision)?;
        *self = loader;
        Ok(set)
    }

    /// What is known of a shard of mappings, if the index means the same.
    fn shard(&self, shard: &str, entry: &ShardEntry) -> Option<&Arc<Shard>> {
        self.mappings.get(shard).filter(|known| known.entry == *entry)
    }

    /// What is known of a shard of credentials, if the index means the same. Its revision is new whenever they change.
    fn logins(&self, shard: &str, entry: &ShardEntry) -> Option<&Arc<Logins>> {
        self.credentials.get(shard).filter(|known| known.entry == *entry)
    }

    fn read_logins(&self, shard: &str, entry: &ShardEntry, files: &Files) -> Result<Logins, LoadError> {
        let file = format!("credentials/{shard}.json");
        let bytes = present(&file, &files.credentials, shard)?;
        let content: CredentialShard = parse(&file, bytes)?;
        matches(&file, "revision", content.revision == entry.revision)?;
        let known = self.credentials.get(shard).map(|logins| &logins.by_id);
        let kept = |(id, new): (String, Credentials)| {
            let known = known.and_then(|known| known.get(&id));
            let same = known.filter(|known| known.is_same(&new)).cloned();
            (id, same.unwrap_or_else(|| Arc::new(new)))
        };
        Ok(Logins {
            entry: entry.clone(),
            by_id: content.credentials.into_iter().map(kept).collect(),
        })
    }

    fn read_shard(&self, shard: &str, entry: &ShardEntry, files: &Files) -> Result<Shard, LoadError> {
        let file = format!("mappings/{shard}.json");
        let bytes = present(&file, &files.mappings, shard)?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        matches(&file, "sha256", entry.sha256.as_ref() == Some(&sha256))?;
        let content: MappingShard = parse(&file, bytes)?;
        version(&file, content.format_version)?;
        matches(&file, "revision", content.revision == entry.revision)?;
        let known: BTreeMap<&MappingId, &Arc<Mapping>> = self
            .mappings
            .get(shard)
            .into_iter()
            .flat_map(|known| known.mappings.iter().flatten())
            .map(|mapping| (&mapping.id, mapping))
            .collect();
        let own = content.mappings.iter().filter_map(single_container).collect();
        let kept = |new: Mapping| match known.get(&new.id) {
            Some(known) if ***known == new => Arc::clone(known),
            _ => Arc::new(new),
        };
        // As values they are several times as large as their text, so they go shard by shard.
        let mappings = content.mappings.into_iter();
        Ok(Shard {
            entry: entry.clone(),
            mappings: mappings.map(|value: Value| one(value).map(kept)).collect(),
            own,
        })
    }

    /// What the shards say together.
    fn set(&self, revision: String) -> Result<LoadedSet, LoadError> {
        let credentials = self.credentials.values();
        let mut set = LoadedSet {
            revision,
            credentials: credentials.flat_map(|logins| logins.by_id.clone()).collect(),
            ..LoadedSet::default()
        };
        let mut by_id: BTreeMap<&MappingId, &Arc<Mapping>> = BTreeMap::new();
        for mapping in self.mappings.values().flat_map(|shard| &shard.mappings) {
            match mapping {
                Ok(mapping) if !has_keys(mapping, &set.credentials) => {
                    set.refused.push(without_keys(mapping));
                }
                Ok(mapping) => {
                    if by_id.insert(&mapping.id, mapping).is_some() {
                        let id = mapping.id.0.clone();
                        return Err(LoadError::Twice { id });
                    }
                }
                Err(refused) => set.refused.push(refused.clone()),
            }
        }
        set.mappings = by_id.into_values().cloned().collect();
        let own: Vec<_> = self.mappings.values().flat_map(|shard| &shard.own).collect();
        carve(&mut set.mappings, &own);
        Ok(set)
    }
}

fn has_keys(mapping: &Mapping, credentials: &BTreeMap<String, Arc<Credentials>>) -> bool {
    let credentials = credentials.get(&mapping.target.credential.0);
    credentials.is_some_and(|credentials| credentials.keys().is_some())
}

fn without_keys(mapping: &Mapping) -> Refused {
    Refused {
        id: mapping.id.clone(),
        reason: RefuseReason::CredentialsMissing,
        message: "its S3 keys are not in the credential files: write them anew with `onespace render`"
            .to_owned(),
    }
}
