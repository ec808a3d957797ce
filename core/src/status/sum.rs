//! What several agents report of one mapping, as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::objective::Counts;
use crate::reason::Notice;
use crate::report::{HeldRow, MappingReport, Report, RunState, Totals, unix_seconds};

/// What one agent said last. A silent agent's last words stay.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// The node as the ring names it.
    pub node: String,
    /// It answered the last time.
    pub reachable: bool,
    /// When it answered last, in seconds since 1970.
    pub as_of: i64,
    /// Where to go on from when it is asked again.
    pub revision: Option<String>,
    /// The revision of the files that it runs.
    pub config_revision: String,
    /// Mappings that it refuses: reason and message.
    pub refused: BTreeMap<String, (String, String)>,
    /// Mappings by id.
    pub mappings: BTreeMap<String, MappingReport>,
    /// What it said last of the mappings that it refuses, and when.
    pub before_refusal: BTreeMap<String, (MappingReport, i64)>,
}

impl AgentView {
    /// Takes one page of an answer: the first names the revision to go on from, and says whether it is a full answer.
    pub fn take(&mut self, report: Report, first: bool, now: i64) {
        let Report {
            agent,
            config,
            revision,
            full,
            next: _,
            removed,
            mappings,
        } = report;
        self.refused = config
            .refused
            .into_iter()
            .map(|refused| (refused.id, (refused.reason, refused.message)))
            .collect();
        self.before_refusal.retain(|id, _| self.refused.contains_key(id));
        if first {
            if full {
                std::mem::take(&mut self.mappings)
                    .into_iter()
                    .for_each(|(id, report)| self.lose(id, report));
            }
            self.revision = Some(revision);
        }
        for id in removed {
            if let Some(report) = self.mappings.remove(&id.0) {
                self.lose(id.0, report);
            }
        }
        self.node = agent.node;
        self.reachable = true;
        self.as_of = now;
        self.config_revision = config.revision;
        for mapping in mappings {
            self.mappings.insert(mapping.id.clone(), mapping);
        }
    }

    /// It reports this mapping no more. What it had counted stays if it is one that it refuses.
    fn lose(&mut self, id: String, report: MappingReport) {
        if self.refused.contains_key(&id) {
            self.before_refusal.insert(id, (report, self.as_of));
        }
    }
}

/// All agents' reports of one mapping. Every row is counted by one agent alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// Agents that ever reported it.
    pub known: u32,
    /// Of these, how many have counted what they did.
    pub counted: u32,
    /// Nodes that the ring names for it; none while no agent reports.
    pub expected: Option<u32>,
    /// Agents that report it now.
    pub reporting: u32,
    /// Of these, how many run the generation that is asked for.
    pub current: u32,
    /// Agents that are silent.
    pub silent: BTreeSet<String>,
    /// Databases that are followed.
    pub open: u64,
    /// Databases that cannot be read.
    pub unreadable: u64,
    /// Agents with databases.
    pub with_databases: u32,
    /// Of these, how many have completed every first pass.
    pub first_pass_complete: u32,
    /// Every agent does as the policy says and stands still.
    pub suspended: bool,
    /// Why agents with databases are paused: reason and message.
    pub paused: Vec<(String, String)>,
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
    /// The trigger that every agent has handled.
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
    let named: BTreeSet<&str> = agents
        .iter()
        .filter(|agent| agent.reachable)
        .filter_map(|agent| agent.mappings.get(id))
        .flat_map(|report| report.ring_nodes.iter().map(String::as_str))
        .collect();
    let mut sum = Sum::default();
    let mut ring: BTreeSet<&str> = BTreeSet::new();
    let mut retries: BTreeSet<Option<&str>> = BTreeSet::new();
    let mut running = 0_u32;
    for agent in agents.into_iter().filter(|agent| !is_out(agent, &named)) {
        if let Some(refusal) = agent.refused.get(id)
            && agent.reachable
        {
            sum.known += 1;
            sum.reporting += 1;
            sum.current += 1;
            sum.refused.push(refusal.clone());
            if let Some((report, as_of)) = agent.before_refusal.get(id) {
                count(&mut sum, report, *as_of);
            }
        }
        let Some(report) = agent.mappings.get(id) else {
            continue;
        };
        add(&mut sum, agent, report, generation);
        running += u32::from(report.state != RunState::Suspended);
        ring.extend(report.ring_nodes.iter().map(String::as_str));
        if agent.reachable && report.databases.open > 0 {
            retries.insert(report.handled.retry.as_deref());
        }
    }
    sum.suspended = sum.known > 0 && running == 0;
    sum.expected = (!ring.is_empty()).then(|| u32::try_from(ring.len()).unwrap_or(u32::MAX));
    sum.latest.sort_by(|one, other| other.since.cmp(&one.since));
    sum.latest.truncate(5);
    if let (1, Some(Some(token))) = (retries.len(), retries.first()) {
        sum.handled_retry = Some((*token).to_owned());
    }
    sum
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
        .flat_map(|agent| agent.mappings.values())
        .flat_map(|report| report.ring_nodes.iter().map(String::as_str))
        .collect();
    agents
        .filter(|agent| !agent.reachable && !is_out(agent, &named))
        .count()
}

/// Whether an agent is silent because its node was taken out: those that answer name nodes, and it is none of them.
fn is_out(agent: &AgentView, named: &BTreeSet<&str>) -> bool {
    !agent.reachable && !named.is_empty() && !agent.node.split(',').any(|node| named.contains(node))
}

fn add(sum: &mut Sum, agent: &AgentView, report: &MappingReport, generation: i64) {
    let MappingReport {
        id: _,
        policy,
        state,
        reason,
        message,
        ring_nodes: _,
        databases,
        initial_pass_complete,
        verify: _,
        held_deletes,
        objective,
        handled: _,
        remote,
        ..
    } = report;
    sum.known += 1;
    count(sum, report, agent.as_of);
    if agent.reachable {
        sum.reporting += 1;
        let runs = policy.as_ref().map(|policy| policy.generation);
        sum.current += u32::from(runs.is_some_and(|runs| runs >= generation));
    } else {
        sum.silent.insert(agent.node.clone());
    }
    sum.open += databases.open;
    sum.unreadable += databases.unreadable;
    let why = || {
        (
            reason.clone().unwrap_or_default(),
            message.clone().unwrap_or_default(),
        )
    };
    if databases.open + databases.unreadable > 0 {
        sum.with_databases += 1;
        sum.first_pass_complete += u32::from(*initial_pass_complete);
    }
    match state {
        // An agent that has nothing to do may be paused, too: it cannot know whether it has.
        RunState::Paused => sum.paused.push(why()),
        RunState::Refused => sum.refused.push(why()),
        RunState::Running if reason.as_deref() == Some(Notice::ContainerServerSilent.as_str()) => {
            sum.cut_off.push(why());
        }
        RunState::Running | RunState::Suspended | RunState::Removing => {}
    }
    if let Some(batch) = held_deletes {
        let batch = (batch.id.clone(), batch.rows, batch.reason.clone());
        sum.held_deletes = least(sum.held_deletes.take(), Some(batch));
    }
    if let Some(objective) = objective {
        *sum.objective.get_or_insert_default() += objective.rows;
    }
    let able = remote.capabilities.iter().filter(|(_, able)| **able);
    sum.capabilities.extend(able.map(|(name, _)| name.clone()));
    sum.probed_at = least(sum.probed_at, remote.probed_at.as_deref().and_then(unix_seconds));
}

/// Adds what was counted by this time.
fn count(sum: &mut Sum, report: &MappingReport, as_of: i64) {
    let MappingReport {
        pending,
        held,
        totals,
        ..
    } = report;
    sum.counted += 1;
    sum.pending += pending.rows;
    let oldest = pending.oldest.as_deref().and_then(unix_seconds);
    sum.oldest_pending = least(sum.oldest_pending, oldest);
    sum.totals += *totals;
    sum.held += held.rows;
    sum.latest.extend(held.latest.iter().cloned());
    sum.as_of = least(sum.as_of, Some(as_of));
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
