//! The loop that writes, where requests fail or the leadership ends, on paused time.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use onespace_operator::agents::Agents;
use onespace_operator::ask::Asking;
use onespace_operator::controller::{Controller, Deposed, Made};
use onespace_operator::desk::Desk;
use onespace_operator::health::Ready;
use onespace_operator::leader::Leadership;
use onespace_operator::metrics::Metrics;
use onespace_operator::published::Names;
use onespace_operator::seen::{Event, Scopes, Seen, read_policy};
use onespace_operator::table::Change;
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

/// Everything that the watches of the operator's own namespace show at first: one policy and its Secret.
fn events() -> Vec<Event> {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift", "uid": "uid-1", "generation": 1},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}}},
    });
    let policy = Box::new(read_policy(serde_json::from_value(policy).unwrap()));
    let key = |name: &str| ("swift".to_owned(), name.to_owned());
    vec![
        Event::Policy(scope(), Change::Restart),
        Event::Policy(scope(), Change::Listed(key("photos"), policy)),
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
    // What the loop would end without.
    _events: mpsc::Sender<Event>,
    _identities: watch::Sender<Option<onespace_stores::mutual_tls::Identity>>,
}

impl World {
    /// An operator that leads for so long.
    async fn start(leads: Duration) -> Self {
        let (client, server) = api_server();
        let (tell, leadership) = Leadership::new();
        let (events_in, events_out) = mpsc::channel(100);
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
            asking: Asking::new(updates_in).unwrap(),
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
            _events: events_in,
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
