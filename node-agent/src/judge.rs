//! Which rows count for a policy's objective, and from when.

use std::time::Duration;

use onespace_core::row::{Row, RowKind};
use onespace_core::timestamp::Timestamp;

use crate::clock::Clock;
use crate::state::Progress;
use crate::work::Work;

impl<S, R, C: Clock> Work<S, R, C> {
    /// When a row was due, if it counts for the objective: one that the policy copies (or deletes), and that is younger
    /// than the agent's first sight of its database. Rows that a replica or a shard brings later keep their times.
    pub(crate) fn due_for_objective(&self, row: &Row, progress: &Progress) -> Option<Timestamp> {
        let mapping = &self.mapping;
        let newest = row.time.newest();
        let younger = row.rowid > progress.high && newest > progress.seen;
        if mapping.objective.is_none() || !younger || self.selector.excludes(&row.name) {
            return None;
        }
        if row.kind == RowKind::Tombstone {
            let acts = mapping.propagate_delete && row.time.data.offset() == 0;
            return acts.then_some(newest);
        }
        let selected = self.selector.by_name_and_size(&row.name, row.size);
        selected.then(|| newest.plus(Duration::from_secs(mapping.copy_after)))
    }
}
