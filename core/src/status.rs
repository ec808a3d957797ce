//! What is said of a policy in its status: by how it stands with the operator, and by what agents report.
//!
//! Conditions follow the conventions of kstatus: `Reconciling` is true while something is on its way by itself,
//! `Stalled` when a person must act.

mod conditions;
mod events;
mod sum;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use onespace_crds::{Agents, FailedRow, FailedRows, HeldDeletes, Progress, Remote, SyncPolicyStatus};

use crate::mapping::Mapping;
use crate::report::HeldRow;
use crate::validate::Finding;

pub use self::events::{Event, events};
pub use self::sum::{AgentView, Sum, silent, sum};

/// How long the numbers of a policy may be old while nothing else changes, in seconds.
pub const COUNTERS_EVERY: u64 = 60;

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
        format!(
            "{}/{}",
            mapping.source.account,
            mapping.source.container.trim_start_matches('/')
        )
    });
    let target = mapping.map(target_in_short);
    let moved = previous.target.is_some() && target.is_some() && previous.target != target;
    let accepted = !matches!(standing, Standing::Refused(_));
    let numbers = accepted && sum.counted > 0;
    // Agents that refuse a mapping count nothing: what was counted last stays.
    let last = Some(previous).filter(|_| accepted && !numbers && !moved);
    SyncPolicyStatus {
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
    }
}

/// Whether a status is to be written: at once if it says something new, or, if just numbers moved, once the last
/// decision is so many seconds old that it is this policy's turn. `jitter` spreads the turns.
#[must_use]
pub fn is_due(written: &SyncPolicyStatus, wanted: &SyncPolicyStatus, age: u64, jitter: u64) -> bool {
    if without_numbers(written) != without_numbers(wanted) {
        return true;
    }
    let as_of_alone = |status: &SyncPolicyStatus| {
        let mut status = status.clone();
        if let Some(progress) = &mut status.progress {
            progress.as_of = None;
        }
        status
    };
    age >= COUNTERS_EVERY + jitter && as_of_alone(written) != as_of_alone(wanted)
}

fn without_numbers(status: &SyncPolicyStatus) -> SyncPolicyStatus {
    SyncPolicyStatus {
        progress: None,
        failed: None,
        remote: status.remote.clone().map(|remote| Remote {
            probed_at: None,
            ..remote
        }),
        ..status.clone()
    }
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
    text
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

/// The beginning of a text, of at most so many bytes.
fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
