//! The lanes on which the rows of one database are worked off, a turn at a time.
//!
//! - **first pass**: live rows that were there when the database was first seen, in name order, beside a listing of
//!   the remote;
//! - **follow**: live rows that came later, in ROWID order, up to the first that is not due yet;
//! - **deletes**: tombstones, in ROWID order, past live rows that are not due;
//! - **retry**: held rows whose time has come;
//! - **verify**: rows of the others, a slack after this agent read past them;
//! - **look**: names whose copy may change while their row does not, every slack;
//! - **reconcile**: copies that no row speaks of, once in a while.
//!
//! A turn reads one chunk, works on its rows side by side, moves a watermark and ends: so every database comes to
//! its turn, and a turn that is cut off costs only work that is safe to repeat.

mod budget;
mod by_rowid;
mod first_pass;
mod hold;
mod listing;
mod look;
mod reconcile;
mod record;
mod retry;
mod transfer;
mod turn;
mod verify;

use std::collections::BTreeSet;
use std::sync::Arc;

use onespace_core::naming;
use onespace_core::objective::Tally;
use onespace_core::plan::{Held, Pause};
use onespace_core::reason::{HoldReason, PassRefusal};
use onespace_core::report::Totals;
use onespace_core::row::{Row, RowKind};
use onespace_core::timestamp::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::databases::{DatabaseError, ReadRow, Replica};
use crate::state::{Ahead, DatabaseKey, Progress, Reconciling, StateError};
use crate::work::Work;

pub use listing::Listing;
pub use record::InStep;
pub use transfer::Transfer;

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Tombstones.
    Deletes,
    /// Fresh live rows.
    Follow,
    /// Rows that were there before.
    FirstPass,
    /// Held rows.
    Retry,
    /// Rows of other agents.
    Verify,
    /// Names whose copy may change while their row does not.
    Look,
    /// Copies whose tombstones Swift has forgotten.
    Reconcile,
}

/// A database in the hands of one lane.
pub struct Turn<D, S, R, C> {
    /// Stores, state and rules.
    pub work: Work<S, R, C>,
    /// Access to databases.
    pub databases: Arc<D>,
    /// Which database.
    pub replica: Replica,
    /// Its identity.
    pub key: DatabaseKey,
    /// How far it is worked off.
    pub progress: Progress,
    /// How far it was when the turn began: what cannot be recorded did not happen.
    pub began_with: Progress,
    /// Since when this process follows it without a gap.
    pub followed_since: Timestamp,
    /// The row that was not due at the last turn.
    pub waited: Option<NotDue>,
    /// Rows that made the mapping pause again and again while others succeeded.
    pub suspects: BTreeSet<i64>,
    /// The turn is over deletes that a person is to look at first. One that cannot be judged now waits, too: else it
    /// would begin when it is tried again.
    pub deletes_wait: bool,
    /// Rows behind the watermark that count for the objective and were in step at an earlier turn.
    pub in_step: Vec<InStep>,
    /// Stops the turn at the next row.
    pub halt: CancellationToken,
    /// Takes a pause as soon as a row leads to one: others of the turn may go on for a long time.
    pub alarm: mpsc::Sender<Pause>,
}

impl<D, S, R, C: Clone> Clone for Turn<D, S, R, C> {
    fn clone(&self) -> Self {
        Self {
            work: self.work.clone(),
            databases: self.databases.clone(),
            replica: self.replica.clone(),
            key: self.key.clone(),
            progress: self.progress.clone(),
            began_with: self.began_with.clone(),
            followed_since: self.followed_since,
            waited: self.waited,
            suspects: self.suspects.clone(),
            deletes_wait: self.deletes_wait,
            in_step: self.in_step.clone(),
            halt: self.halt.clone(),
            alarm: self.alarm.clone(),
        }
    }
}

/// How a turn ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Copies that go on by themselves.
    pub transfers: Vec<Transfer>,
    /// What was done.
    pub totals: Totals,
    /// What of it was counted for the objective.
    pub tally: Tally,
    /// What is to be counted when the watermark passes it.
    pub in_step: Vec<InStep>,
    /// Nothing is left to read on this lane for now.
    pub at_head: bool,
    /// The first row that is not due yet.
    pub waits: Option<NotDue>,
    /// The mapping must pause.
    pub pause: Option<Pause>,
    /// It was told so already.
    pub told: bool,
    /// Rows that made it pause.
    pub failed: Vec<i64>,
    /// There was no place for a row that has to wait.
    pub held_set_full: bool,
    /// How far the database was worked off.
    pub progress: Progress,
    /// What is to be done later.
    pub ahead: Ahead,
    /// How far the reconciling pass is.
    pub reconciling: Option<Reconciling>,
    /// Why the reconciling pass did not look at the database.
    pub refused: Option<PassRefusal>,
}

/// A row that is not due yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDue {
    /// Which.
    pub rowid: i64,
    /// Its newest time.
    pub time: Timestamp,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it will be due.
    pub due: Timestamp,
}

/// Why a turn could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The database cannot be read now.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The database is another one than the progress speaks of.
    #[error("the database has another id than before; it is worked off from the start")]
    Replaced,
    /// The agent's state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a row as it was read leads to before anything is asked.
#[derive(Debug)]
pub(crate) enum Sorted {
    /// It is not for this lane, this agent or this policy.
    Pass,
    /// It has to be worked on.
    Work(Row),
    /// It cannot be read.
    Unreadable(Held),
}

/// Whose rows a turn works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those that hash to this replica.
    Own,
    /// Those that hash to another one.
    Others,
    /// Both.
    All,
}

impl<D, S, R, C> Turn<D, S, R, C> {
    /// Whether rows of this name are this agent's own.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        naming::primary_index(name, self.replica.replicas) == self.replica.index
    }

    /// Sorts a row by what can be seen in the row alone.
    pub(crate) fn sort(&self, read: &ReadRow, tombstones: bool, whose: Whose) -> Sorted {
        let raw = match read {
            ReadRow::Row(raw) => raw.clone(),
            // Nobody can tell whose it is: every agent that reads past it holds it.
            ReadRow::Damaged { what, .. } if !tombstones && whose != Whose::Others => {
                return Sorted::Unreadable(unreadable(what));
            }
            ReadRow::Damaged { .. } => return Sorted::Pass,
        };
        let wanted = match whose {
            Whose::Own => self.is_own(&raw.name),
            Whose::Others => !self.is_own(&raw.name),
            Whose::All => true,
        };
        if !wanted || raw.deleted != tombstones {
            return Sorted::Pass;
        }
        match Row::parse(raw) {
            Err(error) => Sorted::Unreadable(unreadable(&error.to_string())),
            Ok(row) if self.work.selector.excludes(&row.name) => Sorted::Pass,
            Ok(row) if row.kind == RowKind::Tombstone => Sorted::Work(row),
            Ok(row) if self.work.selector.by_name_and_size(&row.name, row.size) => Sorted::Work(row),
            Ok(_) => Sorted::Pass,
        }
    }
}

fn unreadable(what: &str) -> Held {
    Held::new(
        HoldReason::UnreadableRow,
        format!("the container's row cannot be read ({what}); write the object again, or report this form"),
    )
}
