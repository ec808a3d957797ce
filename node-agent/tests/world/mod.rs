//! A small world in memory: a Swift with container databases, a remote, a clock that the test owns.
//!
//! Nothing here has a thread or a socket, so under tokio's paused time every run of a test is the same run.

#![allow(
    dead_code,
    unused_imports,
    reason = "each file of tests needs its own part of the world"
)]

mod remote;
mod swift;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use onespace_core::mapping::{
    CredentialRef, Encryption, Mapping, MappingId, MappingState, Mode, PolicyRef, Protocol, Source, Target,
    Triggers,
};
use onespace_core::report::MappingReport;
use onespace_core::row::RawRow;
use onespace_core::select::Selector;
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::claims::Claims;
use onespace_node_agent::clock::Clock;
use onespace_node_agent::databases::{DatabaseError, Replica};
use onespace_node_agent::mapping_task::{Handle, MappingTask};
use onespace_node_agent::state::State;
use onespace_node_agent::turnstile::Turnstile;
use onespace_node_agent::work::{Limits, Work};
use onespace_stores::remote::{Capabilities, RemoteError};
use tokio_util::sync::CancellationToken;

pub use remote::{Stored, paused, refused};
pub use swift::{Object, row as swift_row, tombstone as tombstone_row};

/// The container of most tests.
pub const CONTAINER: &str = "c";

/// Tokio's clock as the time of day.
#[derive(Clone, Copy, Debug)]
pub struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).plus(self.0.elapsed())
    }
}

/// The clock of this node's agent, which may run ahead of the others'.
#[derive(Clone, Debug)]
pub struct AgentsClock {
    clock: TestClock,
    ahead: Arc<AtomicU64>,
    readings: Arc<AtomicU64>,
}

impl Clock for AgentsClock {
    fn now(&self) -> Timestamp {
        self.readings.fetch_add(1, Ordering::Relaxed);
        let ahead = Duration::from_secs(self.ahead.load(Ordering::Relaxed));
        self.clock.now().plus(ahead)
    }
}

/// A container database.
#[derive(Clone, Debug)]
pub struct Db {
    /// `container_info.id`.
    pub id: String,
    /// Which file it is: another one may take its place under the same id.
    pub file: u64,
    /// Rows whose every value is damaged.
    pub damaged: BTreeSet<i64>,
    /// Rows by ROWID.
    pub rows: BTreeMap<i64, RawRow>,
    /// The highest ROWID ever given.
    pub last: i64,
    /// Every read fails with this.
    pub trouble: Option<DatabaseError>,
    /// How often rows were read.
    pub reads: usize,
    /// When the container was created.
    pub created: Timestamp,
    modified: Timestamp,
}

/// What the world is made of.
#[derive(Debug, Default)]
pub struct Things {
    /// Container databases by path.
    pub databases: BTreeMap<PathBuf, Db>,
    created: usize,
    /// What the object servers hold, by container and name.
    pub objects: BTreeMap<(String, String), Object>,
    /// `X-Object-Manifest` of objects, by container and name.
    pub manifests: BTreeMap<(String, String), String>,
    /// Containers of segments that are not there.
    pub no_container: std::collections::BTreeSet<String>,
    /// A user's PUT (container, name, body) while the next upload in parts is under way.
    pub while_uploading: Option<(String, String, String)>,
    /// How long this Swift keeps tombstones, if not for a week.
    pub reclaim_age: Option<Duration>,
    /// The container is in this state, if not unsharded.
    pub sharding: Option<&'static str>,
    /// The container's other replica has so many objects more.
    pub peer_has_more: u64,
    /// The container's other replica does not answer.
    pub peer_is_silent: bool,
    /// Names that the other replica lists, though its numbers are the same.
    pub peer_lists: std::collections::BTreeSet<String>,
    /// Names about which not every object server answers.
    pub primaries_unknown: std::collections::BTreeSet<String>,
    /// Swift does not answer.
    pub swift_is_down: bool,
    /// The endpoint hides the times on which every check rests.
    pub endpoint_is_public: bool,
    /// The endpoint hands out ciphertext.
    pub endpoint_cannot_decrypt: bool,
    /// Databases whose disk does not answer.
    pub hangs: std::collections::BTreeSet<PathBuf>,
    /// Databases whose disk does not even show their times.
    pub unseen: BTreeSet<PathBuf>,
    /// Whoever reads an object of this name panics.
    pub panics: std::collections::BTreeSet<String>,
    /// What the remote holds.
    pub remote: BTreeMap<String, Stored>,
    /// Every request to the remote fails with this.
    pub remote_trouble: Option<RemoteError>,
    /// Every PUT of this key fails with this.
    pub put_trouble: BTreeMap<String, RemoteError>,
    /// Every HEAD of this key fails with this.
    pub head_trouble: BTreeMap<String, RemoteError>,
    /// A PUT of this key takes so long.
    pub slow_puts: BTreeMap<String, Duration>,
    /// The bucket is gone: a HEAD finds nothing, everything else is refused.
    pub bucket_is_gone: bool,
    /// Every listing fails with this.
    pub list_trouble: Option<RemoteError>,
    /// Keys that listings do not show.
    pub hidden: std::collections::BTreeSet<String>,
    /// How often the remote was probed.
    pub probes: usize,
    /// Every request to the remote, as `PUT key`.
    pub requests: Vec<String>,
}

/// The world; clones are the same one.
#[derive(Clone, Debug)]
pub struct World {
    things: Arc<Mutex<Things>>,
    /// Its clock.
    pub clock: TestClock,
    /// Survives restarts of a mapping's task.
    pub state: State,
    /// Which part of the rows is this node's: index and count.
    pub part: (u32, u32),
    /// By how many seconds the clock of this node's agent is ahead.
    ahead: Arc<AtomicU64>,
    /// How often this node's agent has looked at its clock: once at least whenever it does anything.
    readings: Arc<AtomicU64>,
}

impl World {
    /// An empty one, with one container.
    pub fn new() -> Self {
        let world = Self {
            things: Arc::default(),
            clock: TestClock(tokio::time::Instant::now()),
            state: State::in_memory().unwrap(),
            part: (0, 1),
            ahead: Arc::default(),
            readings: Arc::default(),
        };
        world.create(CONTAINER);
        world
    }

    /// Another node of the same world, with this part of the rows and a state of its own.
    pub fn node(&self, index: u32, replicas: u32) -> Self {
        Self {
            state: State::in_memory().unwrap(),
            part: (index, replicas),
            ahead: Arc::default(),
            readings: Arc::default(),
            ..self.clone()
        }
    }

    /// Sets the clock of this node's agent so far ahead of the others'.
    pub fn set_clock_ahead(&self, time: Duration) {
        self.ahead.store(time.as_secs(), Ordering::Relaxed);
    }

    /// How often this node's agent has looked at its clock.
    pub fn clock_readings(&self) -> u64 {
        self.readings.load(Ordering::Relaxed)
    }

    /// Access to all of it. Not to be held over an await.
    pub fn things(&self) -> MutexGuard<'_, Things> {
        self.things.lock().unwrap()
    }

    /// A new container database, in the place of an old one.
    pub fn create(&self, container: &str) {
        let mut things = self.things();
        things.created += 1;
        let database = Db {
            id: format!("{container}-{}", things.created),
            file: things.created as u64,
            damaged: BTreeSet::new(),
            rows: BTreeMap::new(),
            last: 0,
            trouble: None,
            reads: 0,
            created: self.clock.now(),
            modified: self.clock.now(),
        };
        things.databases.insert(path(container), database);
    }

    /// What replication does to a replica that lags far behind: a copy with another id and other ROWIDs takes its place.
    pub fn replace(&self, container: &str) {
        let old = self.things().databases[&path(container)].rows.clone();
        self.create(container);
        for row in old.into_values().rev() {
            self.insert(container, row);
        }
    }

    /// A copy of a database.
    pub fn backup(&self, container: &str) -> Db {
        self.things().databases[&path(container)].clone()
    }

    /// Puts an old copy of a database in its place, as whoever restores a backup does.
    pub fn restore(&self, container: &str, backup: Db) {
        let mut things = self.things();
        things.created += 1;
        let restored = Db {
            file: things.created as u64,
            modified: self.clock.now(),
            ..backup
        };
        things.databases.insert(path(container), restored);
    }

    /// Starts the work on a mapping, with what an earlier task left in the state.
    pub fn start(&self, mapping: Mapping) -> Handle {
        self.start_with(mapping, Limits::default())
    }

    /// The same with other limits.
    pub fn start_with(&self, mapping: Mapping, limits: Limits) -> Handle {
        let selector = Selector::new(mapping.exclude.as_deref(), mapping.select.as_ref()).unwrap();
        let work = Work {
            mapping: Arc::new(mapping),
            selector: Arc::new(selector),
            source: Arc::new(self.clone()),
            remote: Arc::new(self.clone()),
            capabilities: Arc::new(Capabilities::default()),
            state: self.state.clone(),
            claims: Claims::default(),
            turnstile: Turnstile::new(8),
            clock: AgentsClock {
                clock: self.clock,
                ahead: self.ahead.clone(),
                readings: self.readings.clone(),
            },
            limits,
            others_allowed: Arc::default(),
            bucket_seen: Arc::default(),
        };
        MappingTask::start(work, Arc::new(self.clone()), CancellationToken::new())
    }

    /// Ends a task as a restart of the agent would.
    pub async fn stop(&self, handle: Handle) {
        handle.cancel.cancel();
        handle.task.await.unwrap();
    }
}

/// Where a container's database is.
pub fn path(container: &str) -> PathBuf {
    Path::new("/srv").join(container)
}

fn replica(container: &str, (index, replicas): (u32, u32)) -> Replica {
    Replica {
        path: path(container),
        server: "127.0.0.1:6201".into(),
        device: "d1".into(),
        partition: 0,
        account: "a".into(),
        container: shown(container).into(),
        shard: container
            .contains('#')
            .then(|| (".shards_a".into(), container.into())),
        index,
        replicas,
    }
}

/// The container that a database belongs to: `c#1` is a shard of `c`.
fn shown(container: &str) -> &str {
    container.split('#').next().unwrap_or(container)
}

/// A mapping of the container, with keys as they are.
pub fn mapping() -> Mapping {
    Mapping {
        id: MappingId("00112233445566778899aabbccddeeff".into()),
        starts_over: "1".into(),
        policy: PolicyRef {
            namespace: "swift".into(),
            name: "test".into(),
            generation: 1,
        },
        state: MappingState::Active,
        requires: Vec::new(),
        mode: Mode::Sync,
        source: Source {
            account: "a".into(),
            container: CONTAINER.into(),
        },
        carved_out: Vec::new(),
        target: Target {
            protocol: Protocol::S3,
            endpoint: None,
            region: "us-east-1".into(),
            bucket: "b".into(),
            prefix: Some(String::new()),
            credential: CredentialRef("x".into()),
            ca_bundle: None,
            http_proxy: None,
            path_style: None,
            request_checksums: None,
            encryption: Encryption::None,
            storage_class: None,
        },
        copy_after: 0,
        retain_local_segments: true,
        propagate_delete: true,
        delete_budget: None,
        exclude: None,
        select: None,
        min_segment_size: 5 << 20,
        limits: None,
        objective: None,
        triggers: Triggers::default(),
    }
}

/// Lets time pass.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits until nothing that is due is left; fails when that takes more than ten minutes of the world's time.
pub async fn settle(handle: &Handle) -> MappingReport {
    // What happened just now must be seen first.
    pass(Duration::from_secs(6)).await;
    let mut reports = handle.reports.clone();
    let settled =
        tokio::time::timeout(Duration::from_secs(600), reports.wait_for(|report| report.idle)).await;
    match settled {
        Ok(report) => report.unwrap().clone(),
        Err(_) => panic!("never idle: {:#?}", handle.reports.borrow()),
    }
}
