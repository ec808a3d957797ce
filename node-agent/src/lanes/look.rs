//! Names whose copy may change while their row does not: symlinks that name no version of their target, and dynamic
//! large objects. Each is looked at every slack, and costs HEADs only while nothing changed.

use onespace_core::plan::copy::Trust;
use onespace_core::plan::due_at;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::record::Count;
use super::turn::{Item, Task};
use super::{Ended, Lane, Sorted, Turn, TurnError, Whose};
use crate::clock::Clock;
use crate::databases::Databases;

/// Names of one turn.
const NAMES: u32 = 200;

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Takes a turn on the names that are due.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn look_again(self) -> Result<Ended, TurnError> {
        let due = self
            .work
            .state
            .due_looks(&self.key, self.work.now(), NAMES)
            .await?;
        if due.is_empty() {
            return Ok(Ended {
                at_head: true,
                ahead: self.ahead().await?,
                progress: self.progress,
                ..Ended::default()
            });
        }
        let (now, copy_after) = (self.work.now(), self.work.mapping.copy_after);
        let mut items = Vec::with_capacity(due.len());
        let mut not_due = Vec::new();
        for name in due {
            let _reading = self.work.claims.reading(&self.replica.container).await;
            let rows = self.databases.rows_of(&self.replica, &name).await?;
            let live = rows
                .iter()
                .find_map(|read| match self.sort(read, false, Whose::All) {
                    Sorted::Work(row) => Some(row),
                    _ => None,
                });
            let (rowid, task) = match live {
                // Another lane copies it when it is.
                Some(row) if due_at(&row, copy_after, now, now).is_some() => {
                    not_due.push(name);
                    continue;
                }
                Some(row) => {
                    let claim = self.work.claims.claim(&self.replica.container, &name);
                    (row.rowid, Task::Copy(row, Trust::None, claim))
                }
                None => (0, Task::Forget),
            };
            items.push(Item {
                position: name.clone(),
                rowid,
                name,
                due: None,
                task,
            });
        }
        let mut worked = self.work_on(Lane::Look, items, &self.no_deletes()).await;
        worked.looks.again.extend(not_due);
        let at_head = worked.whole;
        Ok(Ended {
            at_head,
            ..self.record(worked, None, Count::Passed).await
        })
    }
}
