//! The conditions of a policy, each with a reason of a closed list.

use std::collections::BTreeSet;

use onespace_crds::{Condition, ConditionStatus};

use super::{Standing, Sum, time};
use crate::objective::{Objective, is_met};
use crate::reason::{ConditionReason, PauseReason, StallReason};
use crate::validate::Finding;

/// One condition, before it has a time.
type Said = (&'static str, ConditionStatus, String, String);

/// Pauses that no waiting mends.
const NEEDS_A_PERSON: &[PauseReason] = &[
    PauseReason::InvalidCredentials,
    PauseReason::AccessDenied,
    PauseReason::NoSuchBucket,
    PauseReason::QuotaExceeded,
    PauseReason::AddressDenied,
    PauseReason::InternalEndpointRequired,
    PauseReason::EndpointCannotDecrypt,
    PauseReason::HeldSetFull,
];

/// All conditions. One whose status is what it was keeps its time. `moved`: the target is another one than before.
pub(super) fn conditions(
    generation: i64,
    standing: Standing<'_>,
    objective: Option<&Objective>,
    sum: &Sum,
    previous: &[Condition],
    moved: bool,
    now: i64,
) -> Vec<Condition> {
    let before = |kind: &str| previous.iter().find(|condition| condition.kind == kind);
    let was_complete = !moved
        && before("InitialSyncComplete").is_some_and(|condition| condition.status == ConditionStatus::True);
    let said = match standing {
        Standing::Refused(findings) => refused(findings, was_complete),
        Standing::Accepted { lacking, outdated } => {
            let mut said = accepted(lacking, outdated, sum, was_complete);
            said.extend(objective.map(|objective| objective_met(objective, sum)));
            said
        }
    };
    let timed = |(kind, status, reason, message): Said| {
        let kept = before(kind)
            .filter(|condition| condition.status == status)
            .map(|condition| condition.last_transition_time.clone());
        Some(Condition {
            kind: kind.to_owned(),
            status,
            observed_generation: Some(generation),
            last_transition_time: kept.or_else(|| time(now))?,
            // The CRD takes nothing else; agents may be newer than it.
            reason: reason
                .chars()
                .filter(char::is_ascii_alphabetic)
                .take(64)
                .collect(),
            message,
        })
    };
    said.into_iter().filter_map(timed).collect()
}

fn refused(findings: &[Finding], was_complete: bool) -> Vec<Said> {
    use ConditionReason::NotAccepted;
    use ConditionStatus::{False, True, Unknown};
    let reason = findings
        .first()
        .map_or_else(|| NotAccepted.to_string(), |finding| finding.reason.to_string());
    let message = in_words(findings);
    vec![
        ("Accepted", False, reason.clone(), message.clone()),
        say("CredentialsReady", Unknown, NotAccepted, ""),
        say("Ready", False, NotAccepted, "the condition Accepted says why"),
        say("Reconciling", False, NotAccepted, ""),
        ("Stalled", True, reason, message),
        initial_sync(was_complete),
        say("Degraded", False, NotAccepted, ""),
    ]
}

fn accepted(lacking: &[Finding], outdated: &[Finding], sum: &Sum, was_complete: bool) -> Vec<Said> {
    let complete = was_complete
        || (sum.open > 0
            && sum.expected == Some(sum.first_pass_complete)
            && sum.silent.is_empty()
            && sum.current == sum.reporting);
    let (ready, mut reconciling) = readiness(lacking, sum);
    let stalled = stalled(lacking, sum);
    // Never both: whoever waits for a policy would not see that a person must act.
    if stalled.1 == ConditionStatus::True {
        reconciling = say(
            "Reconciling",
            ConditionStatus::False,
            ConditionReason::Waiting,
            "",
        );
    }
    vec![
        say("Accepted", ConditionStatus::True, ConditionReason::Accepted, ""),
        credentials(lacking, sum),
        ready,
        reconciling,
        stalled,
        initial_sync(complete),
        degraded(lacking, outdated, sum),
    ]
}

fn credentials(lacking: &[Finding], sum: &Sum) -> Said {
    use ConditionStatus::{False, True, Unknown};
    let kind = "CredentialsReady";
    if let Some(finding) = lacking.first() {
        let status = if finding.reason.is_tried_again() {
            Unknown
        } else {
            False
        };
        return (kind, status, finding.reason.to_string(), in_words(lacking));
    }
    let wrong = [PauseReason::InvalidCredentials, PauseReason::AccessDenied];
    let mut paused = sum.paused.iter();
    match paused.find(|(reason, _)| wrong.iter().any(|wrong| wrong.as_str() == reason)) {
        Some((reason, message)) => (kind, False, reason.clone(), message.clone()),
        None if sum.probed_at.is_some() => say(kind, True, ConditionReason::Working, ""),
        None => say(kind, True, ConditionReason::Found, "no agent has tried them yet"),
    }
}

/// Ready, and Reconciling.
fn readiness(lacking: &[Finding], sum: &Sum) -> (Said, Said) {
    use ConditionStatus::{False, True};
    let ready = |status, reason: ConditionReason, message: &str| say("Ready", status, reason, message);
    let still = |reason| say("Reconciling", False, reason, "");
    let moving = |reason, message: &str| say("Reconciling", True, reason, message);
    if let Some(finding) = lacking.first() {
        let (reason, message) = (finding.reason.to_string(), in_words(lacking));
        let ready = ("Ready", False, reason.clone(), message.clone());
        return match by_hand(lacking) {
            Some(_) => (ready, still(ConditionReason::Waiting)),
            None => (ready, ("Reconciling", True, reason, message)),
        };
    }
    if sum.reporting == 0 {
        let message = match sum.absent.is_empty() {
            true => "no agent reports this policy yet".to_owned(),
            false => without_agent(sum),
        };
        let reason = ConditionReason::NoAgent;
        return (ready(False, reason, &message), moving(reason, &message));
    }
    if sum.current < sum.reporting {
        let message = format!("{} of {} agents run this generation", sum.current, sum.reporting);
        let reason = ConditionReason::AgentsBehind;
        return (ready(False, reason, &message), moving(reason, &message));
    }
    if sum.refusing == sum.reporting
        && let Some((reason, message)) = sum.refused.first()
    {
        let ready = ("Ready", False, reason.clone(), message.clone());
        return (ready, still(ConditionReason::Waiting));
    }
    if sum.at_work == 0
        && let Some((reason, message)) = sum.paused.first()
    {
        let ready = ("Ready", False, reason.clone(), message.clone());
        return (ready, still(ConditionReason::Waiting));
    }
    if sum.suspended {
        let reason = ConditionReason::Suspended;
        return (ready(True, reason, "spec.suspend is true"), still(reason));
    }
    if sum.open + sum.unreadable == 0 {
        let reason = ConditionReason::SourceNotFound;
        let message = "no agent has a database of this container: check the names of account and container, and whether every node has an agent";
        return (ready(False, reason, message), still(reason));
    }
    let reason = ConditionReason::Running;
    (ready(True, reason, ""), still(reason))
}

fn stalled(lacking: &[Finding], sum: &Sum) -> Said {
    use ConditionStatus::{False, True};
    let kind = "Stalled";
    if let Some(finding) = by_hand(lacking) {
        return (kind, True, finding.reason.to_string(), in_words(lacking));
    }
    if let Some((id, count, reason)) = &sum.held_deletes {
        let message = format!(
            "{count} deletes are held: look at them, then release them with the annotation {}={id}",
            crate::validate::RELEASE_DELETES
        );
        // Agents from before reasons held batches for their budget alone.
        let reason = StallReason::from_word(reason).unwrap_or(StallReason::DeletesHeld);
        return (kind, True, reason.to_string(), message);
    }
    let person =
        |reason: &str| PauseReason::from_word(reason).is_none_or(|reason| NEEDS_A_PERSON.contains(&reason));
    let mut why = sum.refused.iter().chain(&sum.paused);
    match why.find(|(reason, _)| person(reason)) {
        Some((reason, message)) => (kind, True, reason.clone(), message.clone()),
        None => say(kind, False, ConditionReason::Progressing, ""),
    }
}

fn initial_sync(complete: bool) -> Said {
    let kind = "InitialSyncComplete";
    if complete {
        say(
            kind,
            ConditionStatus::True,
            ConditionReason::FirstPassComplete,
            "",
        )
    } else {
        say(kind, ConditionStatus::False, ConditionReason::FirstPass, "")
    }
}

/// No numbers that move in its message: conditions are written at once.
fn objective_met(objective: &Objective, sum: &Sum) -> Said {
    use ConditionStatus::{False, True, Unknown};
    let kind = "ObjectiveMet";
    let Objective { ratio, within, over } = *objective;
    match sum.objective {
        None => say(
            kind,
            Unknown,
            ConditionReason::NoAgent,
            "no agent has counted yet",
        ),
        Some(rows) if is_met(ratio, rows) => say(kind, True, ConditionReason::InTime, ""),
        Some(_) => {
            let ratio = String::from(ratio);
            let message = format!(
                "of the rows that were due in the last {over} s fewer than {ratio} were in step within {within} s"
            );
            say(kind, False, ConditionReason::Late, &message)
        }
    }
}

fn degraded(lacking: &[Finding], outdated: &[Finding], sum: &Sum) -> Said {
    use ConditionStatus::{False, True};
    let kind = "Degraded";
    let tried_again = |finding: &&Finding| finding.reason.is_tried_again();
    if let Some(finding) = lacking.iter().find(tried_again) {
        return (kind, True, finding.reason.to_string(), finding.message.clone());
    }
    if let Some(finding) = outdated.first() {
        let message = format!("{}: agents go on with what they have", finding.message);
        return (kind, True, finding.reason.to_string(), message);
    }
    if !sum.absent.is_empty() || !sum.silent.is_empty() {
        return say(kind, True, ConditionReason::AgentUnreachable, &without_agent(sum));
    }
    let why = sum.refused.iter().chain(&sum.paused).chain(&sum.cut_off).next();
    if let Some((reason, message)) = why {
        return (kind, True, reason.clone(), message.clone());
    }
    if sum.unreadable > 0 {
        let message = format!(
            "{} container databases cannot be read: agents' logs say why",
            sum.unreadable
        );
        return say(kind, True, ConditionReason::DatabasesUnreadable, &message);
    }
    say(kind, False, ConditionReason::Healthy, "")
}

/// Which agents do not answer, and which nodes of the ring seem to have none.
fn without_agent(sum: &Sum) -> String {
    let mut said = Vec::new();
    if !sum.silent.is_empty() {
        let (count, names) = (sum.silent.len(), some_of(&sum.silent));
        said.push(format!(
            "{count} agents do not answer ({names}): their last numbers stand here"
        ));
    }
    let known: BTreeSet<&str> = sum.silent.iter().flat_map(|node| node.split(',')).collect();
    let unknown: BTreeSet<&str> = sum.absent.iter().map(String::as_str).collect();
    let unknown: BTreeSet<&str> = unknown.difference(&known).copied().collect();
    if !unknown.is_empty() {
        let (count, names) = (unknown.len(), some_of(&unknown));
        let expected = sum.expected.unwrap_or_default();
        said.push(format!(
            "for {count} of {expected} container servers that the ring names for it no agent answers ({names}): does one run there?"
        ));
    }
    said.join("; ")
}

/// The first of them.
fn some_of<T: AsRef<str>>(names: &BTreeSet<T>) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).take(5).collect();
    names.join(", ")
}

fn say(kind: &'static str, status: ConditionStatus, reason: ConditionReason, message: &str) -> Said {
    (kind, status, reason.to_string(), message.to_owned())
}

/// The first of what a person must see to.
fn by_hand(lacking: &[Finding]) -> Option<&Finding> {
    lacking.iter().find(|finding| !finding.reason.is_tried_again())
}

/// All findings, as one text.
fn in_words(findings: &[Finding]) -> String {
    let words: Vec<String> = findings
        .iter()
        .map(|finding| format!("{}: {}", finding.path, finding.message))
        .collect();
    words.join("; ")
}
