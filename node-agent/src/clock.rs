//! The time of day. Passed in everywhere, so that tests and the simulation own it.

use onespace_core::timestamp::Timestamp;

/// Tells the time.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::default().plus(since_1970)
    }
}
