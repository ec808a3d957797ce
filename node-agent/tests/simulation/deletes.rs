//! What must hold of every delete at the remote, judged when it takes effect: a user's delete is behind it; what Swift
//! has forgotten goes only by the rules of the reconciling pass; and no more go than a person allowed.

use std::collections::BTreeSet;
use std::time::Duration;

use onespace_core::mark::Mark;
use onespace_core::naming::primary_index;
use onespace_core::timestamp::Timestamp;

use crate::model::{UNGUARDED, name, own_source};
use crate::world::{SLACK, Shared, World};

/// From an agent's look at its rows to the arrival of its request at the remote it takes no longer than this.
pub const UNDER_WAY: Duration = Duration::from_secs(8);

/// So many forgotten deletes of one pass need no person.
const FEW: usize = 9;

/// A delete that took effect.
#[derive(Clone, Debug)]
struct Delete {
    prefix: String,
    name: String,
    at: Timestamp,
    /// No row spoke of the name any more.
    rowless: bool,
}

/// What is known of one agent's deletes.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Since when it may know its database: since then neither its state was lost nor the database replaced.
    known_since: Timestamp,
    /// For so long what it was about to do before may still arrive.
    before: Duration,
    /// Deletes since then.
    deletes: Vec<Delete>,
    /// A person released deletes since then: nobody here knows which.
    released: bool,
    /// Names that it deleted and has not asked Swift about since.
    unseen: BTreeSet<String>,
    /// At most so many deletes within a window of so long.
    budget: Option<(usize, Duration)>,
}

impl Watch {
    /// Of an agent that begins.
    pub fn new(budget: Option<(usize, Duration)>, now: Timestamp) -> Self {
        Self {
            known_since: now,
            before: Duration::ZERO,
            deletes: Vec::new(),
            released: false,
            unseen: BTreeSet::new(),
            budget,
        }
    }

    /// It starts with nothing in its state.
    pub fn begins_anew(&mut self, now: Timestamp) {
        *self = Self::new(self.budget, now);
    }

    /// While it runs its database becomes another one.
    pub fn begins_another(&mut self, now: Timestamp) {
        self.begins_anew(now);
        self.before = UNDER_WAY;
    }

    /// It is killed: what it was about to do is not demanded.
    pub fn is_killed(&mut self) {
        self.unseen.clear();
    }

    /// It asks Swift about a name.
    pub fn asks_about(&mut self, name: &str) {
        self.unseen.remove(name);
    }

    /// A name that it deleted without asking Swift again.
    pub fn unseen(&self) -> Option<&str> {
        self.unseen.first().map(String::as_str)
    }

    /// Whether this may be something that it was about to do before it began anew.
    fn is_from_before(&self, now: Timestamp) -> bool {
        now < self.known_since.plus(self.before)
    }

    /// A person released deletes of it.
    pub fn is_released(&mut self) {
        self.released = true;
    }

    /// Different names that it deleted lately.
    fn lately(&self, prefix: &str, long: Duration, now: Timestamp, rowless: bool) -> usize {
        let lately = |delete: &&Delete| {
            delete.prefix == prefix && delete.at.plus(long) >= now && (delete.rowless || !rowless)
        };
        let names: BTreeSet<_> = self
            .deletes
            .iter()
            .filter(lately)
            .map(|delete| &delete.name)
            .collect();
        names.len()
    }

    /// No window began before it did, and none before the one before was over.
    fn is_over_budget(&self, prefix: &str, now: Timestamp) -> bool {
        let Some((max, window)) = self.budget.filter(|_| !self.released) else {
            return false;
        };
        let age = now.duration_since(self.known_since);
        let windows = 1 + usize::try_from(age.as_secs() / window.as_secs()).unwrap();
        self.lately(prefix, age, now, false) > windows * max
            || self.lately(prefix, window, now, false) > 2 * max
    }

    /// So many forgotten deletes of one pass wait for a person. Passes begin this far from each other; what one found
    /// may be worked off when the next one has begun.
    fn is_mass(&self, prefix: &str, age: Duration, now: Timestamp) -> bool {
        !self.released && self.lately(prefix, age.saturating_sub(UNDER_WAY), now, true) > FEW
    }
}

/// Judges a delete that an agent carries out.
pub fn check_delete(world: &World, agent: usize, key: &str) {
    let now = world.now();
    let wrong = {
        let shared = &mut *world.shared();
        let Some(old) = shared.remote.objects.get(key) else {
            return;
        };
        let mark = Mark::read(&old.object.headers.metadata).and_then(Result::ok);
        let rowless =
            shared.swift.nodes[agent]
                .db
                .is_rowless(name(key), UNDER_WAY, shared.swift.local(agent, now));
        shared.deletes.0 += 1;
        shared.deletes.1 += u64::from(rowless);
        let wrong = match (rowless, &mark) {
            (true, Some(mark)) => forgotten(shared, agent, name(key), mark, now),
            _ => None,
        };
        let wrong = wrong.or_else(|| without_a_user(shared, key, now));
        let watch = &mut shared.watch[agent];
        // A row that Swift forgets meanwhile is not worked on again.
        if shared.swift.reclaim_age.is_none() {
            watch.unseen.insert(name(key).into());
        }
        let prefix = key.split_once('/').map_or(key, |(prefix, _)| prefix);
        if !watch.is_from_before(now) {
            watch.deletes.push(Delete {
                prefix: prefix.into(),
                name: name(key).into(),
                at: now,
                rowless,
            });
        }
        let age = shared.swift.reclaim_age.unwrap_or_default();
        wrong.or_else(|| {
            if watch.is_over_budget(prefix, now) {
                Some("beyond the budget")
            } else if watch.is_mass(prefix, age, now) {
                Some("one of many that Swift had forgotten, and nobody had looked")
            } else {
                None
            }
        })
    };
    if let Some(what) = wrong {
        world.violation(format!("agent {agent} deleted {key}, {what}"));
    }
}

/// What forbids to delete the copy of a name that no row of the agent's database speaks of.
fn forgotten(shared: &Shared, agent: usize, name: &str, mark: &Mark, now: Timestamp) -> Option<&'static str> {
    let swift = &shared.swift;
    let Some(age) = swift.reclaim_age else {
        return Some("of which no row spoke, though Swift forgets nothing");
    };
    let lists =
        |(index, node): (usize, &crate::swift::Node)| node.db.lists(name, UNDER_WAY, swift.local(index, now));
    let owner = primary_index(name, u32::try_from(swift.nodes.len()).unwrap());
    let watch = &shared.watch[agent];
    let oldest = mark.data_time.min(mark.time);
    let created_again = |node: &crate::swift::Node| {
        oldest <= node.db.created && node.db.created.plus(UNDER_WAY + SLACK) < now
    };
    if usize::try_from(owner).unwrap() != agent {
        Some("of which no row spoke, and which is another agent's")
    } else if !watch.is_from_before(now) && now < watch.known_since.plus(age) {
        Some("of which no row spoke, on the first pass over its database")
    } else if swift.nodes.iter().enumerate().any(lists) {
        Some("which another replica lists")
    } else if swift.nodes.iter().any(created_again) {
        Some("which is older than the container")
    } else {
        None
    }
}

/// What forbids a delete, however the agent came to it.
fn without_a_user(shared: &Shared, key: &str, now: Timestamp) -> Option<&'static str> {
    let old = shared.remote.objects.get(key)?;
    let deletes = shared
        .swift
        .ledger
        .deletes
        .get(name(key))
        .cloned()
        .unwrap_or_default();
    let unguarded = !shared.remote.delete_if_match && now.duration_since(old.since) < UNGUARDED;
    match Mark::read(&old.object.headers.metadata) {
        Some(Ok(mark)) if mark.source != own_source(key) => Some("the copy of another source"),
        _ if unguarded => None,
        Some(Ok(mark)) if deletes.iter().any(|at| *at > mark.data_time.ticks()) => None,
        Some(_) => Some("which no user deleted"),
        None if !shared
            .swift
            .ledger
            .bodies
            .iter()
            .any(|((of, _), body)| of == name(key) && *body == old.body) =>
        {
            Some("a stranger's object")
        }
        None => {
            let written = old.object.last_modified;
            let before = |at: &u64| written <= Timestamp::from_ticks(*at, 0).plus(SLACK);
            (!deletes.iter().any(before)).then_some("a stranger's object that came later")
        }
    }
}
