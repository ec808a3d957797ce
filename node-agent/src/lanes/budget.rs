//! The budget of deletes: so many in a window of time, for each database.

use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::{Turn, TurnError};
use crate::clock::Clock;
use crate::databases::Databases;
use crate::state::{Allowance, Window};

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
}
