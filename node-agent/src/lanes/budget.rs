//! The budget of deletes: so many in a window of time, for each database.
//!
//! An agent that verifies another's part of the names must not carry out what waits for a person there. Agents do not
//! talk, so each counts the others' deletes while it reads past them, by the budget that it has itself.

use std::collections::BTreeMap;

use onespace_core::naming;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::{Sorted, Turn, TurnError, Whose};
use crate::clock::Clock;
use crate::databases::{Databases, ReadRow};
use crate::state::{Allowance, PassedDeletes, Window};

impl<D: Databases, S: Source, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// What deletes of this turn are counted against; begins a new window when the last is over.
    pub(crate) async fn allowance(&self) -> Result<Allowance, TurnError> {
        let database = self.key.clone();
        let Some(budget) = self.work.mapping.delete_budget else {
            return Ok(Allowance { database, max: None });
        };
        let (state, now) = (&self.work.state, self.work.now());
        let window = match state.budget_window(&database).await? {
            Some(window) if now < window.since.plus(budget.window()) => window,
            _ => {
                let live = self.databases.live_rows(&self.replica).await?;
                let window = Window { since: now, live };
                state.begin_window(&database, window).await?;
                window
            }
        };
        Ok(Allowance {
            database,
            max: Some(budget.max.of(window.live)),
        })
    }

    /// The index of the replica whose agent is to carry out this delete of a user's, if it is another one.
    pub(super) fn delete_of_another(&self, read: &ReadRow) -> Option<u32> {
        match self.sort(read, true, Whose::Others) {
            Sorted::Work(row) if row.time.data.offset() == 0 => {
                Some(naming::primary_index(&row.name, self.replica.replicas))
            }
            _ => None,
        }
    }

    /// What is to be recorded of these deletes of others. `None`: there are none, or the policy has no budget.
    pub(super) async fn passed_deletes(
        &self,
        allowance: &Allowance,
        deletes: &[(i64, u32)],
    ) -> Result<Option<PassedDeletes>, TurnError> {
        let (Some(budget), Some(max)) = (self.work.mapping.delete_budget, allowance.max) else {
            return Ok(None);
        };
        if deletes.is_empty() {
            return Ok(None);
        }
        let mut of = BTreeMap::new();
        for (_, replica) in deletes {
            *of.entry(*replica).or_default() += 1;
        }
        // The other agent's window may have begun when fewer rows were live.
        let live = self.databases.live_rows(&self.replica).await?;
        Ok(Some(PassedDeletes {
            of,
            max: max.min(budget.max.of(live)),
            window: budget.window(),
        }))
    }
}
