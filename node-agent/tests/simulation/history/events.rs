//! What happens: users, Swift, nodes, agents, the remote, strangers, one step after the other.

use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use onespace_core::mapping::Mode;
use onespace_core::mark::Mark;
use onespace_core::naming::source_hash;
use onespace_core::reason::PauseReason;
use onespace_core::remote::RemoteHeaders;
use onespace_core::timestamp::Timestamp;

use super::History;
use crate::agent::empty_state;
use crate::swift::{OTHER_POLICY, POLICY, Put, skewed};
use crate::world::beginning;

impl History {
    fn name(&mut self) -> String {
        self.names[self.dice.index(self.names.len())].clone()
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

    pub(super) async fn step(&mut self, started: bool) {
        let now = self.world.now();
        for index in 0..self.agents.len() {
            if self.dead[index].is_some_and(|until| until <= now) {
                self.start(index);
            }
            if self.mixture.swift_forgets && self.dice.percent(40) {
                let shared = &mut *self.world.shared();
                shared.swift.reclaim(index, &self.names, now);
            }
        }
        for _ in 0..3 {
            if self.happens(started).await {
                break;
            }
        }
    }

    fn start(&mut self, index: usize) {
        self.dead[index] = None;
        self.world.tell(|_| format!("agent {index} starts"));
        self.agents[index].start(&self.world, &self.mappings, self.limits);
    }

    /// Whether what the dice say may happen in this run; it has happened then.
    async fn happens(&mut self, started: bool) -> bool {
        let mixture = self.mixture;
        match self.dice.roll(114) {
            0..=29 => {
                let name = self.name();
                self.put(&name);
            }
            30..=44 => {
                let name = self.name();
                self.delete(&name);
            }
            45..=54 => self.post(),
            55..=64 => self.replicate(),
            65..=69 if mixture.policies => self.reconcile(),
            70..=73 if mixture.nodes_fail => self.fail_node(),
            74..=79 if mixture.crashes && started => self.kill().await,
            80..=81 if mixture.state_is_lost && started => self.lose_state().await,
            82..=83 if mixture.replicas_are_replaced => self.replace(),
            84..=86 if mixture.replicas_are_restored => self.restore(),
            87..=88 if mixture.strangers => self.stranger(),
            89..=91 if mixture.remote_fails => self.fail_remote(),
            92..=93 if mixture.endpoint_fails => self.fail_endpoint(),
            94..=95 if mixture.keys_are_refused => self.refuse_keys(),
            96..=99 if mixture.sweeps => self.sweep(),
            100..=103 if mixture.container_goes => self.container_goes_or_comes(started).await,
            104..=107 if mixture.swift_forgets && started => self.leave().await,
            108..=110 if mixture.crowd => self.crowd(),
            111..=113 if mixture.a_person_is_quick => self.release().await,
            _ => return false,
        }
        true
    }

    fn put(&mut self, name: &str) {
        let at = self.users_time();
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

    fn delete(&mut self, name: &str) {
        let (at, now) = (self.users_time(), self.world.now());
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
            .post(&mut self.dice, self.mixture.late, &name, at, &meta, now);
    }

    fn replicate(&mut self) {
        let (from, to, name, now) = (self.node(), self.node(), self.name(), self.world.now());
        let what = self.dice.roll(3);
        let shared = &mut *self.world.shared();
        match what {
            0 => shared.swift.replicate_rows(from, to, now),
            1 => shared.swift.replicate_object(from, to, &name),
            _ => shared.swift.deliver(&mut self.dice),
        }
    }

    fn reconcile(&mut self) {
        let (name, now) = (self.name(), self.world.now());
        self.world.tell(|_| format!("the reconciler looks at {name}"));
        let shared = &mut *self.world.shared();
        shared
            .swift
            .reconcile(&mut self.dice, self.mixture.late, &name, now);
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

    async fn kill(&mut self) {
        // What it sent has arrived by then.
        let (node, time) = (self.node(), Duration::from_millis(3000 + self.dice.roll(6000)));
        self.kill_for(node, time).await;
    }

    /// An agent, or all of them, are away for longer than Swift keeps tombstones, while users may delete everything. They
    /// may come back with empty disks.
    async fn leave(&mut self) {
        let all = self.dice.percent(40);
        let nodes = match self.node() {
            _ if all => 0..self.agents.len(),
            node => node..node + 1,
        };
        for node in nodes {
            let time = Duration::from_millis(20_000 + self.dice.roll(20_000));
            self.kill_for(node, time).await;
            if self.dice.percent(40) {
                self.empty(node).await;
            }
        }
        if self.mixture.sweeps && self.dice.percent(60) {
            self.sweep();
        }
    }

    /// The disk of an agent that is down is emptied.
    async fn empty(&mut self, node: usize) {
        self.world.tell(|_| format!("agent {node} loses its state"));
        self.agents[node].state = empty_state().await;
        self.agents[node].knows_nothing = true;
    }

    async fn kill_for(&mut self, node: usize, time: Duration) {
        if self.dead[node].is_none() {
            self.world
                .tell(|_| format!("agent {node} is killed for {} s", time.as_secs()));
            self.agents[node].kill().await;
            self.world.shared().watch[node].is_killed();
            self.dead[node] = Some(self.world.now().plus(time));
        }
    }

    /// An agent's state is lost. If it is away, it comes back, or stays away and comes back without it.
    async fn lose_state(&mut self) {
        let node = self.node();
        self.agents[node].kill().await;
        self.empty(node).await;
        // What it sent has arrived by then.
        tokio::time::sleep(Duration::from_secs(4)).await;
        if self.dead[node].is_none() || self.dice.percent(50) {
            self.start(node);
        }
    }

    fn replace(&mut self) {
        let (from, to, now) = (self.node(), self.node(), self.world.now());
        self.world
            .tell(|_| format!("node {to} gets a copy of node {from}'s database"));
        let shared = &mut *self.world.shared();
        if shared.swift.replace_db(from, to, now) {
            shared.watch[to].begins_another(now);
        }
    }

    fn restore(&mut self) {
        let (node, now) = (self.node(), self.world.now());
        let has_one = self.world.shared().swift.nodes[node].backup.is_some();
        self.world.tell(|_| match has_one {
            true => format!("node {node}'s database is restored from its backup"),
            false => format!("node {node}'s database is backed up"),
        });
        let shared = &mut *self.world.shared();
        match has_one {
            true => {
                shared.swift.restore(node, now);
                shared.watch[node].begins_another(now);
            }
            false => shared.swift.back_up(node),
        }
    }

    /// Users delete everything.
    fn sweep(&mut self) {
        for name in self.names.clone() {
            self.delete(&name);
        }
    }

    /// Users write many objects.
    pub(super) fn crowd(&mut self) {
        for name in self.names.clone() {
            if self.dice.percent(90) {
                self.put(&name);
            }
        }
    }

    /// A user empties the container and deletes it, or creates it again.
    async fn container_goes_or_comes(&mut self, started: bool) {
        if self.world.shared().swift.deleted.is_some() {
            return self.container_comes();
        }
        if self.mixture.swift_forgets && started && self.dice.percent(50) {
            self.leave().await;
        }
        self.sweep();
        let now = self.world.now();
        let deleted = self.world.shared().swift.delete_container(now);
        self.world.tell(|_| match deleted {
            true => "user: the container is deleted".into(),
            false => "user: the container is not empty".into(),
        });
    }

    pub(super) fn container_comes(&mut self) {
        let (at, now) = (self.users_time(), self.world.now());
        let anew = self.world.shared().swift.create_container(at, now);
        self.world.tell(|_| match anew {
            true => "user: the container is created again, with new databases".into(),
            false => "user: the container is created again".into(),
        });
        if anew {
            for watch in &mut self.world.shared().watch {
                watch.begins_another(now);
            }
        }
    }

    pub(super) async fn release(&self) {
        for agent in &self.agents {
            agent.release(&self.world).await;
        }
    }

    fn stranger(&mut self) {
        let (name, now) = (self.name(), self.world.now());
        let prefix = &self.mappings[self.dice.index(self.mappings.len())].target.prefix;
        let key = format!("{}/{name}", prefix.as_deref().unwrap_or_default());
        // Sometimes what Swift has.
        let same = self.dice.percent(50);
        let shared = &mut *self.world.shared();
        let body = match shared.swift.truth(&name) {
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
                source: source_hash("a", "another", &name),
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
}
