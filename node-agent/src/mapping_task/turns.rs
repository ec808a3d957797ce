//! Giving the lanes of a mapping's databases their turns, and taking in what became of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use onespace_core::objective::Counts;
use onespace_core::plan::Stop;
use onespace_core::report::Totals;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::{About, Event, MappingTask, pause};
use crate::clock::Clock;
use crate::databases::{DatabaseError, Databases};
use crate::lanes::{Ended, Lane, Listing, Turn};
use crate::state::{Head, Held};
use crate::stop::from_state;

/// Turns of one mapping at a time, on each lane.
const TURNS: usize = 8;

/// Rows of others that find no place among those that wait are looked at again after this long.
const FULL: std::time::Duration = std::time::Duration::from_secs(60);
/// How often it is noted at most that a database was read up to the head.
const NOTE: Duration = Duration::from_secs(1);

/// Databases of which that is noted in one record; the others' turn comes with the next look.
const NOTED: usize = 1000;

/// A database that was busy for so long whenever it was read counts as unreadable: nobody writes for that long, so a
/// writer crashed and Swift has not opened the file since.
const BUSY: Duration = Duration::from_secs(60);

/// Held rows that one turn tries again.
const RETRIES: u32 = 100;

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    pub(super) async fn start_turns(&mut self) {
        let now = self.work.now();
        if let Some(paused) = &self.paused {
            if paused.retry_at > now {
                return;
            }
            let of_remote = self.probed.is_none() || pause::concerns_remote(paused.pause.reason);
            if of_remote && self.needs_remote() {
                self.spawn_probe();
                return;
            }
            self.resume();
        }
        if self.probed.is_none() {
            if self.needs_remote() {
                self.spawn_probe();
            }
            return;
        }
        if self.is_suspended() {
            return;
        }
        self.start_retries(now).await;
        let mut waiting: Vec<_> = self
            .followed
            .values()
            .map(|db| (db.last_turn, db.replica.path.clone()))
            .collect();
        waiting.sort();
        for (_, path) in waiting {
            for lane in [
                Lane::Deletes,
                Lane::Follow,
                Lane::FirstPass,
                Lane::Verify,
                Lane::Look,
                Lane::Reconcile,
            ] {
                let running = self.turns.get(&lane).copied().unwrap_or(0);
                let stopped = match lane {
                    Lane::Deletes | Lane::Reconcile => self.deletes_full,
                    Lane::Verify | Lane::Look => false,
                    _ => self.held_set_full,
                };
                let Some(db) = self.followed.get_mut(&path) else {
                    continue;
                };
                if running < TURNS && !stopped && db.may_start(lane, now) {
                    self.spawn_turn(&path, lane, Vec::new());
                }
            }
        }
    }

    /// Whether this agent has anything to do at the remote: a database of the mapping, or uploads of an earlier run to end.
    /// Nobody else asks it anything, not even what it can do: with many nodes most agents have no part in most mappings.
    pub(super) fn needs_remote(&self) -> bool {
        let has_work = !self.followed.is_empty() || !self.old_uploads.is_empty();
        has_work && !self.is_suspended()
    }

    pub(super) async fn start_retries(&mut self, now: Timestamp) {
        let waiting = self.held.rows + self.held.of_others + self.held.transferring.0;
        let nothing_waits = waiting == 0 && !self.held_changed && self.released.is_empty();
        if self.retrying || nothing_waits || self.located.is_none() {
            return;
        }
        let due = match self.work.state.due(&self.work.mapping.id, now, RETRIES).await {
            Ok(due) => due,
            Err(error) => return self.pause_for(from_state(&error)),
        };
        let mut by_database: BTreeMap<String, Vec<Held>> = BTreeMap::new();
        for held in due {
            by_database
                .entry(held.key.database.database.clone())
                .or_default()
                .push(held);
        }
        for db in self.followed.values() {
            if !self.released.contains(&db.key.database) {
                continue;
            }
            match self.work.state.released(&db.key, RETRIES).await {
                Ok(found) if found.is_empty() => {
                    self.released.retain(|database| *database != db.key.database);
                }
                Ok(found) => by_database
                    .entry(db.key.database.clone())
                    .or_default()
                    .extend(found),
                Err(error) => return self.pause_for(from_state(&error)),
            }
        }
        let mut turns = Vec::new();
        for db in self.followed.values() {
            let held = match db.is_out_of_sight() {
                true => None,
                false => by_database.remove(&db.key.database),
            };
            if let Some(held) = held
                && db.may_start(Lane::Retry, now)
            {
                turns.push((db.replica.path.clone(), held));
            }
        }
        for (path, held) in turns {
            self.retrying = true;
            self.spawn_turn(&path, Lane::Retry, held);
        }
        // Rows of databases that are not here now, or whose disk does not answer, must not stand before the others'.
        for database in by_database.into_keys() {
            self.held_changed = true;
            if let Err(error) = self
                .work
                .state
                .postpone(&self.work.mapping.id, &database, now)
                .await
            {
                return self.pause_for(from_state(&error));
            }
        }
    }

    pub(super) fn spawn_turn(&mut self, path: &PathBuf, lane: Lane, held: Vec<Held>) {
        let Some(db) = self.followed.get_mut(path) else {
            return;
        };
        db.running.insert(lane);
        *self.turns.entry(lane).or_default() += 1;
        let turn = Turn {
            work: self.work.clone(),
            databases: self.databases.clone(),
            replica: db.replica.clone(),
            key: db.key.clone(),
            progress: db.progress.clone(),
            began_with: db.progress.clone(),
            followed_since: db.followed_since,
            waited: db.waits,
            suspects: db.suspects(lane),
            deletes_wait: false,
            in_step: db.in_step.get(&lane).cloned().unwrap_or_default(),
            halt: self.cancel.clone(),
            alarm: self.alarm.clone(),
        };
        let (path, changes, reconciling) = (path.clone(), db.changes(), db.reconciling.clone());
        let (listing, (nth, passes)) = match lane {
            Lane::FirstPass => (std::mem::take(&mut db.listing), (0, 0)),
            Lane::Verify => (
                std::mem::take(&mut db.verification.listing),
                db.verification.begin(),
            ),
            _ => (Listing::default(), (0, db.verification.ended())),
        };
        let about = About::Turn {
            path: path.clone(),
            lane,
        };
        self.spawn(about, async move {
            let result = match lane {
                Lane::FirstPass => turn.first_pass(listing).await,
                Lane::Verify => turn.verify(nth, listing).await,
                Lane::Look => turn.look_again().await.map(|ended| (ended, Listing::default())),
                Lane::Retry => turn.retry(held).await.map(|ended| (ended, Listing::default())),
                Lane::Reconcile => turn
                    .reconcile(reconciling)
                    .await
                    .map(|ended| (ended, Listing::default())),
                Lane::Follow | Lane::Deletes => {
                    turn.by_rowid(lane).await.map(|ended| (ended, Listing::default()))
                }
            };
            Event::Turn {
                path,
                lane,
                changes,
                passes,
                result: Box::new(result),
            }
        });
    }

    /// Notes that a turn ended, however it did.
    pub(super) fn turn_ended(&mut self, lane: Lane) {
        self.turn_count += 1;
        self.held_changed = true;
        if let Some(running) = self.turns.get_mut(&lane) {
            *running = running.saturating_sub(1);
        }
        if lane == Lane::Retry {
            self.retrying = self.turns.get(&Lane::Retry).copied().unwrap_or(0) > 0;
        }
    }

    pub(super) fn apply_turn(
        &mut self,
        path: &PathBuf,
        lane: Lane,
        (changes, passes): (u64, u64),
        ended: Ended,
        listing: Listing,
    ) {
        let Ended {
            transfers,
            totals,
            tally,
            in_step,
            at_head,
            waits,
            pause,
            told,
            failed,
            held_set_full,
            progress,
            ahead,
            reconciling,
            refused,
        } = ended;
        self.was_read(path);
        for transfer in transfers {
            self.spawn_transfer(path, transfer);
        }
        self.totals += totals;
        self.count_for_objective(&tally);
        self.held_set_full |= held_set_full && lane != Lane::Verify;
        if totals != Totals::default() {
            self.trial = None;
        }
        let now = self.work.now();
        if let Some(db) = self.followed.get_mut(path) {
            let got_on = match lane {
                Lane::Follow => {
                    progress.processed > db.progress.processed || waits.is_some_and(|waits| waits.due > now)
                }
                Lane::Deletes => progress.deletes > db.progress.deletes,
                Lane::FirstPass => progress.after_name > db.progress.after_name,
                Lane::Retry | Lane::Verify | Lane::Look => false,
                Lane::Reconcile => reconciling.is_some(),
            };
            db.in_step.insert(lane, in_step);
            if matches!(lane, Lane::Follow | Lane::Deletes) {
                // The rows that waited longest; the backlog is counted anew in a moment.
                let Counts { good, missed } = tally.sum();
                db.backlog.late = db.backlog.late.saturating_sub(good + missed);
            }
            db.blame(lane, &failed, totals != Totals::default());
            if !got_on && !at_head {
                match lane {
                    Lane::Verify => db.rest_for(lane, now, FULL),
                    _ => db.rest(lane, now),
                }
            }
            db.verification.turn_ended(lane, passes, pause.is_none(), ahead);
            match lane {
                Lane::Follow => {
                    db.progress.processed = progress.processed;
                    db.progress.processed_name = progress.processed_name;
                    db.waits = waits;
                }
                Lane::Deletes => db.progress.deletes = progress.deletes,
                Lane::FirstPass => {
                    db.progress.after_name = progress.after_name;
                    db.progress.first_pass_done = progress.first_pass_done;
                    db.listing = listing;
                }
                Lane::Verify => db.verification.listing = listing,
                Lane::Retry | Lane::Look => {}
                Lane::Reconcile => match (reconciling, refused) {
                    (Some(reconciling), _) => {
                        db.reconciling = reconciling;
                        db.refused = None;
                    }
                    (None, Some(refusal)) => db.refuse_pass(refusal, now),
                    (None, None) => {}
                },
            }
            if at_head {
                db.read_to_head(lane, changes);
            }
        }
        if let Some(pause) = pause.filter(|_| !told) {
            self.pause_for(Stop::Pause(pause));
        }
    }

    /// Notes durably, now and then, that tombstones were read up to the head: an agent that was away for longer than
    /// Swift keeps them has to reconcile.
    pub(super) async fn note_heads(&mut self) {
        let now = self.work.now();
        let due = self.followed.iter().filter_map(|(path, db)| {
            let age = db.reclaim_age.filter(|_| db.is_at_head())?;
            let since = db.reconciling.head_at.map(|head| now.duration_since(head));
            let due = since.is_none_or(|since| since >= (age / 10).max(NOTE));
            let head = Head {
                key: db.key.clone(),
                completed: db.reconciling.opened,
                gap: since.is_some_and(|since| since > age),
            };
            due.then(|| (path.clone(), head))
        });
        let (paths, heads): (Vec<_>, Vec<_>) = due.take(NOTED).unzip();
        if heads.is_empty() {
            return;
        }
        if let Err(error) = self.work.state.reached_heads(heads.clone(), now).await {
            return self.pause_for(from_state(&error));
        }
        for (path, Head { completed, gap, .. }) in paths.into_iter().zip(heads) {
            if let Some(db) = self.followed.get_mut(&path) {
                db.reconciling.head_at = Some(now);
                db.reconciling.gap |= gap;
                db.reconciling.completed.get_or_insert(completed);
            }
        }
    }

    /// Lets go of databases that are no longer ours and in which nothing runs; they are located anew at once.
    pub(super) fn let_go(&mut self) {
        let before = self.followed.len();
        self.followed
            .retain(|_, db| !db.leaving || !db.running.is_empty());
        if self.followed.len() < before {
            self.spawn_locate();
        }
    }

    /// Notes that a database could be read.
    pub(super) fn was_read(&mut self, path: &PathBuf) {
        self.unreadable.remove(path);
        self.busy.remove(path);
    }

    pub(super) fn database_trouble(&mut self, path: &PathBuf, error: &DatabaseError) {
        let now = self.work.now();
        match error {
            DatabaseError::Gone(_) => {
                if let Some(db) = self.followed.get_mut(path) {
                    db.leaving = true;
                }
                self.let_go();
            }
            DatabaseError::Busy(_)
                if now.duration_since(*self.busy.entry(path.clone()).or_insert(now)) < BUSY => {}
            DatabaseError::Busy(_)
            | DatabaseError::Damaged { .. }
            | DatabaseError::Stuck { .. }
            | DatabaseError::NotCommitted { .. }
            | DatabaseError::Configuration(_) => {
                if self.unreadable.insert(path.clone()) {
                    tracing::warn!(policy = %self.work.policy_name(), "{error}");
                }
            }
        }
    }
}
