//! What happens to the files of container databases.

use onespace_core::timestamp::Timestamp;

use super::{Cluster, Db};

impl Cluster {
    /// A replica that lags far behind is replaced by a copy of another: new id, the other's numbers, own rows behind.
    /// Whether it was.
    pub fn replace_db(&mut self, from: usize, to: usize, now: Timestamp) -> bool {
        if from == to || !self.nodes[from].up || !self.nodes[to].up {
            return false;
        }
        let (there, here) = (self.local(from, now), self.local(to, now));
        self.nodes[from].db.commit(there);
        self.nodes[to].db.commit(here);
        let mut copy = self.new_db(self.nodes[from].db.created, here);
        copy.rows = self.nodes[from].db.rows.clone();
        copy.last = self.nodes[from].db.last;
        let old = self.nodes[to].db.clone();
        for row in old.rows.values() {
            copy.merge(row, here);
        }
        self.nodes[to].db = old.replaced_by(copy, here);
        true
    }

    /// Somebody keeps a copy of a database.
    pub fn back_up(&mut self, node: usize) {
        self.nodes[node].backup = Some(self.nodes[node].db.clone());
    }

    /// Somebody puts that copy back: same id, fewer rows.
    pub fn restore(&mut self, node: usize, now: Timestamp) {
        let local = self.local(node, now);
        self.made += 1;
        if let Some(backup) = self.nodes[node].backup.take() {
            let db = Db {
                inode: self.made,
                ..backup
            };
            self.nodes[node].db = self.nodes[node].db.replaced_by(db, local);
        }
    }
}
