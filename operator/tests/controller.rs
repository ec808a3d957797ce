//! The loop that writes, where requests fail or the leadership ends, on paused time.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use kube::client::Body;
use onespace_core::report::Report;
use onespace_operator::agents::Agents;
use onespace_operator::ask::{Asking, Update};
use onespace_operator::controller::{Controller, Deposed, Made};
use onespace_operator::desk::Desk;
use onespace_operator::health::Ready;
use onespace_operator::leader::Leadership;
use onespace_operator::metrics::Metrics;
use onespace_operator::published::Names;
use onespace_operator::seen::{Event, Scopes, Seen, SeenPod, SeenPolicy, read_policy};
use onespace_operator::table::{Change, Key};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

mod answering;
mod api_server;
use answering::answer;
use api_server::{Server, api_server, refusal};

fn scope() -> Option<String> {
    Some("swift".to_owned())
}

fn key(name: &str) -> Key {
    ("swift".to_owned(), name.to_owned())
}

/// A policy in one of its generations.
fn policy(name: &str, generation: i64) -> Box<SeenPolicy> {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": name, "namespace": "swift", "uid": name, "generation": generation},
        "spec": {"mode": "Sync", "copyAfter": format!("{generation}s"),
            "source": {"account": "AUTH_test", "container": name},
            "target": {"protocol": "S3", "bucket": "backup", "prefix": name,
                "credentials": {"secretRef": {"name": "keys"}}}},
    });
    Box::new(read_policy(serde_json::from_value(policy).unwrap()))
}

/// Everything that the watches of the operator's own namespace show at first: one policy and its Secret.
fn events() -> Vec<Event> {
    vec![
        Event::Policy(scope(), Change::Restart),
        Event::Policy(scope(), Change::Listed(key("photos"), policy("photos", 1))),
        Event::Policy(scope(), Change::Complete),
        Event::Secret(scope(), Change::Restart),
        Event::Secret(scope(), Change::Listed(key("keys"), "1".to_owned())),
        Event::Secret(scope(), Change::Complete),
        Event::ConfigMap(scope(), Change::Complete),
        Event::Pod(scope(), Change::Complete),
    ]
}

struct World {
    server: Server,
    tell: watch::Sender<Option<Instant>>,
    metrics: Metrics,
    running: JoinHandle<Result<(), Deposed>>,
    events: mpsc::Sender<Event>,
    updates: mpsc::Sender<Update>,
    // What the loop would end without.
    _identities: watch::Sender<Option<onespace_stores::mutual_tls::Identity>>,
}

impl World {
    /// An operator that leads for so long.
    async fn start(leads: Duration) -> Self {
        let (client, server) = api_server();
        let (tell, leadership) = Leadership::new();
        let (events_in, events_out) = mpsc::channel(1_000);
        let (updates_in, updates) = mpsc::channel(1);
        let (identities_in, identities) = watch::channel(None);
        let metrics = Metrics::new().unwrap();
        let names = Names {
            namespace: "swift".to_owned(),
        };
        let controller = Controller {
            client: leadership.gate(client),
            seen: Seen::new(&Scopes::new("swift", &[]), names.clone()),
            names,
            events: events_out,
            updates,
            agents: Agents::default(),
            asking: Asking::new(updates_in.clone()).unwrap(),
            fixed: Vec::new(),
            identities,
            leadership,
            desk: Arc::new(Desk::default()),
            metrics: metrics.clone(),
            ready: Ready::default(),
            boot: "boot".to_owned(),
            unreadable: Vec::new(),
            made: Made::default(),
        };
        for event in events() {
            events_in.send(event).await.unwrap();
        }
        let running = tokio::spawn(controller.run(CancellationToken::new()));
        tell.send_replace(Some(Instant::now() + leads));
        Self {
            server,
            tell,
            metrics,
            running,
            events: events_in,
            updates: updates_in,
            _identities: identities_in,
        }
    }

    async fn answer(&mut self, status: u16, body: &Value) -> (String, String) {
        let answered = timeout(Duration::from_secs(120), answer(&mut self.server, status, body));
        let (method, path, _) = answered.await.unwrap();
        (method, path)
    }

    /// Answers what a round asks before it writes.
    async fn answer_questions(&mut self) {
        let list = json!({"metadata": {}, "items": []});
        for asked in ["/configmaps", "/secrets"] {
            let (_, path) = self.answer(200, &list).await;
            assert!(path.ends_with(asked), "{path}");
        }
        let secret = json!({"stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"}});
        let (_, path) = self.answer(200, &secret).await;
        assert!(path.ends_with("/secrets/keys"), "{path}");
    }

    /// Answers whatever is asked until the index is written, and pokes. Returns the names of the files that were written before
    /// it, each after so long a time, and the revision of the index.
    async fn round(&mut self, each: Duration) -> (Vec<String>, String) {
        let (files, revision, _) = self.round_with_pokes(each).await;
        (files, revision)
    }

    /// The same, and how many pokes there were.
    async fn round_with_pokes(&mut self, each: Duration) -> (Vec<String>, String, usize) {
        let (mut files, mut pokes) = (Vec::new(), 0);
        loop {
            let next = timeout(Duration::from_secs(120), self.server.next_request());
            let (request, respond) = next.await.unwrap().unwrap();
            let (parts, content) = request.into_parts();
            let path = parts.uri.path();
            let name = path.rsplit('/').next().unwrap().to_owned();
            let is_poke = path.contains("/pods/");
            if !is_poke {
                tokio::time::sleep(each).await;
            }
            respond.send_response(Response::new(Body::from(written("7").to_string().into_bytes())));
            match name.as_str() {
                "onespace-index" => {
                    let content = content.collect().await.unwrap().to_bytes();
                    let object: Value = serde_json::from_slice(&content).unwrap();
                    let index = object["data"]["index.json"].as_str().unwrap();
                    let index: Value = serde_json::from_str(index).unwrap();
                    return (files, index["revision"].as_str().unwrap().to_owned(), pokes);
                }
                _ if is_poke => pokes += 1,
                _ => files.push(name),
            }
        }
    }

    /// The agent `n1` says that it runs these files.
    async fn says(&self, revision: &str) {
        let mut report = Report::default();
        report.config.revision = revision.to_owned();
        let update = Update {
            agent: "n1".to_owned(),
            answer: Ok(vec![report.into()]),
        };
        self.updates.send(update).await.unwrap();
    }

    async fn change(&self, name: &str, generation: i64) {
        let change = Change::Put(key(name), policy(name, generation));
        self.events.send(Event::Policy(scope(), change)).await.unwrap();
    }

    fn rounds(&self, outcome: &str) -> u64 {
        self.metrics.rounds.with_label_values(&[outcome]).get()
    }
}

fn written(version: &str) -> Value {
    json!({"metadata": {"name": "x", "resourceVersion": version}})
}

#[tokio::test(start_paused = true)]
async fn a_round_that_fails_is_tried_again_less_and_less_often_and_then_done() {
    let mut world = World::start(Duration::from_secs(86_400)).await;
    let mut waited = Vec::new();
    let mut last = Instant::now();
    for _ in 0..9 {
        let (_, path) = world.answer(500, &refusal(500)).await;
        assert!(path.ends_with("/configmaps"), "{path}");
        waited.push(last.elapsed().as_millis());
        last = Instant::now();
    }
    let expected = [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
    for (waited, expected) in waited.iter().zip(expected) {
        assert!(waited.abs_diff(expected) < 100, "{waited} ms, not {expected}");
    }
    world.answer_questions().await;
    for file in ["onespace-credentials-", "onespace-mappings-", "onespace-index"] {
        let (method, path) = world.answer(200, &written("7")).await;
        assert_eq!(method, "PATCH");
        assert!(path.contains(file), "{path}");
    }
    // The next failure begins anew.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.rounds("failed"), world.rounds("done")), (9, 1));
}

#[tokio::test(start_paused = true)]
async fn files_that_someone_else_wrote_meanwhile_are_read_anew_before_they_are_written() {
    let mut world = World::start(Duration::from_secs(86_400)).await;
    world.answer_questions().await;
    let (method, _) = world.answer(409, &refusal(409)).await;
    assert_eq!(method, "PATCH");
    let list = json!({"metadata": {}, "items": []});
    let (method, path) = world.answer(200, &list).await;
    assert_eq!(method, "GET");
    assert!(path.ends_with("/configmaps"), "{path}");
}

#[tokio::test(start_paused = true)]
async fn a_leadership_that_ends_in_the_middle_of_a_round_ends_the_round() {
    // Told by whoever runs for leader, or by the clock alone.
    for told in [true, false] {
        let mut world = World::start(Duration::from_secs(20)).await;
        world.answer_questions().await;
        let (method, path) = world.answer(200, &written("7")).await;
        assert_eq!(method, "PATCH");
        assert!(path.contains("onespace-credentials-"), "{path}");
        // The next file is under way.
        let next = timeout(Duration::from_secs(10), world.server.next_request()).await;
        let (request, _never_answered) = next.unwrap().unwrap();
        assert_eq!(request.method(), "PATCH");
        if told {
            world.tell.send_replace(None);
        }
        let ended = timeout(Duration::from_secs(21), world.running).await;
        let deposed = ended.expect("it goes on").unwrap().unwrap_err();
        assert!(deposed.to_string().contains("starts anew"), "{deposed}");
        let more = timeout(Duration::from_secs(60), world.server.next_request()).await;
        assert!(!matches!(more, Ok(Some(_))), "something was asked after that");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_files_are_written_once_agents_run_the_last_ones_or_after_a_moment() {
    let mut world = World::start(Duration::from_secs(86_400)).await;
    // It is asked, and says nothing by itself.
    let agent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pod = SeenPod {
        poke: None,
        node: "n1".to_owned(),
        url: Some(format!("https://{}", agent.local_addr().unwrap())),
    };
    let pod = Event::Pod(scope(), Change::Put(key("agent-1"), pod));
    world.events.send(pod).await.unwrap();
    world.answer_questions().await;
    let (_, first) = world.round(Duration::ZERO).await;
    let mut waited = Vec::new();
    let mut generation = 1;
    let mut change = async |world: &mut World, runs: &str| {
        generation += 1;
        let begun = Instant::now();
        world.says(runs).await;
        world.change("photos", generation).await;
        let (_, revision) = world.round(Duration::ZERO).await;
        waited.push(begun.elapsed().as_millis());
        revision
    };
    let second = change(&mut world, "older").await;
    let third = change(&mut world, &second).await;
    let fourth = change(&mut world, &second).await;
    assert!(first != second && third != fourth);
    for (waited, expected) in waited.iter().zip([1_500, 500, 1_500]) {
        assert!(waited.abs_diff(expected) < 50, "{waited} ms, not {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_writing_is_slow_a_changed_policy_does_not_wait_for_the_files_of_new_ones() {
    let mut world = World::start(Duration::from_secs(86_400)).await;
    world.answer_questions().await;
    let (files, _) = world.round(Duration::from_secs(1)).await;
    let photos = files.last().unwrap().clone();
    assert!(photos.starts_with("onespace-mappings-"), "{files:?}");
    for number in 0..100 {
        world.change(&format!("new-{number}"), 1).await;
    }
    world.change("photos", 2).await;
    let (files, _) = world.round(Duration::from_secs(1)).await;
    assert!(files.contains(&photos), "{files:?}");
    assert!(files.len() <= 5, "{files:?}");
    let mut all = BTreeSet::from_iter(files);
    for _ in 0..3 {
        let (files, _) = world.round(Duration::from_secs(1)).await;
        all.extend(files);
    }
    assert_eq!(all.len(), 16, "all have had their turn: {all:?}");
}

#[tokio::test(start_paused = true)]
async fn files_that_somebody_removed_are_all_written_again_in_one_round_however_slow_that_is() {
    let mut world = World::start(Duration::from_secs(86_400)).await;
    for number in 0..100 {
        world.change(&format!("new-{number}"), 1).await;
    }
    world.answer_questions().await;
    let (files, _) = world.round(Duration::from_secs(1)).await;
    assert_eq!(files.len(), 17, "the leader's first round is whole: {files:?}");
    let file = key("onespace-mappings-07");
    for change in [Change::Put(file.clone(), "7".to_owned()), Change::Gone(file)] {
        world
            .events
            .send(Event::ConfigMap(scope(), change))
            .await
            .unwrap();
    }
    for asked in ["/configmaps", "/secrets"] {
        let (_, path) = world.answer(200, &json!({"metadata": {}, "items": []})).await;
        assert!(path.ends_with(asked), "{path}");
    }
    let (files, _) = world.round(Duration::from_secs(1)).await;
    assert_eq!(files.len(), 17, "{files:?}");
}

#[tokio::test(start_paused = true)]
async fn kubelets_are_told_however_slow_rounds_are_and_however_close_they_follow() {
    let mut world = World::start(Duration::from_secs(86_400)).await;
    let pod = SeenPod {
        poke: None,
        node: "n1".to_owned(),
        url: None,
    };
    let pod = Event::Pod(scope(), Change::Put(key("agent-1"), pod));
    world.events.send(pod).await.unwrap();
    world.answer_questions().await;
    world.round(Duration::ZERO).await;
    let mut pokes = 0;
    for generation in 2..12 {
        world.change("photos", generation).await;
        pokes += usize::from(world.round_with_pokes(Duration::from_secs(4)).await.2 > 0);
    }
    assert_eq!(pokes, 10, "told before each of 10 rounds");
}
