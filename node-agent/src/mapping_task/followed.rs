//! One database as its mapping's task keeps it in memory between turns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onespace_core::plan::reconcile::is_due;
use onespace_core::planted::{Fault, planted};
use onespace_core::reason::PassRefusal;
use onespace_core::report::Pending;
use onespace_core::timestamp::Timestamp;

use crate::databases::{Replica, Signature};
use crate::lanes::{InStep, Lane, Listing, NotDue};
use crate::state::{DatabaseKey, Progress, Reconciling};

use super::verification::Verification;

/// Two changes within one tick of the file system's clock look like one: a file that changed this lately is read
/// again, whatever its signature says.
const UNSETTLED: Duration = Duration::from_secs(2);

/// How long a lane that got nowhere rests.
const REST: Duration = Duration::from_secs(1);

/// How long a reconciling pass waits that may not happen now.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// How often a row may make the mapping pause while others succeed.
const PAUSES: u32 = 2;

/// Rows whose long copies made the mapping pause: as many are remembered.
const BLAMED: usize = 100;

/// A followed database.
#[derive(Debug)]
pub(crate) struct Followed {
    pub replica: Replica,
    pub key: DatabaseKey,
    pub progress: Progress,
    pub followed_since: Timestamp,
    pub running: BTreeSet<Lane>,
    /// Copies that went on after their turns.
    pub transfers: usize,
    pub listing: Listing,
    /// What is to be verified.
    pub verification: Verification,
    pub waits: Option<NotDue>,
    pub backlog: Backlog,
    /// Rows that count for the objective, are in step, and lie behind one that is not. One turn's at most.
    pub in_step: BTreeMap<Lane, Vec<InStep>>,
    /// The backlog was counted before something changed.
    pub recount: bool,
    /// When the database's last turn ended: whoever waited longest comes first.
    pub last_turn: u64,
    /// It is another database now, or gone, or another's: it is let go of when its turns have ended.
    pub leaving: bool,
    /// What is known of its reconciling passes.
    pub reconciling: Reconciling,
    /// Why a pass that is due does not happen.
    pub refused: Option<PassRefusal>,
    /// How long Swift keeps tombstones; `None` = the policy wants no reconciling passes.
    pub reclaim_age: Option<Duration>,
    /// A count that failed is not tried again before this time.
    count_rests: Option<Timestamp>,
    /// Lanes that got nowhere are not tried again before this time.
    rests: BTreeMap<Lane, Timestamp>,
    /// How often in a row these rows made a turn pause while others of it succeeded. One turn's rows at most.
    blamed: BTreeMap<Lane, BTreeMap<i64, u32>>,
    /// The same of rows whose copies outlast their turns; as many as there are such copies, at most.
    blamed_transfers: BTreeMap<i64, u32>,
    signature: Option<Signature>,
    /// The file could not be looked at.
    out_of_sight: bool,
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
    /// Rows that should be in step by now, for the objective.
    pub late: u64,
    /// When there will be more of them.
    pub next_late: Option<Timestamp>,
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
            transfers: 0,
            listing: Listing::default(),
            verification: Verification::default(),
            waits: None,
            backlog: Backlog {
                rows: 0,
                // Nothing is known before the first count.
                exact: false,
                ..Backlog::default()
            },
            in_step: BTreeMap::new(),
            recount: true,
            last_turn: 0,
            leaving: false,
            reconciling: Reconciling::default(),
            refused: None,
            reclaim_age: None,
            count_rests: None,
            rests: BTreeMap::new(),
            blamed: BTreeMap::new(),
            blamed_transfers: BTreeMap::new(),
            signature: None,
            out_of_sight: false,
            changes: 0,
            follow_read: None,
            deletes_read: None,
        }
    }

    /// Notes what a look at the file showed.
    pub fn saw(&mut self, signature: Signature, now: Timestamp) {
        // Another file took its place, a backup perhaps, which may have more rows by now than were read of the former one.
        self.leaving |=
            self.progress.is_of_another(signature.database.0) && !planted(Fault::RestoredUnnoticed);
        self.out_of_sight = false;
        let modified = Timestamp::default().plus(Duration::from_nanos(
            u64::try_from(signature.database.1).unwrap_or(0),
        ));
        let unsettled = now.duration_since(modified) < UNSETTLED;
        if unsettled || signature.pending > 0 || self.signature.as_ref() != Some(&signature) {
            self.changes += 1;
            self.recount = true;
        }
        self.signature = Some(signature);
    }

    /// The count of changes seen so far: a turn that reaches the head has read up to the count at its beginning.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the backlog is to be counted anew now.
    pub fn may_count(&self, now: Timestamp) -> bool {
        let more_late = self.backlog.next_late.is_some_and(|time| time <= now);
        (self.recount || more_late) && self.count_rests.is_none_or(|until| until <= now)
    }

    /// Notes that the backlog could not be counted.
    pub fn count_failed(&mut self, now: Timestamp) {
        self.recount = true;
        self.count_rests = Some(now.plus(super::LOCATE));
    }

    /// Notes that a lane reached the head.
    pub fn read_to_head(&mut self, lane: Lane, changes: u64) {
        match lane {
            Lane::Follow => self.follow_read = Some(changes),
            Lane::Deletes => self.deletes_read = Some(changes),
            Lane::FirstPass | Lane::Retry | Lane::Verify | Lane::Look | Lane::Reconcile => {}
        }
    }

    /// Notes that the file could not be looked at: the next look that succeeds counts as a change.
    pub fn lost_sight(&mut self) {
        self.signature = None;
        self.out_of_sight = true;
    }

    /// Whether the file could not be looked at the last time.
    pub fn is_out_of_sight(&self) -> bool {
        self.out_of_sight
    }

    /// Whatever waits for a time waits no longer than if it began now.
    pub fn clock_was_set_back(&mut self, now: Timestamp) {
        for until in self.rests.values_mut().chain(&mut self.count_rests) {
            *until = (*until).min(now.plus(REFUSED_REST));
        }
        self.recount = true;
        self.waits = None;
        self.follow_read = None;
        self.verification.clock_was_set_back(now);
        let Reconciling {
            opened,
            completed,
            before,
            head_at,
            gap: _,
            pass,
            unmarked: _,
        } = &mut self.reconciling;
        let started = pass.as_mut().map(|pass| &mut pass.started);
        let known = [completed, before, head_at].into_iter().flatten();
        for time in known.chain([opened]).chain(started) {
            *time = (*time).min(now);
        }
    }

    /// A turn that got nowhere is not taken again at once: whatever is in its way needs time.
    pub fn rest(&mut self, lane: Lane, now: Timestamp) {
        self.rest_for(lane, now, REST);
    }

    /// The same, for so long.
    pub fn rest_for(&mut self, lane: Lane, now: Timestamp, time: std::time::Duration) {
        self.rests.insert(lane, now.plus(time));
    }

    /// A pass that may not happen now is not tried again for a while.
    pub fn refuse_pass(&mut self, refusal: PassRefusal, now: Timestamp) {
        self.refused = Some(refusal);
        self.rests.insert(Lane::Reconcile, now.plus(REFUSED_REST));
    }

    /// Whether tombstones were read up to what is known of the file, after a complete first pass.
    pub fn is_at_head(&self) -> bool {
        self.progress.first_pass_done && !self.leaving && self.deletes_read == Some(self.changes)
    }

    /// Whether a reconciling pass is due.
    fn pass_is_due(&self, now: Timestamp) -> bool {
        let known = &self.reconciling;
        let gap = known.gap || (planted(Fault::FirstPassDeletes) && known.before.is_none());
        match (self.reclaim_age, known.completed) {
            (Some(age), Some(completed)) => {
                self.is_at_head() && is_due(completed, gap, known.pass.is_some(), age, now)
            }
            _ => false,
        }
    }

    /// Notes which rows made a turn pause.
    pub fn blame(&mut self, lane: Lane, failed: &[i64], others_succeeded: bool) {
        let before = self.blamed.remove(&lane).unwrap_or_default();
        let count = |row: &i64| before.get(row).copied().unwrap_or(0) + u32::from(others_succeeded);
        let now: BTreeMap<i64, u32> = failed.iter().map(|row| (*row, count(row))).collect();
        if !now.is_empty() {
            self.blamed.insert(lane, now);
        }
    }

    /// Notes how a copy ended that outlasted its turn.
    pub fn blame_transfer(&mut self, row: i64, made_it_pause: bool) {
        match made_it_pause {
            true => *self.blamed_transfers.entry(row).or_default() += 1,
            false => drop(self.blamed_transfers.remove(&row)),
        }
        // A row that was replaced meanwhile never ends.
        while self.blamed_transfers.len() > BLAMED {
            self.blamed_transfers.pop_first();
        }
    }

    /// Rows whose next failure is their own.
    pub fn suspects(&self, lane: Lane) -> BTreeSet<i64> {
        let of_lane = self.blamed.get(&lane).into_iter().flatten();
        let blamed = of_lane.chain(&self.blamed_transfers);
        blamed
            .filter(|(_, times)| **times >= PAUSES)
            .map(|(row, _)| *row)
            .collect()
    }

    /// Whether a turn of this lane may be started now.
    pub fn may_start(&self, lane: Lane, now: Timestamp) -> bool {
        !self.leaving
            && self.signature.is_some()
            && !self.running.contains(&lane)
            && self.rests.get(&lane).is_none_or(|until| *until <= now)
            && self.has_work(lane, now)
    }

    /// Whether a turn of this lane may find work.
    fn has_work(&self, lane: Lane, now: Timestamp) -> bool {
        match lane {
            Lane::FirstPass => !self.progress.first_pass_done,
            Lane::Follow => match self.waits {
                Some(waits) => waits.due <= now,
                None => self.follow_read != Some(self.changes),
            },
            Lane::Deletes => self.deletes_read != Some(self.changes),
            Lane::Retry => true,
            Lane::Verify => self.verification.is_due(now),
            Lane::Look => self.verification.is_look_due(now),
            Lane::Reconcile => self.pass_is_due(now),
        }
    }

    /// Whether everything that is due is done. Rows that are not due do not count, nor deletes that may not be begun.
    pub fn is_idle(&self, now: Timestamp, deletes_stand_still: bool) -> bool {
        !self.leaving
            && self.running.is_empty()
            && self.transfers == 0
            && self.signature.is_some()
            && !self.recount
            && [
                Lane::FirstPass,
                Lane::Follow,
                Lane::Deletes,
                Lane::Verify,
                Lane::Look,
                Lane::Reconcile,
            ]
            .into_iter()
            .all(|lane| {
                let cannot = match lane {
                    Lane::Deletes => deletes_stand_still,
                    Lane::Reconcile => deletes_stand_still || self.refused.is_some(),
                    _ => false,
                };
                cannot || !self.has_work(lane, now)
            })
    }
}
