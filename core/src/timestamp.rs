//! Swift's timestamps: a time in units of 10 microseconds and an internal offset (SWIFT: `Timestamp`).

/// A point in time as Swift orders it: first by time, then by offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Units of 10 microseconds since 1970.
    ticks: u64,
    /// The internal offset: 0 for a user's own requests, positive for the reconciler, object versioning and releases.
    offset: u64,
}
