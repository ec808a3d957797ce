//! One mapping at work: finds its databases, gives their lanes turns, waits out failures, reports.

mod followed;
mod open;
mod pause;
mod report;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onespace_core::plan::{Pause, Stop};
use onespace_core::reason::PauseReason;
use onespace_core::report::{MappingReport, Totals};
use onespace_stores::remote::{Capabilities, Permissions, Remote, RemoteError};
use onespace_stores::source::Source;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::databases::{DatabaseError, Databases, Signature};
use crate::lanes::{Ended, Lane, Listing, Turn, TurnError};
use crate::state::Held;
use crate::stop::{as_pause, from_remote, from_state};
use crate::work::Work;
use followed::{Backlog, Followed};
use pause::Paused;

/// How often databases are looked at for changes, and reports are renewed.
const LOOK: Duration = Duration::from_millis(500);

/// How often databases are located anew.
const LOCATE: Duration = Duration::from_secs(5);

/// Turns of one mapping at a time, on each lane.
const TURNS: usize = 8;

/// Held rows that one turn tries again.
const RETRIES: u32 = 100;

/// A mapping that must end leaves a probe so much time to remove what it wrote.
const PROBE_GRACE: Duration = Duration::from_secs(2);

/// What a person asks of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Try held rows again: all, or one, `container/object`.
    Retry(Option<String>),
}

/// A mapping's task.
pub struct MappingTask<D, S, R, C> {
    work: Work<S, R, C>,
    databases: Arc<D>,
    cancel: CancellationToken,
    commands: mpsc::Receiver<Command>,
    reports: watch::Sender<MappingReport>,
    followed: HashMap<PathBuf, Followed>,
    unreadable: BTreeSet<PathBuf>,
    located: Option<crate::databases::Located>,
    events: JoinSet<Event>,
    turns: HashMap<Lane, usize>,
    turn_count: u64,
    retrying: bool,
    probing: bool,
    looking: bool,
    locating: bool,
    counting: bool,
    probed: Option<Probed>,
    paused: Option<Paused>,
    /// The pause that ended last, until work shows that it is over.
    trial: Option<Paused>,
    held_set_full: bool,
    has_hope: bool,
    held: onespace_core::report::HeldReport,
    totals: Totals,
    handled_retry: Option<String>,
    refused: Option<(&'static str, String)>,
}

/// What a probe found.
#[derive(Clone, Debug)]
struct Probed {
    capabilities: Arc<Capabilities>,
    permissions: Permissions,
    at: onespace_core::timestamp::Timestamp,
}

enum Event {
    Turn {
        path: PathBuf,
        lane: Lane,
        changes: u64,
        result: Box<Result<(Ended, Listing), TurnError>>,
    },
    Probed(Result<(Capabilities, Permissions), RemoteError>),
    ProbeAbandoned,
    Looked(Vec<(PathBuf, Result<Signature, DatabaseError>)>),
    Counted(Vec<(PathBuf, Option<Backlog>)>),
    Located(Result<crate::databases::Located, DatabaseError>),
}

/// A handle on a running task.
#[derive(Debug)]
pub struct Handle {
    /// Ends the task at the next row.
    pub cancel: CancellationToken,
    /// Asks something of it.
    pub commands: mpsc::Sender<Command>,
    /// Its latest report.
    pub reports: watch::Receiver<MappingReport>,
    /// Ends when the task has ended.
    pub task: tokio::task::JoinHandle<()>,
}

/// Commands that may wait.
const COMMANDS: usize = 16;

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    /// Starts the work on a mapping.
    pub fn start(work: Work<S, R, C>, databases: Arc<D>, cancel: CancellationToken) -> Handle {
        let shown = MappingReport {
            id: work.mapping.id.0.clone(),
            policy: Some(work.mapping.policy.clone()),
            ..MappingReport::default()
        };
        Self::start_after(work, databases, cancel, None, shown)
    }

    /// Starts the work on a mapping, once `previous`, which worked on it before, has ended. `shown` is reported until
    /// the task knows better.
    pub fn start_after(
        work: Work<S, R, C>,
        databases: Arc<D>,
        cancel: CancellationToken,
        previous: Option<tokio::task::JoinHandle<()>>,
        shown: MappingReport,
    ) -> Handle {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (reports, latest) = watch::channel(MappingReport { idle: false, ..shown });
        let task = Self {
            work,
            databases,
            cancel: cancel.clone(),
            commands: inbox,
            reports,
            followed: HashMap::new(),
            unreadable: BTreeSet::new(),
            located: None,
            events: JoinSet::new(),
            turns: HashMap::new(),
            turn_count: 0,
            retrying: false,
            probing: false,
            looking: false,
            locating: false,
            counting: false,
            probed: None,
            paused: None,
            trial: None,
            held_set_full: false,
            has_hope: false,
            held: onespace_core::report::HeldReport::default(),
            totals: Totals::default(),
            handled_retry: None,
            refused: None,
        };
        Handle {
            cancel,
            commands,
            reports: latest,
            task: tokio::spawn(async move {
                // Two tasks never work on one mapping.
                if let Some(previous) = previous {
                    let _ = previous.await;
                }
                task.run().await;
            }),
        }
    }

    async fn run(mut self) {
        if !self.open().await {
            self.publish();
            self.cancel.cancelled().await;
            return;
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut locate = tokio::time::interval(LOCATE);
        locate.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                Some(command) = self.commands.recv() => self.obey(command).await,
                Some(event) = self.events.join_next() => match event {
                    Ok(event) => self.apply(event).await,
                    Err(error) => {
                        tracing::error!(policy = %self.work.policy_name(), "a look ended abnormally: {error}");
                        (self.probing, self.looking, self.locating, self.counting) = Default::default();
                    }
                },
                _ = locate.tick() => self.spawn_locate(),
                _ = look.tick() => {
                    self.spawn_look();
                    self.spawn_count();
                    self.refresh_held().await;
                    if self.has_nothing_to_do() {
                        self.trial = None;
                    }
                    self.publish();
                }
            }
            if !self.cancel.is_cancelled() {
                self.start_turns().await;
            }
        }
        // Rows that are under way are finished; each wait in them has a limit of its own.
        while let Some(event) = self.events.join_next().await {
            if let Ok(event) = event {
                self.apply(event).await;
            }
        }
        self.publish();
    }

    async fn obey(&mut self, command: Command) {
        let now = self.work.now();
        let Command::Retry(object) = command;
        let done = match object.as_deref().and_then(|object| object.split_once('/')) {
            Some((container, name)) => self
                .work
                .state
                .retry_name(&self.work.mapping.id, container, name, now)
                .await
                .map(|_| ()),
            None => {
                self.work
                    .state
                    .handle_retry(&self.work.mapping.id, None, now)
                    .await
            }
        };
        if let Err(error) = done {
            self.pause_for(from_state(&error));
        }
        if let Some(paused) = &mut self.paused {
            paused.retry_at = now;
        }
    }

    async fn start_turns(&mut self) {
        let now = self.work.now();
        if let Some(paused) = &self.paused {
            if paused.retry_at > now {
                return;
            }
            if self.probed.is_none() || pause::concerns_remote(paused.pause.reason) {
                self.spawn_probe();
                return;
            }
            self.resume();
        }
        if self.probed.is_none() {
            self.spawn_probe();
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
            for lane in [Lane::Deletes, Lane::Follow, Lane::FirstPass] {
                let running = self.turns.get(&lane).copied().unwrap_or(0);
                let stopped = self.held_set_full && lane != Lane::Deletes;
                let Some(db) = self.followed.get_mut(&path) else {
                    continue;
                };
                if running < TURNS && !stopped && db.may_start(lane, now) {
                    self.spawn_turn(&path, lane, Vec::new());
                }
            }
        }
    }

    async fn start_retries(&mut self, now: onespace_core::timestamp::Timestamp) {
        if self.retrying || self.held.rows == 0 || self.located.is_none() {
            return;
        }
        let due = match self.work.state.due(&self.work.mapping.id, now, RETRIES).await {
            Ok(due) => due,
            Err(error) => return self.pause_for(from_state(&error)),
        };
        let mut by_database: HashMap<String, Vec<Held>> = HashMap::new();
        for held in due {
            by_database
                .entry(held.key.database.database.clone())
                .or_default()
                .push(held);
        }
        let mut turns = Vec::new();
        for db in self.followed.values() {
            if let Some(held) = by_database.remove(&db.key.database)
                && db.may_start(Lane::Retry, now)
            {
                turns.push((db.replica.path.clone(), held));
            }
        }
        for (path, held) in turns {
            self.retrying = true;
            self.spawn_turn(&path, Lane::Retry, held);
        }
        // Rows of databases that are not here now must not stand before the others'.
        for database in by_database.into_keys() {
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

    fn spawn_turn(&mut self, path: &PathBuf, lane: Lane, held: Vec<Held>) {
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
            halt: self.cancel.clone(),
        };
        let (path, changes) = (path.clone(), db.changes());
        let listing = if lane == Lane::FirstPass {
            std::mem::take(&mut db.listing)
        } else {
            Listing::default()
        };
        self.events.spawn(async move {
            let result = match lane {
                Lane::FirstPass => turn.first_pass(listing).await,
                Lane::Retry => turn.retry(held).await.map(|ended| (ended, Listing::default())),
                Lane::Follow | Lane::Deletes => {
                    turn.by_rowid(lane).await.map(|ended| (ended, Listing::default()))
                }
            };
            Event::Turn {
                path,
                lane,
                changes,
                result: Box::new(result),
            }
        });
    }

    fn spawn_probe(&mut self) {
        if self.probing {
            return;
        }
        self.probing = true;
        let (work, cancel) = (self.work.clone(), self.cancel.clone());
        self.events.spawn(async move {
            let prefix = work.scratch_prefix();
            let patience = async {
                cancel.cancelled().await;
                tokio::time::sleep(PROBE_GRACE).await;
            };
            tokio::select! {
                result = work.remote.probe(&prefix) => Event::Probed(result),
                () = patience => Event::ProbeAbandoned,
            }
        });
    }

    fn spawn_locate(&mut self) {
        if std::mem::replace(&mut self.locating, true) {
            return;
        }
        let (databases, mapping) = (self.databases.clone(), self.work.mapping.clone());
        self.events
            .spawn(async move { Event::Located(databases.locate(&mapping).await) });
    }

    fn spawn_look(&mut self) {
        let replicas: Vec<_> = self.followed.values().map(|db| db.replica.clone()).collect();
        if replicas.is_empty() || std::mem::replace(&mut self.looking, true) {
            return;
        }
        let databases = self.databases.clone();
        self.events
            .spawn(async move { Event::Looked(databases.signatures(replicas).await) });
    }

    /// Counts anew what is left to do where something changed, whether or not the mapping can work: lag is shown also
    /// while it is paused.
    fn spawn_count(&mut self) {
        if self.counting {
            return;
        }
        let mut wanted = Vec::new();
        for db in self.followed.values_mut().filter(|db| db.recount) {
            db.recount = false;
            wanted.push((db.replica.clone(), db.progress.clone()));
        }
        if wanted.is_empty() {
            return;
        }
        self.counting = true;
        let databases = self.databases.clone();
        self.events.spawn(async move {
            let mut counted = Vec::with_capacity(wanted.len());
            for (replica, progress) in wanted {
                let backlog = report::backlog(&*databases, &replica, &progress).await;
                counted.push((replica.path, backlog));
            }
            Event::Counted(counted)
        });
    }

    async fn apply(&mut self, event: Event) {
        let now = self.work.now();
        match event {
            Event::Located(Ok(located)) => {
                self.locating = false;
                self.open_databases(located).await;
            }
            Event::Located(Err(error)) => {
                self.locating = false;
                tracing::warn!(policy = %self.work.policy_name(), "databases cannot be located: {error}");
                self.pause_for(Stop::Pause(Pause {
                    reason: PauseReason::SourceUnavailable,
                    code: None,
                    message: error.to_string(),
                    retry_after: None,
                }));
            }
            Event::Looked(signatures) => {
                self.looking = false;
                for (path, signature) in signatures {
                    match (signature, self.followed.get_mut(&path)) {
                        (Ok(signature), Some(db)) => db.saw(signature, now),
                        (Err(error), Some(db)) => {
                            db.lost_sight();
                            self.database_trouble(&path, &error);
                        }
                        (_, None) => {}
                    }
                }
            }
            Event::Counted(counted) => {
                self.counting = false;
                for (path, backlog) in counted {
                    // What cannot be read now is counted after the next turn that succeeds.
                    if let (Some(db), Some(backlog)) = (self.followed.get_mut(&path), backlog) {
                        db.backlog = backlog;
                    }
                }
            }
            Event::Probed(result) => self.apply_probe(result),
            Event::ProbeAbandoned => self.probing = false,
            Event::Turn {
                path,
                lane,
                changes,
                result,
            } => {
                self.turn_count += 1;
                if let Some(running) = self.turns.get_mut(&lane) {
                    *running = running.saturating_sub(1);
                }
                if lane == Lane::Retry {
                    self.retrying = self.turns.get(&Lane::Retry).copied().unwrap_or(0) > 0;
                }
                let Some(db) = self.followed.get_mut(&path) else {
                    return;
                };
                db.running.remove(&lane);
                db.recount |= result.is_ok();
                db.last_turn = self.turn_count;
                match *result {
                    Ok((ended, listing)) => self.apply_turn(&path, lane, changes, ended, listing),
                    Err(TurnError::Database(error)) => {
                        db.rest(lane, now);
                        self.database_trouble(&path, &error);
                    }
                    Err(TurnError::Replaced) => db.leaving = true,
                }
                self.let_go();
            }
        }
    }

    fn apply_turn(&mut self, path: &PathBuf, lane: Lane, changes: u64, ended: Ended, listing: Listing) {
        let Ended {
            totals,
            at_head,
            waits,
            pause,
            failed,
            held_set_full,
            held_changed,
            progress,
        } = ended;
        self.unreadable.remove(path);
        self.totals += totals;
        self.held_set_full |= held_set_full;
        if held_changed || lane == Lane::Retry {
            self.held.rows = self.held.rows.max(1);
        }
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
                Lane::Retry => false,
            };
            db.blame(lane, &failed, totals != Totals::default());
            if !got_on && !at_head {
                db.rest(lane, now);
            }
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
                Lane::Retry => {}
            }
            if at_head {
                db.read_to_head(lane, changes);
            }
        }
        if let Some(pause) = pause {
            self.pause_for(Stop::Pause(pause));
        }
    }

    fn apply_probe(&mut self, result: Result<(Capabilities, Permissions), RemoteError>) {
        self.probing = false;
        match result {
            Err(error) => self.pause_for(from_remote(error)),
            Ok((capabilities, permissions)) => {
                let missing = self.work.missing_permissions(&permissions);
                let capabilities = Arc::new(capabilities);
                self.work.capabilities = capabilities.clone();
                self.probed = Some(Probed {
                    capabilities,
                    permissions,
                    at: self.work.now(),
                });
                if let Some(pause) = missing {
                    return self.pause_for(Stop::Pause(pause));
                }
                self.resume();
            }
        }
    }

    /// Tries again. Only work that succeeds shows that the pause is over: one more failure waits longer.
    fn resume(&mut self) {
        if let Some(paused) = self.paused.take() {
            tracing::info!(
                policy = %self.work.policy_name(), reason = %paused.pause.reason, "the mapping is tried again"
            );
            self.trial = Some(paused);
        }
    }

    fn pause_for(&mut self, stop: Stop) {
        let now = self.work.now();
        // Several rows that fail together are one failure.
        if self.paused.as_ref().is_some_and(|paused| paused.retry_at > now) {
            return;
        }
        let pause = as_pause(stop);
        let before = self.paused.take().or(self.trial.take());
        if before
            .as_ref()
            .is_none_or(|before| before.pause.reason != pause.reason)
        {
            tracing::warn!(
                policy = %self.work.policy_name(), reason = %pause.reason, code = pause.code.as_deref().unwrap_or(""),
                "the mapping pauses: {}", pause.message
            );
        }
        let salt = self
            .work
            .mapping
            .id
            .0
            .bytes()
            .fold(0, |sum: u64, byte| sum * 31 % 9973 + u64::from(byte));
        self.paused = Some(Paused::after(before.as_ref(), pause, now, salt));
        self.publish();
    }

    /// Lets go of databases that are no longer ours and in which nothing runs; they are located anew at once.
    fn let_go(&mut self) {
        let before = self.followed.len();
        self.followed
            .retain(|_, db| !db.leaving || !db.running.is_empty());
        if self.followed.len() < before {
            self.spawn_locate();
        }
    }

    fn database_trouble(&mut self, path: &PathBuf, error: &DatabaseError) {
        match error {
            DatabaseError::Gone(_) => {
                if let Some(db) = self.followed.get_mut(path) {
                    db.leaving = true;
                }
                self.let_go();
            }
            DatabaseError::Busy(_) => {}
            DatabaseError::Damaged { .. }
            | DatabaseError::NotCommitted { .. }
            | DatabaseError::Configuration(_) => {
                if self.unreadable.insert(path.clone()) {
                    tracing::warn!(policy = %self.work.policy_name(), "{error}");
                }
            }
        }
    }
}
