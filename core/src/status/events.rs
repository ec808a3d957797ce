//! What a person should hear of when a status changes.

use onespace_crds::{Condition, ConditionStatus, SyncPolicyStatus};

use crate::reason::ConditionReason;

/// One thing to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Something is wrong.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// What to do, or what is well again.
    pub message: String,
}

/// Conditions, and the status of each that is bad news.
const BAD: &[(&str, ConditionStatus)] = &[
    ("Stalled", ConditionStatus::True),
    ("Degraded", ConditionStatus::True),
    ("ObjectiveMet", ConditionStatus::False),
];

/// What to tell when one status follows another: what turned bad and why, what is well again, and that the first copy is
/// complete. An agent's silence is told by metrics and in the status: it concerns every policy at once.
#[must_use]
pub fn events(before: &SyncPolicyStatus, after: &SyncPolicyStatus) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for (kind, bad) in BAD {
        let is_bad = |status| {
            let condition = find(status, kind)?;
            let told =
                condition.status == *bad && condition.reason != ConditionReason::AgentUnreachable.as_str();
            told.then_some(condition)
        };
        let event = match (is_bad(before), is_bad(after)) {
            (Some(was), Some(is)) if was.reason == is.reason => continue,
            (_, Some(is)) => Event {
                warning: true,
                reason: is.reason.clone(),
                message: is.message.clone(),
            },
            (Some(was), None) => Event {
                warning: false,
                reason: "Recovered".to_owned(),
                message: format!("{} is over", was.reason),
            },
            (None, None) => continue,
        };
        // A reason that shows in two conditions is told once.
        if !events
            .iter()
            .any(|told| told.reason == event.reason && told.warning == event.warning)
        {
            events.push(event);
        }
    }
    let is_complete = |status| {
        find(status, "InitialSyncComplete").is_some_and(|condition| condition.status == ConditionStatus::True)
    };
    if is_complete(after) && !is_complete(before) {
        events.push(Event {
            warning: false,
            reason: ConditionReason::FirstPassComplete.to_string(),
            message: "every row of the container was looked at once; what could not be copied is under status.failed".to_owned(),
        });
    }
    events
}

fn find<'a>(status: &'a SyncPolicyStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(conditions: &[(&str, ConditionStatus, &str)]) -> SyncPolicyStatus {
        let condition = |(kind, status, reason): &(&str, ConditionStatus, &str)| Condition {
            kind: (*kind).to_owned(),
            status: *status,
            observed_generation: Some(1),
            last_transition_time: crate::status::time(0).unwrap(),
            reason: (*reason).to_owned(),
            message: format!("about {reason}"),
        };
        SyncPolicyStatus {
            conditions: conditions.iter().map(condition).collect(),
            ..SyncPolicyStatus::default()
        }
    }

    #[test]
    fn bad_news_are_told_once_and_so_is_their_end() {
        use ConditionStatus::{False, True};
        let good = status(&[("Stalled", False, "Progressing"), ("Degraded", False, "Healthy")]);
        let bad = status(&[
            ("Stalled", True, "AccessDenied"),
            ("Degraded", True, "AccessDenied"),
        ]);
        let told = events(&good, &bad);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].warning);
        assert_eq!(told[0].reason, "AccessDenied");
        assert_eq!(told[0].message, "about AccessDenied");
        assert_eq!(events(&bad, &bad), []);
        let other = status(&[
            ("Stalled", True, "NoSuchBucket"),
            ("Degraded", True, "AccessDenied"),
        ]);
        assert_eq!(events(&bad, &other).len(), 1);
        let told = events(&bad, &good);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(!told[0].warning);
        assert_eq!(told[0].message, "AccessDenied is over");
    }

    #[test]
    fn a_healthy_policy_makes_one_event_when_its_first_copy_is_complete() {
        use ConditionStatus::{False, True};
        let new = status(&[
            ("Stalled", False, "Progressing"),
            ("InitialSyncComplete", False, "FirstPass"),
        ]);
        assert_eq!(events(&SyncPolicyStatus::default(), &new), []);
        let complete = status(&[("InitialSyncComplete", True, "FirstPassComplete")]);
        let told = events(&new, &complete);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].reason, "FirstPassComplete");
        assert_eq!(events(&complete, &complete), []);
        let silent = status(&[
            ("InitialSyncComplete", True, "FirstPassComplete"),
            ("Degraded", True, "AgentUnreachable"),
        ]);
        assert_eq!(events(&complete, &silent), [], "its metrics tell of it");
        assert_eq!(events(&silent, &complete), []);
    }
}
