//! What a seed makes of the world before anything happens in it.

use std::time::Duration;

use onespace_core::budget::{BudgetMax, DeleteBudget};
use onespace_node_agent::work::Limits;

use super::History;
use crate::agent::{Agent, empty_state, mapping};
use crate::bucket::Bucket;
use crate::deletes::Watch;
use crate::dice::Dice;
use crate::swift::Cluster;
use crate::world::{SLACK, Shared, Trouble, World, beginning};

/// Names that users use. A listing may hide what lies "below" another key.
const NAMES: [&str; 7] = ["a", "a/1", "b", "c", "d", "e", "f"];

/// Names of objects that come and go together.
const CROWD: usize = 13;

/// How long Swift keeps tombstones in this small world.
pub(super) const RECLAIM_AGE: Duration = Duration::from_secs(20);

/// What may happen in a run: each seed has its own mixture, so that rare things meet each other in some of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mixture {
    /// Updates that reach a replica late, percent.
    pub late: u64,
    pub nodes_fail: bool,
    pub replicas_are_replaced: bool,
    pub replicas_are_restored: bool,
    /// The others finish its rows.
    pub an_agent_stays_dead: bool,
    pub policies: bool,
    pub crashes: bool,
    pub state_is_lost: bool,
    pub strangers: bool,
    pub remote_fails: bool,
    pub endpoint_fails: bool,
    pub keys_are_refused: bool,
    /// Swift forgets tombstones, and agents are away for longer than that takes.
    pub swift_forgets: bool,
    /// The container is deleted and created again.
    pub container_goes: bool,
    /// Users delete everything at once.
    pub sweeps: bool,
    /// Many objects come and go together.
    pub crowd: bool,
    /// A person releases deletes that wait while other things happen; else when all is over.
    pub a_person_is_quick: bool,
}

impl Mixture {
    fn new(dice: &mut Dice) -> Self {
        let mut yes = |chance| dice.percent(chance);
        let swift_forgets = yes(40);
        let crowd = yes(20) && swift_forgets;
        Self {
            late: if yes(60) { 30 } else { 0 },
            nodes_fail: yes(40),
            replicas_are_replaced: yes(30),
            replicas_are_restored: yes(25),
            an_agent_stays_dead: yes(25),
            policies: yes(30),
            crashes: yes(40),
            state_is_lost: yes(15),
            strangers: yes(20),
            remote_fails: yes(50),
            endpoint_fails: yes(25),
            keys_are_refused: yes(25),
            swift_forgets,
            container_goes: yes(15),
            sweeps: yes(30) || crowd,
            crowd,
            a_person_is_quick: yes(50),
        }
    }
}

/// A number that clocks are off by, seconds.
fn off(dice: &mut Dice) -> i64 {
    match dice.percent(50) {
        true => 0,
        false => 2 - i64::try_from(dice.roll(5)).unwrap(),
    }
}

fn trouble(dice: &mut Dice) -> Trouble {
    let mut at_times = |chance, percent| if dice.percent(chance) { percent } else { 0 };
    Trouble {
        before: at_times(40, 5),
        after: at_times(40, 5),
        slow: at_times(40, 10),
        source: at_times(30, 10),
        broken: at_times(30, 10),
        busy: at_times(30, 10),
        ..Trouble::default()
    }
}

fn remote(dice: &mut Dice, prefixes: &[&str]) -> Bucket {
    let hides = dice.percent(25);
    let honours = dice.roll(8) | if dice.percent(60) { 7 } else { 0 };
    Bucket {
        put_if_absent: honours & 1 > 0,
        put_if_match: honours & 2 > 0,
        delete_if_match: honours & 4 > 0,
        hidden: prefixes
            .iter()
            .filter(|_| hides)
            .map(|prefix| format!("{prefix}/a/1"))
            .collect(),
        skew: off(dice),
        ..Bucket::default()
    }
}

/// A budget of deletes, and how many deletes it allows at most.
fn budget(dice: &mut Dice, names: usize) -> Option<(DeleteBudget, usize)> {
    let budget = DeleteBudget {
        max: BudgetMax::parse(["1", "2", "10%", "30%"][dice.index(4)]).unwrap(),
        window: [10, 30, 60][dice.index(3)],
    };
    // A name may have a live row under each of two storage policies.
    let most = budget.max.of(2 * names as u64);
    dice.percent(30).then(|| (budget, usize::try_from(most).unwrap()))
}

impl History {
    pub(super) async fn new(seed: u64, told: bool) -> Self {
        let mut dice = Dice::new(seed, 1);
        let mixture = Mixture::new(&mut dice);
        let trouble = trouble(&mut dice);
        // With one replica nobody mends what its agent got wrong.
        let replicas = [1, 1, 2, 2, 2, 3][dice.index(6)];
        let skews: Vec<i64> = (0..replicas).map(|_| off(&mut dice)).collect();
        let prefixes: &[&str] = if dice.percent(25) { &["p", "q"] } else { &["p"] };
        let copy_after = [0, 0, 0, 4][dice.index(4)];
        let remote = remote(&mut dice, prefixes);
        let crowd = if mixture.crowd { CROWD } else { 0 };
        let crowd = (0..crowd).map(|number| format!("n{number:02}"));
        let names: Vec<String> = NAMES.map(ToOwned::to_owned).into_iter().chain(crowd).collect();
        let budget = budget(&mut dice, names.len());
        let limits = Limits {
            slack: SLACK,
            chunk: 1 + dice.index(7),
            held: if dice.percent(15) { 3 } else { 1000 },
            turn: Duration::from_secs(3),
            ..Limits::default()
        };
        let users_skew = off(&mut dice);
        let mut swift = Cluster::new(&skews, beginning());
        swift.reclaim_age = mixture.swift_forgets.then_some(RECLAIM_AGE);
        let allowed = budget.map(|(budget, most)| (most, budget.window()));
        let world = World::new(Shared {
            dice: Dice::new(seed, 2),
            swift,
            remote,
            trouble,
            watch: skews.iter().map(|_| Watch::new(allowed, beginning())).collect(),
            violations: Vec::new(),
            story: told.then(Vec::new),
            requests: 0,
            deletes: (0, 0),
        });
        let mut agents = Vec::new();
        for (node, skew) in skews.iter().enumerate() {
            agents.push(Agent {
                node,
                skew: *skew,
                state: empty_state().await,
                knows_nothing: true,
                tasks: Vec::new(),
            });
        }
        world.tell(|shared| {
            format!(
                "seed {seed}: {mixture:?} {:?}, clocks {skews:?}, users {users_skew}, copyAfter {copy_after}, budget {budget:?}, chunks of {}, held {}, {:?}",
                shared.trouble, limits.chunk, limits.held, shared.remote
            )
        });
        let budget = budget.map(|(budget, _)| budget);
        Self {
            world,
            dice,
            mixture,
            names,
            mappings: prefixes
                .iter()
                .map(|prefix| mapping(prefix, copy_after, budget))
                .collect(),
            limits,
            dead: agents.iter().map(|_| None).collect(),
            agents,
            users_skew,
            written: 0,
        }
    }
}
