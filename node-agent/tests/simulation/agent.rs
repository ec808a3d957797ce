//! An agent: the real one, with its own replica, clock and state.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use onespace_core::budget::DeleteBudget;
use onespace_core::local::{MetaValue, SwiftObject};
use onespace_core::manifest::ListedSegment;
use onespace_core::mapping::{
    CredentialRef, Encryption, Mapping, MappingId, MappingState, Mode, PolicyRef, Protocol, Source as From,
    Target, Triggers,
};
use onespace_core::plan::reconcile::ContainerSays;
use onespace_core::report::{HeldDeletes, MappingReport};
use onespace_core::row::RawRow;
use onespace_core::select::Selector;
use onespace_node_agent::claims::Claims;
use onespace_node_agent::databases::{Chunk, DatabaseError, Databases, Located, ReadRow, Replica, Signature};
use onespace_node_agent::mapping_task::{Command, Handle, MappingTask};
use onespace_node_agent::state::State;
use onespace_node_agent::turnstile::Turnstile;
use onespace_node_agent::work::{Limits, Work};
use onespace_stores::body::{Body, BodyError};
use onespace_stores::remote::Capabilities;
use onespace_stores::source::{Answer, ObjectPath, Primaries, Read, Source, SourceError};
use tokio_util::sync::CancellationToken;

use crate::bucket::AgentsRemote;
use crate::model::META;
use crate::swift::{Db, OTHER_POLICY, POLICY, Said};
use crate::world::World;

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// Its node.
    pub node: usize,
    /// How far its clock is off, seconds.
    pub skew: i64,
    /// Its disk.
    pub state: State,
    /// Nothing is on it.
    pub knows_nothing: bool,
    /// Its tasks, while it runs.
    pub tasks: Vec<Handle>,
}

impl Agent {
    /// Starts it, with what it left on its disk.
    pub fn start(&mut self, world: &World, mappings: &[Mapping], limits: Limits) {
        if std::mem::take(&mut self.knows_nothing) {
            let now = world.now();
            world.shared().watch[self.node].begins_anew(now);
        }
        let turnstile = Turnstile::new(8);
        let node = AgentsNode {
            world: world.clone(),
            node: self.node,
        };
        for mapping in mappings {
            let work = Work {
                mapping: Arc::new(mapping.clone()),
                selector: Arc::new(Selector::new(None, None).unwrap()),
                source: Arc::new(node.clone()),
                remote: Arc::new(AgentsRemote {
                    world: world.clone(),
                    agent: self.node,
                }),
                capabilities: Arc::new(Capabilities::default()),
                state: self.state.clone(),
                claims: Claims::default(),
                turnstile: turnstile.clone(),
                clock: world.clock(self.skew),
                limits,
                others_allowed: Arc::default(),
                bucket_seen: Arc::default(),
            };
            let task = MappingTask::start(work, Arc::new(node.clone()), CancellationToken::new());
            self.tasks.push(task);
        }
    }

    /// Kills it: whatever it was doing ends in the middle.
    pub async fn kill(&mut self) {
        for mut task in self.tasks.drain(..) {
            task.task.abort();
            let _ = (&mut task.task).await;
        }
    }

    /// Has held rows tried again.
    pub async fn retry(&self) {
        for task in &self.tasks {
            task.commands.send(Command::Retry(None).into()).await.unwrap();
        }
    }

    /// A person releases the batches of deletes that wait.
    pub async fn release(&self, world: &World) {
        for task in &self.tasks {
            let batch = task.reports.borrow().held_deletes.clone();
            if let Some(HeldDeletes { id, rows, reason }) = batch {
                let node = self.node;
                world.tell(|_| format!("a person releases {rows} deletes of agent {node} ({reason})"));
                world.shared().watch[node].is_released();
                task.commands
                    .send(Command::ReleaseDeletes(id).into())
                    .await
                    .unwrap();
            }
        }
    }

    /// What it reports of each mapping.
    pub fn reports(&self) -> impl Iterator<Item = MappingReport> {
        self.tasks.iter().map(|task| task.reports.borrow().clone())
    }
}

thread_local! {
    /// States that earlier runs of this thread left: their statements are compiled.
    static LEFT: RefCell<Vec<State>> = const { RefCell::new(Vec::new()) };
}

/// A state in which nothing is.
pub async fn empty_state() -> State {
    let left = LEFT.with_borrow_mut(Vec::pop);
    let state = left.unwrap_or_else(|| State::in_memory().unwrap());
    state.lose_everything().await.unwrap();
    state
}

/// Leaves a state to later runs, once nothing works on it any more.
pub fn leave(state: State) {
    LEFT.with_borrow_mut(|left| left.push(state));
}

/// A mapping of the container to a prefix.
pub fn mapping(prefix: &str, copy_after: u64, delete_budget: Option<DeleteBudget>) -> Mapping {
    Mapping {
        id: MappingId(format!("id-of-{prefix}")),
        starts_over: "1".into(),
        policy: PolicyRef {
            namespace: "swift".into(),
            name: prefix.into(),
            generation: 1,
        },
        state: MappingState::Active,
        requires: Vec::new(),
        mode: Mode::Sync,
        source: From {
            account: "a".into(),
            container: "c".into(),
        },
        carved_out: Vec::new(),
        target: Target {
            protocol: Protocol::S3,
            endpoint: None,
            region: "us-east-1".into(),
            bucket: "b".into(),
            prefix: Some(prefix.into()),
            credential: CredentialRef("x".into()),
            ca_bundle: None,
            http_proxy: None,
            path_style: None,
            request_checksums: None,
            encryption: Encryption::None,
            storage_class: None,
        },
        copy_after,
        retain_local_segments: true,
        propagate_delete: true,
        delete_budget,
        exclude: None,
        select: None,
        min_segment_size: 5 << 20,
        limits: None,
        objective: None,
        triggers: Triggers::default(),
    }
}

/// The node as its agent sees it: databases on its disk, Swift through its internal endpoint.
#[derive(Clone, Debug)]
pub struct AgentsNode {
    world: World,
    node: usize,
}

impl AgentsNode {
    fn replica(&self) -> Replica {
        Replica {
            path: Path::new("/srv").join(self.node.to_string()),
            server: format!("127.0.0.{}:6201", self.node),
            device: "d1".into(),
            partition: 0,
            account: "a".into(),
            container: "c".into(),
            shard: None,
            index: u32::try_from(self.node).unwrap(),
            replicas: u32::try_from(self.world.shared().swift.nodes.len()).unwrap(),
        }
    }

    async fn a_moment(&self) {
        let wait = 1 + self.world.shared().dice.roll(8);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    /// Reads the database; updates that wait are committed first, if that is asked for.
    async fn chunk(
        &self,
        replica: &Replica,
        commit: bool,
        limit: usize,
        select: impl Fn(&Db) -> Vec<RawRow>,
    ) -> Result<Chunk, DatabaseError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = self.world.now();
        let mut shared = self.world.shared();
        let busy = shared.trouble.busy;
        if shared.dice.percent(busy) {
            return Err(DatabaseError::Busy(replica.path.clone()));
        }
        let local = shared.swift.local(self.node, now);
        let node = &mut shared.swift.nodes[self.node];
        if commit && !node.db.pending.is_empty() {
            if !node.up {
                return Err(DatabaseError::NotCommitted {
                    path: replica.path.clone(),
                    what: "connection refused".into(),
                });
            }
            node.db.commit(local);
        }
        let mut rows = select(&node.db);
        let complete = rows.len() < limit;
        rows.truncate(limit);
        Ok(Chunk {
            id: node.db.id.clone(),
            max_rowid: node.db.last,
            rows: rows.into_iter().map(ReadRow::Row).collect(),
            complete,
        })
    }
}

impl Databases for AgentsNode {
    async fn locate(&self, _mapping: &Mapping) -> Result<Located, DatabaseError> {
        Ok(Located {
            replicas: vec![self.replica()],
            ..Located::default()
        })
    }

    async fn signatures(&self, replicas: Vec<Replica>) -> Vec<(PathBuf, Result<Signature, DatabaseError>)> {
        let shared = self.world.shared();
        let db = &shared.swift.nodes[self.node].db;
        let modified = i128::from(db.modified.ticks()) * 10_000;
        let signature = Signature {
            database: (db.inode, modified, db.last.unsigned_abs()),
            pending: db.pending.len() as u64,
        };
        replicas
            .into_iter()
            .map(|replica| (replica.path, Ok(signature)))
            .collect()
    }

    async fn rows_after(&self, replica: &Replica, after: i64, limit: usize) -> Result<Chunk, DatabaseError> {
        let behind = |db: &Db| {
            let rows = db.raw_rows().filter(|row| row.rowid > after);
            rows.take(limit).collect()
        };
        self.chunk(replica, true, limit, behind).await
    }

    async fn rows_by_name(
        &self,
        replica: &Replica,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Chunk, DatabaseError> {
        let behind = |db: &Db| {
            let wanted = |row: &RawRow| !row.deleted && after.is_none_or(|after| row.name.as_str() > after);
            let mut rows: Vec<_> = db.raw_rows().filter(wanted).collect();
            rows.sort_by(|a, b| (&a.name, a.rowid).cmp(&(&b.name, b.rowid)));
            rows
        };
        let mut chunk = self.chunk(replica, false, usize::MAX, behind).await?;
        // A chunk never ends between two rows of one name.
        let mut end = limit.min(chunk.rows.len());
        while end < chunk.rows.len() && end > 0 && chunk.rows[end].name() == chunk.rows[end - 1].name() {
            end += 1;
        }
        chunk.complete = end == chunk.rows.len() && end < limit;
        chunk.rows.truncate(end);
        Ok(chunk)
    }

    async fn rows_of(&self, replica: &Replica, name: &str) -> Result<Vec<ReadRow>, DatabaseError> {
        let of_name = |db: &Db| db.raw_rows().filter(|row| row.name == name).collect();
        Ok(self.chunk(replica, false, usize::MAX, of_name).await?.rows)
    }

    async fn live_rows(&self, _replica: &Replica) -> Result<u64, DatabaseError> {
        let shared = self.world.shared();
        let rows = shared.swift.nodes[self.node].db.rows.values();
        Ok(rows.filter(|row| !row.deleted).count() as u64)
    }

    async fn peers(&self, _replica: &Replica) -> Vec<Option<ContainerSays>> {
        let mut answers = Vec::new();
        let nodes = self.world.shared().swift.nodes.len();
        for index in 0..nodes {
            self.a_moment().await;
            let now = self.world.now();
            answers.push(self.world.shared().swift.says(index, now));
        }
        answers
    }

    async fn peers_lack(&self, _replica: &Replica, name: &str) -> bool {
        let mut lack = true;
        let nodes = self.world.shared().swift.nodes.len();
        for index in 0..nodes {
            self.a_moment().await;
            let now = self.world.now();
            lack &= self.world.shared().swift.lacks(index, name, now);
        }
        lack
    }

    fn policies(&self) -> Vec<u32> {
        vec![POLICY, OTHER_POLICY]
    }

    fn reclaim_age(&self) -> Duration {
        self.world.shared().swift.reclaim_age.unwrap_or(Duration::MAX)
    }

    async fn name_at(&self, replica: &Replica, rowid: i64) -> Result<Option<String>, DatabaseError> {
        let at = |db: &Db| db.raw_rows().filter(|row| row.rowid == rowid).collect();
        let found = self.chunk(replica, false, usize::MAX, at).await?.rows;
        Ok(found.first().and_then(|row| row.name().map(ToOwned::to_owned)))
    }
}

impl AgentsNode {
    async fn request(&self, object: &ObjectPath) -> Result<(), SourceError> {
        let wait = {
            let mut shared = self.world.shared();
            shared.requests += 1;
            let slow = shared.trouble.slow;
            let longest = if shared.dice.percent(slow) { 1500 } else { 8 };
            1 + shared.dice.roll(longest)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let node = self.node;
        self.world.tell(|_| format!("agent {node} asks about {object}"));
        let mut shared = self.world.shared();
        if shared.trouble.endpoint_is_down.contains(&self.node) {
            return Err(SourceError::Unavailable {
                endpoint: "http://127.0.0.1".into(),
                message: "connection refused".into(),
            });
        }
        let chance = shared.trouble.source;
        match shared.dice.percent(chance) {
            true => Err(failed(object)),
            false => Ok(()),
        }
    }
}

fn failed(object: &ObjectPath) -> SourceError {
    SourceError::Failed {
        status: 503,
        object: object.clone(),
    }
}

impl Source for AgentsNode {
    /// There are no dynamic large objects here.
    async fn list(
        &self,
        _prefix: &ObjectPath,
        _marker: &str,
    ) -> Result<Answer<Vec<ListedSegment>>, SourceError> {
        Ok(Answer::Absent(None))
    }

    async fn head(&self, object: &ObjectPath, read: &Read) -> Result<Answer<SwiftObject>, SourceError> {
        Ok(match self.get(object, read).await? {
            Answer::Found((object, _)) => Answer::Found(object),
            Answer::Absent(time) => Answer::Absent(time),
            Answer::Changed => Answer::Changed,
        })
    }

    async fn get(
        &self,
        object: &ObjectPath,
        read: &Read,
    ) -> Result<Answer<(SwiftObject, Body)>, SourceError> {
        self.request(object).await?;
        let policy = read.policy_index.unwrap_or(POLICY);
        let (said, breaks) = {
            let shared = &mut *self.world.shared();
            shared.watch[self.node].asks_about(&object.object);
            let said = shared
                .swift
                .read(&mut shared.dice, policy, &object.object, read.newest);
            (said, shared.dice.percent(shared.trouble.broken))
        };
        let node = self.node;
        self.world.tell(|_| {
            format!(
                "agent {node} reads {object} ({policy}, {}): {said:?}",
                read.newest
            )
        });
        match said {
            Said::Unavailable => Err(failed(object)),
            Said::Absent(time) => Ok(Answer::Absent(time)),
            Said::Found {
                data,
                time,
                bytes,
                meta,
            } => {
                let headers = SwiftObject {
                    etag: hex::encode(Md5::digest(&bytes)),
                    size: bytes.len() as u64,
                    content_type: "text/plain".into(),
                    data_time: Some(data),
                    time: Some(time),
                    metadata: meta
                        .map(|value| (META.to_owned(), MetaValue::Text(value)))
                        .into_iter()
                        .collect(),
                    ..SwiftObject::default()
                };
                let body = if breaks {
                    broken(&bytes)
                } else {
                    Body::from_bytes(bytes)
                };
                Ok(Answer::Found((headers, body)))
            }
        }
    }

    async fn primaries(&self, object: &ObjectPath, policy_index: u32) -> Result<Primaries, SourceError> {
        self.request(object).await?;
        Ok(self.world.shared().swift.primaries(policy_index, &object.object))
    }
}

/// A body that breaks off in the middle.
fn broken(bytes: &Bytes) -> Body {
    let length = bytes.len() as u64;
    let error = BodyError::BrokenOff {
        received: 1,
        length,
        cause: "connection reset".into(),
    };
    Body {
        length,
        stream: Box::pin(futures::stream::iter([Ok(bytes.slice(..1)), Err(error)])),
    }
}
