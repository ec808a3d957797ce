//! One database as its mapping's task keeps it in memory between turns.

use std::collections::BTreeSet;

use onespace_core::report::Pending;
use onespace_core::timestamp::Timestamp;

use crate::databases::{Replica, Signature};
use crate::lanes::{Lane, Listing, NotDue};
use crate::state::{DatabaseKey, Progress};

/// Two changes within one tick of the file system's clock look like one: a file that changed this lately is read
/// again, whatever its signature says.
const UNSETTLED: std::time::Duration = std::time::Duration::from_secs(2);

/// A followed database.
#[derive(Debug)]
pub(crate) struct Followed {
    pub replica: Replica,
    pub key: DatabaseKey,
    pub progress: Progress,
    pub followed_since: Timestamp,
    pub running: BTreeSet<Lane>,
    pub listing: Listing,
    pub waits: Option<NotDue>,
    pub backlog: Backlog,
    /// When the database's last turn ended: whoever waited longest comes first.
    pub last_turn: u64,
    signature: Option<Signature>,
    changes: u64,
    follow_read: Option<u64>,
    deletes_read: Option<u64>,
}

/// What is left to do in a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub rows: u64,
    pub exact: bool,
    pub oldest: Option<Timestamp>,
}

impl Backlog {
    pub fn add_to(self, pending: &mut Pending, oldest: &mut Option<Timestamp>) {
        pending.rows += self.rows;
        pending.exact &= self.exact;
        *oldest = match (*oldest, self.oldest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

impl Followed {
    pub fn new(replica: Replica, key: DatabaseKey, progress: Progress, now: Timestamp) -> Self {
        Self {
            replica,
            key,
            progress,
            followed_since: now,
            running: BTreeSet::new(),
            listing: Listing::default(),
            waits: None,
            backlog: Backlog {
                rows: 0,
                exact: true,
                oldest: None,
            },
            last_turn: 0,
            signature: None,
            changes: 0,
            follow_read: None,
            deletes_read: None,
        }
    }

    /// Notes what a look at the file showed.
    pub fn saw(&mut self, signature: Signature, now: Timestamp) {
        let modified = Timestamp::default().plus(std::time::Duration::from_nanos(
            u64::try_from(signature.database.1).unwrap_or(0),
        ));
        let unsettled = now.duration_since(modified) < UNSETTLED;
        if unsettled || signature.pending > 0 || self.signature.as_ref() != Some(&signature) {
            self.changes += 1;
        }
        self.signature = Some(signature);
    }

    /// The count of changes seen so far: a turn that reaches the head has read up to the count at its beginning.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Notes that a lane reached the head.
    pub fn read_to_head(&mut self, lane: Lane, changes: u64) {
        match lane {
            Lane::Follow => self.follow_read = Some(changes),
            Lane::Deletes => self.deletes_read = Some(changes),
            Lane::FirstPass | Lane::Retry => {}
        }
    }

    /// Whether a turn of this lane may find work.
    pub fn wants(&self, lane: Lane, now: Timestamp) -> bool {
        if self.running.contains(&lane) || self.signature.is_none() {
            return false;
        }
        match lane {
            Lane::FirstPass => !self.progress.first_pass_done,
            Lane::Follow => match self.waits {
                Some(waits) if waits.due > now => false,
                Some(_) => true,
                None => self.follow_read != Some(self.changes),
            },
            Lane::Deletes => self.deletes_read != Some(self.changes),
            Lane::Retry => false,
        }
    }

    /// Whether everything that is due is done. Rows that are not due do not count.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.running.is_empty()
            && self.progress.first_pass_done
            && [Lane::Follow, Lane::Deletes]
                .into_iter()
                .all(|lane| !self.wants(lane, now))
    }
}
