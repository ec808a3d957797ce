//! One run: what a seed makes happen, and what must be true in the end.

mod events;
mod mixture;

use std::collections::BTreeSet;
use std::time::Duration;

use onespace_core::mapping::Mapping;
use onespace_core::report::MappingReport;
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::work::Limits;

use crate::agent::{Agent, leave};
use crate::deletes::UNDER_WAY;
use crate::dice::Dice;
use crate::model::{self, Leave};
use crate::world::{Trouble, World, beginning};
use mixture::{Mixture, RECLAIM_AGE};

/// What a run was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Requests to Swift and the remote.
    pub requests: u64,
    /// Seconds of the world's time.
    pub seconds: u64,
    /// Deletes at the remote, and those of them whose tombstones Swift had forgotten.
    pub deletes: (u64, u64),
}

impl Stats {
    /// Adds those of another run.
    pub fn add(&mut self, other: Self) {
        let Self {
            requests,
            seconds,
            deletes,
        } = other;
        self.requests += requests;
        self.seconds += seconds;
        self.deletes = (self.deletes.0 + deletes.0, self.deletes.1 + deletes.1);
    }
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
        let mut history = History::new(seed, told).await;
        let result = history.play().await;
        for agent in &mut history.agents {
            agent.kill().await;
            leave(agent.state.clone());
        }
        let mut shared = history.world.shared();
        let stats = Stats {
            requests: shared.requests,
            deletes: shared.deletes,
            seconds: history.world.now().duration_since(beginning()).as_secs(),
        };
        let result = match shared.violations.first() {
            Some(what) => Err(what.clone()),
            None => result.map(|()| stats),
        };
        (shared.story.take().unwrap_or_default(), result)
    })
}

struct History {
    world: World,
    dice: Dice,
    mixture: Mixture,
    /// Names that users use.
    names: Vec<String>,
    agents: Vec<Agent>,
    mappings: Vec<Mapping>,
    limits: Limits,
    /// Agents that are down, and until when.
    dead: Vec<Option<Timestamp>>,
    users_skew: i64,
    written: u64,
}

impl History {
    async fn play(&mut self) -> Result<(), String> {
        let steps = 15 + self.dice.roll(35);
        // Some agents find everything there already.
        let start = if self.dice.percent(50) {
            0
        } else {
            self.dice.roll(steps)
        };
        if self.mixture.crowd {
            self.crowd();
        }
        for step in 0..steps {
            if step == start {
                for agent in &mut self.agents {
                    agent.start(&self.world, &self.mappings, self.limits);
                }
            }
            self.step(step > start).await;
            let wait = match self.dice.roll(10) {
                0..=4 => 1 + self.dice.roll(20),
                5..=8 => 20 + self.dice.roll(900),
                9 if self.mixture.swift_forgets && self.dice.percent(50) => 3000 + self.dice.roll(12_000),
                _ => 500 + self.dice.roll(2500),
            };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.calm().await;
        self.end().await
    }

    /// Faults stop, Swift converges, every agent is back, or all but one.
    async fn calm(&mut self) {
        self.world.tell(|_| "faults stop, and Swift converges".into());
        let now = self.world.now();
        if self.world.shared().swift.deleted.is_some() && self.dice.percent(70) {
            self.container_comes();
        }
        {
            let shared = &mut *self.world.shared();
            shared.trouble = Trouble {
                endpoint_is_down: BTreeSet::new(),
                ..Trouble::default()
            };
            shared.swift.converge(&mut self.dice, &self.names, now);
            let backups = self.mixture.replicas_are_restored;
            let odd = self
                .names
                .iter()
                .find(|name| !shared.swift.is_listed_as_it_is(name));
            if let Some(name) = odd.filter(|_| !backups) {
                let what = format!("this Swift is none: it lists {name} as what it is not");
                shared.violations.push(what);
            }
        }
        if let Some(age) = self.mixture.swift_forgets.then_some(RECLAIM_AGE)
            && self.dice.percent(60)
        {
            // Who is away stays away until Swift has forgotten everything.
            tokio::time::sleep(age + Duration::from_secs(10)).await;
            self.reclaim();
            // Nothing that they do from now on was begun while there were tombstones.
            tokio::time::sleep(UNDER_WAY).await;
        }
        let mut stays_dead = self.mixture.an_agent_stays_dead && self.agents.len() > 1;
        for agent in self.agents.iter_mut().filter(|agent| agent.tasks.is_empty()) {
            if std::mem::take(&mut stays_dead) {
                continue;
            }
            agent.start(&self.world, &self.mappings, self.limits);
        }
    }

    /// Swift forgets what is old enough.
    fn reclaim(&self) {
        let now = self.world.now();
        for index in 0..self.agents.len() {
            self.world.shared().swift.reclaim(index, &self.names, now);
        }
    }

    /// The remote must become what Swift is, and stay so; but for deletes that wait for a person, until there is one.
    async fn end(&mut self) -> Result<(), String> {
        if !self.mixture.a_person_is_quick {
            self.settle(false).await?;
        }
        self.settle(true).await?;
        let shared = self.world.shared();
        for (agent, watch) in self.agents.iter().zip(&shared.watch) {
            // What is held is tried again later, and looked at then.
            let holds = agent
                .reports()
                .any(|report| report.held.rows + report.held.of_others > 0);
            if let Some(name) = watch.unseen().filter(|_| !holds) {
                return Err(format!(
                    "agent {} deleted {name} and did not look again",
                    agent.node
                ));
            }
        }
        Ok(())
    }

    fn difference(&self, waiting: bool) -> Option<String> {
        let prefixes = self
            .mappings
            .iter()
            .filter_map(|mapping| mapping.target.prefix.as_deref());
        let dead = self.agents.iter().filter(|agent| agent.tasks.is_empty());
        let leave = Leave {
            dead: dead.map(|agent| agent.node).collect(),
            waiting,
        };
        model::difference(&self.world, prefixes, &self.names, &leave)
    }

    async fn settle(&self, a_person_looks: bool) -> Result<(), String> {
        let reports = || self.agents.iter().flat_map(Agent::reports);
        let waiting = || !a_person_looks && reports().any(|report| report.held_deletes.is_some());
        let (mut different, mut settled) = (None, false);
        for round in 0..PATIENCE {
            self.world.tell(|shared| {
                let requests = shared.requests;
                format!("round {round}, {requests} requests so far, different: {different:?}")
            });
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.reclaim();
            // What a stranger wrote stays held.
            let verified = |report: &MappingReport| report.verify.rows <= report.held.of_others;
            let idle = reports().all(|report| report.idle && verified(&report));
            different = self.difference(waiting());
            // Where no more deletes may wait, others stand still.
            settled = different.is_none() && (idle || (waiting() && round > STANDS_STILL));
            if settled {
                break;
            }
            if a_person_looks {
                self.release().await;
            }
            for agent in &self.agents {
                if agent.reports().any(|report| report.held.rows > 0 || !report.idle) {
                    agent.retry().await;
                }
            }
        }
        if different.is_none() {
            // One more pass must change nothing.
            let age = self.world.shared().swift.reclaim_age.unwrap_or_default();
            tokio::time::sleep(age + Duration::from_secs(2)).await;
            different = self
                .difference(waiting())
                .map(|difference| format!("{difference} (it was in step before)"));
        }
        let busy = (!settled).then(|| reports().find(|report| !report.idle));
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

/// After so many times 3 s what stands still waits for a person.
const STANDS_STILL: usize = 10;

/// So many times 3 s the agents have to get in step after all faults have stopped.
const PATIENCE: usize = 60;
