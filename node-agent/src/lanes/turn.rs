//! Working on the rows of one chunk side by side.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use onespace_core::plan::copy::Trust;
use onespace_core::plan::window::Window;
use onespace_core::plan::{Done, Held, Pause, Stop, of_one_row};
use onespace_core::planted::{Fault, planted};
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;
use tokio_util::sync::CancellationToken;

use super::record::Worked;
use super::transfer::{Copying, HandedOver, Transfer, behind_a_transfer};
use super::{Lane, Turn, TurnError};
use crate::claims::Claim;
use crate::clock::Clock;
use crate::copy::Copied;
use crate::databases::{Databases, ReadRow};
use crate::delete::Deleted;
use crate::state::{Adopted, Allowance, FORGOTTEN};
use crate::turnstile::Pass;

/// What bounds the work on a chunk.
struct Bounds<'a> {
    lane: Lane,
    /// No row is begun after it.
    halt: &'a CancellationToken,
    flow: &'a str,
    /// When the turn waits for copies no longer.
    patience: tokio::time::Instant,
    allowance: &'a Allowance,
}

/// One row of a chunk.
#[derive(Debug)]
pub(crate) struct Item<P> {
    pub position: P,
    pub rowid: i64,
    pub name: String,
    /// When the row was due, if it counts for the objective.
    pub due: Option<Timestamp>,
    pub task: Task,
}

/// What is to be done with it.
#[derive(Debug)]
pub(crate) enum Task {
    /// Nothing: another lane, another agent or nobody works on it. A held row of the name stays.
    Pass,
    /// The held row is no longer there: its entry goes.
    Forget,
    /// A listing showed it in step: ours from now on, if it is unmarked.
    Settled(Adopted),
    /// It waits.
    Hold(Held),
    /// Bring the name in step.
    Copy(Row, Trust, Claim),
    /// Carry the delete out.
    Delete(Row, Claim),
    /// Carry out a delete whose tombstone Swift has forgotten.
    DeleteForgotten(String, Claim),
}

/// What became of one row.
pub(super) enum End {
    Done(Done),
    /// Done, and may change while its row does not.
    Watched(Done),
    /// It is under way, and durably held meanwhile.
    HandedOver(Transfer),
    Passed,
    /// A tombstone of a name that is alive under another storage policy: it says nothing about that row.
    Moot,
    Adopted(Adopted),
    Held,
    NotStarted,
    /// No more deletes may wait for a person: the lane stands still, which is shown.
    NoRoom,
    Full,
    Pause(Pause),
}

impl End {
    /// Whether the row is in step, or its delete carried out.
    pub(super) fn is_in_step(&self) -> bool {
        match self {
            Self::Done(done) | Self::Watched(done) => match done {
                Done::InStep | Done::Copied { .. } | Done::Reposted | Done::Deleted => true,
                Done::LeftAlone | Done::Superseded | Done::Absent => false,
            },
            _ => false,
        }
    }
}

/// A row that is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Which {
    pub rowid: i64,
    /// When it was due, if it counts for the objective.
    pub due: Option<Timestamp>,
}

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Works on all rows of a chunk; stops starting rows when the turn's time is over, when the mapping has to
    /// pause, or when a row that must wait finds no place.
    pub(crate) async fn work_on<P: Ord + Clone + Send>(
        &self,
        lane: Lane,
        items: Vec<Item<P>>,
        allowance: &Allowance,
    ) -> Worked<P> {
        let halt = self.halt.child_token();
        let flow = format!("{}/{lane:?}", self.key.database);
        let mut window = Window::default();
        let mut worked = Worked::default();
        let bounds = Bounds {
            lane,
            halt: &halt,
            flow: &flow,
            // A row that is begun last has as much time as the turn itself.
            patience: tokio::time::Instant::now() + 2 * self.work.limits.turn,
            allowance,
        };
        let bounds = &bounds;
        let mut ends = FuturesUnordered::new();
        for item in items {
            window.begin(item.position.clone());
            ends.push(async move {
                let Item {
                    position,
                    rowid,
                    name,
                    due,
                    task,
                } = item;
                let which = Which { rowid, due };
                let link = matches!(&task, Task::Copy(row, ..) if row.may_change_unseen());
                let end = self.one(which, &name, task, bounds).await;
                let in_step = self.in_step(which, &end);
                if matches!(end, End::Full | End::NoRoom | End::Pause(_)) {
                    bounds.halt.cancel();
                }
                (position, (name, rowid), link, in_step, end)
            });
        }
        let time_is_over = tokio::time::sleep(self.work.limits.turn);
        tokio::pin!(time_is_over);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut time_is_over, if !halt.is_cancelled() => { halt.cancel(); continue; }
                next = ends.next() => next,
            };
            let Some((position, row, link, in_step, end)) = next else {
                break;
            };
            worked.in_step.extend(in_step);
            let finished = self.take(&mut worked, lane, row, link, end);
            if finished || planted(Fault::WatermarkBeforeDurable) {
                window.finish(&position);
            } else {
                worked.whole = false;
            }
        }
        worked.watermark = window.watermark();
        worked
    }

    /// Takes in what became of a row; returns whether the watermark may pass it.
    pub(super) fn take<P>(
        &self,
        worked: &mut Worked<P>,
        lane: Lane,
        row: (String, i64),
        link: bool,
        end: End,
    ) -> bool {
        let (end, watched) = match end {
            End::Watched(done) => (End::Done(done), true),
            end => (end, link),
        };
        match &end {
            End::Done(Done::Superseded) if watched || lane == Lane::Look => {
                worked.looks.over.push(row.0.clone());
            }
            End::Done(_) | End::Held if watched => worked.looks.again.push(row.0.clone()),
            End::Held if lane == Lane::Look => worked.looks.again.push(row.0.clone()),
            // It is an object like any other now.
            End::Done(_) if lane == Lane::Look => worked.looks.over.push(row.0.clone()),
            _ => {}
        }
        match end {
            End::Done(done) | End::Watched(done) => {
                self.count(&mut worked.totals, lane, &row.0, done);
                worked.settled.push(row);
                true
            }
            End::Adopted(adopted) => {
                self.count(&mut worked.totals, lane, &row.0, Done::InStep);
                worked.adopted.push(adopted);
                worked.settled.push(row);
                true
            }
            End::Passed | End::Held => true,
            End::Moot => {
                // Only its own entry goes. A live row of the name may wait under the same entry.
                if lane == Lane::Retry {
                    worked.settled.push(row);
                }
                true
            }
            End::HandedOver(transfer) => {
                worked.transfers.push(transfer);
                true
            }
            End::NotStarted | End::NoRoom => false,
            End::Full => {
                worked.held_set_full = true;
                false
            }
            End::Pause(pause) => {
                worked.failed.push(row.1);
                if worked.pause.is_none() {
                    worked.told = self.alarm.try_send(pause.clone()).is_ok();
                    worked.pause = Some(pause);
                }
                false
            }
        }
    }

    /// Waits until a row may be worked on.
    async fn started(
        &self,
        which: Which,
        name: &str,
        claim: &Claim,
        bounds: &Bounds<'_>,
    ) -> Result<Pass, End> {
        let flow = bounds.flow.to_owned();
        let pass = async {
            claim.turn().await;
            self.work.turnstile.enter(&self.work.mapping.id, &flow).await
        };
        tokio::select! {
            biased;
            () = bounds.halt.cancelled() => Err(match claim.waits_for_long() {
                true => self.hold(which, name, &behind_a_transfer()).await,
                false => End::NotStarted,
            }),
            pass = pass => Ok(pass),
        }
    }

    async fn one(&self, which: Which, name: &str, task: Task, bounds: &Bounds<'_>) -> End {
        if let Task::Copy(_, _, claim) | Task::Delete(_, claim) = &task
            && claim.waits_for_long()
        {
            return self.hold(which, name, &behind_a_transfer()).await;
        }
        let result = match task {
            _ if bounds.lane == Lane::Verify && planted(Fault::VerifiedUnseen) => return End::Passed,
            Task::Pass => return End::Passed,
            Task::Forget => return End::Done(Done::Superseded),
            Task::Settled(adopted) => return End::Adopted(adopted),
            Task::Hold(held) => Err(held.into()),
            Task::Copy(row, trust, claim) => {
                let pass = match self.started(which, name, &claim, bounds).await {
                    Ok(pass) => pass,
                    Err(end) => return end,
                };
                let (time, link) = (row.time.newest(), row.may_change_unseen());
                let mut result = self.begin_copy(row, trust);
                match tokio::time::timeout_at(bounds.patience, &mut result).await {
                    Ok(result) => result,
                    Err(_) => {
                        let copying = Copying {
                            lane: bounds.lane,
                            which,
                            name: name.to_owned(),
                            time,
                            link,
                            claim,
                            pass,
                            result,
                        };
                        match self.hand_over(copying).await {
                            HandedOver::Yes(transfer) => return End::HandedOver(transfer),
                            HandedOver::No(copying) => copying.result.await,
                        }
                    }
                }
            }
            Task::Delete(row, claim) => {
                let _pass = match self.started(which, name, &claim, bounds).await {
                    Ok(pass) => pass,
                    Err(end) => return end,
                };
                match Box::pin(self.delete_row(&row, bounds.allowance)).await {
                    Ok(None) => return End::Moot,
                    Ok(Some(Deleted::Done(done))) => Ok(done.into()),
                    Ok(Some(Deleted::OverBudget)) => return self.hold_delete(which.rowid, name).await,
                    Err(stop) => Err(stop),
                }
            }
            Task::DeleteForgotten(name, claim) => {
                let _pass = match self.started(which, &name, &claim, bounds).await {
                    Ok(pass) => pass,
                    Err(end) => return end,
                };
                let seen = which.rowid != FORGOTTEN;
                match Box::pin(self.delete_forgotten(&name, seen, bounds.allowance)).await {
                    Ok(None) => return End::Moot,
                    Ok(Some(Deleted::Done(done))) => Ok(done.into()),
                    Ok(Some(Deleted::OverBudget)) => return self.hold_delete(which.rowid, &name).await,
                    Err(stop) => Err(stop),
                }
            }
        };
        self.judge(which, name, result).await
    }

    /// What the outcome of a row's work means.
    pub(super) async fn judge(&self, which: Which, name: &str, result: Result<Copied, Stop>) -> End {
        match result {
            Ok(copied) if copied.may_change_unseen => End::Watched(copied.done),
            Ok(copied) => End::Done(copied.done),
            Err(Stop::Pause(_)) if planted(Fault::PauseGivesUp) => End::Passed,
            Err(Stop::Pause(pause)) if pause.reason == PauseReason::AccessDenied => {
                if self.work.others_are_allowed().await {
                    let held = Held::new(
                        HoldReason::KeyForbidden,
                        "the remote denies access to this key though it grants it to others; check the bucket's policy",
                    );
                    self.hold(which, name, &held).await
                } else {
                    End::Pause(pause)
                }
            }
            Err(Stop::Pause(pause)) => match of_one_row(&pause) {
                Some(held) if self.suspects.contains(&which.rowid) => self.hold(which, name, &held).await,
                _ => End::Pause(pause),
            },
            Err(Stop::Hold(held)) => self.hold(which, name, &held).await,
        }
    }

    /// `None`: the name is alive under another storage policy.
    async fn delete_row(&self, row: &Row, allowance: &Allowance) -> Result<Option<Deleted>, Stop> {
        let rows = match self.databases.rows_of(&self.replica, &row.name).await {
            Ok(rows) => rows,
            Err(error) => return Err(Held::new(HoldReason::SourceFailed, error.to_string()).into()),
        };
        let alive = rows
            .iter()
            .any(|row| !matches!(row, ReadRow::Row(row) if row.deleted));
        if alive {
            return Ok(None);
        }
        let acts = users_tombstone(row, rows);
        self.work
            .delete(acts.as_ref().unwrap_or(row), allowance)
            .await
            .map(Some)
    }

    /// For a lane that deletes nothing.
    pub(crate) fn no_deletes(&self) -> Allowance {
        Allowance {
            database: self.key.clone(),
            max: Some(0),
        }
    }

    /// Checks that a chunk is of the database whose progress is used.
    pub(crate) fn check_same(&self, id: &str, max_rowid: i64) -> Result<(), TurnError> {
        let restored = max_rowid < self.progress.processed || max_rowid < self.progress.deletes;
        let restored = restored && !planted(Fault::RestoredUnnoticed);
        if id == self.key.database && !restored {
            Ok(())
        } else {
            Err(TurnError::Replaced)
        }
    }
}

/// Swift's reconciler ends the life of a name under one storage policy: a user's tombstone under another, which could
/// not act before, acts now.
fn users_tombstone(row: &Row, rows: Vec<ReadRow>) -> Option<Row> {
    if row.time.data.offset() == 0 {
        return None;
    }
    let tombstones = rows.into_iter().filter_map(|read| match read {
        ReadRow::Row(raw) => Row::parse(raw).ok(),
        ReadRow::Damaged { .. } => None,
    });
    tombstones
        .filter(|other| other.time.data.offset() == 0)
        .max_by_key(|other| other.time.data)
}
