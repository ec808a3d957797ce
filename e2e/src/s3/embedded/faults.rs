//! What a test can make go wrong, and the count of what was asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; this is the answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// S3 error code.
        code: String,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// It is done after this time.
    Delay(Duration),
    /// There is no answer, nor any end, until the faults are cleared; then the connection is closed, and nothing is done.
    Hang,
    /// It is done, and the connection is closed instead of an answer.
    LoseAnswer,
    /// The connection is closed after so many bytes of the body, in whichever direction it goes. Nothing is stored.
    Break {
        /// Bytes that still pass.
        after: u64,
    },
    /// The connection is closed after so many bytes of an upload, and these are stored as if they were all.
    KeepTruncated {
        /// Bytes that are stored.
        after: u64,
    },
}

impl Fault {
    /// An error answer.
    #[must_use]
    pub fn answer(status: u16, code: &str) -> Self {
        Self::Answer {
            status,
            code: code.to_owned(),
            retry_after: None,
        }
    }
}

/// Which requests a fault befalls.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name of the S3 operation (`PutObject`); none = every one.
    pub operation: Option<&'static str>,
    /// The key contains this; empty = every key, and requests without one.
    pub key_contains: String,
    /// How many matching requests pass unharmed before.
    pub skip: u64,
    /// How many it befalls then.
    pub times: u64,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Befalls the next request of this operation.
    #[must_use]
    pub fn next(operation: &'static str, fault: Fault) -> Self {
        Self {
            operation: Some(operation),
            key_contains: String::new(),
            skip: 0,
            times: 1,
            fault,
        }
    }

    /// Befalls every request until the faults are cleared.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self {
            operation: None,
            key_contains: String::new(),
            skip: 0,
            times: u64::MAX,
            fault,
        }
    }
}

/// The rules in force. The first that matches is applied.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    cleared: Arc<tokio::sync::Notify>,
}

impl Faults {
    /// Adds a rule behind those that are there.
    pub fn inject(&self, rule: Rule) {
        self.with(|rules| rules.push(rule));
    }

    /// Removes every rule.
    pub fn clear(&self) {
        self.with(Vec::clear);
        self.cleared.notify_waiters();
    }

    /// Waits until every rule is removed.
    pub(super) async fn until_cleared(&self) {
        let cleared = self.cleared.notified();
        if self.with(|rules| !rules.is_empty()) {
            cleared.await;
        }
    }

    /// The fault for this request; counts it.
    pub(super) fn take(&self, operation: &str, key: &str) -> Option<Fault> {
        self.with(|rules| {
            let rule = rules.iter_mut().find(|rule| {
                rule.times > 0
                    && rule.operation.is_none_or(|wanted| wanted == operation)
                    && key.contains(&rule.key_contains)
            })?;
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            rule.times -= 1;
            Some(rule.fault.clone())
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Rule>) -> T) -> T {
        look(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Requests by operation, since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Counters {
    pub fn add(&self, operation: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(operation.to_owned()).or_default() += 1;
    }

    pub fn snapshot(&self) -> Counts {
        Counts(self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Properly signed requests by name of the operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    /// Requests of one operation.
    #[must_use]
    pub fn of(&self, operation: &str) -> u64 {
        self.0.get(operation).copied().unwrap_or_default()
    }

    /// Requests of all operations.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// What came since an earlier snapshot.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = self
            .0
            .iter()
            .map(|(operation, count)| (operation.clone(), count - earlier.of(operation)));
        Self(new.filter(|(_, count)| *count > 0).collect())
    }
}

/// What one request's fault does to its connection; set when the operation is known, obeyed by the HTTP layer.
#[derive(Debug)]
pub(super) struct Line {
    /// Bytes of a body that still pass.
    pub left: AtomicU64,
    /// At the limit the upload looks complete.
    pub truncates: AtomicBool,
    /// Close the connection instead of answering.
    pub closes: AtomicBool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(u64::MAX),
            truncates: AtomicBool::new(false),
            closes: AtomicBool::new(false),
        }
    }
}

impl Line {
    /// How many of these bytes pass, and whether that was the limit.
    pub fn pass(&self, bytes: u64) -> (u64, bool) {
        let left = self.left.load(Ordering::SeqCst);
        if left == u64::MAX {
            return (bytes, false);
        }
        let passed = bytes.min(left);
        self.left.store(left - passed, Ordering::SeqCst);
        (passed, passed == left)
    }
}
