//! What a row leads to. Each function takes what is known and answers with the next step; the agent carries it out.
//!
//! A row is only a hint that a name changed. What is copied is what Swift holds when it is read, what is
//! overwritten or deleted is what the remote held when it was looked at, and every step is safe to repeat.

pub mod copy;
pub mod delete;
pub mod reconcile;
pub mod verify;
pub mod window;

use crate::reason::{HoldReason, PauseReason};
use crate::row::Row;
use crate::timestamp::Timestamp;

/// Why a row is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It waits in the durable set.
    Hold(Held),
    /// Nothing of the mapping can go on; the row is not charged.
    Pause(Pause),
}

impl From<Held> for Stop {
    fn from(held: Held) -> Self {
        Self::Hold(held)
    }
}

impl From<Pause> for Stop {
    fn from(pause: Pause) -> Self {
        Self::Pause(pause)
    }
}

/// Why a row needs nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The policy leaves it alone (excluded, not selected, deletes not propagated, a release).
    LeftAlone,
    /// The remote was in step already.
    InStep,
    /// The body was sent.
    Copied {
        /// Its length.
        bytes: u64,
    },
    /// Only metadata were replaced.
    Reposted,
    /// Removed at the remote.
    Deleted,
    /// Deleted in Swift, and not at the remote.
    Absent,
    /// It is gone from Swift, or a newer change has a row of its own.
    Superseded,
}

/// A row that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Stable reason.
    pub reason: HoldReason,
    /// What a person needs to know; no text of the remote's.
    pub message: String,
}

impl Held {
    /// A held row.
    pub fn new(reason: HoldReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// A mapping that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Stable reason.
    pub reason: PauseReason,
    /// A known error code or HTTP status.
    pub code: Option<String>,
    /// What to do about it.
    pub message: String,
    /// The other side said when to come again.
    pub retry_after: Option<std::time::Duration>,
}

/// A failure that looks like the whole remote's (or Swift's), met again and again by one row while others succeed, is
/// that row's own: it must not keep the rows behind it waiting. `None`: this one is never a row's.
#[must_use]
pub fn of_one_row(pause: &Pause) -> Option<Held> {
    use PauseReason as P;
    let reason = match pause.reason {
        P::Unreachable | P::Timeout | P::ServerError | P::UnexpectedAnswer => HoldReason::RemoteFailed,
        P::SourceUnavailable => HoldReason::SourceFailed,
        _ => return None,
    };
    let message = format!(
        "this fails again and again, though other objects succeed: {}",
        pause.message
    );
    Some(Held::new(reason, message))
}

/// Whether waiting alone can mend a held row. What cannot is tried again on request, or when the policy changes.
#[must_use]
pub fn mends_itself(reason: HoldReason) -> bool {
    use HoldReason as R;
    match reason {
        R::SegmentMismatch
        | R::SymlinkDangling
        | R::SourceBehind
        | R::SourceUnproven
        | R::SourceFailed
        | R::BodyAltered
        | R::ChangedMeanwhile
        | R::Transferring
        | R::DeleteWaits
        | R::KeyForbidden
        | R::RemoteFailed => true,
        R::NameNotRepresentable
        | R::ReservedName
        | R::MetadataNotRepresentable
        | R::MetadataAltered
        | R::RemoteNewer
        | R::ForeignCopy
        | R::NotOurs
        | R::InvalidManifest
        | R::TooLarge
        | R::Refused
        | R::UnreadableRow => false,
    }
}

/// When a row may be acted on: `copy_after` seconds after its newest time. A time in the future counts from when
/// the row was first seen; 0 asks no clock.
#[must_use]
pub fn due_at(row: &Row, copy_after: u64, first_seen: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if copy_after == 0 {
        return None;
    }
    let newest = row.time.newest().min(first_seen);
    let due = newest.plus(std::time::Duration::from_secs(copy_after));
    (due > now).then_some(due)
}

/// What a 404 says about a row: `time` is the answer's `X-Backend-Timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// A tombstone as new as the row, or newer (equal: expired): the object is gone.
    Proven,
    /// Nothing: ask every primary object server.
    Unproven,
}

/// Whether a 404 with this time proves that the state which a row of `row_time` speaks of is gone.
#[must_use]
pub fn absence(row_time: Timestamp, time: Option<Timestamp>) -> Absence {
    match time {
        Some(time) if time >= row_time => Absence::Proven,
        _ => Absence::Unproven,
    }
}
