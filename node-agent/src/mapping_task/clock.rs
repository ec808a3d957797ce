//! A clock that is set back: what was to be done at times that are far away now waits no longer than if it began now.

use std::time::Duration;

use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::MappingTask;
use crate::clock::Clock;
use crate::databases::Databases;
use crate::state::Passing;
use crate::stop::from_state;

/// A clock that goes back by less is of no consequence.
const NOTICED: Duration = Duration::from_secs(1);

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    /// Notices when the clock was set back since the last look.
    pub(super) async fn watch_clock(&mut self) {
        let now = self.work.now();
        let before = std::mem::replace(&mut self.latest, now);
        if now.plus(NOTICED) >= before {
            return;
        }
        tracing::warn!(
            policy = %self.work.policy_name(), back = ?before.duration_since(now),
            "this machine's clock was set back; what waits, waits from now on"
        );
        for paused in [&mut self.paused, &mut self.trial].into_iter().flatten() {
            paused.clock_was_set_back(now);
        }
        for db in self.followed.values_mut() {
            db.clock_was_set_back(now);
        }
        let passing = Passing {
            at: now,
            slack: self.work.limits.slack,
        };
        let id = &self.work.mapping.id;
        if let Err(error) = self.work.state.clock_was_set_back(id, passing).await {
            // It is noticed again.
            self.latest = before;
            self.pause_for(from_state(&error));
        }
    }
}
