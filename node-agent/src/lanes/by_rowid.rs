//! The two lanes that read rows in ROWID order: live rows that came after the first pass began, up to the first that
//! is not due yet, and tombstones. Tombstones ignore `copyAfter`: Swift forgets them after its reclaim age, so their
//! lane reads on past live rows that are not due.

use std::collections::BTreeMap;

use onespace_core::plan::copy::{Trust, is_young};
use onespace_core::plan::due_at;
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::record::Count;
use super::turn::{Item, Task};
use super::{Ended, Lane, NotDue, Sorted, Turn, TurnError, Whose};
use crate::clock::Clock;
use crate::databases::{Databases, ReadRow};
use crate::state::Watermark;

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Takes a turn on the followed rows, or on the tombstones.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn by_rowid(mut self, lane: Lane) -> Result<Ended, TurnError> {
        let after = if lane == Lane::Deletes {
            self.progress.deletes
        } else {
            self.progress.processed
        };
        let allowance = match lane {
            Lane::Deletes => self.allowance().await?,
            _ => self.no_deletes(),
        };
        let mut waits = None;
        let mut items = Vec::new();
        let mut of_others = Vec::new();
        let complete = {
            // Names are claimed in the order of reading: a delete never overtakes a copy that was read before it.
            let _reading = self.work.claims.reading(&self.replica.container).await;
            let chunk = self
                .databases
                .rows_after(&self.replica, after, self.work.limits.chunk)
                .await?;
            self.check_same(&chunk.id, chunk.max_rowid)?;
            let now = self.work.now();
            for read in &chunk.rows {
                of_others.extend(
                    self.delete_of_another(read)
                        .map(|replica| (read.rowid(), replica)),
                );
                let sorted = self.sort(read, lane == Lane::Deletes, Whose::All);
                if let (Lane::Follow, Sorted::Work(row)) = (lane, &sorted) {
                    // Whoever's it is: what is passed is verified a slack later.
                    waits = self.not_due(row, now);
                    if waits.is_some() {
                        break;
                    }
                }
                let mut due = None;
                let task = match sorted {
                    Sorted::Pass => Task::Pass,
                    _ if self.is_anothers(read) => Task::Pass,
                    Sorted::Unreadable(held) => {
                        // Its time is not known; it waits, and counts as long as it does.
                        due = Some(now).filter(|_| read.rowid() > self.progress.high);
                        Task::Hold(held)
                    }
                    Sorted::Work(row) => {
                        due = self.work.due_for_objective(&row, &self.progress);
                        let claim = self.work.claims.claim(&self.replica.container, &row.name);
                        match lane {
                            Lane::Deletes => Task::Delete(row, claim),
                            _ => {
                                let trust = self.trust(&row, now);
                                Task::Copy(row, trust, claim)
                            }
                        }
                    }
                };
                items.push(Item {
                    due,
                    ..item(read, task)
                });
            }
            chunk.complete
        };
        let names: BTreeMap<i64, String> = items.iter().map(|item| (item.rowid, item.name.clone())).collect();
        let mut worked = self.work_on(lane, items, &allowance).await;
        if let (Lane::Deletes, Some(to)) = (lane, worked.watermark) {
            of_others.retain(|(rowid, _)| *rowid <= to);
            worked.passed_deletes = self.passed_deletes(&allowance, &of_others).await?;
        }
        let to = worked.watermark.map(|rowid| match lane {
            Lane::Deletes => {
                self.progress.deletes = rowid;
                Watermark::Deletes(rowid)
            }
            _ => {
                self.progress.processed = rowid;
                self.progress.processed_name = names.get(&rowid).cloned();
                Watermark::Processed {
                    rowid,
                    name: names.get(&rowid).cloned(),
                }
            }
        });
        let (whole, now) = (worked.whole, self.work.now());
        let ended = self.record(worked, to, Count::Passed).await;
        let finished = whole && ended.pause.is_none();
        // A row that is not due keeps nothing waiting but itself: rows before it that are not finished come again at
        // once.
        let waits = waits.map(|waits| match finished {
            true => waits,
            false => NotDue { due: now, ..waits },
        });
        Ok(Ended {
            at_head: finished && complete && waits.is_none(),
            waits,
            ..ended
        })
    }

    /// Whether another agent works on this row. Of one that cannot be read nobody can tell.
    fn is_anothers(&self, read: &ReadRow) -> bool {
        matches!(read, ReadRow::Row(raw) if !self.is_own(&raw.name))
    }

    fn not_due(&self, row: &Row, now: Timestamp) -> Option<NotDue> {
        let first_seen = match self.waited {
            Some(waited) if waited.rowid == row.rowid => waited.first_seen,
            _ => now,
        };
        let due = due_at(row, self.work.mapping.copy_after, first_seen, now)?;
        Some(NotDue {
            rowid: row.rowid,
            time: row.time.newest(),
            first_seen,
            due,
        })
    }

    fn trust(&self, row: &Row, now: Timestamp) -> Trust {
        let gapless = row.time.newest() > self.followed_since;
        if gapless && is_young(row, self.work.limits.slack, now) {
            Trust::Fresh
        } else {
            Trust::None
        }
    }
}

/// A row of a chunk in ROWID order.
pub(super) fn item(read: &ReadRow, task: Task) -> Item<i64> {
    Item {
        position: read.rowid(),
        rowid: read.rowid(),
        name: read.shown_name(),
        due: None,
        task,
    }
}
