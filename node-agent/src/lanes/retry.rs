//! Held rows whose time has come.

use onespace_core::plan::copy::Trust;
use onespace_core::plan::due_at;
use onespace_core::reason::HoldReason;
use onespace_core::row::{Row, RowKind};
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::record::Count;
use super::turn::{Item, Task};
use super::{Ended, Lane, Sorted, Turn, TurnError, Whose};
use crate::clock::Clock;
use crate::databases::{Databases, ReadRow, numbered};
use crate::state::{FORGOTTEN, Held};

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Tries these held rows of the database again. A row that was replaced since has a later row of its own, which
    /// another lane works on.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn retry(mut self, held: Vec<Held>) -> Result<Ended, TurnError> {
        let allowance = self.allowance().await?;
        self.suspect_again(&held).await;
        let mut items = Vec::with_capacity(held.len());
        for Held {
            key,
            row,
            counted,
            is_delete,
            ..
        } in held
        {
            if row == FORGOTTEN {
                let claim = self.work.claims.claim(&self.replica.container, &key.name);
                items.push(Item {
                    position: row,
                    rowid: row,
                    name: key.name.clone(),
                    due: None,
                    task: Task::DeleteForgotten(key.name, claim),
                });
                continue;
            }
            let _reading = self.work.claims.reading(&self.replica.container).await;
            let mut rows = self.databases.rows_of(&self.replica, &key.name).await?;
            if rows.is_empty() {
                rows.extend(self.without_a_name(&key.name, row).await?);
            }
            let task = match self.stands_for(&rows, row) {
                Some(read) => self.task(read),
                None if is_delete && rows.is_empty() => {
                    let claim = self.work.claims.claim(&self.replica.container, &key.name);
                    Task::DeleteForgotten(key.name.clone(), claim)
                }
                None => Task::Forget,
            };
            let due = match &task {
                Task::Copy(row, ..) | Task::Delete(row, _) => {
                    self.work.due_for_objective(row, &self.progress)
                }
                Task::Hold(_) => Some(self.work.now()),
                _ => None,
            };
            items.push(Item {
                position: row,
                rowid: row,
                due: due.filter(|_| counted && self.is_own(&key.name)),
                name: key.name,
                task,
            });
        }
        let worked = self.work_on(Lane::Retry, items, &allowance).await;
        let at_head = worked.whole;
        Ok(Ended {
            at_head,
            ..self.record(worked, None, Count::Now).await
        })
    }

    /// A row that is held by its number, because its name cannot be read.
    async fn without_a_name(&self, shown: &str, number: i64) -> Result<Option<ReadRow>, TurnError> {
        if shown != numbered(number) {
            return Ok(None);
        }
        let before = number.saturating_sub(1);
        let chunk = self.databases.rows_after(&self.replica, before, 1).await?;
        Ok(chunk.rows.into_iter().find(|read| read.rowid() == number))
    }

    /// Rows at which the remote broke off again and again. If it still does, and works otherwise, that is theirs again.
    async fn suspect_again(&mut self, held: &[Held]) {
        let failed = held
            .iter()
            .filter(|held| held.reason == Some(HoldReason::RemoteFailed));
        let rows: Vec<i64> = failed.map(|held| held.row).collect();
        if !rows.is_empty() && self.work.others_are_allowed().await {
            self.suspects.extend(rows);
        }
    }

    /// The row that an entry stands for. An entry is a name's: where Swift has rows of it under several storage policies,
    /// another policy's tombstone or older body, held later, has taken the place of the live row that waits.
    fn stands_for<'a>(&self, rows: &'a [ReadRow], entry: i64) -> Option<&'a ReadRow> {
        let (now, copy_after) = (self.work.now(), self.work.mapping.copy_after);
        let live = rows
            .iter()
            .filter(|read| read.rowid() <= entry)
            .filter_map(|read| match self.sort(read, false, Whose::All) {
                Sorted::Work(row) if due_at(&row, copy_after, now, now).is_none() => {
                    Some((row.time.data, read))
                }
                _ => None,
            });
        let newest = live.max_by_key(|(time, _)| *time).map(|(_, read)| read);
        newest.or_else(|| rows.iter().find(|read| read.rowid() == entry))
    }

    fn task(&self, read: &ReadRow) -> Task {
        let deleted = matches!(read, ReadRow::Row(row) if row.deleted);
        match self.sort(read, deleted, Whose::All) {
            Sorted::Pass => Task::Forget,
            Sorted::Unreadable(held) => Task::Hold(held),
            Sorted::Work(row) => {
                let claim = self.work.claims.claim(&self.replica.container, &row.name);
                match row {
                    Row {
                        kind: RowKind::Tombstone,
                        ..
                    } => Task::Delete(row, claim),
                    row => Task::Copy(row, Trust::Doubted, claim),
                }
            }
        }
    }
}
