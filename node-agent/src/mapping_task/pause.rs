//! Waiting out a failure of the remote, of Swift or of the agent's own disk.

use std::time::Duration;

use onespace_core::plan::Pause;
use onespace_core::reason::PauseReason;
use onespace_core::timestamp::Timestamp;

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
