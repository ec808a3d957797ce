//! What became of a chunk, and recording it: the watermark, what was settled, and what counts, in one step.

use onespace_core::objective::Tally;
use onespace_core::plan::{Done, Pause, Stop};
use onespace_core::report::Totals;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::transfer::Transfer;
use super::turn::{End, Which};
use super::{Ended, Lane, Turn};
use crate::clock::Clock;
use crate::databases::Databases;
use crate::state::{Adopted, Advance, Ahead, Judged, Looks, PassedDeletes, Passing, Watermark};
use crate::stop::from_state;

/// What became of a chunk.
#[derive(Debug)]
pub(crate) struct Worked<P> {
    /// Copies that go on by themselves.
    pub transfers: Vec<Transfer>,
    pub watermark: Option<P>,
    pub totals: Totals,
    pub settled: Vec<(String, i64)>,
    pub adopted: Vec<Adopted>,
    pub looks: Looks,
    /// Deletes of others that were read past.
    pub passed_deletes: Option<PassedDeletes>,
    pub pause: Option<Pause>,
    /// The mapping was told to pause already.
    pub told: bool,
    /// Rows that made it pause.
    pub failed: Vec<i64>,
    /// Rows that count for the objective and are in step.
    pub in_step: Vec<InStep>,
    pub held_set_full: bool,
    /// Every row was done or durably held.
    pub whole: bool,
}

impl<P> Default for Worked<P> {
    fn default() -> Self {
        Self {
            transfers: Vec::new(),
            watermark: None,
            totals: Totals::default(),
            settled: Vec::new(),
            adopted: Vec::new(),
            looks: Looks::default(),
            passed_deletes: None,
            pause: None,
            told: false,
            failed: Vec::new(),
            in_step: Vec::new(),
            held_set_full: false,
            whole: true,
        }
    }
}

/// A row that is in step, and counts for the objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InStep {
    /// Which.
    pub rowid: i64,
    /// When it was due.
    pub due: Timestamp,
    /// When it was done, as far as this process knows.
    pub at: Timestamp,
}

/// When rows that are in step count for the objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// When the watermark passes them.
    Passed,
    /// At once: no watermark waits for them.
    Now,
}

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Records a turn's progress; what it did counts only if that succeeds.
    pub(super) async fn record<P>(self, worked: Worked<P>, to: Option<Watermark>, count: Count) -> Ended {
        let Worked {
            transfers,
            watermark: _,
            totals,
            settled,
            adopted,
            looks,
            passed_deletes,
            mut pause,
            mut told,
            failed,
            in_step,
            held_set_full,
            whole: _,
        } = worked;
        let up_to = match (count, &to) {
            (Count::Now, _) => i64::MAX,
            (_, Some(Watermark::Processed { rowid, .. } | Watermark::Deletes(rowid))) => *rowid,
            _ => 0,
        };
        let judged = self.tally(&in_step, up_to);
        let step = Advance {
            to: to.unwrap_or(Watermark::Unmoved),
            passing: self.passing(),
            passed_deletes,
            totals,
            settled,
            adopted,
            looks,
            judged: judged.clone(),
        };
        let (mut behind, all_behind) = (self.behind(&in_step, up_to), self.behind(&in_step, 0));
        let mut progress = self.progress;
        let mut counted = totals;
        let mut tally = judged.tally;
        let ahead = match self.work.state.advance(&self.key, step).await {
            Ok(ahead) => ahead,
            Err(error) => {
                progress = self.began_with;
                counted = Totals::default();
                tally = Tally::default();
                behind = all_behind;
                if let Stop::Pause(failed) = from_state(&error) {
                    pause = Some(failed);
                    told = false;
                }
                Ahead::default()
            }
        };
        Ended {
            transfers,
            totals: counted,
            tally,
            in_step: behind,
            pause,
            told,
            failed,
            held_set_full,
            progress,
            at_head: false,
            waits: None,
            ahead,
            reconciling: None,
            refused: None,
        }
    }

    /// A row that was done before, but lies behind one that is not, counts by when it was done first.
    pub(super) fn in_step(&self, which: Which, end: &End) -> Option<InStep> {
        let Which { rowid, due } = which;
        let due = due.filter(|_| end.is_in_step())?;
        let before = self.in_step.iter().find(|row| row.rowid == rowid);
        Some(InStep {
            rowid,
            due,
            at: before.map_or_else(|| self.work.now(), |row| row.at),
        })
    }

    /// Rows behind the watermark that are in step: those of this turn, and of earlier ones as far as there is room.
    fn behind(&self, in_step: &[InStep], up_to: i64) -> Vec<InStep> {
        let earlier = |row: &&InStep| !in_step.iter().any(|known| known.rowid == row.rowid);
        let mut behind = in_step.to_vec();
        behind.extend(self.in_step.iter().filter(earlier));
        behind.retain(|row| row.rowid > up_to);
        behind.truncate(2 * self.work.limits.chunk);
        behind
    }

    /// Counts rows up to here for the objective: each when the watermark passes it, so that it counts once.
    fn tally(&self, in_step: &[InStep], up_to: i64) -> Judged {
        let Some(objective) = &self.work.mapping.objective else {
            return Judged::default();
        };
        let mut tally = Tally::default();
        for row in in_step.iter().filter(|row| row.rowid <= up_to) {
            tally.judge(objective, row.due, row.at);
        }
        let first_slot = tally.forget(objective, self.work.now());
        Judged { tally, first_slot }
    }

    /// What is passed now is verified a slack later.
    pub(crate) fn passing(&self) -> Passing {
        Passing {
            at: self.work.now(),
            slack: self.work.limits.slack,
        }
    }

    /// Counts what was done. Rows of others count as verified, and as repaired if they needed a write.
    pub(super) fn count(&self, totals: &mut Totals, lane: Lane, name: &str, done: Done) {
        // A look that finds nothing new is no row's work.
        if lane == Lane::Look && done == Done::InStep {
            return;
        }
        let mut own = Totals::default();
        count(&mut own, done);
        if lane != Lane::Verify && self.is_own(name) {
            *totals += own;
            return;
        }
        totals.bytes += own.bytes;
        totals.verified += own.objects + own.deletes + u64::from(done == Done::Absent);
        totals.repaired += match done {
            Done::Copied { .. } | Done::Reposted | Done::Deleted => 1,
            Done::LeftAlone | Done::InStep | Done::Superseded | Done::Absent => 0,
        };
    }
}

fn count(totals: &mut Totals, done: Done) {
    match done {
        Done::LeftAlone | Done::Superseded | Done::Absent => {}
        Done::InStep | Done::Reposted => totals.objects += 1,
        Done::Copied { bytes } => {
            totals.objects += 1;
            totals.bytes += bytes;
        }
        Done::Deleted => totals.deletes += 1,
    }
}
