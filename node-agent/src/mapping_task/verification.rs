//! What a mapping's task knows of rows that are to be verified, and of names that are to be looked at again: when the
//! next ones are due, and how many there are.

use std::time::Duration;

use onespace_core::naming::primary_index;
use onespace_core::plan::verify::Stretch;
use onespace_core::row::{RawRow, Row};
use onespace_core::timestamp::Timestamp;

use super::followed::Backlog;
use super::report::COUNTED;
use crate::databases::{Databases, ReadRow, Replica};
use crate::lanes::{Lane, Listing};
use crate::state::{Ahead, DatabaseKey, State};

/// Rows of one database that are to be verified.
#[derive(Debug, Default)]
pub(crate) struct Verification {
    /// The listing beside which they are verified.
    pub listing: Listing,
    /// How many.
    pub backlog: Backlog,
    slack: Duration,
    /// When the first of them were passed, as far as is known. Too early costs a look, too late is never the case.
    since: Option<Timestamp>,
    /// When the next look is due, in the same sense.
    look: Option<Timestamp>,
    /// Turns that ended.
    ended: u64,
    /// Turns that began to verify rows.
    turns: u64,
}

impl Verification {
    pub fn new(ahead: Ahead, slack: Duration) -> Self {
        Self {
            slack,
            since: ahead.unverified,
            look: ahead.look,
            ..Self::default()
        }
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.since.is_some_and(|since| since.plus(self.slack) <= now)
    }

    pub fn is_look_due(&self, now: Timestamp) -> bool {
        self.look.is_some_and(|look| look <= now)
    }

    /// Begins a turn: its number, and what to end it with.
    pub fn begin(&mut self) -> (u64, u64) {
        self.turns += 1;
        (self.turns, self.ended)
    }

    /// So many turns have ended.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// Nothing was passed in the future, and no look is further away than a slack.
    pub fn clock_was_set_back(&mut self, now: Timestamp) {
        self.since = self.since.map(|since| since.min(now));
        self.look = self.look.map(|look| look.min(now.plus(self.slack)));
    }

    /// Something that is no turn recorded this ahead.
    pub fn saw(&mut self, ahead: Ahead) {
        self.since = earlier(self.since, ahead.unverified);
        self.look = earlier(self.look, ahead.look);
    }

    /// A turn ended, and saw this ahead. `sure` = it saw to the end of its lane; but others may have ended since it
    /// looked.
    pub fn turn_ended(&mut self, lane: Lane, began: u64, sure: bool, ahead: Ahead) {
        let alone = sure && began == self.ended;
        self.ended += 1;
        self.since = match lane {
            Lane::Verify if alone => ahead.unverified,
            _ => earlier(self.since, ahead.unverified),
        };
        self.look = match lane {
            Lane::Look if alone => ahead.look,
            _ => earlier(self.look, ahead.look),
        };
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Counts what is to be verified in a database. `None` = it cannot be read now.
pub(super) async fn backlog<D: Databases>(
    databases: &D,
    state: &State,
    replica: &Replica,
    key: &DatabaseKey,
) -> Option<Backlog> {
    let open = state.stretches(key).await.ok()?;
    let mut backlog = Backlog {
        exact: true,
        ..Backlog::default()
    };
    let Some(first) = open.iter().map(|stretch| stretch.after).min() else {
        return Some(backlog);
    };
    let last = open.iter().map(|stretch| stretch.to).max().unwrap_or(first);
    let most = usize::try_from(last - first).map_or(COUNTED + 1, |most| most.min(COUNTED + 1));
    let chunk = databases.rows_after(replica, first, most).await.ok()?;
    let rows = chunk.rows.iter().filter_map(|read| match read {
        ReadRow::Row(raw) => Some(raw),
        ReadRow::Damaged { .. } => None,
    });
    for raw in rows.filter(|raw| open.iter().any(|stretch| is_open(stretch, raw, replica))) {
        backlog.rows += 1;
        if let Ok(row) = Row::parse(raw.clone()) {
            backlog.oldest = earlier(backlog.oldest, Some(row.time.newest()));
        }
    }
    let to_the_end = chunk.complete || chunk.rows.last().is_none_or(|read| read.rowid() >= last);
    if !to_the_end {
        let long: i64 = open.iter().map(|stretch| stretch.to - stretch.after).sum();
        let long = u64::try_from(long).unwrap_or(0);
        let others = u64::from(replica.replicas.max(1)) - 1;
        backlog.rows = backlog
            .rows
            .max(long / u64::from(replica.replicas.max(1)) * others);
        backlog.exact = false;
    }
    Some(backlog)
}

fn is_open(stretch: &Stretch, raw: &RawRow, replica: &Replica) -> bool {
    let behind_name = stretch
        .after_name
        .as_ref()
        .is_none_or(|after| raw.name.as_str() > after.as_str());
    stretch.tombstones == raw.deleted
        && (stretch.after + 1..=stretch.to).contains(&raw.rowid)
        && behind_name
        && (stretch.own || primary_index(&raw.name, replica.replicas) != replica.index)
}
