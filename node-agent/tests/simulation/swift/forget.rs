//! What Swift forgets: tombstones that are old, each node by itself; a container that was deleted.

use onespace_core::timestamp::Timestamp;

use super::{Cluster, File, POLICY};

impl Cluster {
    /// A node forgets tombstones that are older than the reclaim age. Nobody was away for longer than that takes: what
    /// may still bring a name back keeps its tombstones.
    pub fn reclaim(&mut self, index: usize, names: &[String], now: Timestamp) {
        let Some(age) = self.reclaim_age.filter(|_| self.nodes[index].up) else {
            return;
        };
        let local = self.local(index, now);
        self.nodes[index].db.commit(local);
        for name in names {
            if self.may_come_back(name) {
                continue;
            }
            let old = |at: Timestamp| at.plus(age) < local;
            let node = &mut self.nodes[index];
            let rows = node.db.rows.values();
            let rows = rows.filter(|row| row.name == *name && row.deleted && old(row.data));
            for policy in rows.map(|row| row.policy).collect::<Vec<_>>() {
                node.db.forget(policy, name, local);
            }
            node.disk
                .0
                .retain(|(_, of), file| of != name || !matches!(file, File::Tombstone(at) if old(*at)));
        }
    }

    /// Whether something of a name is, or may come to be, alive: a body, a row that nothing on its way will end, an
    /// update that says so.
    fn may_come_back(&self, name: &str) -> bool {
        let waiting = |node: usize| {
            let late = self.late.iter().filter(move |(to, _)| *to == node);
            let late = late.map(|(_, record)| record);
            let pending = self.nodes[node].db.pending.iter();
            late.chain(pending).filter(|record| record.name == name)
        };
        (0..self.nodes.len()).any(|index| {
            let node = &self.nodes[index];
            let body = node
                .disk
                .0
                .iter()
                .any(|((_, of), file)| of == name && matches!(file, File::Body { .. }));
            let rows = node
                .db
                .rows
                .values()
                .filter(|row| row.name == name && !row.deleted);
            let ends = |policy, data| {
                let mut waiting = waiting(index);
                waiting.any(|end| end.deleted && end.policy == policy && end.data > data)
            };
            let alive = rows.into_iter().any(|row| !ends(row.policy, row.data));
            body || alive || waiting(index).any(|record| !record.deleted)
        })
    }

    /// A user deletes the container, which must be empty. Whether it was.
    pub fn delete_container(&mut self, now: Timestamp) -> bool {
        let empty = |cluster: &Self| {
            cluster.late.is_empty()
                && cluster.nodes.iter().all(|node| {
                    let bodies = node.disk.0.values().any(|file| matches!(file, File::Body { .. }));
                    node.up
                        && !bodies
                        && node.db.pending.is_empty()
                        && node.db.rows.values().all(|row| row.deleted)
                })
        };
        for index in 0..self.nodes.len() {
            let local = self.local(index, now);
            self.nodes[index].db.commit(local);
        }
        let deleted = self.deleted.is_none() && empty(self);
        if deleted {
            self.deleted = Some(now);
        }
        deleted
    }

    /// A user creates it again, at this time on the user's clock. What is left of the databases is used again, unless they
    /// were reclaimed: whether they were.
    pub fn create_container(&mut self, at: Timestamp, now: Timestamp) -> bool {
        let Some(deleted) = self.deleted.take() else {
            return false;
        };
        let reclaimed = self.reclaim_age.is_some_and(|age| deleted.plus(age) < now);
        for index in 0..self.nodes.len() {
            let local = self.local(index, now);
            if reclaimed {
                let new = self.new_db(at, local);
                self.nodes[index].db = self.nodes[index].db.replaced_by(new, local);
                self.nodes[index].backup = None;
                // The object servers' tombstones are as old.
                let files = &mut self.nodes[index].disk.0;
                files.retain(|_, file| matches!(file, File::Body { .. }));
            }
            let db = &mut self.nodes[index].db;
            db.created = db.created.max(at);
            db.modified = local;
        }
        reclaimed
    }

    /// What the container server of a node says of the container, once it has committed what waits.
    pub fn says(
        &mut self,
        index: usize,
        now: Timestamp,
    ) -> Option<onespace_core::plan::reconcile::ContainerSays> {
        let local = self.local(index, now);
        let node = &mut self.nodes[index];
        if !node.up || self.deleted.is_some() {
            return None;
        }
        node.db.commit(local);
        Some(node.db.says(POLICY))
    }

    /// Whether that server answers and does not list this name.
    pub fn lacks(&mut self, index: usize, name: &str, now: Timestamp) -> bool {
        let local = self.local(index, now);
        let node = &mut self.nodes[index];
        if !node.up || self.deleted.is_some() {
            return false;
        }
        node.db.commit(local);
        !node.db.lists(name, std::time::Duration::ZERO, local)
    }
}
