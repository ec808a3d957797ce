//! The cluster's table: pure, from the policies as the cluster has them.

use std::fmt::Write as _;

use jiff::Timestamp;
use onespace_crds::{ConditionStatus, SyncPolicyStatus};

use super::columns::{age, columns, plain};
use crate::policy::Policy;

const HEAD: [&str; 8] = [
    "POLICY", "MODE", "SOURCE", "TARGET", "READY", "LAG", "PENDING", "FAILED",
];

/// Whether something is under way: a copy, or a change on its way to the agents.
pub(super) fn has_backlog(policy: &Policy) -> bool {
    use ConditionStatus::{False, True};
    let pending = policy.status.as_ref().and_then(|status| status.progress.as_ref());
    let is_running = policy
        .condition("Ready")
        .is_some_and(|ready| ready.status == True && ready.reason == "Running");
    policy.condition("Accepted").is_none()
        || policy.is("Reconciling", True)
        || is_running
            && (pending.is_some_and(|progress| progress.pending > 0)
                || policy.is("InitialSyncComplete", False))
}

/// Draws the table, and below it what a person should know beside the numbers.
pub(super) fn table(policies: &[Policy], now: Timestamp) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut notes = String::new();
    for policy in policies {
        rows.push(row(policy, now));
        note(&mut notes, policy, now);
    }
    columns(&rows) + &notes
}

fn row(policy: &Policy, now: Timestamp) -> [String; 8] {
    let none = SyncPolicyStatus::default();
    let status = policy.status.as_ref().unwrap_or(&none);
    let ready = match policy.condition("Ready") {
        None => "-".to_owned(),
        Some(ready) if ready.status == ConditionStatus::True && ready.reason == "Running" => {
            "True".to_owned()
        }
        Some(ready) => format!("{:?} ({})", ready.status, ready.reason),
    };
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let progress = status.progress.as_ref();
    let oldest = progress.and_then(|progress| progress.oldest_pending.as_ref());
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    [
        format!("{}/{}", policy.namespace, policy.name),
        policy.mode.clone(),
        or_unknown(&status.source),
        or_unknown(&status.target),
        ready,
        oldest.map_or_else(
            || "-".to_owned(),
            |oldest| age(now.as_second() - oldest.0.as_second()),
        ),
        count(progress.map(|progress| progress.pending)),
        count(status.failed.as_ref().map(|failed| failed.count)),
    ]
    .map(|cell| plain(&cell))
}

fn note(notes: &mut String, policy: &Policy, now: Timestamp) {
    let name = format!("{}/{}", policy.namespace, policy.name);
    for obstacle in policy.obstacles() {
        let _ = writeln!(notes, "{name}: {}", plain(&obstacle));
    }
    let Some(status) = &policy.status else { return };
    if let Some(held) = &status.held_deletes {
        let _ = writeln!(
            notes,
            "{name}: {} deletes wait; if they are meant: kubectl onespace release-deletes {name} {}",
            held.count,
            plain(&held.id)
        );
    }
    let failed = status.failed.as_ref();
    for row in failed.into_iter().flat_map(|failed| &failed.latest) {
        let _ = writeln!(
            notes,
            "{name}: failed {} ({}, {} tries, for {})",
            plain(&row.object),
            plain(&row.reason),
            row.attempts,
            age(now.as_second() - row.since.0.as_second())
        );
    }
    if failed.is_some_and(|failed| failed.count > 0) {
        let _ = writeln!(
            notes,
            "{name}: once the reasons are mended: kubectl onespace retry {name}"
        );
    }
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-02T04:05:05Z";

    fn policy(status: &Value) -> Policy {
        let object = json!({
            "apiVersion": "onespace.dev/v1alpha1",
            "kind": "SyncPolicy",
            "metadata": {"name": "photos", "namespace": "swift", "generation": 2},
            "spec": {"mode": "Sync"},
            "status": status,
        });
        Policy::read(&serde_json::from_value::<DynamicObject>(object).unwrap())
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn running() -> Value {
        json!({
            "source": "AUTH_test/photos",
            "target": "s3://backup/photos",
            "progress": {"pending": 12, "oldestPending": "2026-01-02T03:04:05Z"},
            "failed": {"count": 0},
            "conditions": [
                condition("Accepted", "True", "Accepted", ""),
                condition("Ready", "True", "Running", ""),
                condition("InitialSyncComplete", "True", "FirstPassComplete", ""),
            ],
        })
    }

    fn drawn(policy: &Policy) -> String {
        table(std::slice::from_ref(policy), NOW.parse().unwrap())
    }

    #[test]
    fn a_line_says_what_goes_where_whether_it_works_and_how_far_behind_it_is() {
        let text = drawn(&policy(&running()));
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "swift/photos",
                "Sync",
                "AUTH_test/photos",
                "s3://backup/photos",
                "True",
                "1h01m",
                "12",
                "0"
            ],
            "{text}"
        );
        assert_eq!(text.lines().count(), 2, "nothing more is to be said: {text}");
    }

    #[test]
    fn a_policy_that_is_refused_says_why_once() {
        let text = drawn(&policy(&json!({"conditions": [
            condition("Accepted", "False", "Conflict", "spec.target: its keys are another policy's"),
            condition("Ready", "False", "NotAccepted", "the condition Accepted says why"),
            condition("Stalled", "True", "Conflict", "spec.target: its keys are another policy's"),
        ]})));
        assert!(text.contains("False (NotAccepted)"), "{text}");
        assert_eq!(text.matches("another policy's").count(), 1, "{text}");
        assert!(!text.contains("says why"), "{text}");
    }

    #[test]
    fn a_policy_that_the_operator_has_not_looked_at_is_said_to_be_so_and_waited_for() {
        for status in [
            json!(null),
            json!({"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        ] {
            let policy = policy(&status);
            assert!(drawn(&policy).contains("has not looked at it yet"));
            assert!(has_backlog(&policy));
        }
    }

    #[test]
    fn held_deletes_and_failed_rows_are_shown_with_what_to_type() {
        let mut status = running();
        status["heldDeletes"] = json!({"id": "batch-7", "count": 300});
        status["failed"] = json!({"count": 1, "latest": [{"object": "c/evil\u{1b}[2J", "reason": "Refused",
            "attempts": 3, "since": "2026-01-02T04:00:00Z"}]});
        let text = drawn(&policy(&status));
        for words in [
            "300 deletes wait; if they are meant: kubectl onespace release-deletes swift/photos batch-7",
            "(Refused, 3 tries, for 5m05s)",
            "kubectl onespace retry swift/photos",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "names cannot move the cursor");
    }

    #[test]
    fn the_table_is_renewed_while_rows_wait_and_not_for_what_only_a_person_mends() {
        assert!(has_backlog(&policy(&running())));
        let mut done = running();
        done["progress"]["pending"] = json!(0);
        assert!(!has_backlog(&policy(&done)));
        done["conditions"][2] = condition("InitialSyncComplete", "False", "FirstPass", "");
        assert!(has_backlog(&policy(&done)));
        done["conditions"][1] = condition("Ready", "False", "SourceNotFound", "check the names");
        assert!(!has_backlog(&policy(&done)));
        let mut suspended = running();
        suspended["conditions"][1] = condition("Ready", "True", "Suspended", "spec.suspend is true");
        assert!(!has_backlog(&policy(&suspended)));
        assert!(drawn(&policy(&suspended)).contains("True (Suspended)"));
    }
}
