//! One mapping at work: finds its databases, gives their lanes turns, waits out failures, reports.

mod clock;
mod failures;
mod followed;
mod looks;
mod open;
mod pause;
mod report;
mod transfers;
mod turns;
mod verification;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onespace_core::limits::Schedule;
use onespace_core::mapping::Mapping;
use onespace_core::objective::Tally;
use onespace_core::plan::{Pause, Stop};
use onespace_core::report::{HeldDeletes, MappingReport, Totals};
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::{Capabilities, Permissions, Remote, RemoteError};
use onespace_stores::source::Source;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::databases::{DatabaseError, Databases, Replica, Signature};
use crate::lanes::{Ended, Lane, Listing, TurnError};
use crate::state::StateError;
use crate::stop::from_state;
use crate::work::Work;
use failures::About;
pub use failures::internal_error;
use followed::{Backlog, Followed};
use open::{OpenError, OpenedDatabase};
use pause::Paused;

/// How often databases are looked at for changes, and reports are renewed.
const LOOK: Duration = Duration::from_millis(500);

/// How often databases are located anew, and reports are renewed of a mapping that has none here: with thousands of mappings
/// most have none on most nodes.
const LOCATE: Duration = Duration::from_secs(5);

/// What is asked of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Try held rows again: all, or one, `container/object`.
    Retry(Option<String>),
    /// Carry out the deletes of this batch.
    ReleaseDeletes(String),
    /// Go on under this mapping, which differs from the one before in what needs no work to end
    /// ([`Mapping::is_same_work`]). With `renewed` keys the remote is looked at anew.
    GoOn {
        /// The mapping.
        mapping: Arc<Mapping>,
        /// The remote's keys are others.
        renewed: bool,
    },
}

/// How a command ended: how many held rows are tried again, or batches released, or why nothing came of it.
pub type Obeyed = Result<usize, StateError>;

/// A command, and who waits to hear how it ended.
#[derive(Debug)]
pub struct Order {
    command: Command,
    answer: Option<oneshot::Sender<Obeyed>>,
}

impl Order {
    /// A command whose end is told.
    #[must_use]
    pub fn new(command: Command) -> (Self, oneshot::Receiver<Obeyed>) {
        let (answer, obeyed) = oneshot::channel();
        let answer = Some(answer);
        (Self { command, answer }, obeyed)
    }
}

impl From<Command> for Order {
    /// A command that nobody waits for.
    fn from(command: Command) -> Self {
        Self {
            command,
            answer: None,
        }
    }
}

/// A mapping's task.
pub struct MappingTask<D, S, R, C> {
    work: Work<S, R, C>,
    databases: Arc<D>,
    cancel: CancellationToken,
    commands: mpsc::Receiver<Order>,
    reports: watch::Sender<MappingReport>,
    followed: BTreeMap<PathBuf, Followed>,
    unreadable: BTreeSet<PathBuf>,
    /// Databases that were busy whenever they were read, and since when.
    busy: BTreeMap<PathBuf, Timestamp>,
    /// The time at the last look.
    latest: Timestamp,
    located: Option<crate::databases::Located>,
    events: JoinSet<Event>,
    /// Turns that go on say here at once that the mapping must pause.
    alarm: mpsc::Sender<Pause>,
    alarms: mpsc::Receiver<Pause>,
    turns: BTreeMap<Lane, usize>,
    turn_count: u64,
    retrying: bool,
    probing: bool,
    /// Devices that are being looked at.
    looking: BTreeSet<String>,
    locating: bool,
    /// Devices whose databases' backlog is being counted.
    counting: BTreeSet<String>,
    /// Databases that are being opened, and their devices.
    opening: BTreeMap<PathBuf, String>,
    /// Those that are still to be opened, by device.
    to_open: BTreeMap<String, VecDeque<Replica>>,
    probed: Option<Probed>,
    paused: Option<Paused>,
    /// The pause that ended last, until work shows that it is over.
    trial: Option<Paused>,
    held_set_full: bool,
    has_hope: bool,
    /// What is known of the held rows may be old.
    held_changed: bool,
    held: onespace_core::report::HeldReport,
    totals: Totals,
    /// The policy's limits; `None` = it has none.
    schedule: Option<Schedule>,
    /// What was counted for the objective, and since when.
    objective: Option<(Tally, Timestamp)>,
    /// Rows that count for it and wait in the durable sets.
    objective_waits: u64,
    handled_retry: Option<String>,
    handled_release: Option<String>,
    /// The batch of deletes that waits for a person.
    held_deletes: Option<HeldDeletes>,
    /// No more deletes may wait: none is begun.
    deletes_full: bool,
    /// Databases with deletes that a person released.
    released: Vec<String>,
    refused: Option<(&'static str, String)>,
    /// Multipart uploads that an earlier task left behind at the remote.
    old_uploads: Vec<(String, String)>,
}

/// What a probe found.
#[derive(Clone, Debug)]
struct Probed {
    /// As reports name them.
    capabilities: BTreeMap<String, bool>,
    permissions: Permissions,
    at: Timestamp,
}

enum Event {
    Turn {
        path: PathBuf,
        lane: Lane,
        changes: u64,
        passes: u64,
        result: Box<Result<(Ended, Listing), TurnError>>,
    },
    /// A copy that went on by itself has ended: of which database, which row, and how.
    Transferred(PathBuf, i64, Box<Option<Ended>>),
    Probed(Result<(Capabilities, Permissions), RemoteError>),
    ProbeAbandoned,
    OldUploadsAborted,
    Looked(String, Vec<(PathBuf, Result<Signature, DatabaseError>)>),
    Counted(String, Vec<(PathBuf, Option<(Backlog, Backlog)>)>),
    Located(Result<crate::databases::Located, DatabaseError>),
    Opened(Box<Replica>, Box<Result<OpenedDatabase, OpenError>>),
    /// Work that failed in itself, and its last words.
    Failed(About, String),
}

/// A handle on a running task.
#[derive(Debug)]
pub struct Handle {
    /// Ends the task at the next row.
    pub cancel: CancellationToken,
    /// Asks something of it.
    pub commands: mpsc::Sender<Order>,
    /// Its latest report.
    pub reports: watch::Receiver<MappingReport>,
    /// Ends when the task has ended.
    pub task: tokio::task::JoinHandle<()>,
}

/// Alarms that may wait; what finds no place is told at the end of its turn.
const ALARMS: usize = 16;

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
        let (alarm, alarms) = mpsc::channel(ALARMS);
        let limits = work.mapping.limits.as_ref();
        // Limits that cannot be understood are refused before.
        let schedule = limits.and_then(|limits| Schedule::new(limits).ok());
        let (reports, latest) = watch::channel(MappingReport { idle: false, ..shown });
        let task = Self {
            work,
            databases,
            cancel: cancel.clone(),
            commands: inbox,
            reports,
            followed: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            busy: BTreeMap::new(),
            latest: Timestamp::default(),
            located: None,
            events: JoinSet::new(),
            alarm,
            alarms,
            turns: BTreeMap::new(),
            turn_count: 0,
            retrying: false,
            probing: false,
            looking: BTreeSet::new(),
            locating: false,
            counting: BTreeSet::new(),
            opening: BTreeMap::new(),
            to_open: BTreeMap::new(),
            probed: None,
            paused: None,
            trial: None,
            held_set_full: false,
            has_hope: false,
            held_changed: true,
            held: onespace_core::report::HeldReport::default(),
            totals: Totals::default(),
            schedule,
            objective: None,
            objective_waits: 0,
            handled_retry: None,
            handled_release: None,
            held_deletes: None,
            deletes_full: false,
            released: Vec::new(),
            refused: None,
            old_uploads: Vec::new(),
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
        let mut next_look = Instant::now();
        let mut locate = tokio::time::interval(LOCATE);
        locate.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                Some(order) = self.commands.recv() => self.obey(order).await,
                Some(pause) = self.alarms.recv() => self.pause_for(Stop::Pause(pause)),
                Some(event) = self.events.join_next() => match event {
                    Ok(event) => self.apply(event).await,
                    Err(error) => {
                        tracing::error!(policy = %self.work.policy_name(), "work was cut off: {error}");
                    }
                },
                _ = locate.tick() => self.spawn_locate(),
                () = tokio::time::sleep_until(next_look) => {
                    next_look = Instant::now() + LOCATE;
                    self.watch_clock().await;
                    self.spawn_look();
                    self.spawn_count();
                    // A turn holds rows while it runs, and what is on its way comes to be late.
                    let at_work = self.turns.values().any(|running| *running > 0)
                        || self.followed.values().any(|db| db.transfers > 0);
                    if self.held_changed || at_work {
                        self.refresh_held().await;
                    }
                    self.note_heads().await;
                    if self.paused.is_none() {
                        // One that could not be recorded is acted on once that is mended.
                        self.handle_triggers().await;
                    }
                    if self.has_nothing_to_do() {
                        self.trial = None;
                    }
                    self.publish();
                }
            }
            if !self.cancel.is_cancelled() {
                self.start_turns().await;
            }
            if self.has_a_part() {
                next_look = next_look.min(Instant::now() + LOOK);
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

    /// Whether anything of it may change by itself, for all that is known here.
    fn has_a_part(&self) -> bool {
        let located = self.located.as_ref();
        let none_is_here = located.is_some_and(|located| !located.walking && located.replicas.is_empty())
            && self.followed.is_empty()
            && self.old_uploads.is_empty();
        let rests = self.paused.is_none() && self.trial.is_none() && !self.held_changed && !self.probing;
        !(none_is_here && rests)
    }

    async fn obey(&mut self, Order { command, answer }: Order) {
        let (now, id) = (self.work.now(), self.work.mapping.id.clone());
        self.held_changed = true;
        let state = self.work.state.clone();
        let done = match command {
            Command::Retry(object) => match object.as_deref().and_then(|object| object.split_once('/')) {
                Some((container, name)) => state.retry_name(&id, container, name, now).await,
                None => state.handle_retry(&id, None, now).await,
            },
            Command::ReleaseDeletes(batch) => state.release_deletes(&id, vec![batch], None).await,
            Command::GoOn { mapping, renewed } => {
                self.work.mapping = mapping;
                if renewed {
                    // What the former keys were denied says nothing of these.
                    self.probed = None;
                    self.work.others_allowed = Arc::default();
                    self.work.bucket_seen = Arc::default();
                }
                self.handle_triggers().await;
                Ok(0)
            }
        };
        match &done {
            Ok(_) => {
                if let Some(paused) = &mut self.paused {
                    paused.retry_at = now;
                }
            }
            Err(error) => self.pause_for(from_state(error)),
        }
        if let Some(answer) = answer {
            // Who asked may have gone.
            let _ = answer.send(done);
        }
    }
}
