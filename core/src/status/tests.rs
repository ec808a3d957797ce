use onespace_crds::{Condition, ConditionStatus};
use serde_json::json;

use super::kept::Part;
use super::*;
use crate::reason::PolicyFault;
use crate::report::{AgentInfo, MappingReport, Report, RunState, Totals};

mod answers;
mod parts;
mod small;

const NOW: i64 = 1_800_000_000;

/// A mapping that has all that it needs.
const WHOLE: Standing<'static> = Standing::Accepted {
    lacking: &[],
    outdated: &[],
};

fn report(state: RunState) -> MappingReport {
    let mut report: MappingReport = serde_json::from_value(json!({
        "id": "a1", "policy": {"namespace": "swift", "name": "photos", "generation": 2}, "state": "Running",
        "ringNodes": ["10.0.0.1:6201", "10.0.0.2:6201"],
        "databases": {"open": 1, "unreadable": 0}, "initialPassComplete": true,
        "pending": {"rows": 3, "exact": true, "oldest": "2026-01-01T00:00:00Z"},
        "verify": {"rows": 0},
        "held": {"rows": 1, "full": false, "latest": [
            {"object": "c/o", "reason": "TooLarge", "attempts": 1, "since": "2026-01-01T00:00:00Z"},
        ]},
        "handled": {"retry": "t"},
        "totals": {"objects": 5, "bytes": 50, "deletes": 1, "released": 0, "verified": 0, "repaired": 0},
        "remote": {"reachable": true, "capabilities": {"conditions": true, "tags": false}, "probedAt": "2026-01-01T00:00:00Z"},
    }))
    .unwrap();
    report.state = state;
    report
}

fn agent(node: &str, report: MappingReport) -> AgentView {
    let mut view = AgentView::default();
    let answer = Report {
        agent: AgentInfo {
            node: node.to_owned(),
            ..Default::default()
        },
        revision: "boot:1".to_owned(),
        full: true,
        mappings: vec![report],
        ..Report::default()
    };
    view.take(answer.into(), true, NOW);
    view
}

/// What an agent says of the mapping.
fn kept(agent: &mut AgentView) -> &mut Kept {
    agent.mappings.get_mut("a1").unwrap()
}

/// What it has of it.
fn part(agent: &mut AgentView) -> &mut Part {
    kept(agent).part.as_mut().unwrap()
}

/// It is in this state, for this reason.
fn put(agent: &mut AgentView, state: RunState, reason: &str, message: &str) {
    let kept = kept(agent);
    kept.state = state;
    kept.why = Some(Box::new((reason.to_owned(), message.to_owned())));
}

/// An agent that knows of these container servers in the ring.
fn with_ring(node: &str, ring: &[&str]) -> AgentView {
    let mut report = report(RunState::Running);
    report.ring_nodes = ring.iter().map(|server| (*server).to_owned()).collect();
    agent(node, report)
}

fn of(agents: &[AgentView], previous: &SyncPolicyStatus) -> SyncPolicyStatus {
    let sum = sum("a1", 2, agents);
    status(2, None, WHOLE, &sum, previous, NOW)
}

fn said<'a>(status: &'a SyncPolicyStatus, kind: &str) -> (ConditionStatus, &'a str) {
    let found = |condition: &&Condition| condition.kind == kind;
    let condition = status.conditions.iter().find(found).unwrap();
    (condition.status, &condition.reason)
}

fn both() -> Vec<AgentView> {
    ["10.0.0.1:6201", "10.0.0.2:6201"]
        .map(|node| agent(node, report(RunState::Running)))
        .to_vec()
}

#[test]
fn counts_add_and_the_oldest_counts() {
    let mut agents = both();
    part(&mut agents[1]).pending.1 = crate::report::unix_seconds("2025-01-01T00:00:00Z");
    let status = of(&agents, &SyncPolicyStatus::default());
    let progress = status.progress.clone().unwrap();
    assert_eq!((progress.pending, progress.objects, progress.bytes), (6, 10, 100));
    assert_eq!(
        progress.oldest_pending.unwrap().0.to_string(),
        "2025-01-01T00:00:00Z"
    );
    let failed = status.failed.clone().unwrap();
    assert_eq!((failed.count, failed.latest.len()), (2, 2));
    let agents = status.agents.clone().unwrap();
    assert_eq!(
        (agents.expected, agents.reporting, agents.current),
        (Some(2), 2, 2)
    );
    assert_eq!(status.remote.clone().unwrap().capabilities, ["conditions"]);
    assert_eq!(status.last_handled_retry.as_deref(), Some("t"));
    assert_eq!(said(&status, "Ready"), (ConditionStatus::True, "Running"));
    assert_eq!(said(&status, "Degraded"), (ConditionStatus::False, "Healthy"));
    assert_eq!(
        said(&status, "InitialSyncComplete"),
        (ConditionStatus::True, "FirstPassComplete")
    );
}

#[test]
fn a_silent_agents_last_numbers_stay_and_the_policy_is_degraded() {
    let mut agents = both();
    agents[1].reachable = false;
    assert_eq!(silent(agents.iter()), 1);
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(status.progress.clone().unwrap().pending, 6);
    assert_eq!(
        said(&status, "Degraded"),
        (ConditionStatus::True, "AgentUnreachable")
    );
    assert_eq!(said(&status, "Ready"), (ConditionStatus::True, "Running"));
}

#[test]
fn a_silent_agent_whose_node_was_taken_out_of_the_ring_is_forgotten() {
    let mut agents = both();
    agents[1].reachable = false;
    agents[0] = with_ring("10.0.0.1:6201", &["10.0.0.1:6201"]);
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Degraded"), (ConditionStatus::False, "Healthy"));
    assert_eq!(status.progress.unwrap().objects, 5);
    assert_eq!(silent(agents.iter()), 0, "nor is it counted for ever");

    // While nobody answers, who knows.
    agents[0].reachable = false;
    assert_eq!(silent(agents.iter()), 2);
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(
        said(&status, "Degraded"),
        (ConditionStatus::True, "AgentUnreachable")
    );
}

#[test]
fn an_objective_is_judged_by_the_sum_of_all_agents() {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "photos", "namespace": "swift"},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "b", "credentials": {"secretRef": {"name": "keys"}}},
            "objective": {"ratio": "90%", "within": "10m", "over": "24h"}},
    });
    let valid = crate::validate::validate(&serde_json::from_value(policy).unwrap()).unwrap();
    let mut agents = both();
    let mut judged = |counts: [Option<(u64, u64)>; 2]| {
        for (agent, counts) in agents.iter_mut().zip(counts) {
            part(agent).objective = counts.map(|(good, missed)| crate::objective::Counts { good, missed });
        }
        let (sum, before) = (sum("a1", 2, &agents), SyncPolicyStatus::default());
        let status = status(2, Some(&valid.mapping), WHOLE, &sum, &before, NOW);
        let (met, reason) = said(&status, "ObjectiveMet");
        (met, reason.to_owned())
    };
    let is = |status, reason: &str| (status, reason.to_owned());
    // One agent alone would miss it.
    assert_eq!(
        judged([Some((8, 2)), Some((10, 0))]),
        is(ConditionStatus::True, "InTime")
    );
    assert_eq!(
        judged([Some((8, 2)), Some((9, 1))]),
        is(ConditionStatus::False, "Late")
    );
    assert_eq!(judged([None, None]), is(ConditionStatus::Unknown, "NoAgent"));
    let without = of(&both(), &SyncPolicyStatus::default());
    assert!(
        !without
            .conditions
            .iter()
            .any(|condition| condition.kind == "ObjectiveMet")
    );
}

#[test]
fn a_node_of_the_ring_without_an_agent_is_told() {
    let status = of(&both()[..1], &SyncPolicyStatus::default());
    assert_eq!(
        said(&status, "Degraded"),
        (ConditionStatus::True, "AgentUnreachable")
    );
    assert_eq!(said(&status, "InitialSyncComplete").0, ConditionStatus::False);
}

#[test]
fn a_remote_that_nobody_has_tried_is_not_in_the_status() {
    let mut agents = both();
    assert!(of(&agents, &SyncPolicyStatus::default()).remote.is_some());
    for agent in &mut agents {
        agent.mappings.clear();
        let refusal = ("FeatureUnknown".to_owned(), "update it".to_owned());
        agent.refused.insert("a1".to_owned(), refusal);
    }
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "FeatureUnknown"));
    assert_eq!(status.remote, None);
}

#[test]
fn a_node_whose_container_server_is_silent_is_told_while_the_others_work() {
    let mut agents = both();
    put(
        &mut agents[1],
        RunState::Running,
        "ContainerServerSilent",
        "start it",
    );
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(
        said(&status, "Degraded"),
        (ConditionStatus::True, "ContainerServerSilent")
    );
    assert_eq!(said(&status, "Ready"), (ConditionStatus::True, "Running"));
    assert_eq!(said(&status, "Stalled").0, ConditionStatus::False);
}

#[test]
fn an_agent_that_runs_an_older_generation_keeps_it_from_being_ready() {
    let mut agents = both();
    kept(&mut agents[0]).generation = Some(1);
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "AgentsBehind"));
    assert_eq!(said(&status, "Reconciling").0, ConditionStatus::True);
}

#[test]
fn without_agents_without_databases_and_without_a_way_to_the_remote_it_is_not_ready() {
    let status = of(&[], &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "NoAgent"));
    assert!(status.progress.is_none());

    let mut agents = both();
    for agent in &mut agents {
        part(agent).databases.open = 0;
    }
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "SourceNotFound"));

    for (reason, stalled, credentials) in [
        (
            "InvalidCredentials",
            ConditionStatus::True,
            ConditionStatus::False,
        ),
        ("NoSuchBucket", ConditionStatus::True, ConditionStatus::True),
        ("Unreachable", ConditionStatus::False, ConditionStatus::True),
    ] {
        let mut agents = both();
        for agent in &mut agents {
            put(agent, RunState::Paused, reason, "");
        }
        let status = of(&agents, &SyncPolicyStatus::default());
        assert_eq!(said(&status, "Ready"), (ConditionStatus::False, reason));
        assert_eq!(said(&status, "Stalled").0, stalled, "{reason}");
        assert_eq!(said(&status, "CredentialsReady").0, credentials, "{reason}");
        agents[1] = both().remove(1);
        let status = of(&agents, &SyncPolicyStatus::default());
        assert_eq!(
            said(&status, "Ready").0,
            ConditionStatus::True,
            "one of two works"
        );
        assert_eq!(said(&status, "Degraded"), (ConditionStatus::True, reason));
    }
}

#[test]
fn held_deletes_wait_for_a_person_who_is_told_how_to_release_them() {
    let mut agents = both();
    part(&mut agents[1]).held_deletes = Some(Box::new(crate::report::HeldDeletes {
        id: "batch-7".to_owned(),
        rows: 70,
        reason: "MassDelete".to_owned(),
    }));
    let status = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(said(&status, "Stalled"), (ConditionStatus::True, "MassDelete"));
    let stalled = |condition: &&Condition| condition.kind == "Stalled";
    let message = &status.conditions.iter().find(stalled).unwrap().message;
    assert!(
        message.contains("onespace.dev/release-deletes=batch-7"),
        "{message}"
    );
    let held = status.held_deletes.clone().unwrap();
    assert_eq!((held.id.as_str(), held.count), ("batch-7", 70));
}

#[test]
fn a_policy_that_is_not_accepted_says_why_and_that_a_person_must_act() {
    let findings = [Finding::new(
        "spec.exclude",
        PolicyFault::InvalidPattern,
        "no pattern",
    )];
    let status = status(
        2,
        None,
        Standing::Refused(&findings),
        &Sum::default(),
        &SyncPolicyStatus::default(),
        NOW,
    );
    assert_eq!(
        said(&status, "Accepted"),
        (ConditionStatus::False, "InvalidPattern")
    );
    assert_eq!(
        said(&status, "Stalled"),
        (ConditionStatus::True, "InvalidPattern")
    );
    assert_eq!(said(&status, "Ready"), (ConditionStatus::False, "NotAccepted"));
    assert!(status.conditions[0].message.contains("spec.exclude: no pattern"));
}

#[test]
fn the_initial_sync_stays_complete_until_the_target_changes() {
    let mapping = |bucket: &str| {
        let policy = json!({
            "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
            "metadata": {"name": "photos", "namespace": "swift"},
            "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "/*"},
                "target": {"protocol": "S3", "bucket": bucket, "credentials": {"secretRef": {"name": "keys"}}}},
        });
        crate::validate::validate(&serde_json::from_value(policy).unwrap())
            .unwrap()
            .mapping
    };
    let with = |bucket: &str, agents: &[AgentView], previous: &SyncPolicyStatus| {
        let sum = sum("a1", 2, agents);
        status(2, Some(&mapping(bucket)), WHOLE, &sum, previous, NOW)
    };
    let first = with("one", &both(), &SyncPolicyStatus::default());
    assert_eq!(first.source.as_deref(), Some("AUTH_test/*"));
    assert_eq!(first.target.as_deref(), Some("s3://one"));
    let later = with("one", &[], &first);
    assert_eq!(said(&later, "InitialSyncComplete").0, ConditionStatus::True);
    let moved = with("two", &[], &first);
    assert_eq!(said(&moved, "InitialSyncComplete").0, ConditionStatus::False);
}

#[test]
fn conditions_are_written_at_once_and_numbers_when_it_is_their_turn() {
    let agents = both();
    let written = of(&agents, &SyncPolicyStatus::default());
    assert_eq!(
        due(&SyncPolicyStatus::default(), &written, 0, 0),
        Some(Urgency::Generation)
    );
    assert_eq!(
        due(&written, &of(&agents, &written), 1_000, 0),
        None,
        "nothing new"
    );

    let mut later = agents.clone();
    later[0].as_of += 500;
    later[1].as_of += 500;
    assert_eq!(
        due(&written, &of(&later, &written), 1_000, 0),
        None,
        "the time alone is nothing new"
    );
    part(&mut later[0]).totals.objects += 1;
    let counted = of(&later, &written);
    assert_eq!(due(&written, &counted, COUNTERS_EVERY + 4, 5), None);
    assert_eq!(
        due(&written, &counted, COUNTERS_EVERY + 5, 5),
        Some(Urgency::Numbers)
    );

    later[0].reachable = false;
    assert_eq!(
        due(&written, &of(&later, &written), 0, 0),
        Some(Urgency::News),
        "a condition"
    );
}

#[test]
fn how_many_deletes_are_held_is_a_number_and_that_some_are_is_news() {
    let with = |rows: u64, id: &str, previous: &SyncPolicyStatus| {
        let mut agents = both();
        part(&mut agents[1]).held_deletes = (rows > 0).then(|| {
            Box::new(crate::report::HeldDeletes {
                id: id.to_owned(),
                rows,
                reason: "DeletesHeld".to_owned(),
            })
        });
        of(&agents, previous)
    };
    let none = with(0, "", &SyncPolicyStatus::default());
    let first = with(70, "batch-7", &none);
    assert_eq!(due(&none, &first, 0, 0), Some(Urgency::News));
    let more = with(71_000, "batch-7", &first);
    assert_eq!(due(&first, &more, COUNTERS_EVERY - 1, 0), None);
    assert_eq!(due(&first, &more, COUNTERS_EVERY, 0), Some(Urgency::Numbers));
    let other = with(70, "batch-8", &first);
    assert_eq!(due(&first, &other, 0, 0), Some(Urgency::News), "another batch");
    assert_eq!(due(&first, &with(0, "", &first), 0, 0), Some(Urgency::News));

    // An address in a message is no number.
    let silent = |node: &str| {
        let mut agents = both();
        agents[1].node = node.to_owned();
        agents[1].reachable = false;
        agents[0] = with_ring("10.0.0.1:6201", &["10.0.0.1:6201", node]);
        of(&agents, &none)
    };
    let (one, two) = (silent("10.0.0.2:6201"), silent("10.0.0.3:6201"));
    assert_eq!(due(&one, &two, 0, 0), Some(Urgency::News));
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let first = of(&[], &SyncPolicyStatus::default());
    let sum = sum("a1", 2, &both());
    let later = status(2, None, WHOLE, &sum, &first, NOW + 60);
    let at = |status: &SyncPolicyStatus, kind: &str| {
        let mut conditions = status.conditions.iter();
        let condition = conditions.find(|condition| condition.kind == kind).unwrap();
        condition.last_transition_time.0.as_second()
    };
    assert_eq!(at(&later, "Accepted"), NOW);
    assert_eq!(at(&later, "Ready"), NOW + 60);
}

#[test]
fn what_could_not_be_got_reconciles_and_degrades_and_is_no_persons_fault() {
    use ConditionStatus::{False, True, Unknown};
    let finding = |reason| Finding::new("spec.target", reason, "could not be got");
    let sum = sum("a1", 2, &both());
    let previous = SyncPolicyStatus::default();
    let reason = "ConfigMapUnavailable";
    let lacking = [finding(PolicyFault::ConfigMapUnavailable)];
    let standing = Standing::Accepted {
        lacking: &lacking,
        outdated: &[],
    };
    let waits = status(2, None, standing, &sum, &previous, NOW);
    for (kind, wanted) in [
        ("Ready", False),
        ("Reconciling", True),
        ("CredentialsReady", Unknown),
        ("Degraded", True),
    ] {
        assert_eq!(said(&waits, kind), (wanted, reason), "{kind}");
    }
    assert_eq!(said(&waits, "Stalled"), (False, "Progressing"));

    let standing = Standing::Accepted {
        lacking: &[],
        outdated: &lacking,
    };
    let runs = status(2, None, standing, &sum, &previous, NOW);
    assert_eq!(said(&runs, "Degraded"), (True, reason));
    assert_eq!(said(&runs, "Ready"), (True, "Running"));
    assert_eq!(said(&runs, "Stalled"), (False, "Progressing"));

    // Beside something that a person must see to.
    let both = [
        finding(PolicyFault::ConfigMapUnavailable),
        finding(PolicyFault::SecretNotFound),
    ];
    let standing = Standing::Accepted {
        lacking: &both,
        outdated: &[],
    };
    let stalled = status(2, None, standing, &sum, &previous, NOW);
    assert_eq!(said(&stalled, "Stalled"), (True, "SecretNotFound"));
    assert_eq!(said(&stalled, "Reconciling"), (False, "Waiting"));
}
