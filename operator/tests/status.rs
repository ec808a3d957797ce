//! Statuses and events at an API server that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use onespace_core::admit::{Admitted, Incumbents};
use onespace_core::load::Files;
use onespace_core::status::{Event, Urgency};
use onespace_crds::SyncPolicyStatus;
use onespace_operator::agents::{Agents, News};
use onespace_operator::ask::Update;
use onespace_operator::decide::decide;
use onespace_operator::desk::{Desk, Wanted, Written};
use onespace_operator::fetch::References;
use onespace_operator::metrics::Metrics;
use onespace_operator::published::Names;
use onespace_operator::seen::{Event as Shown, Scopes, Seen, read_policy};
use onespace_operator::status::write_all;
use onespace_operator::table::Change;
use onespace_operator::verdicts::Verdicts;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod answering;
mod api_server;
use answering::answer;
use api_server::{Server, api_server, refusal};

/// What is decided where there are no files yet, and nothing that policies name.
fn decided(seen: &Seen) -> Admitted {
    let (references, files) = (References::default(), Files::default());
    decide(seen, &references, &files, &Incumbents::default())
}

fn wanted(generation: i64, event: &str) -> Wanted {
    Wanted {
        uid: "uid-1".to_owned(),
        urgency: Urgency::News,
        written: Written::default(),
        status: Arc::new(SyncPolicyStatus {
            observed_generation: Some(generation),
            ..SyncPolicyStatus::default()
        }),
        events: vec![Event {
            warning: true,
            reason: event.to_owned(),
            message: "look".to_owned(),
        }],
    }
}

/// The API server's end, and a writer: its desk, its end, and how it ended.
fn start_writer() -> (Server, Arc<Desk>, CancellationToken, JoinHandle<()>) {
    let (client, server) = api_server();
    let (desk, cancel) = (Arc::new(Desk::default()), CancellationToken::new());
    let writer = tokio::spawn(write_all(
        client,
        desk.clone(),
        Metrics::new().unwrap(),
        "one".to_owned(),
        cancel.clone(),
    ));
    (server, desk, cancel, writer)
}

#[tokio::test]
async fn a_status_that_cannot_be_written_is_tried_again_and_its_events_are_told_once_it_is() {
    let (client, mut server) = api_server();
    let desk = Arc::new(Desk::default());
    let cancel = CancellationToken::new();
    let metrics = Metrics::new().unwrap();
    let writer = tokio::spawn(write_all(
        client,
        desk.clone(),
        metrics.clone(),
        "one".to_owned(),
        cancel.clone(),
    ));
    let key = |name: &str| ("swift".to_owned(), name.to_owned());
    let policy =
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "a"}});

    desk.put(key("a"), wanted(1, "First"));
    let (method, path, _) = answer(&mut server, 500, &refusal(500)).await;
    assert_eq!(method, "PATCH");
    assert!(
        path.ends_with("/namespaces/swift/syncpolicies/a/status"),
        "{path}"
    );
    // A newer one meanwhile: it is written instead, and nothing that was to be told is lost.
    desk.put(key("a"), wanted(2, "Second"));
    let (_, _, body) = answer(&mut server, 200, &policy).await;
    assert_eq!(body["status"]["observedGeneration"], 2);
    assert_eq!(
        body["metadata"]["uid"], "uid-1",
        "another policy of that name is not meant"
    );
    for reason in ["First", "Second"] {
        let (method, path, event) =
            answer(&mut server, 201, &json!({"metadata": {}, "eventTime": null})).await;
        assert_eq!((method.as_str(), &event["reason"]), ("POST", &json!(reason)));
        assert!(path.ends_with("/namespaces/swift/events"), "{path}");
        assert_eq!(event["regarding"]["uid"], "uid-1");
        assert_eq!(event["type"], "Warning");
    }

    // A policy that is gone is not tried again, and nothing is told of it.
    desk.put(key("gone"), wanted(1, "Never"));
    answer(&mut server, 404, &refusal(404)).await;
    // Nor one that the CRD does not take, and this is counted apart.
    desk.put(key("odd"), wanted(1, "Never"));
    answer(&mut server, 422, &refusal(422)).await;
    desk.put(key("b"), wanted(1, "Refused"));
    let (_, path, _) = answer(&mut server, 200, &policy).await;
    assert!(path.ends_with("/b/status"), "{path}");
    // A refused event does not matter to the status.
    answer(&mut server, 403, &refusal(403)).await;
    desk.put(key("c"), wanted(1, "Last"));
    let (_, path, _) = answer(&mut server, 200, &policy).await;
    assert!(path.ends_with("/c/status"), "{path}");
    cancel.cancel();
    writer.await.unwrap();
    let count = |outcome: &str| metrics.status_writes.with_label_values(&[outcome]).get();
    assert_eq!(["gone", "refused", "failed"].map(count), [1, 1, 1]);
}

/// Any time.
const NOW: i64 = 1_800_000_000;

/// A policy with this `exclude`.
fn put_policy(seen: &mut Seen, generation: i64, exclude: &str) {
    show_policy(seen, generation, exclude, &Value::Null);
}

/// It with this status, as a watch shows it.
fn show_policy(seen: &mut Seen, generation: i64, exclude: &str, status: &Value) {
    let policy = json!({
        "status": status,
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift", "uid": "uid-1", "generation": generation},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"}, "exclude": exclude,
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}}},
    });
    let policy = Box::new(read_policy(serde_json::from_value(policy).unwrap()));
    let (scope, key) = (
        Some("swift".to_owned()),
        ("swift".to_owned(), "photos".to_owned()),
    );
    seen.take(Shown::Policy(scope, Change::Put(key, policy)));
}

#[tokio::test]
async fn a_refusal_and_its_end_are_told_by_events_though_no_agent_was_heard_yet() {
    let (client, mut server) = api_server();
    let (desk, cancel) = (Arc::new(Desk::default()), CancellationToken::new());
    let metrics = Metrics::new().unwrap();
    let writer = tokio::spawn(write_all(
        client,
        desk.clone(),
        metrics.clone(),
        "one".to_owned(),
        cancel.clone(),
    ));
    let namespace = "swift".to_owned();
    let mut seen = Seen::new(&Scopes::new("swift", &[]), Names { namespace });
    let policy =
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "photos"}});
    let event = json!({"metadata": {}, "eventTime": null});
    for (generation, exclude, accepted, told) in [
        (1, "(", "False", ("Warning", "InvalidPattern")),
        (2, "tmp/", "True", ("Normal", "Recovered")),
    ] {
        put_policy(&mut seen, generation, exclude);
        let admitted = decided(&seen);
        let verdicts = Verdicts::default()
            .then(&seen, admitted, &metrics, Instant::now())
            .0;
        let _ = verdicts.report(&mut seen, &Agents::default(), &News::of_all(), false, &desk, NOW);
        let (_, _, body) = answer(&mut server, 200, &policy).await;
        let conditions = body["status"]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|one| one["type"] == "Accepted").unwrap();
        assert_eq!(condition["status"], accepted);
        let event = tokio::time::timeout(Duration::from_secs(30), answer(&mut server, 201, &event));
        let (_, path, body) = event.await.expect("no event");
        assert!(path.ends_with("/events"), "{path}");
        assert_eq!((&body["type"], &body["reason"]), (&json!(told.0), &json!(told.1)));
    }
    cancel.cancel();
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_status_that_the_crd_does_not_take_is_tried_again_later_and_keeps_no_other_waiting() {
    let (mut server, desk, cancel, writer) = start_writer();
    let policy =
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "a"}});
    let put = |name: &str, generation| {
        let mut wanted = wanted(generation, "Told");
        wanted.events.clear();
        desk.put(("swift".to_owned(), name.to_owned()), wanted);
    };
    let began = tokio::time::Instant::now();
    put("a", 1);
    answer(&mut server, 422, &refusal(422)).await;
    put("b", 1);
    let (_, path, _) = answer(&mut server, 200, &policy).await;
    assert!(path.ends_with("/b/status"), "{path}");
    assert!(began.elapsed().as_secs() < 1);
    let (_, path, _) = answer(&mut server, 422, &refusal(422)).await;
    assert!(path.ends_with("/a/status"), "{path}");
    assert!(began.elapsed().as_secs() >= 60);
    // A newer one is written at once, in its place.
    put("a", 2);
    let (_, _, body) = answer(&mut server, 200, &policy).await;
    assert_eq!(body["status"]["observedGeneration"], 2);
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    put("c", 1);
    let (_, path, _) = answer(&mut server, 200, &policy).await;
    assert!(path.ends_with("/c/status"), "the older one again: {path}");
    cancel.cancel();
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_policy_whose_status_is_refused_waits_longer_and_longer_and_keeps_no_other_waiting() {
    let (mut server, desk, cancel, writer) = start_writer();
    let policy =
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "a"}});
    let put = |name: &str| {
        let mut wanted = wanted(1, "Told");
        wanted.events.clear();
        desk.put(("swift".to_owned(), name.to_owned()), wanted);
    };
    // A right that lacks, a webhook that says no, one that cannot be asked.
    put("a");
    let mut waits = Vec::new();
    for code in [403, 400, 500, 403, 403, 403, 403, 403] {
        let (_, path, _) = answer(&mut server, code, &refusal(code)).await;
        assert!(path.ends_with("/a/status"), "{path}");
        let refused = tokio::time::Instant::now();
        put("b");
        let (_, path, _) = answer(&mut server, 200, &policy).await;
        assert!(path.ends_with("/b/status"), "{path}");
        assert!(refused.elapsed() < Duration::from_millis(100), "b had to wait");
        waits.push(refused);
    }
    let waits: Vec<u128> = waits
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    let about = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000];
    for (wait, about) in waits.iter().zip(about) {
        assert!((about..about + 100).contains(wait), "{waits:?}");
    }
    cancel.cancel();
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_work_is_asked_more_and_more_seldom_and_all_is_written_in_the_end() {
    let (mut server, desk, cancel, writer) = start_writer();
    let policy =
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "a"}});
    for number in 0..20 {
        let mut wanted = wanted(1, "Told");
        wanted.events.clear();
        desk.put(("swift".to_owned(), format!("p{number}")), wanted);
    }
    let began = tokio::time::Instant::now();
    for _ in 0..24 {
        answer(&mut server, 503, &refusal(503)).await;
    }
    // Eight at a time, after half a second, and after a whole one.
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(1_500), "{waited:?}");
    assert!(waited < Duration::from_millis(2_000), "{waited:?}");
    let mut written = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let (_, path, _) = answer(&mut server, 200, &policy).await;
        written.insert(path);
    }
    assert_eq!(written.len(), 20);
    let waited = began.elapsed();
    assert!(waited < Duration::from_millis(4_000), "{waited:?}");
    cancel.cancel();
    writer.await.unwrap();
}

#[test]
fn a_status_that_somebody_else_changed_is_written_again_once_a_minute_and_no_echo_is() {
    let (desk, metrics) = (Desk::default(), Metrics::new().unwrap());
    let namespace = "swift".to_owned();
    let mut seen = Seen::new(&Scopes::new("swift", &[]), Names { namespace });
    put_policy(&mut seen, 1, "tmp/");
    let admitted = decided(&seen);
    let verdicts = Verdicts::default()
        .then(&seen, admitted, &metrics, Instant::now())
        .0;
    let report = |seen: &mut Seen| {
        let _ = verdicts.report(seen, &Agents::default(), &News::of_all(), true, &desk, NOW);
        let (key, wanted, _) = desk.take(tokio::time::Instant::now())?;
        desk.done(&key);
        Some(wanted)
    };
    let a_minute_later = |seen: &mut Seen| {
        for (_, policy) in seen.policies.iter_mut() {
            policy.decided = Instant::now().checked_sub(Duration::from_secs(80));
        }
    };
    // The API server has a condition of another program besides.
    let taken = |wanted: &Wanted| {
        let mut status = serde_json::to_value(&*wanted.status).unwrap();
        let other = json!({"type": "Audited", "status": "True", "reason": "Done", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        status["conditions"].as_array_mut().unwrap().push(other);
        wanted.written.note(&status);
        status
    };
    let first = report(&mut seen).unwrap();
    let echo = taken(&first);
    assert!(report(&mut seen).is_none(), "the echo is on its way");
    show_policy(&mut seen, 1, "tmp/", &echo);
    a_minute_later(&mut seen);
    assert!(report(&mut seen).is_none(), "nothing new");

    // A leader of before that finishes what it had begun.
    let older = json!({"observedGeneration": 1, "source": "AUTH_test/photos"});
    show_policy(&mut seen, 1, "tmp/", &older);
    let again = report(&mut seen).unwrap();
    assert_eq!(again.status, first.status);
    assert_eq!(again.events, [], "it was told");
    taken(&again);
    // It does so again: it gets an answer once a minute.
    assert!(report(&mut seen).is_none());
    show_policy(&mut seen, 1, "tmp/", &echo);
    show_policy(&mut seen, 1, "tmp/", &older);
    assert!(report(&mut seen).is_none());
    a_minute_later(&mut seen);
    assert!(report(&mut seen).is_some());
    show_policy(&mut seen, 1, "tmp/", &echo);
    a_minute_later(&mut seen);
    assert!(report(&mut seen).is_none());
}

#[test]
fn a_change_is_told_once_with_what_agents_say_of_it_unless_they_take_long() {
    let metrics = Metrics::new().unwrap();
    let namespace = "swift".to_owned();
    let mut seen = Seen::new(&Scopes::new("swift", &[]), Names { namespace });
    let mut agents = Agents::default();
    let node = "10.0.0.1:6201";
    agents.expect(&[(node.to_owned(), "http://a".to_owned())].into());
    let desk = Desk::default();
    let says = |id: &str, generation: i64| {
        let report = json!({
            "agent": {"node": node, "version": "1", "formatVersions": [1], "features": []},
            "config": {"revision": "r", "loadedAt": null}, "revision": "boot:1", "full": true,
            "mappings": [{
                "id": id, "policy": {"namespace": "swift", "name": "photos", "generation": generation}, "state": "Running",
                "ringNodes": [node], "databases": {"open": 1, "unreadable": 0}, "initialPassComplete": true,
                "pending": {"rows": 0, "exact": true}, "verify": {"rows": 0},
                "held": {"rows": 0, "full": false, "latest": []},
                "totals": {"objects": 5, "bytes": 50, "deletes": 1, "released": 0, "verified": 0, "repaired": 0},
                "remote": {"reachable": true},
            }],
        });
        let report: onespace_core::report::Report = serde_json::from_value(report).unwrap();
        Update {
            agent: node.to_owned(),
            answer: Ok(vec![report.into()]),
        }
    };
    let told = |seen: &mut Seen, verdicts: &Verdicts, agents: &Agents, id: &str| {
        let awaited = verdicts.report(seen, agents, &News::of_all(), true, &desk, NOW);
        let wanted = desk.take(tokio::time::Instant::now());
        let wanted = wanted.map(|(key, wanted, _)| {
            desk.done(&key);
            let mut conditions = wanted.status.conditions.iter();
            let ready = conditions.find(|condition| condition.kind == "Ready").unwrap();
            ready.reason.clone()
        });
        assert!(desk.take(tokio::time::Instant::now()).is_none());
        assert_eq!(awaited.concern(id), wanted.is_none(), "or it is forgotten");
        wanted
    };

    let after = |before: &Verdicts, seen: &mut Seen, generation: i64, now: Instant| {
        put_policy(seen, generation, "tmp/");
        let mut admitted = decided(seen);
        admitted.lacking.clear();
        before.then(seen, admitted, &metrics, now).0
    };
    let first = Verdicts::default();
    let now = Instant::now();

    let verdicts = after(&first, &mut seen, 1, now);
    let (_, policy) = seen.policies.iter().next().unwrap();
    let id = policy.verdict.as_ref().unwrap().mapping.id.0.clone();
    let told = |seen: &mut Seen, verdicts: &Verdicts, agents: &Agents| told(seen, verdicts, agents, &id);
    assert_eq!(
        told(&mut seen, &verdicts, &agents).as_deref(),
        Some("NoAgent"),
        "none answers"
    );

    agents.take(says(&id, 1), NOW);
    let verdicts = after(&first, &mut seen, 2, now);
    assert_eq!(
        told(&mut seen, &verdicts, &agents),
        None,
        "the agent is about to have it"
    );
    agents.take(says(&id, 2), NOW);
    assert_eq!(told(&mut seen, &verdicts, &agents).as_deref(), Some("Running"));

    let long_ago = now.checked_sub(Duration::from_secs(3)).unwrap();
    let verdicts = after(&first, &mut seen, 3, long_ago);
    assert_eq!(
        told(&mut seen, &verdicts, &agents).as_deref(),
        Some("AgentsBehind"),
        "it was waited for"
    );

    // Neither another round nor another change makes it wait anew, until something was told.
    let verdicts = after(&first, &mut seen, 4, long_ago);
    let again = after(&verdicts, &mut seen, 4, now);
    let next = after(&again, &mut seen, 5, now);
    assert_eq!(told(&mut seen, &next, &agents).as_deref(), Some("AgentsBehind"));
    let next = after(&next, &mut seen, 6, now);
    assert_eq!(told(&mut seen, &next, &agents), None);

    // Where a person must act, no agent has anything to say.
    let as_it_is = |seen: &mut Seen, generation: i64, exclude: &str| {
        put_policy(seen, generation, exclude);
        let admitted = decided(seen);
        first.then(seen, admitted, &metrics, now).0
    };
    let verdicts = as_it_is(&mut seen, 7, "tmp/");
    assert_eq!(
        told(&mut seen, &verdicts, &agents).as_deref(),
        Some("SecretUnavailable")
    );
    let verdicts = as_it_is(&mut seen, 8, "(");
    assert_eq!(
        told(&mut seen, &verdicts, &agents).as_deref(),
        Some("NotAccepted")
    );
}
