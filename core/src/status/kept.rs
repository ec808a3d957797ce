//! What is kept of an agent's report of a mapping: what a status is made of, and no more. Every agent reports every mapping, and
//! whole reports of thousands would fill the operator's memory. Most agents have nothing of most mappings: of those the least is kept.

use crate::objective::Counts;
use crate::reason::Notice;
use crate::report::{
    Databases, HeldDeletes, HeldReport, HeldRow, MappingReport, Pending, RunState, Totals, unix_seconds,
};

/// What an agent said last of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The generation of the policy that it runs.
    pub(super) generation: Option<i64>,
    pub(super) state: RunState,
    pub(super) initial_pass_complete: bool,
    /// Reason and message of the state, where there is one.
    pub(super) why: Option<Box<(String, String)>>,
    /// The container servers that the ring names for it, with commas between them.
    ring: Box<str>,
    /// What it has of it; none if it has nothing.
    pub(super) part: Option<Box<Part>>,
}

/// What an agent has of a mapping.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) databases: Databases,
    /// Rows that wait, and the time of the oldest in seconds since 1970.
    pub(super) pending: (u64, Option<i64>),
    pub(super) totals: Totals,
    /// Rows that are held, and the latest of them.
    pub(super) held: (u64, Box<[HeldRow]>),
    pub(super) held_deletes: Option<Box<HeldDeletes>>,
    pub(super) objective: Option<Counts>,
    /// The last `onespace.dev/retry` that it acted on.
    pub(super) retry: Option<Box<str>>,
    /// What the remote can do, with commas between the names.
    capabilities: Box<str>,
    /// When that was found out, in seconds since 1970.
    pub(super) probed_at: Option<i64>,
}

impl Kept {
    /// What to keep of a report.
    pub(super) fn of(report: MappingReport) -> Self {
        let mut kept = Self::whole(report);
        let has_nothing = kept.part.as_deref().is_none_or(Part::is_nothing);
        // Without a ring nobody knows whose part it is.
        if has_nothing && !kept.ring.is_empty() {
            kept.part = None;
        }
        kept
    }

    /// The same, with a part even if there is nothing in it.
    pub(super) fn whole(report: MappingReport) -> Self {
        let MappingReport {
            id: _,
            policy,
            state,
            reason,
            message,
            ring_nodes,
            databases,
            initial_pass_complete,
            pending:
                Pending {
                    rows,
                    exact: _,
                    oldest,
                },
            verify: _,
            held,
            held_deletes,
            reconcile: _,
            objective,
            limits: _,
            handled,
            totals,
            remote,
            idle: _,
        } = report;
        let HeldReport {
            rows: held, latest, ..
        } = held;
        let able = remote.capabilities.iter().filter(|(_, able)| **able);
        let part = Part {
            databases,
            pending: (rows, oldest.as_deref().and_then(unix_seconds)),
            totals,
            held: (held, latest.into()),
            held_deletes: held_deletes.map(Box::new),
            objective: objective.map(|objective| objective.rows),
            retry: handled.retry.map(Into::into),
            capabilities: joined(able.map(|(name, _)| name.as_str())),
            probed_at: remote.probed_at.as_deref().and_then(unix_seconds),
        };
        let has_why = reason.is_some() || message.is_some();
        Self {
            generation: policy.map(|policy| policy.generation),
            state,
            initial_pass_complete,
            why: has_why.then(|| Box::new((reason.unwrap_or_default(), message.unwrap_or_default()))),
            ring: joined(ring_nodes.iter().map(String::as_str)),
            part: Some(Box::new(part)),
        }
    }

    /// Reason and message of the state.
    pub(super) fn why(&self) -> (String, String) {
        self.why.as_deref().cloned().unwrap_or_default()
    }

    /// Whether it runs and this is what it notices.
    pub(super) fn notices(&self, notice: Notice) -> bool {
        let why = self.why.as_deref();
        why.is_some_and(|(reason, _)| reason == notice.as_str())
    }

    /// Whether the same container servers are named.
    pub(super) fn has_same_ring(&self, other: &Self) -> bool {
        self.ring == other.ring
    }

    /// The container servers that the ring names for it.
    pub(super) fn ring(&self) -> impl Iterator<Item = &str> {
        split(&self.ring)
    }

    /// Databases of it that the agent has.
    pub(super) fn databases(&self) -> Databases {
        self.part.as_ref().map(|part| part.databases).unwrap_or_default()
    }
}

impl Part {
    /// What the remote can do, and what was acted on, is asked of those who have something.
    fn is_nothing(&self) -> bool {
        let Self {
            databases,
            pending,
            totals,
            held: (held, latest),
            held_deletes,
            objective,
            retry: _,
            capabilities: _,
            probed_at: _,
        } = self;
        (*databases, pending.0, *totals) == Default::default()
            && (*held, latest.len()) == (0, 0)
            && held_deletes.is_none()
            && objective.is_none_or(|counts| counts == Counts::default())
    }

    /// What the remote can do.
    pub(super) fn capabilities(&self) -> impl Iterator<Item = &str> {
        split(&self.capabilities)
    }
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> Box<str> {
    words.collect::<Vec<_>>().join(",").into()
}

fn split(words: &str) -> impl Iterator<Item = &str> {
    words.split(',').filter(|word| !word.is_empty())
}
