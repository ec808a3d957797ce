//! What is said of a policy in its status: by how it stands with the operator, and by what agents report.
//!
//! Conditions follow the conventions of kstatus: `Reconciling` is true while something is on its way by itself,
//! `Stalled` when a person must act.

mod bound;
mod conditions;
mod events;
mod kept;
mod sum;
mod view;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use onespace_crds::{Agents, FailedRow, FailedRows, HeldDeletes, Progress, Remote, SyncPolicyStatus};

use crate::mapping::Mapping;
use crate::report::HeldRow;
use crate::validate::Finding;

pub use self::bound::LONGEST;
pub(crate) use self::bound::{bound, json_length};
use self::bound::{cut, in_short};
pub use self::events::{Event, events};
pub use self::kept::Kept;
pub use self::sum::{Sum, silent, sum};
pub use self::view::{AgentView, Page};

/// How long the numbers of a policy may be old while nothing else changes, in seconds.
pub const COUNTERS_EVERY: u64 = 60;

/// How long source and target may be in a status, in bytes.
const SOURCE_LENGTH: usize = 256;
const TARGET_LENGTH: usize = 512;

/// How a policy stands with the operator.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// It becomes no mapping.
    Refused(&'a [Finding]),
    /// It is a mapping.
    Accepted {
        /// What it refers to and is missing: it does not run.
        lacking: &'a [Finding],
        /// What it refers to and could not be got: it runs with what was there before.
        outdated: &'a [Finding],
    },
}

/// The status of a policy. `mapping` is there unless the policy cannot be read; `previous` is its status so far; `now` is
/// in seconds since 1970.
#[must_use]
pub fn status(
    generation: i64,
    mapping: Option<&Mapping>,
    standing: Standing<'_>,
    sum: &Sum,
    previous: &SyncPolicyStatus,
    now: i64,
) -> SyncPolicyStatus {
    let source = mapping.map(|mapping| {
        let container = mapping.source.container.trim_start_matches('/');
        in_short(&format!("{}/{container}", mapping.source.account), SOURCE_LENGTH)
    });
    let target = mapping.map(target_in_short);
    let moved = previous.target.is_some() && target.is_some() && previous.target != target;
    let accepted = !matches!(standing, Standing::Refused(_));
    let numbers = accepted && sum.counted > 0;
    // Agents that refuse a mapping count nothing: what was counted last stays.
    let last = Some(previous).filter(|_| accepted && !numbers && !moved);
    let mut status = SyncPolicyStatus {
        observed_generation: Some(generation),
        conditions: conditions::conditions(
            generation,
            standing,
            mapping.and_then(|mapping| mapping.objective.as_ref()),
            sum,
            &previous.conditions,
            moved,
            now,
        ),
        agents: Some(Agents {
            expected: sum.expected,
            reporting: sum.reporting,
            current: sum.current,
        }),
        progress: numbers
            .then(|| Progress {
                as_of: time(sum.as_of.unwrap_or(now)),
                pending: sum.pending,
                oldest_pending: sum.oldest_pending.and_then(time),
                objects: sum.totals.objects,
                bytes: sum.totals.bytes,
                deletes: sum.totals.deletes,
                released: sum.totals.released,
            })
            .or_else(|| last?.progress.clone()),
        failed: numbers
            .then(|| FailedRows {
                count: sum.held,
                latest: sum.latest.iter().filter_map(failed).collect(),
            })
            .or_else(|| last?.failed.clone()),
        held_deletes: sum.held_deletes.as_ref().map(|(id, count, _)| HeldDeletes {
            id: cut(id, 64),
            count: *count,
        }),
        // Never an empty one: an API server that is to take away what it has makes null of it, and refuses it then.
        remote: (numbers && (sum.probed_at.is_some() || !sum.capabilities.is_empty()))
            .then(|| Remote {
                capabilities: sum
                    .capabilities
                    .iter()
                    .take(32)
                    .map(|name| cut(name, 64))
                    .collect(),
                probed_at: sum.probed_at.and_then(time),
            })
            .or_else(|| last?.remote.clone()),
        last_handled_retry: sum
            .handled_retry
            .clone()
            .or_else(|| previous.last_handled_retry.clone()),
        source: source.or_else(|| previous.source.clone()),
        target: target.or_else(|| previous.target.clone()),
    };
    bound(&mut status);
    status
}

/// Whether agents that answer are about to say something of this generation: a status that waits a moment for them says it whole,
/// and the policy does not seem without agents meanwhile. `answer`: some agents do.
#[must_use]
pub fn is_heard_soon(standing: Standing<'_>, sum: &Sum, answer: bool) -> bool {
    let runs = matches!(
        standing,
        Standing::Accepted {
            lacking: [],
            outdated: []
        }
    );
    runs && answer && (sum.expected.is_none() || sum.current < sum.reporting)
}

/// How urgently a status is to be written: the first before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It is about another generation: whoever changed the policy waits for it.
    Generation,
    /// It says something new, or somebody else has changed it.
    News,
    /// Just numbers moved.
    Numbers,
}

/// How urgently a status is to be written; none if it is not: at once if it says something new, or, if just numbers moved,
/// once the last decision is so many seconds old that it is this policy's turn. `jitter` spreads the turns.
#[must_use]
pub fn due(written: &SyncPolicyStatus, wanted: &SyncPolicyStatus, age: u64, jitter: u64) -> Option<Urgency> {
    if written.observed_generation != wanted.observed_generation {
        return Some(Urgency::Generation);
    }
    if without_numbers(written) != without_numbers(wanted) {
        return Some(Urgency::News);
    }
    let as_of_alone = |status: &SyncPolicyStatus| {
        let mut status = status.clone();
        if let Some(progress) = &mut status.progress {
            progress.as_of = None;
        }
        status
    };
    let moved = is_turn(age, jitter) && as_of_alone(written) != as_of_alone(wanted);
    moved.then_some(Urgency::Numbers)
}

/// Whether the last decision is so many seconds old that numbers may be written again.
#[must_use]
pub fn is_turn(age: u64, jitter: u64) -> bool {
    age >= COUNTERS_EVERY + jitter
}

fn without_numbers(status: &SyncPolicyStatus) -> SyncPolicyStatus {
    let mut status = SyncPolicyStatus {
        progress: None,
        failed: None,
        ..status.clone()
    };
    for condition in &mut status.conditions {
        condition.message = without_counts(&condition.message);
    }
    if let Some(held) = &mut status.held_deletes {
        held.count = 0;
    }
    if let Some(remote) = &mut status.remote {
        remote.probed_at = None;
    }
    status
}

/// A message without the words that are numbers: names and addresses stay.
fn without_counts(message: &str) -> String {
    let is_count = |word: &str| {
        let word = word.trim_matches(|character: char| !character.is_alphanumeric());
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
    };
    let words: Vec<&str> = message.split(' ').filter(|word| !is_count(word)).collect();
    words.join(" ")
}

/// `https://s3.example.com:9000/bucket/prefix`, or `s3://bucket/prefix` at AWS.
fn target_in_short(mapping: &Mapping) -> String {
    let target = &mapping.target;
    let mut text = match &target.endpoint {
        Some(endpoint) => format!("{}/{}", endpoint.trim_end_matches('/'), target.bucket),
        None => format!("s3://{}", target.bucket),
    };
    if let Some(prefix) = &target.prefix {
        text.push('/');
        text.push_str(prefix);
    }
    in_short(&text, TARGET_LENGTH)
}

fn failed(row: &HeldRow) -> Option<FailedRow> {
    Some(FailedRow {
        object: cut(&row.object, 256),
        reason: cut(&row.reason, 64),
        attempts: row.attempts,
        since: time(crate::report::unix_seconds(&row.since)?)?,
    })
}

pub(crate) fn time(seconds: i64) -> Option<Time> {
    Timestamp::from_second(seconds).ok().map(Time)
}

#[cfg(test)]
mod tests;
