//! Failures of stores and state, as reasons to hold a row or to pause a mapping.

use onespace_core::plan::{Held, Pause, Stop};
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_stores::remote::RemoteError;
use onespace_stores::source::SourceError;

use crate::state::StateError;

/// A failure of the remote: the whole of it pauses the mapping, one key's holds the row.
pub fn from_remote(error: RemoteError) -> Stop {
    match error {
        RemoteError::Paused {
            reason,
            code,
            message,
            retry_after,
        } => Pause {
            reason,
            code,
            message,
            retry_after,
        }
        .into(),
        RemoteError::Refused { reason, message, .. } => Held::new(reason, message).into(),
        error @ (RemoteError::ConditionFailed | RemoteError::NotFound) => {
            Held::new(HoldReason::ChangedMeanwhile, error.to_string()).into()
        }
        RemoteError::Body(error) => Held::new(HoldReason::SourceFailed, error.to_string()).into(),
        RemoteError::Source(error) => from_source(&error),
        error @ RemoteError::Altered { .. } => Held::new(HoldReason::BodyAltered, error.to_string()).into(),
    }
}

/// A failure that concerns more than one row, whatever it was called.
pub fn as_pause(stop: Stop) -> Pause {
    match stop {
        Stop::Pause(pause) => pause,
        Stop::Hold(held) => Pause {
            reason: PauseReason::UnexpectedAnswer,
            code: None,
            message: held.message,
            retry_after: None,
        },
    }
}

/// A failure of the followed Swift.
pub fn from_source(error: &SourceError) -> Stop {
    let message = error.to_string();
    match error {
        SourceError::Unavailable { .. } => Pause {
            reason: PauseReason::SourceUnavailable,
            code: None,
            message,
            retry_after: None,
        }
        .into(),
        SourceError::Public { .. } => Pause {
            reason: PauseReason::InternalEndpointRequired,
            code: None,
            message,
            retry_after: None,
        }
        .into(),
        SourceError::Failed { .. } | SourceError::Unreadable { .. } => {
            Held::new(HoldReason::SourceFailed, message).into()
        }
        SourceError::Mismatch { .. } => Held::new(HoldReason::SegmentMismatch, message).into(),
    }
}

/// Nothing can be recorded: nothing may go on.
pub fn from_state(error: &StateError) -> Stop {
    Pause {
        reason: PauseReason::StateUnavailable,
        code: None,
        message: error.to_string(),
        retry_after: None,
    }
    .into()
}
