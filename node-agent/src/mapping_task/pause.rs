//! Waiting out a failure of the remote, of Swift or of the agent's own disk.

use std::time::Duration;

use onespace_core::plan::{Pause, Stop};
use onespace_core::reason::PauseReason;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::MappingTask;
use crate::clock::Clock;
use crate::databases::Databases;
use crate::stop::as_pause;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);

/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// A mapping that waits.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    pub pause: Pause,
    pub since: Timestamp,
    pub retry_at: Timestamp,
    tries: u32,
}

impl Paused {
    /// The mapping pauses, or its trial failed again. `salt` spreads mappings that failed together.
    pub fn after(before: Option<&Self>, pause: Pause, now: Timestamp, salt: u64) -> Self {
        let tries = before.map_or(0, |before| before.tries + 1);
        let since = before.map_or(now, |before| before.since);
        let asked = pause.retry_after.unwrap_or_default().min(LONGEST);
        Self {
            pause,
            since,
            retry_at: now.plus(wait(tries, salt).max(asked)),
            tries,
        }
    }

    /// It waits no longer than the longest wait from now on.
    pub fn clock_was_set_back(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.retry_at = self.retry_at.min(now.plus(LONGEST));
    }
}

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    /// Tries again. Only work that succeeds shows that the pause is over: one more failure waits longer.
    pub(super) fn resume(&mut self) {
        if let Some(paused) = self.paused.take() {
            tracing::info!(
                policy = %self.work.policy_name(), reason = %paused.pause.reason, "the mapping is tried again"
            );
            self.trial = Some(paused);
        }
    }

    pub(super) fn pause_for(&mut self, stop: Stop) {
        let now = self.work.now();
        // Several rows that fail together are one failure.
        if self.paused.as_ref().is_some_and(|paused| paused.retry_at > now) {
            return;
        }
        let pause = as_pause(stop);
        let before = self.paused.take().or(self.trial.take());
        if before
            .as_ref()
            .is_none_or(|before| before.pause.reason != pause.reason)
        {
            tracing::warn!(
                policy = %self.work.policy_name(), reason = %pause.reason, code = pause.code.as_deref().unwrap_or(""),
                "the mapping pauses: {}", pause.message
            );
        }
        let salt = self
            .work
            .mapping
            .id
            .0
            .bytes()
            .fold(0, |sum: u64, byte| sum * 31 % 9973 + u64::from(byte));
        self.paused = Some(Paused::after(before.as_ref(), pause, now, salt));
        self.publish();
    }
}

/// Whether asking the remote can show that the pause is over.
pub(crate) fn concerns_remote(reason: PauseReason) -> bool {
    use PauseReason as P;
    !matches!(
        reason,
        P::SourceUnavailable
            | P::InternalEndpointRequired
            | P::EndpointCannotDecrypt
            | P::StateUnavailable
            | P::HeldSetFull
            | P::InternalError
    )
}

/// Doubles from a second to a minute; up to a quarter is taken off by the salt.
fn wait(tries: u32, salt: u64) -> Duration {
    let full = FIRST.saturating_mul(1 << tries.min(10)).min(LONGEST);
    full - full / 4 * u32::try_from(salt % 100).unwrap_or(0) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_that_says_when_to_come_again_is_not_asked_earlier_but_within_a_minute() {
        let now = Timestamp::from_unix_seconds(1_000_000);
        let paused = |retry_after| {
            let pause = Pause {
                reason: PauseReason::SlowDown,
                code: None,
                message: String::new(),
                retry_after: Some(Duration::from_secs(retry_after)),
            };
            Paused::after(None, pause, now, 0).retry_at.duration_since(now)
        };
        assert_eq!(paused(7), Duration::from_secs(7));
        assert_eq!(paused(100_000), LONGEST);
    }

    #[test]
    fn waits_grow_to_a_minute_and_never_vanish() {
        for salt in 0..200 {
            assert!(wait(0, salt) >= Duration::from_millis(750));
            assert!(wait(30, salt) <= LONGEST && wait(30, salt) >= Duration::from_secs(45));
        }
    }
}
