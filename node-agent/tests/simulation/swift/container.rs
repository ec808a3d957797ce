//! One replica of a container database: rows with numbers of its own, merged as Swift merges them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use onespace_core::plan::reconcile::ContainerSays;
use onespace_core::row::RawRow;
use onespace_core::timestamp::Timestamp;

/// What an update says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Storage policy.
    pub policy: u32,
    /// t1.
    pub data: Timestamp,
    /// t3.
    pub time: Timestamp,
    /// Length of the body.
    pub size: usize,
    /// Its md5.
    pub etag: String,
    /// A tombstone.
    pub deleted: bool,
}

impl Record {
    /// Of a body.
    pub fn of_body(name: &str, policy: u32, data: Timestamp, time: Timestamp, body: &Bytes) -> Self {
        Self {
            name: name.into(),
            policy,
            data,
            time,
            size: body.len(),
            etag: hex::encode(Md5::digest(body)),
            deleted: false,
        }
    }

    /// Of a DELETE.
    pub fn tombstone(name: &str, policy: u32, at: Timestamp) -> Self {
        Self {
            name: name.into(),
            policy,
            data: at,
            time: at,
            size: 0,
            etag: "noetag".into(),
            deleted: true,
        }
    }

    /// Each value takes the newer; `None` = nothing of `new` is newer. Of equal bodies the one that is there stays.
    fn merged(&self, new: &Self) -> Option<Self> {
        let (newer_body, newer_meta) = (new.data > self.data, new.time > self.time);
        let body = if newer_body { new } else { self };
        (newer_body || newer_meta).then(|| Self {
            time: self.time.max(new.time),
            ..body.clone()
        })
    }

    fn created_at(&self) -> String {
        match self.time.ticks().saturating_sub(self.data.ticks()) {
            0 => self.data.to_string(),
            delta => format!("{}+0+{delta:x}", self.data),
        }
    }

    fn raw(&self, rowid: i64) -> RawRow {
        RawRow {
            rowid,
            name: self.name.clone(),
            created_at: self.created_at(),
            size: i64::try_from(self.size).unwrap(),
            content_type: if self.deleted {
                "application/deleted"
            } else {
                "text/plain"
            }
            .into(),
            etag: self.etag.clone(),
            deleted: self.deleted,
            policy_index: i64::from(self.policy),
        }
    }
}

/// A container database.
#[derive(Clone, Debug)]
pub struct Db {
    /// `container_info.id`.
    pub id: String,
    /// Rows by ROWID.
    pub rows: BTreeMap<i64, Record>,
    /// The highest ROWID ever given.
    pub last: i64,
    /// The pending file.
    pub pending: Vec<Record>,
    /// Its inode.
    pub inode: u64,
    /// When it changed last, on its node's clock.
    pub modified: Timestamp,
    /// When the container was created, or created again.
    pub created: Timestamp,
    /// When rows came here, by ROWID, on its node's clock.
    pub arrived: BTreeMap<i64, Timestamp>,
    /// When the last row of a name vanished, on its node's clock.
    pub vanished: BTreeMap<String, Timestamp>,
}

impl Db {
    /// An empty one.
    pub fn new(id: String, inode: u64, created: Timestamp, now: Timestamp) -> Self {
        Self {
            id,
            rows: BTreeMap::new(),
            last: 0,
            pending: Vec::new(),
            inode,
            modified: now,
            created,
            arrived: BTreeMap::new(),
            vanished: BTreeMap::new(),
        }
    }

    /// Merges an update: a change moves the name to a new, higher ROWID.
    pub fn merge(&mut self, new: &Record, now: Timestamp) {
        let there = self
            .rows
            .iter()
            .find(|(_, row)| (row.policy, &row.name) == (new.policy, &new.name))
            .map(|(rowid, _)| *rowid);
        let merged = match there {
            None => new.clone(),
            Some(rowid) => match self.rows[&rowid].merged(new) {
                None => return,
                Some(merged) => {
                    self.rows.remove(&rowid);
                    self.arrived.remove(&rowid);
                    merged
                }
            },
        };
        self.last += 1;
        self.rows.insert(self.last, merged);
        self.arrived.insert(self.last, now);
        self.modified = now;
    }

    /// Commits the pending file: updates of one name become one, at the place of the first.
    pub fn commit(&mut self, now: Timestamp) {
        let mut batch: Vec<Record> = Vec::new();
        for new in std::mem::take(&mut self.pending) {
            match batch
                .iter_mut()
                .find(|old| (old.policy, &old.name) == (new.policy, &new.name))
            {
                None => batch.push(new),
                Some(old) => {
                    if let Some(merged) = old.merged(&new) {
                        *old = merged;
                    }
                }
            }
        }
        for record in batch {
            self.merge(&record, now);
        }
    }

    /// Rows as they stand, in ROWID order.
    pub fn raw_rows(&self) -> impl Iterator<Item = RawRow> {
        self.rows.iter().map(|(rowid, row)| row.raw(*rowid))
    }

    /// A name's row.
    pub fn row(&self, policy: u32, name: &str) -> Option<&Record> {
        self.rows
            .values()
            .find(|row| (row.policy, row.name.as_str()) == (policy, name))
    }

    /// Whether there is a row of this name under whatever storage policy.
    pub fn has_rows_of(&self, name: &str) -> bool {
        self.rows.values().any(|row| row.name == name)
    }

    /// Drops a name's row.
    pub fn forget(&mut self, policy: u32, name: &str, now: Timestamp) {
        let found = self
            .rows
            .iter()
            .find(|(_, row)| (row.policy, row.name.as_str()) == (policy, name));
        let Some(rowid) = found.map(|(rowid, _)| *rowid) else {
            return;
        };
        self.rows.remove(&rowid);
        self.arrived.remove(&rowid);
        self.modified = now;
        if !self.has_rows_of(name) {
            self.vanished.insert(name.into(), now);
        }
    }

    /// Another file takes the place of this one.
    pub fn replaced_by(&self, new: Self, now: Timestamp) -> Self {
        let mut vanished = self.vanished.clone();
        let gone = self.rows.values().filter(|row| !new.has_rows_of(&row.name));
        vanished.extend(gone.map(|row| (row.name.clone(), now)));
        Self {
            modified: now,
            arrived: new.rows.keys().map(|rowid| (*rowid, now)).collect(),
            vanished,
            created: self.created.max(new.created),
            ..new
        }
    }

    /// Whether no row has spoken of this name for so long.
    pub fn is_rowless(&self, name: &str, long: Duration, now: Timestamp) -> bool {
        let long_ago = |since: &Timestamp| since.plus(long) < now;
        !self.has_rows_of(name) && self.vanished.get(name).is_none_or(long_ago)
    }

    /// Whether it has had a live row of this name for so long.
    pub fn lists(&self, name: &str, long: Duration, now: Timestamp) -> bool {
        let of_name = |(_, row): &(&i64, &Record)| row.name == name && !row.deleted;
        let mut live = self.rows.iter().filter(of_name);
        live.any(|(rowid, _)| self.arrived.get(rowid).is_none_or(|at| at.plus(long) <= now))
    }

    /// What its container server answers to a HEAD.
    pub fn says(&self, policy: u32) -> ContainerSays {
        let live = || {
            let rows = self.rows.values();
            rows.filter(|row| row.policy == policy && !row.deleted)
        };
        ContainerSays {
            objects: live().count() as u64,
            bytes: live().map(|row| row.size as u64).sum(),
            policy_index: policy,
            sharding: "unsharded".into(),
            created: self.created,
        }
    }

    /// The rows without their numbers: equal on replicas that are in step.
    pub fn content(&self) -> Vec<&Record> {
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by_key(|row| (row.policy, &row.name));
        rows
    }
}
