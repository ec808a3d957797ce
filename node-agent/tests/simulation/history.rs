//! One run: what a seed makes happen, and what must be true in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use onespace_core::mapping::{Mapping, Mode};
use onespace_core::mark::Mark;
use onespace_core::naming::source_hash;
use onespace_core::reason::PauseReason;
use onespace_core::remote::RemoteHeaders;
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::state::State;
use onespace_node_agent::work::Limits;

use crate::agent::{Agent, mapping};
use crate::bucket::Bucket;
use crate::dice::Dice;
use crate::model;
use crate::swift::{Cluster, OTHER_POLICY, POLICY, Put, skewed};
use crate::world::{SLACK, Shared, Trouble, World, beginning};

/// Names that users use. A listing may hide what lies "below" another key.
const NAMES: [&str; 7] = ["a", "a/1", "b", "c", "d", "e", "f"];

/// What a run was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Requests to Swift and the remote.
    pub requests: u64,
    /// Seconds of the world's time.
    pub seconds: u64,
}

/// Runs the history of a seed.
///
/// # Errors
/// What must never happen and did.
pub fn run(seed: u64) -> Result<Stats, String> {
    play(seed, false).1
}

/// Runs the history of a seed and tells its story.
pub fn tell(seed: u64) -> (Vec<String>, Result<Stats, String>) {
    play(seed, true)
}

fn play(seed: u64, told: bool) -> (Vec<String>, Result<Stats, String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut history = History::new(seed, told);
        let result = history.play().await;
        let mut shared = history.world.shared();
        let stats = Stats {
            requests: shared.requests,
            seconds: history.world.now().duration_since(beginning()).as_secs(),
        };
        let result = match shared.violations.first() {
            Some(what) => Err(what.clone()),
            None => result.map(|()| stats),
        };
        (shared.story.take().unwrap_or_default(), result)
    })
}

/// What may happen in a run: each seed has its own mixture, so that rare things meet each other in some of them.
#[derive(Clone, Copy, Debug, Default)]
struct Mixture {
    /// Updates that reach a replica late, percent.
    late: u64,
    nodes_fail: bool,
    replicas_are_replaced: bool,
    replicas_are_restored: bool,
    /// The others finish its rows.
    an_agent_stays_dead: bool,
    policies: bool,
    crashes: bool,
    state_is_lost: bool,
    strangers: bool,
    remote_fails: bool,
    endpoint_fails: bool,
    keys_are_refused: bool,
    tombstones_are_reclaimed: bool,
}

struct History {
    world: World,
    dice: Dice,
    mixture: Mixture,
    agents: Vec<Agent>,
    mappings: Vec<Mapping>,
    limits: Limits,
    /// Agents that are down, and until which step.
    dead: Vec<Option<u64>>,
    users_skew: i64,
    written: u64,
}

impl History {
    fn new(seed: u64, told: bool) -> Self {
        let mut dice = Dice::new(seed, 1);
        let off = |dice: &mut Dice| {
            if dice.percent(50) {
                0
            } else {
                2 - i64::try_from(dice.roll(5)).unwrap()
            }
        };
        let mut yes = |chance| dice.percent(chance);
        let mixture = Mixture {
            late: if yes(60) { 30 } else { 0 },
            nodes_fail: yes(40),
            replicas_are_replaced: yes(30),
            replicas_are_restored: yes(20),
            an_agent_stays_dead: yes(25),
            policies: yes(30),
            crashes: yes(40),
            state_is_lost: yes(15),
            strangers: yes(20),
            remote_fails: yes(50),
            endpoint_fails: yes(25),
            keys_are_refused: yes(25),
            tombstones_are_reclaimed: yes(25) && RECONCILED,
        };
        let trouble = Trouble {
            before: if yes(40) { 5 } else { 0 },
            after: if yes(40) { 5 } else { 0 },
            slow: if yes(40) { 10 } else { 0 },
            source: if yes(30) { 10 } else { 0 },
            broken: if yes(30) { 10 } else { 0 },
            busy: if yes(30) { 10 } else { 0 },
            ..Trouble::default()
        };
        // With one replica nobody mends what its agent got wrong.
        let replicas = [1, 1, 2, 2, 2, 3][dice.index(6)];
        let skews: Vec<i64> = (0..replicas).map(|_| off(&mut dice)).collect();
        let prefixes: &[&str] = if dice.percent(25) { &["p", "q"] } else { &["p"] };
        let copy_after = [0, 0, 0, 4][dice.index(4)];
        let hides = dice.percent(25);
        let honours = dice.roll(8) | if dice.percent(60) { 7 } else { 0 };
        let remote = Bucket {
            put_if_absent: honours & 1 > 0,
            put_if_match: honours & 2 > 0,
            delete_if_match: honours & 4 > 0,
            hidden: prefixes
                .iter()
                .filter(|_| hides)
                .map(|prefix| format!("{prefix}/a/1"))
                .collect(),
            skew: off(&mut dice),
            ..Bucket::default()
        };
        let limits = Limits {
            slack: SLACK,
            chunk: 1 + dice.index(7),
            held: if dice.percent(15) { 3 } else { 1000 },
            turn: Duration::from_secs(3),
            ..Limits::default()
        };
        let users_skew = off(&mut dice);
        let world = World::new(Shared {
            dice: Dice::new(seed, 2),
            swift: Cluster::new(&skews, beginning()),
            remote,
            trouble,
            violations: Vec::new(),
            story: told.then(Vec::new),
            requests: 0,
        });
        let agent = |(node, skew): (usize, &i64)| Agent {
            node,
            skew: *skew,
            state: State::in_memory().unwrap(),
            tasks: Vec::new(),
        };
        let agents: Vec<_> = skews.iter().enumerate().map(agent).collect();
        world.tell(|shared| {
            format!(
                "seed {seed}: {mixture:?} {:?}, clocks {skews:?}, users {users_skew}, copyAfter {copy_after}, chunks of {}, held {}, {:?}",
                shared.trouble, limits.chunk, limits.held, shared.remote
            )
        });
        Self {
            world,
            dice,
            mixture,
            mappings: prefixes
                .iter()
                .map(|prefix| mapping(prefix, copy_after))
                .collect(),
            limits,
            dead: agents.iter().map(|_| None).collect(),
            agents,
            users_skew,
            written: 0,
        }
    }

    async fn play(&mut self) -> Result<(), String> {
        let steps = 15 + self.dice.roll(35);
        // Some agents find everything there already.
        let start = if self.dice.percent(50) {
            0
        } else {
            self.dice.roll(steps)
        };
        for step in 0..steps {
            if step == start {
                for agent in &mut self.agents {
                    agent.start(&self.world, &self.mappings, self.limits);
                }
            }
            self.step(step, start).await;
            let wait = match self.dice.roll(10) {
                0..=4 => 1 + self.dice.roll(20),
                5..=8 => 20 + self.dice.roll(900),
                _ => 500 + self.dice.roll(2500),
            };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.calm();
        self.end().await
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.dice.index(NAMES.len())]
    }

    fn node(&mut self) -> usize {
        self.dice.index(self.agents.len())
    }

    /// A user's request has a time of its own.
    fn users_time(&mut self) -> Timestamp {
        self.written += 1;
        let now = skewed(self.world.now(), self.users_skew);
        Timestamp::from_ticks(now.ticks() + self.written, 0)
    }

    async fn step(&mut self, step: u64, start: u64) {
        for index in 0..self.agents.len() {
            if self.dead[index].is_some_and(|until| until <= step) {
                self.dead[index] = None;
                self.world.tell(|_| format!("agent {index} starts"));
                self.agents[index].start(&self.world, &self.mappings, self.limits);
            }
        }
        match self.dice.roll(100) {
            0..=29 => self.put(),
            30..=44 => self.delete(),
            45..=54 => self.post(),
            55..=64 => self.replicate(),
            65..=69 if self.mixture.policies => self.reconcile(),
            70..=73 if self.mixture.nodes_fail => self.fail_node(),
            74..=79 if self.mixture.crashes && step > start => self.kill(step).await,
            80..=81 if self.mixture.state_is_lost && step > start => self.lose_state().await,
            82..=83 if self.mixture.replicas_are_replaced => self.replace(),
            84..=86 if self.mixture.replicas_are_restored => self.restore(),
            87..=88 if self.mixture.strangers => self.stranger(),
            89..=91 if self.mixture.remote_fails => self.fail_remote(),
            92..=93 if self.mixture.endpoint_fails => self.fail_endpoint(),
            94..=95 if self.mixture.keys_are_refused => self.refuse_keys(),
            96..=97 if self.mixture.tombstones_are_reclaimed => self.reclaim(),
            _ => {}
        }
    }

    fn put(&mut self) {
        let (name, at) = (self.name(), self.users_time());
        let policy = if self.mixture.policies && self.dice.percent(20) {
            OTHER_POLICY
        } else {
            POLICY
        };
        // Now and then a body that was there before.
        let content = if self.dice.percent(20) {
            self.dice.roll(3)
        } else {
            100 + self.written
        };
        let body = Bytes::from(format!("{content:03}"));
        let meta = self.dice.percent(30).then(|| format!("{}", self.written));
        let now = self.world.now();
        self.world
            .tell(|_| format!("user: PUT {name} at {at} under policy {policy}: {body:?} {meta:?}"));
        let shared = &mut *self.world.shared();
        let request = Put {
            name,
            policy,
            at,
            body,
            meta,
        };
        shared.swift.put(&mut self.dice, self.mixture.late, &request, now);
    }

    fn delete(&mut self) {
        let (name, at, now) = (self.name(), self.users_time(), self.world.now());
        self.world.tell(|_| format!("user: DELETE {name} at {at}"));
        let shared = &mut *self.world.shared();
        shared
            .swift
            .delete(&mut self.dice, self.mixture.late, name, at, now);
    }

    fn post(&mut self) {
        let (name, at, now) = (self.name(), self.users_time(), self.world.now());
        let meta = self.dice.percent(80).then(|| format!("{}", self.written));
        self.world
            .tell(|_| format!("user: POST {name} at {at}: {meta:?}"));
        let shared = &mut *self.world.shared();
        shared
            .swift
            .post(&mut self.dice, self.mixture.late, name, at, &meta, now);
    }

    fn replicate(&mut self) {
        let (from, to, name, now) = (self.node(), self.node(), self.name(), self.world.now());
        let what = self.dice.roll(3);
        let shared = &mut *self.world.shared();
        match what {
            0 => shared.swift.replicate_rows(from, to, now),
            1 => shared.swift.replicate_object(from, to, name),
            _ => shared.swift.deliver(&mut self.dice),
        }
    }

    fn reconcile(&mut self) {
        let (name, now) = (self.name(), self.world.now());
        self.world.tell(|_| format!("the reconciler looks at {name}"));
        let shared = &mut *self.world.shared();
        shared
            .swift
            .reconcile(&mut self.dice, self.mixture.late, name, now);
    }

    fn fail_node(&mut self) {
        let node = self.node();
        let up = {
            let node = &mut self.world.shared().swift.nodes[node];
            node.up = !node.up;
            node.up
        };
        self.world
            .tell(|_| format!("node {node} is {}", if up { "back" } else { "down" }));
    }

    async fn kill(&mut self, step: u64) {
        let node = self.node();
        if self.dead[node].is_none() {
            self.world.tell(|_| format!("agent {node} is killed"));
            self.agents[node].kill().await;
            // What it sent has arrived by then.
            self.dead[node] = Some(step + 4 + self.dice.roll(8));
        }
    }

    async fn lose_state(&mut self) {
        let node = self.node();
        self.world.tell(|_| format!("agent {node} loses its state"));
        self.agents[node].kill().await;
        self.agents[node].state = State::in_memory().unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        self.dead[node] = None;
        self.agents[node].start(&self.world, &self.mappings, self.limits);
    }

    fn replace(&mut self) {
        let (from, to, now) = (self.node(), self.node(), self.world.now());
        self.world
            .tell(|_| format!("node {to} gets a copy of node {from}'s database"));
        self.world.shared().swift.replace_db(from, to, now);
    }

    fn restore(&mut self) {
        let (node, now) = (self.node(), self.world.now());
        // Without another replica the rows since the backup are lost to Swift itself.
        if self.agents.len() == 1 {
            return;
        }
        let has_one = self.world.shared().swift.nodes[node].backup.is_some();
        self.world.tell(|_| match has_one {
            true => format!("node {node}'s database is restored from its backup"),
            false => format!("node {node}'s database is backed up"),
        });
        let shared = &mut *self.world.shared();
        match has_one {
            true => shared.swift.restore(node, now),
            false => shared.swift.back_up(node),
        }
    }

    fn reclaim(&mut self) {
        self.world.tell(|_| "Swift forgets old tombstones".into());
        let now = self.world.now();
        self.world.shared().swift.reclaim(&NAMES, skewed(now, -5), now);
    }

    fn stranger(&mut self) {
        let (name, now) = (self.name(), self.world.now());
        let prefix = &self.mappings[self.dice.index(self.mappings.len())].target.prefix;
        let key = format!("{}/{name}", prefix.as_deref().unwrap_or_default());
        // Sometimes what Swift has.
        let same = self.dice.percent(50);
        let shared = &mut *self.world.shared();
        let body = match shared.swift.truth(name) {
            Some((body, _)) if same => body,
            _ => Bytes::from_static(b"str"),
        };
        let mut headers = RemoteHeaders {
            content_type: Some("text/plain".into()),
            ..RemoteHeaders::default()
        };
        // Sometimes it is another container's copy.
        if self.dice.percent(40) {
            let mark = Mark {
                data_time: beginning(),
                time: beginning(),
                etag: hex::encode(Md5::digest(&body)),
                mode: Mode::Sync,
                mapping: self.mappings[0].id.clone(),
                source: source_hash("a", "another", name),
                delete_at: None,
            };
            mark.write(&mut headers.metadata);
        }
        shared.remote.strangers.insert(key.clone());
        shared.remote.store(&key, headers, body.clone(), now);
        if let Some(story) = &mut shared.story {
            story.push(format!("a stranger writes {key}: {body:?}"));
        }
    }

    fn fail_remote(&mut self) {
        use PauseReason as P;
        let reasons = [P::Unreachable, P::Timeout, P::ServerError, P::SlowDown];
        let reason = reasons[self.dice.index(reasons.len())];
        let shared = &mut *self.world.shared();
        let down = &mut shared.trouble.remote_is_down;
        *down = if down.is_some() { None } else { Some(reason) };
    }

    fn fail_endpoint(&mut self) {
        let node = self.node();
        let down = &mut self.world.shared().trouble.endpoint_is_down;
        if !down.remove(&node) {
            down.insert(node);
        }
    }

    fn refuse_keys(&mut self) {
        let name = self.name();
        let refused = &mut self.world.shared().trouble.refused;
        if !refused.is_empty() {
            return refused.clear();
        }
        refused.extend(self.mappings.iter().filter_map(|mapping| {
            let prefix = mapping.target.prefix.as_deref()?;
            Some(format!("{prefix}/{name}"))
        }));
    }

    /// Faults stop, Swift converges, every agent is back, or all but one.
    fn calm(&mut self) {
        self.world.tell(|_| "faults stop, and Swift converges".into());
        let now = self.world.now();
        let names: Vec<String> = NAMES.map(ToOwned::to_owned).to_vec();
        {
            let shared = &mut *self.world.shared();
            shared.trouble = Trouble {
                endpoint_is_down: BTreeSet::new(),
                ..Trouble::default()
            };
            shared.swift.converge(&mut self.dice, &names, now);
        }
        let mut stays_dead = self.mixture.an_agent_stays_dead && self.agents.len() > 1;
        for agent in self.agents.iter_mut().filter(|agent| agent.tasks.is_empty()) {
            if std::mem::take(&mut stays_dead) {
                continue;
            }
            agent.start(&self.world, &self.mappings, self.limits);
        }
    }

    /// The remote must become what Swift is, and stay so.
    async fn end(&mut self) -> Result<(), String> {
        let names: Vec<String> = NAMES.map(ToOwned::to_owned).to_vec();
        let prefixes: Vec<String> = self
            .mappings
            .iter()
            .filter_map(|mapping| mapping.target.prefix.clone())
            .collect();
        let (mut different, mut settled) = (None, false);
        for round in 0..PATIENCE {
            self.world.tell(|shared| {
                let requests = shared.requests;
                format!("round {round}, {requests} requests so far, different: {different:?}")
            });
            tokio::time::sleep(Duration::from_secs(3)).await;
            // What a stranger wrote stays held.
            let mut reports = self.agents.iter().flat_map(Agent::reports);
            let idle = reports.all(|report| report.idle && report.verify.rows <= report.held.rows);
            different = model::difference(&self.world, &prefixes, &names);
            settled = idle && different.is_none();
            if settled {
                break;
            }
            for agent in &self.agents {
                if agent.reports().any(|report| report.held.rows > 0 || !report.idle) {
                    agent.retry().await;
                }
            }
        }
        if different.is_none() {
            tokio::time::sleep(Duration::from_secs(2)).await;
            different = model::difference(&self.world, &prefixes, &names)
                .map(|difference| format!("{difference} (it was in step before)"));
        }
        let busy = (!settled).then(|| {
            self.agents
                .iter()
                .flat_map(Agent::reports)
                .find(|report| !report.idle)
        });
        match (different, busy.flatten()) {
            (Some(difference), _) => {
                self.world
                    .tell(|shared| format!("{:#?}", shared.swift.nodes[0].db));
                Err(difference)
            }
            (None, Some(report)) => Err(format!("an agent is never idle: {report:#?}")),
            (None, None) => Ok(()),
        }
    }
}

/// The reconciling pass is there.
const RECONCILED: bool = false;

/// So many times 3 s the agents have to get in step after all faults have stopped.
const PATIENCE: usize = 60;
