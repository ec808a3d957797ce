//! What several agents report of one mapping, as one.

use std::collections::{BTreeMap, BTreeSet};

use super::kept::Kept;
use super::view::AgentView;
use crate::objective::Counts;
use crate::reason::Notice;
use crate::report::{Databases, HeldRow, RunState, Totals};

/// All agents' reports of one mapping. Every row is counted by one agent alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// Agents that ever reported it.
    pub known: u32,
    /// Of these, how many have counted what they did.
    pub counted: u32,
    /// Container servers that the ring names for it; none while no agent knows them. What follows counts agents as long as that
    /// is unknown.
    pub expected: Option<u32>,
    /// Of these, how many have an agent that answers.
    pub reporting: u32,
    /// Of these, how many have one that runs the generation that is asked for.
    pub current: u32,
    /// Of these, how many have one that refuses it.
    pub refusing: u32,
    /// Container servers that the ring names for it and no agent answers for.
    pub absent: BTreeSet<String>,
    /// Of those that are expected, how many have an agent that has completed every first pass.
    pub first_pass_complete: u32,
    /// Agents that are silent and have a part in it.
    pub silent: BTreeSet<String>,
    /// Databases that are followed.
    pub open: u64,
    /// Databases that cannot be read.
    pub unreadable: u64,
    /// Agents with databases that answer and are not paused.
    pub at_work: u32,
    /// Every agent does as the policy says and stands still.
    pub suspended: bool,
    /// Why agents are paused: reason and message. First come those with databases.
    pub paused: Vec<(String, String)>,
    /// How many of these have databases.
    pub paused_at_work: usize,
    /// Why agents refuse it: reason and message.
    pub refused: Vec<(String, String)>,
    /// Why no new rows reach agents that work: reason and message.
    pub cut_off: Vec<(String, String)>,
    /// Rows that wait.
    pub pending: u64,
    /// Time of the oldest, in seconds since 1970.
    pub oldest_pending: Option<i64>,
    /// What was done.
    pub totals: Totals,
    /// Rows that are held.
    pub held: u64,
    /// The latest five of them.
    pub latest: Vec<HeldRow>,
    /// The first batch of deletes that waits for a person: id, size, and why.
    pub held_deletes: Option<(String, u64, String)>,
    /// The trigger that every agent that answers has handled.
    pub handled_retry: Option<String>,
    /// Rows that count for the objective, if an agent reports any.
    pub objective: Option<Counts>,
    /// What the remote can do.
    pub capabilities: BTreeSet<String>,
    /// When that was found out, in seconds since 1970.
    pub probed_at: Option<i64>,
    /// The oldest of the agents' answers, in seconds since 1970.
    pub as_of: Option<i64>,
}

/// Sums up what agents say of one mapping. Counts add, `oldest` takes the minimum, ring nodes unite. A silent agent
/// whose node is in no ring of those that answer is forgotten: its node was taken out.
#[must_use]
pub fn sum<'a>(id: &str, generation: i64, agents: impl IntoIterator<Item = &'a AgentView>) -> Sum {
    let agents: Vec<&AgentView> = agents.into_iter().collect();
    let named = ring(id, agents.iter().copied().filter(|agent| agent.reachable));
    let ring = match named.is_empty() {
        true => ring(id, agents.iter().copied()),
        false => named.clone(),
    };
    let mut sum = Sum::default();
    let mut servers: BTreeMap<&str, Server> =
        ring.iter().map(|server| (*server, Server::default())).collect();
    let mut retries: BTreeSet<Option<&str>> = BTreeSet::new();
    let mut running = 0_u32;
    for agent in agents.into_iter().filter(|agent| !is_out(agent, &named)) {
        let refusal = agent.refused.get(id).filter(|_| agent.reachable);
        let said = agent.mappings.get(id);
        let knows = refusal.is_some() || said.is_some();
        let mut part: Vec<&str> = agent.servers().filter(|server| ring.contains(server)).collect();
        if ring.is_empty() && knows {
            part.push(&agent.node);
        }
        if agent.reachable {
            for server in &part {
                servers
                    .entry(*server)
                    .or_default()
                    .take(refusal.is_some(), said, generation);
            }
            let has = said.and_then(|said| said.part.as_deref());
            let follows = has.is_some_and(|has| has.databases.open > 0);
            if follows || said.is_none() && !part.is_empty() {
                retries.insert(has.and_then(|has| has.retry.as_deref()));
            }
        } else if knows && !part.is_empty() {
            sum.silent.insert(agent.node.clone());
        }
        if let Some(refusal) = refusal {
            sum.known += 1;
            sum.refused.push(refusal.clone());
            if let Some((kept, as_of)) = agent.before_refusal.get(id) {
                count(&mut sum, kept, *as_of);
            }
        }
        if let Some(said) = said {
            add(&mut sum, agent, said);
            running += u32::from(said.state != RunState::Suspended);
        }
    }
    sum.suspended = sum.known > 0 && running == 0;
    sum.expected = (!ring.is_empty()).then(|| u32::try_from(ring.len()).unwrap_or(u32::MAX));
    for (name, server) in servers {
        let Server {
            answers,
            current,
            refuses,
            first_pass_complete,
        } = server;
        sum.reporting += u32::from(answers);
        sum.current += u32::from(current);
        sum.refusing += u32::from(refuses);
        sum.first_pass_complete += u32::from(first_pass_complete);
        if !answers {
            sum.absent.insert(name.to_owned());
        }
    }
    sum.latest.sort_by(|one, other| other.since.cmp(&one.since));
    sum.latest.truncate(5);
    if let (1, Some(Some(token))) = (retries.len(), retries.first()) {
        sum.handled_retry = Some((*token).to_owned());
    }
    sum
}

/// One container server of the ring, by what its agent says of a mapping.
#[derive(Clone, Copy, Default)]
struct Server {
    answers: bool,
    current: bool,
    refuses: bool,
    first_pass_complete: bool,
}

impl Server {
    /// Its agent answers. Neither refusal nor report: it has not read the files yet.
    fn take(&mut self, refuses: bool, said: Option<&Kept>, generation: i64) {
        let runs = said.and_then(|said| said.generation);
        self.answers = true;
        self.current |= refuses || runs.is_some_and(|runs| runs >= generation);
        self.refuses |= refuses || said.is_some_and(|said| said.state == RunState::Refused);
        self.first_pass_complete |= !refuses && said.is_some_and(|said| said.initial_pass_complete);
    }
}

/// The container servers that these agents name for a mapping.
fn ring<'a>(id: &str, agents: impl Iterator<Item = &'a AgentView>) -> BTreeSet<&'a str> {
    let mut ring = BTreeSet::new();
    let mut last: Option<&Kept> = None;
    for said in agents.filter_map(|agent| agent.mappings.get(id)) {
        // Most agents have the same ring, which may be long.
        if !last.is_some_and(|last| last.has_same_ring(said)) {
            ring.extend(said.ring());
            last = Some(said);
        }
    }
    ring
}

/// How many agents are silent, but for those whose nodes were taken out of every ring.
#[must_use]
pub fn silent<'a>(agents: impl Iterator<Item = &'a AgentView> + Clone) -> usize {
    if agents.clone().all(|agent| agent.reachable) {
        return 0;
    }
    let named: BTreeSet<&str> = agents
        .clone()
        .filter(|agent| agent.reachable)
        .flat_map(AgentView::rings)
        .collect();
    agents
        .filter(|agent| !agent.reachable && !is_out(agent, &named))
        .count()
}

/// Whether an agent is silent because its node was taken out: those that answer name nodes, and it is none of them. What the
/// ring calls an agent that never answered is not known.
fn is_out(agent: &AgentView, named: &BTreeSet<&str>) -> bool {
    !agent.reachable
        && agent.has_answered()
        && !named.is_empty()
        && !agent.servers().any(|server| named.contains(server))
}

fn add(sum: &mut Sum, agent: &AgentView, said: &Kept) {
    sum.known += 1;
    let Databases { open, unreadable } = said.databases();
    let has_databases = open + unreadable > 0;
    match said.state {
        RunState::Paused if has_databases => {
            sum.paused.insert(sum.paused_at_work, said.why());
            sum.paused_at_work += 1;
        }
        // An agent that has nothing to do may be paused, too: it cannot know whether it has.
        RunState::Paused => sum.paused.push(said.why()),
        RunState::Refused => sum.refused.push(said.why()),
        RunState::Running if said.notices(Notice::ContainerServerSilent) => sum.cut_off.push(said.why()),
        RunState::Running | RunState::Suspended | RunState::Removing => {}
    }
    sum.at_work += u32::from(has_databases && agent.reachable && said.state != RunState::Paused);
    count(sum, said, agent.as_of);
    sum.open += open;
    sum.unreadable += unreadable;
    let Some(part) = said.part.as_deref() else { return };
    if let Some(batch) = part.held_deletes.as_deref() {
        let batch = (batch.id.clone(), batch.rows, batch.reason.clone());
        sum.held_deletes = least(sum.held_deletes.take(), Some(batch));
    }
    if let Some(rows) = part.objective {
        *sum.objective.get_or_insert_default() += rows;
    }
    sum.capabilities.extend(part.capabilities().map(str::to_owned));
    sum.probed_at = least(sum.probed_at, part.probed_at);
}

/// Adds what was counted by this time.
fn count(sum: &mut Sum, said: &Kept, as_of: i64) {
    sum.counted += 1;
    sum.as_of = least(sum.as_of, Some(as_of));
    let Some(part) = said.part.as_deref() else { return };
    let (pending, oldest) = part.pending;
    let (held, latest) = &part.held;
    sum.pending += pending;
    sum.oldest_pending = least(sum.oldest_pending, oldest);
    sum.totals += part.totals;
    sum.held += held;
    sum.latest.extend(latest.iter().cloned());
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
