//! Carrying a user's delete out at the remote: what must hold before, and what is looked at after.

use std::time::Duration;

use super::copy::Look;
use super::{Absence, Held, absence};
use crate::mapping::Mode;
use crate::planted::{Fault, planted};
use crate::reason::HoldReason;
use crate::row::Row;
use crate::timestamp::Timestamp;

/// What a tombstone row leads to before anything is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing is to be done.
    Leave,
    /// Look at the remote.
    Look,
}

/// A tombstone acts only if the policy propagates deletes, and if it is a user's: one with an offset is a release's
/// or the reconciler's. (One of a name that has a live row under another storage policy never comes here.)
#[must_use]
pub fn first(row: &Row, propagate: bool) -> First {
    if !propagate || row.time.data.offset() != 0 {
        First::Leave
    } else {
        First::Look
    }
}

/// What a look at the remote says about a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterLook {
    /// Nothing lies at the key, if the bucket itself is there: a HEAD cannot tell a missing key from a missing bucket.
    Absent,
    /// The copy is of a later state than the tombstone: it stays.
    Superseded,
    /// It is ours and not newer than the tombstone: ask Swift, then remove it.
    AskSwift,
    /// Leave it and wait.
    Hold(Held),
}

/// Only a marked or adopted copy that is not newer than the tombstone may be removed. `adopted` is the ETag under
/// which an unmarked object was adopted; it has no time of Swift's, so the remote's own clock tells, by more than
/// clocks may be apart (`slack`). A copy marked Archive is the only one left: it goes only for a tombstone that is
/// later than all that the mark speaks of, never for one of the same time.
#[must_use]
pub fn after_look(row: &Row, look: &Look, adopted: Option<&str>, slack: Duration) -> AfterLook {
    let Some(object) = &look.object else {
        return AfterLook::Absent;
    };
    match &look.mark {
        Some(mark) if mark.data_time > row.time.data || mark.time > row.time.newest() => {
            AfterLook::Superseded
        }
        Some(mark)
            if mark.mode == Mode::Archive
                && (mark.data_time == row.time.data || mark.time == row.time.newest()) =>
        {
            AfterLook::Superseded
        }
        Some(_) => AfterLook::AskSwift,
        None if adopted == Some(object.etag.as_str()) => {
            if object.last_modified > row.time.newest().plus(slack) {
                return AfterLook::Hold(Held::new(
                    HoldReason::RemoteNewer,
                    "Swift's object was deleted, but the equal object at this key was written again after that, and \
                     not by onespace; delete it yourself, or keep it",
                ));
            }
            AfterLook::AskSwift
        }
        None if planted(Fault::UnmarkedDeleted) => AfterLook::AskSwift,
        None => AfterLook::Hold(Held::new(
            HoldReason::NotOurs,
            "Swift's object was deleted, but onespace neither wrote nor adopted the object at this key; delete it \
             yourself, or keep it and retry after the policy is changed",
        )),
    }
}

/// What Swift says about a name that is to be deleted at the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwiftSays {
    /// 200, with `X-Backend-Data-Timestamp`: a POST may have given an old body a new `X-Backend-Timestamp`.
    Alive(Option<Timestamp>),
    /// 404, with `X-Backend-Timestamp`.
    Absent(Option<Timestamp>),
}

/// Whether the delete may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterSwift {
    /// It is deleted: remove the copy.
    Remove,
    /// Only the object servers themselves can tell.
    AskPrimaries,
    /// The object was written again after the tombstone: its own row will come.
    Superseded,
    /// An older state answered.
    Hold(Held),
}

/// Judges Swift's answer: only a tombstone as new as the row proves the delete; an older body proves nothing.
#[must_use]
pub fn after_swift(row: &Row, says: SwiftSays) -> AfterSwift {
    match says {
        SwiftSays::Absent(time) => match absence(row.time.data, time) {
            Absence::Proven => AfterSwift::Remove,
            Absence::Unproven => AfterSwift::AskPrimaries,
        },
        SwiftSays::Alive(Some(time)) if time > row.time.data => AfterSwift::Superseded,
        SwiftSays::Alive(_) => AfterSwift::Hold(Held::new(
            HoldReason::SourceBehind,
            "an object server still answers with the deleted object; it is asked again",
        )),
    }
}
