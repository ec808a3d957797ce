//! What is kept of a mapping's report by an agent that has no database of it. Every agent reports every mapping, and most have
//! none of most of them: whole reports of thousands would fill the operator's memory.

use crate::reason::Notice;
use crate::report::{HeldReport, MappingReport, Pending, RunState, Totals, Verify};

/// An agent that runs a mapping and has nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bystander {
    generation: Option<i64>,
    state: RunState,
    initial_pass_complete: bool,
    /// Reason and message of the state, where there is one.
    why: Option<Box<(String, String)>>,
    /// The container servers that the ring names for it, with commas between them.
    ring: Box<str>,
}

impl Bystander {
    /// What to keep of a report; none if it says of anything that it is there, or may be.
    pub(super) fn of(report: &MappingReport) -> Option<Self> {
        let MappingReport {
            id: _,
            policy,
            state,
            reason,
            message,
            ring_nodes,
            databases,
            initial_pass_complete,
            pending: Pending { rows: pending, .. },
            verify: Verify { rows: verify, .. },
            held: HeldReport { rows: held, .. },
            held_deletes,
            reconcile: _,
            objective,
            limits: _,
            handled: _,
            totals,
            remote: _,
            idle: _,
        } = report;
        let counts = objective.as_ref().map(|objective| objective.rows);
        let has_nothing = !ring_nodes.is_empty()
            && (databases.open, databases.unreadable) == (0, 0)
            && (*pending, *verify, *held) == (0, 0, 0)
            && held_deletes.is_none()
            && counts.is_none_or(|counts| counts == Default::default())
            && *totals == Totals::default();
        let ring: Vec<&str> = ring_nodes.iter().map(String::as_str).collect();
        has_nothing.then(|| Self {
            generation: policy.as_ref().map(|policy| policy.generation),
            state: *state,
            initial_pass_complete: *initial_pass_complete,
            why: (reason.is_some() || message.is_some()).then(|| {
                Box::new((
                    reason.clone().unwrap_or_default(),
                    message.clone().unwrap_or_default(),
                ))
            }),
            ring: ring.join(",").into(),
        })
    }
}

/// What an agent reports of a mapping: all of it, if it has a part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said<'a> {
    All(&'a MappingReport),
    Little(&'a Bystander),
}

impl<'a> Said<'a> {
    /// The generation that it runs.
    pub(super) fn generation(self) -> Option<i64> {
        match self {
            Self::All(report) => report.policy.as_ref().map(|policy| policy.generation),
            Self::Little(bystander) => bystander.generation,
        }
    }

    pub(super) fn state(self) -> RunState {
        match self {
            Self::All(report) => report.state,
            Self::Little(bystander) => bystander.state,
        }
    }

    /// Reason and message of the state.
    pub(super) fn why(self) -> (String, String) {
        match self {
            Self::All(report) => (
                report.reason.clone().unwrap_or_default(),
                report.message.clone().unwrap_or_default(),
            ),
            Self::Little(bystander) => bystander.why.as_deref().cloned().unwrap_or_default(),
        }
    }

    pub(super) fn initial_pass_complete(self) -> bool {
        match self {
            Self::All(report) => report.initial_pass_complete,
            Self::Little(bystander) => bystander.initial_pass_complete,
        }
    }

    /// The whole report.
    pub(super) fn all(self) -> Option<&'a MappingReport> {
        match self {
            Self::All(report) => Some(report),
            Self::Little(_) => None,
        }
    }

    /// Whether it runs and this is what it notices.
    pub(super) fn notices(self, notice: Notice) -> bool {
        let reason = match self {
            Self::All(report) => report.reason.as_deref(),
            Self::Little(bystander) => bystander.why.as_deref().map(|(reason, _)| reason.as_str()),
        };
        reason == Some(notice.as_str())
    }

    /// Whether another report names the same container servers, as far as that is easily seen.
    pub(super) fn has_same_ring(self, other: Self) -> bool {
        match (self, other) {
            (Self::All(one), Self::All(other)) => one.ring_nodes == other.ring_nodes,
            (Self::Little(one), Self::Little(other)) => one.ring == other.ring,
            _ => false,
        }
    }

    /// The container servers that the ring names for it.
    pub(super) fn ring(self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self {
            Self::All(report) => Box::new(report.ring_nodes.iter().map(String::as_str)),
            Self::Little(bystander) => Box::new(bystander.ring.split(',')),
        }
    }
}
