//! Times that a clock left behind which ran ahead and was set back since.

use onespace_core::mapping::MappingId;
use rusqlite::params;

use super::held::LONGEST;
use super::progress::as_sql;
use super::verified::Passing;
use super::{State, StateError};

impl State {
    /// Brings what a mapping has in the future back to now, and what is to come no further away than if its wait began
    /// now: nothing waits longer because a clock was set back.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn clock_was_set_back(&self, mapping: &MappingId, passing: Passing) -> Result<(), StateError> {
        let mapping = mapping.0.clone();
        let Passing { at, slack } = passing;
        let ticks = |time: onespace_core::timestamp::Timestamp| as_sql(time.ticks());
        let (now, next_try, next_look) = (ticks(at), ticks(at.plus(LONGEST)), ticks(at.plus(slack)));
        self.run(move |sql| {
            for (update, latest) in [
                ("held SET next_try = ?2 WHERE mapping = ?1 AND next_try > ?2", next_try),
                ("look SET next = ?2 WHERE mapping = ?1 AND next > ?2", next_look),
                (
                    "stretch SET since = min(since, ?2), passed = ?2 WHERE mapping = ?1 AND passed > ?2",
                    now,
                ),
                ("budget SET since = ?2 WHERE mapping = ?1 AND since > ?2", now),
                ("seen_deletes SET since = ?2 WHERE mapping = ?1 AND since > ?2", now),
                (
                    "reconcile SET opened = min(opened, ?2), completed = min(completed, ?2), before = min(before, ?2),
                     head_at = min(head_at, ?2), started = min(started, ?2) WHERE mapping = ?1",
                    now,
                ),
            ] {
                sql.execute(&format!("UPDATE {update}"), params![mapping, latest])?;
            }
            Ok(())
        })
        .await
    }
}
