//! Which container a database belongs to, learned by walking a device.
//!
//! That never changes, as a database's folder is named by a hash of the names: so each is opened once. A walk then
//! costs three listings of folders for each container on the device (about 10 µs each when the system has them in
//! memory, as it does where Swift's own daemons walk the same folders every half minute). What is remembered of a
//! container that nobody follows are 16 bytes; names are kept of followed ones only.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use percent_encoding::percent_decode_str;

use super::SHARDS;
use super::files::{databases, entries};
use crate::swift::container_db::{ContainerDb, DbError, DbInfo};

/// Whose a container database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its account.
    pub account: String,
    /// Its container.
    pub container: String,
    /// Account and container that it is a shard of.
    pub root: Option<(String, String)>,
}

impl Owner {
    /// That of a container which is no shard.
    #[must_use]
    pub fn of_names(account: &str, container: &str) -> Self {
        Self {
            account: account.to_owned(),
            container: container.to_owned(),
            root: None,
        }
    }

    /// As a database says. A shard's own name says nothing of the container that it belongs to; a header does.
    #[must_use]
    pub fn of(info: &DbInfo) -> Self {
        let quoted = info
            .header("X-Container-Sysmeta-Shard-Quoted-Root")
            .and_then(|path| percent_decode_str(path).decode_utf8().ok())
            .map(std::borrow::Cow::into_owned);
        let root = quoted.or_else(|| {
            // Of the first releases that could shard.
            info.header("X-Container-Sysmeta-Shard-Root")
                .map(ToOwned::to_owned)
        });
        let root = root.as_deref().and_then(|path| path.split_once('/'));
        // A shard is in the account that belongs to its root's; and a root may name itself.
        let root = root.filter(|(account, _)| info.account.strip_prefix(SHARDS) == Some(*account));
        Self {
            account: info.account.clone(),
            container: info.container.clone(),
            root: root.map(|(account, container)| (account.to_owned(), container.to_owned())),
        }
    }

    /// Account and container of the objects in it: of a shard, its root's.
    #[must_use]
    pub fn shown(&self) -> (&str, &str) {
        match &self.root {
            Some((account, container)) => (account, container),
            None => (&self.account, &self.container),
        }
    }

    /// A shard whose root is not written down (yet): the sharder makes the file first, then the header.
    fn is_unfinished(&self) -> bool {
        self.root.is_none() && self.account.starts_with(SHARDS)
    }
}

/// What is known of the databases of one device.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// By the first half of the hash of their names.
    followed: HashMap<u64, Owner>,
    /// The hashes of their accounts, by the same.
    strangers: HashMap<u64, u64>,
}

impl Catalogue {
    /// Calls `found` with owner, folder and files of each container of the `wanted` accounts. Returns what could not
    /// be read: it is looked at again by the next walk.
    pub(super) fn walk(
        &mut self,
        containers: &Path,
        wanted: &BTreeSet<String>,
        visited: &AtomicU64,
        found: &mut dyn FnMut(&Owner, &Path, Vec<PathBuf>),
    ) -> BTreeMap<PathBuf, String> {
        let mut walk = Walk {
            before: std::mem::take(self),
            wanted: wanted.iter().map(|account| digest(account)).collect(),
            unreadable: BTreeMap::new(),
        };
        for partition in walk.list(containers) {
            for suffix in walk.list(&partition) {
                for folder in walk.list(&suffix) {
                    visited.fetch_add(1, Ordering::Relaxed);
                    walk.visit(&folder, self, found);
                }
            }
        }
        walk.unreadable
    }

    /// How many containers are known: followed ones, and others.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.followed.len(), self.strangers.len())
    }
}

struct Walk {
    before: Catalogue,
    wanted: HashSet<u64>,
    unreadable: BTreeMap<PathBuf, String>,
}

impl Walk {
    fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        match entries(folder) {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
            Err(error) => {
                self.unreadable.insert(folder.to_owned(), error.to_string());
                Vec::new()
            }
        }
    }

    fn visit(
        &mut self,
        folder: &Path,
        now: &mut Catalogue,
        found: &mut dyn FnMut(&Owner, &Path, Vec<PathBuf>),
    ) {
        let Some(hash) = hash_of(folder) else { return };
        if let Some(account) = self.before.strangers.get(&hash)
            && !self.wanted.contains(account)
        {
            now.strangers.insert(hash, *account);
            return;
        }
        let files = match databases(folder) {
            Ok(files) => files,
            Err(error) => {
                self.unreadable.insert(folder.to_owned(), error.to_string());
                return;
            }
        };
        let owner = match self.before.followed.remove(&hash) {
            Some(owner) => owner,
            // The newest file first: an older one may be about to go.
            None => match files.iter().rev().find_map(|file| self.open(file)) {
                Some(owner) => owner,
                None => return,
            },
        };
        let account = digest(&owner.account);
        if !self.wanted.contains(&account) {
            now.strangers.insert(hash, account);
        } else if !owner.is_unfinished() {
            found(&owner, folder, files);
            now.followed.insert(hash, owner);
        }
    }

    fn open(&mut self, file: &Path) -> Option<Owner> {
        match ContainerDb::new(file).info() {
            Ok(info) => Some(Owner::of(&info)),
            Err(DbError::Gone(_)) => None,
            Err(error) => {
                self.unreadable.insert(file.to_owned(), error.to_string());
                None
            }
        }
    }
}

/// The first half of the hash that a container's folder is named by.
fn hash_of(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    if name.len() != 32 {
        return None;
    }
    u64::from_str_radix(name.get(..16)?, 16).ok()
}

fn digest(account: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    account.hash(&mut hasher);
    hasher.finish()
}
