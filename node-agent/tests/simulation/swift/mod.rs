//! A Swift in memory: nodes with an object server and a replica of the container's database each; users' requests,
//! updates that come late, replication, the reconciler, reclaimed tombstones, a container that goes and comes again.

mod container;
mod files;
mod forget;
mod objects;
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use onespace_core::timestamp::Timestamp;

pub use container::{Db, Record};
pub use objects::{Disk, File, Meta};
pub use proxy::Said;

use crate::dice::Dice;

/// The storage policy of the container; rows under another one wait for the reconciler.
pub const POLICY: u32 = 0;

/// The policy in which misplaced objects are.
pub const OTHER_POLICY: u32 = 1;

/// A storage and container node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its servers answer.
    pub up: bool,
    /// Its object server.
    pub disk: Disk,
    /// Its replica of the container's database.
    pub db: Db,
    /// A backup of that.
    pub backup: Option<Db>,
    /// How far its clock is off, seconds.
    pub skew: i64,
}

/// What users did: the truth that copies are compared with.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Bodies by name and time.
    pub bodies: BTreeMap<(String, u64), Bytes>,
    /// Metadata by name and time.
    pub metas: BTreeMap<(String, u64), Meta>,
    /// Times of users' deletes.
    pub deletes: BTreeMap<String, BTreeSet<u64>>,
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its nodes; each is a primary of everything.
    pub nodes: Vec<Node>,
    /// Updates that a container server has not got yet, with its node.
    pub late: Vec<(usize, Record)>,
    /// What users did.
    pub ledger: Ledger,
    /// How long tombstones are kept; `None` = for ever.
    pub reclaim_age: Option<Duration>,
    /// Since when there is no container.
    pub deleted: Option<Timestamp>,
    made: u64,
}

impl Cluster {
    /// So many nodes with an empty container.
    pub fn new(skews: &[i64], now: Timestamp) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            late: Vec::new(),
            ledger: Ledger::default(),
            reclaim_age: None,
            deleted: None,
            made: 0,
        };
        for skew in skews {
            // Before any user's clock.
            let db = cluster.new_db(skewed(now, -60), now);
            cluster.nodes.push(Node {
                up: true,
                disk: Disk::default(),
                db,
                backup: None,
                skew: *skew,
            });
        }
        cluster
    }

    fn new_db(&mut self, created: Timestamp, now: Timestamp) -> Db {
        self.made += 1;
        Db::new(format!("db-{}", self.made), self.made, created, now)
    }

    /// The time on a node's clock.
    pub fn local(&self, node: usize, now: Timestamp) -> Timestamp {
        skewed(now, self.nodes[node].skew)
    }

    /// A user's PUT. Updates to some replicas come late.
    pub fn put(&mut self, dice: &mut Dice, late: u64, request: &Put<'_>, now: Timestamp) {
        let Put {
            name,
            policy,
            at,
            body,
            meta,
        } = request;
        if self.deleted.is_some() {
            return;
        }
        let mut accepted = false;
        for node in self.nodes.iter_mut().filter(|node| node.up) {
            accepted |= node.disk.put(*policy, name, *at, body, meta);
        }
        if !accepted {
            return;
        }
        let key = ((*name).to_owned(), at.ticks());
        self.ledger.bodies.insert(key.clone(), body.clone());
        self.ledger.metas.insert(key, meta.clone());
        self.update(dice, late, &Record::of_body(name, *policy, *at, *at, body), now);
    }

    /// A user's POST.
    pub fn post(
        &mut self,
        dice: &mut Dice,
        late: u64,
        name: &str,
        at: Timestamp,
        meta: &Meta,
        now: Timestamp,
    ) {
        if self.deleted.is_some() {
            return;
        }
        let mut updates = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| node.up) {
            if node.disk.post(POLICY, name, at, meta).is_some()
                && let Some(File::Body {
                    data, time, bytes, ..
                }) = node.disk.get(POLICY, name)
            {
                updates.push(Record::of_body(name, POLICY, *data, *time, bytes));
            }
        }
        if !updates.is_empty() {
            self.ledger.metas.insert((name.into(), at.ticks()), meta.clone());
        }
        // A server with an old body sends an update with that body's time.
        for update in updates {
            self.update(dice, late, &update, now);
        }
    }

    /// A user's DELETE.
    pub fn delete(&mut self, dice: &mut Dice, late: u64, name: &str, at: Timestamp, now: Timestamp) {
        if self.deleted.is_some() {
            return;
        }
        let mut accepted = false;
        for node in self.nodes.iter_mut().filter(|node| node.up) {
            accepted |= node.disk.delete(POLICY, name, at);
        }
        if accepted {
            self.ledger
                .deletes
                .entry(name.into())
                .or_default()
                .insert(at.ticks());
            self.update(dice, late, &Record::tombstone(name, POLICY, at), now);
        }
    }

    fn update(&mut self, dice: &mut Dice, late: u64, record: &Record, now: Timestamp) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if !node.up || dice.percent(late) {
                self.late.push((index, record.clone()));
            } else if dice.percent(50) {
                node.db.pending.push(record.clone());
            } else {
                let local = skewed(now, node.skew);
                node.db.commit(local);
                node.db.merge(record, local);
            }
        }
    }

    /// The object updater delivers one update.
    pub fn deliver(&mut self, dice: &mut Dice) {
        if self.late.is_empty() {
            return;
        }
        let chosen = dice.index(self.late.len());
        if self.nodes[self.late[chosen].0].up {
            let (node, record) = self.late.remove(chosen);
            self.nodes[node].db.pending.push(record);
        }
    }

    /// Container replication from one node to another.
    pub fn replicate_rows(&mut self, from: usize, to: usize, now: Timestamp) {
        if from == to || !self.nodes[from].up || !self.nodes[to].up {
            return;
        }
        let (there, here) = (self.local(from, now), self.local(to, now));
        self.nodes[from].db.commit(there);
        let rows: Vec<_> = self.nodes[from].db.rows.values().cloned().collect();
        self.nodes[to].db.commit(here);
        for row in rows {
            self.nodes[to].db.merge(&row, here);
        }
    }

    /// Object replication of one name from one node to another.
    pub fn replicate_object(&mut self, from: usize, to: usize, name: &str) {
        if from == to || !self.nodes[from].up || !self.nodes[to].up {
            return;
        }
        for policy in [POLICY, OTHER_POLICY] {
            if let Some(file) = self.nodes[from].disk.get(policy, name).cloned() {
                self.nodes[to].disk.take(policy, name, &file);
            }
        }
    }

    /// The reconciler moves what is under the wrong policy.
    pub fn reconcile(&mut self, dice: &mut Dice, late: u64, name: &str, now: Timestamp) {
        let newest = |cluster: &Self, policy| {
            let files = cluster.nodes.iter().filter(|node| node.up);
            let files = files.filter_map(|node| node.disk.get(policy, name).cloned());
            files.max_by_key(|file| match file {
                File::Body { data, .. } => *data,
                File::Tombstone(at) => *at,
            })
        };
        let Some(File::Body {
            data, bytes, meta, ..
        }) = newest(self, OTHER_POLICY)
        else {
            return;
        };
        let moved = data.with_offset(data.offset() + 3);
        let is_newer = match newest(self, POLICY) {
            Some(File::Body { data: there, .. }) => there >= data,
            Some(File::Tombstone(at)) => at >= data,
            None => false,
        };
        if !is_newer {
            for node in self.nodes.iter_mut().filter(|node| node.up) {
                node.disk.put(POLICY, name, moved, &bytes, &meta);
            }
            self.update(
                dice,
                late,
                &Record::of_body(name, POLICY, moved, moved, &bytes),
                now,
            );
        }
        let removed = data.with_offset(data.offset() + 1);
        for node in self.nodes.iter_mut().filter(|node| node.up) {
            node.disk.delete(OTHER_POLICY, name, removed);
        }
        self.update(dice, late, &Record::tombstone(name, OTHER_POLICY, removed), now);
    }

    /// Everything that waits is delivered, every replica gets what others have, nothing is under the wrong policy.
    pub fn converge(&mut self, dice: &mut Dice, names: &[String], now: Timestamp) {
        for node in &mut self.nodes {
            node.up = true;
        }
        for _ in 0..2 {
            for (node, record) in std::mem::take(&mut self.late) {
                self.nodes[node].db.pending.push(record);
            }
            let all = self.nodes.len();
            for _ in 0..2 {
                for from in 0..all {
                    for to in 0..all {
                        self.replicate_rows(from, to, now);
                        for name in names {
                            self.replicate_object(from, to, name);
                        }
                    }
                }
            }
            for name in names {
                self.reconcile(dice, 0, name, now);
            }
        }
        for index in 0..self.nodes.len() {
            let local = self.local(index, now);
            self.nodes[index].db.commit(local);
        }
        let contents: Vec<_> = self.nodes.iter().map(|node| node.db.content()).collect();
        assert!(
            contents.windows(2).all(|pair| pair[0] == pair[1]),
            "replicas are in step"
        );
    }

    /// Whether Swift lists exactly this state of a name. Where every replica was restored from an older backup, a body or a
    /// tombstone may be there that no row speaks of, or a row whose body is gone: nobody can know.
    pub fn is_listed_as_it_is(&self, name: &str) -> bool {
        let Node { disk, db, .. } = &self.nodes[0];
        let misplaced = db.row(OTHER_POLICY, name).is_some_and(|row| !row.deleted);
        let listed = match (disk.get(POLICY, name), db.row(POLICY, name)) {
            (Some(File::Body { data, time, .. }), Some(row)) => {
                !row.deleted && (*data, *time) == (row.data, row.time)
            }
            (Some(File::Tombstone(at)), Some(row)) => row.deleted && row.data >= *at,
            (None, Some(row)) => row.deleted,
            (Some(_), None) => false,
            (None, None) => true,
        };
        listed && !misplaced
    }

    /// Body and metadata of a name, once the cluster has converged.
    pub fn truth(&self, name: &str) -> Option<(Bytes, Meta)> {
        match self.nodes[0].disk.get(POLICY, name) {
            Some(File::Body { bytes, meta, .. }) => Some((bytes.clone(), meta.clone())),
            _ => None,
        }
    }
}

/// A user's PUT.
#[derive(Debug)]
pub struct Put<'a> {
    /// Name.
    pub name: &'a str,
    /// Storage policy in which it lands.
    pub policy: u32,
    /// Its time.
    pub at: Timestamp,
    /// Body.
    pub body: Bytes,
    /// Metadata.
    pub meta: Meta,
}

/// A clock that is off by so many seconds.
pub fn skewed(now: Timestamp, seconds: i64) -> Timestamp {
    let ticks = i64::try_from(now.ticks()).unwrap() + seconds * 100_000;
    Timestamp::from_ticks(u64::try_from(ticks).unwrap(), 0)
}
