//! Rows that have to wait, durably: for time, or for a person.

use onespace_core::plan::{Held, Stop, mends_itself};
use onespace_core::planted::{Fault, planted};
use onespace_core::reason::StallReason;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::Turn;
use super::turn::{End, Which};
use crate::clock::Clock;
use crate::databases::Databases;
use crate::state::{HeldKey, Holding, Kept, Waiting};
use crate::stop::{as_pause, from_state};

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Holds a row.
    pub(super) async fn hold(&self, which: Which, name: &str, held: &Held) -> End {
        if self.deletes_wait && mends_itself(held.reason) {
            return self.hold_delete(which.rowid, name).await;
        }
        if planted(Fault::HeldForgotten) {
            return End::Passed;
        }
        let key = HeldKey {
            database: self.key.clone(),
            name: name.to_owned(),
        };
        tracing::info!(
            policy = %self.work.policy_name(), object = %format_args!("{}/{name}", self.key.container),
            reason = %held.reason, "row held: {}", held.message
        );
        let now = self.work.now();
        let holding = Holding {
            key,
            row: which.rowid,
            own: self.is_own(name),
            counted: which.due.is_some(),
            held: held.clone(),
            since: now,
        };
        match self.work.state.hold(holding, now, self.work.limits.held).await {
            Ok(Kept::Yes) => End::Held,
            Ok(Kept::Full) => End::Full,
            Err(error) => match from_state(&error) {
                Stop::Pause(pause) => End::Pause(pause),
                Stop::Hold(_) => End::Full,
            },
        }
    }

    /// A delete beyond the budget waits until a person releases it.
    pub(super) async fn hold_delete(&self, row: i64, name: &str) -> End {
        let waiting = Waiting {
            key: HeldKey {
                database: self.key.clone(),
                name: name.to_owned(),
            },
            row,
            own: self.is_own(name),
        };
        let (now, limit) = (self.work.now(), self.work.limits.held);
        let state = &self.work.state;
        match state
            .hold_delete(&waiting, StallReason::DeletesHeld, now, limit)
            .await
        {
            Ok(Kept::Yes) => End::Held,
            Ok(Kept::Full) => End::NoRoom,
            Err(error) => End::Pause(as_pause(from_state(&error))),
        }
    }
}
