//! How long a status may become.

use proptest::prelude::*;

use super::*;
use crate::reason::PauseReason;

/// Texts that are long, of every kind of character.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof!["[a-z/.]{1,9}", "é", "𝄞", "\\PC", Just("\u{1}\"\\\n".to_owned())];
    (piece, prop_oneof![Just(1_usize), 1_usize..2_000]).prop_map(|(piece, times)| piece.repeat(times))
}

prop_compose! {
    fn held_row()(object in text(), reason in "[A-Za-z]{1,80}", message in text()) -> HeldRow {
        HeldRow {
            object,
            reason,
            message,
            attempts: u32::MAX,
            since: "2026-01-01T00:00:00Z".to_owned(),
            next_try: None,
        }
    }
}

prop_compose! {
    fn agent_that_says_much(node: usize)(
        state in prop::sample::select(vec![RunState::Running, RunState::Paused, RunState::Refused]),
        reason in prop_oneof![prop::sample::select(PauseReason::ALL.to_vec()).prop_map(|reason| reason.to_string()), text()],
        message in text(),
        name in text(),
        latest in prop::collection::vec(held_row(), 5),
        batch in prop::option::of(text()),
        capabilities in prop::collection::vec(text(), 0..40),
        reachable in any::<bool>(),
    ) -> AgentView {
        let mut report = report(state);
        report.reason = Some(reason);
        report.message = Some(message);
        report.held.latest = latest;
        report.totals = Totals {
            objects: u64::MAX / 4,
            bytes: u64::MAX / 4,
            deletes: u64::MAX / 4,
            released: u64::MAX / 4,
            ..Totals::default()
        };
        report.held_deletes = batch.map(|id| crate::report::HeldDeletes {
            id,
            rows: u64::MAX,
            reason: "MassDelete".to_owned(),
        });
        report.remote.capabilities = capabilities.into_iter().map(|name| (name, true)).collect();
        report.ring_nodes.extend((0..9).map(|server| format!("{server}{name}")));
        let mut view = agent(&format!("{node}{name}"), report);
        view.reachable = reachable;
        view
    }
}

prop_compose! {
    /// A policy with names as long as Swift and the CRD take them, or nearly.
    fn long_mapping()(account in text(), container in text(), endpoint in text(), bucket in text(), prefix in text()) -> Mapping {
        let policy = json!({
            "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
            "metadata": {"name": "photos", "namespace": "swift"},
            "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
                "target": {"protocol": "S3", "bucket": "b", "credentials": {"secretRef": {"name": "keys"}}},
                "objective": {"ratio": "90%", "within": "10m", "over": "24h"}},
        });
        let mapping = crate::validate::validate(&serde_json::from_value(policy).unwrap())
            .unwrap()
            .mapping;
        let mut mapping = std::sync::Arc::unwrap_or_clone(mapping);
        mapping.source.account = account;
        mapping.source.container = container;
        mapping.target.endpoint = Some(endpoint);
        mapping.target.bucket = bucket;
        mapping.target.prefix = Some(prefix);
        mapping
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_status_is_under_4_kib_whatever_agents_and_policies_say(
        agents in (agent_that_says_much(1), agent_that_says_much(2)),
        mapping in long_mapping(),
        token in text().prop_filter("validation takes no longer one", |token| json_length(token) <= 256),
        findings in prop::collection::vec(text(), 0..3),
        outdated in any::<bool>(),
        deleting in any::<bool>(),
    ) {
        let mut agents = [agents.0, agents.1];
        for agent in &mut agents {
            part(agent).retry = Some(token.as_str().into());
        }
        let finding = |message| Finding::new("spec.target", PolicyFault::ConfigMapUnavailable, message);
        let findings: Vec<Finding> = findings.into_iter().map(finding).collect();
        let standing = Standing::Accepted {
            lacking: if outdated { &[] } else { &findings },
            outdated: if outdated { &findings } else { &[] },
        };
        let sum = sum("a1", 2, &agents);
        let previous = SyncPolicyStatus::default();
        let mut status = status(i64::MAX, Some(&mapping), standing, &sum, &previous, NOW);
        if deleting {
            let uid = "00000000-0000-0000-0000-000000000000";
            crate::finalizer::tell_of_hold(&mut status, &previous, uid, NOW);
        }
        let length = serde_json::to_vec(&status).unwrap().len();
        prop_assert!(length < LONGEST, "{length} bytes");
        prop_assert_eq!(&status.last_handled_retry, &sum.handled_retry, "an echo is whole");
        for row in status.failed.iter().flat_map(|failed| &failed.latest) {
            prop_assert!(row.object.len() <= 256);
        }
        for condition in &status.conditions {
            prop_assert!(condition.reason.len() <= 64);
        }
    }
}

#[test]
fn what_has_room_is_told_whole() {
    let mut agents = both();
    for (agent, node) in agents.iter_mut().zip(1..) {
        let message = "may not PutObject: ask the bucket's owner. ".repeat(4);
        put(agent, RunState::Paused, "AccessDenied", &message);
        let row = |number| HeldRow {
            object: format!("photos/{node}/{number}/{}", "x".repeat(40)),
            since: "2026-01-01T00:00:00Z".to_owned(),
            ..HeldRow::default()
        };
        part(agent).held.1 = (0..5).map(row).collect();
    }
    let status = of(&agents, &SyncPolicyStatus::default());
    let failed = status.failed.unwrap().latest;
    assert_eq!(failed.len(), 5);
    assert!(failed.iter().all(|row| row.object.ends_with("xxxx")));
    let mut told = status
        .conditions
        .iter()
        .filter(|one| one.reason == "AccessDenied");
    assert!(told.all(|condition| condition.message.len() > 160));
}

#[test]
fn two_long_targets_that_differ_at_their_ends_are_two_targets() {
    let with = |end: &str, previous: &SyncPolicyStatus, agents: &[AgentView]| {
        let policy = json!({
            "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
            "metadata": {"name": "photos", "namespace": "swift"},
            "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
                "target": {"protocol": "S3", "bucket": "backup", "prefix": "é/".repeat(250) + end,
                    "credentials": {"secretRef": {"name": "keys"}}}},
        });
        let valid = crate::validate::validate(&serde_json::from_value(policy).unwrap()).unwrap();
        let sum = sum("a1", 2, agents);
        status(2, Some(&valid.mapping), WHOLE, &sum, previous, NOW)
    };
    let first = with("one", &SyncPolicyStatus::default(), &both());
    assert_eq!(said(&first, "InitialSyncComplete").0, ConditionStatus::True);
    let same = with("one", &first, &[]);
    assert_eq!(said(&same, "InitialSyncComplete").0, ConditionStatus::True);
    let moved = with("two", &first, &[]);
    assert_eq!(said(&moved, "InitialSyncComplete").0, ConditionStatus::False);
}
