//! Who leads, on paused time, at an API server that holds one Lease and may fall silent.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use onespace_operator::leader::{LEASE, Leadership, run_for_leader};
use onespace_operator::lease::Terms;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

mod answering;
mod api_server;
mod serving;
use answering::answer;
use api_server::{api_server, refusal};
use serving::serve;

/// What one Lease needs of an API server: it is made once, and changed in the version that is named alone.
#[derive(Default)]
struct Shared {
    lease: Option<Value>,
    version: u64,
    writes: Vec<String>,
}

type Lease = Arc<Mutex<Shared>>;

impl Shared {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        assert!(
            path.contains("/apis/coordination.k8s.io/v1/namespaces/swift/leases"),
            "{path}"
        );
        match (method, self.lease.as_mut()) {
            ("GET" | "PATCH", None) => return (404, refusal(404)),
            ("GET", Some(lease)) => return (200, lease.clone()),
            ("POST", Some(_)) => return (409, refusal(409)),
            ("POST", None) => self.lease = Some(body.clone()),
            ("PATCH", Some(lease)) => {
                let named = body.pointer("/metadata/resourceVersion");
                assert!(named.is_some(), "a claim that replaces whatever is there: {body}");
                if named != Some(&json!(self.version.to_string())) {
                    return (409, refusal(409));
                }
                for (field, value) in body["spec"].as_object().unwrap() {
                    lease["spec"][field] = value.clone();
                }
            }
            (method, _) => panic!("{method}"),
        }
        self.version += 1;
        let lease = self.lease.as_mut().unwrap();
        lease["metadata"] = json!({"name": LEASE, "resourceVersion": self.version.to_string()});
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        self.writes.push(holder.to_owned());
        (200, lease.clone())
    }
}

/// What becomes of a replica's requests.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    Up,
    /// They get lost.
    Silent,
    /// They arrive, and their answers get lost.
    Deaf,
}

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(24 * 3600);

struct Replica {
    leadership: Leadership,
    link: Arc<Mutex<Link>>,
    end: CancellationToken,
    ended: JoinHandle<()>,
}

impl Replica {
    fn start(name: &str, lease: &Lease) -> Self {
        let link = Arc::new(Mutex::new(Link::Up));
        let (client, server) = api_server();
        let (shared, state) = (lease.clone(), link.clone());
        tokio::spawn(serve(server, NEVER, move |method, path, body| {
            let link = *state.lock().unwrap();
            if link == Link::Silent {
                return None;
            }
            let (status, answer) = shared.lock().unwrap().answer(method, path, &body);
            match link {
                Link::Up => Some((status, answer)),
                Link::Silent | Link::Deaf => None,
            }
        }));
        let end = CancellationToken::new();
        let (leadership, ended) = run_for_leader(client, "swift", name, Terms::new(15), end.clone());
        Self {
            leadership,
            link,
            end,
            ended,
        }
    }

    async fn leads(&self) {
        let gained = timeout(Duration::from_secs(120), self.leadership.gained()).await;
        assert!(gained.unwrap());
    }

    fn set(&self, link: Link) {
        *self.link.lock().unwrap() = link;
    }
}

fn holder(lease: &Lease) -> Value {
    let lease = lease.lock().unwrap();
    lease.lease.as_ref().unwrap()["spec"]["holderIdentity"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_writing_before_another_leads() {
    // Whenever it happens between two renewals.
    for (link, millis) in [Link::Silent, Link::Deaf]
        .into_iter()
        .flat_map(|link| (0..3_000).step_by(217).map(move |millis| (link, millis)))
    {
        let lease = Lease::default();
        let first = Replica::start("first", &lease);
        first.leads().await;
        let second = Replica::start("second", &lease);
        sleep(Duration::from_millis(60_000 + millis)).await;
        assert!(
            first.leadership.holds() && !second.leadership.holds(),
            "it is renewed"
        );

        first.set(link);
        let silent = Instant::now();
        first.leadership.lost().await;
        let lost = Instant::now();
        assert!(lost - silent <= Duration::from_secs(10));
        second.leads().await;
        let between = Instant::now() - lost;
        assert!(
            between >= Duration::from_secs(4),
            "what was under way has {between:?} to arrive"
        );
        assert!(!first.leadership.holds());
        assert_eq!(holder(&lease), "second");

        // It leads no more, though it could: it starts anew.
        first.set(Link::Up);
        second.end.cancel();
        second.ended.await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert!(!first.leadership.holds());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_goes_on_when_its_requests_are_heard_again_in_time() {
    for link in [Link::Silent, Link::Deaf] {
        let lease = Lease::default();
        let first = Replica::start("first", &lease);
        first.leads().await;
        let _second = Replica::start("second", &lease);
        for _ in 0..20 {
            sleep(Duration::from_millis(20_700)).await;
            first.set(link);
            sleep(Duration::from_millis(3_500)).await;
            first.set(Link::Up);
            assert!(first.leadership.holds());
        }
        assert!(!lease.lock().unwrap().writes.contains(&"second".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_is_anothers_stops_with_its_next_renewal() {
    let lease = Lease::default();
    let first = Replica::start("first", &lease);
    first.leads().await;
    {
        let mut lease = lease.lock().unwrap();
        lease.lease.as_mut().unwrap()["spec"]["holderIdentity"] = json!("somebody");
        lease.version += 1;
        let version = lease.version.to_string();
        lease.lease.as_mut().unwrap()["metadata"]["resourceVersion"] = json!(version);
    }
    let edited = Instant::now();
    first.leadership.lost().await;
    assert!(
        edited.elapsed() <= Duration::from_secs(5),
        "{:?}",
        edited.elapsed()
    );
    assert_eq!(holder(&lease), "somebody");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_is_made_anew_by_its_holder() {
    let lease = Lease::default();
    let first = Replica::start("first", &lease);
    first.leads().await;
    let second = Replica::start("second", &lease);
    sleep(Duration::from_secs(10)).await;
    lease.lock().unwrap().lease = None;
    sleep(Duration::from_secs(60)).await;
    assert!(first.leadership.holds() && !second.leadership.holds());
    assert_eq!(holder(&lease), "first");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_at_the_end_and_the_next_leads_within_seconds() {
    let lease = Lease::default();
    let first = Replica::start("first", &lease);
    first.leads().await;
    let second = Replica::start("second", &lease);
    sleep(Duration::from_secs(10)).await;
    first.end.cancel();
    first.ended.await.unwrap();
    let given = Instant::now();
    second.leads().await;
    assert!(given.elapsed() <= Duration::from_secs(4), "{:?}", given.elapsed());
    // The one that does not lead gives back nothing.
    let third = Replica::start("third", &lease);
    sleep(Duration::from_secs(10)).await;
    third.end.cancel();
    third.ended.await.unwrap();
    assert_eq!(holder(&lease), "second");
}

async fn write(client: &Client) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "swift");
    let patch = Patch::Merge(json!({"data": {}}));
    let manager = PatchParams::default();
    let written = timeout(
        Duration::from_secs(60),
        api.patch("onespace-index", &manager, &patch),
    );
    written.await.unwrap().map(drop)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_a_leadership_after_it_or_over_its_end() {
    let (tell, leadership) = Leadership::new();
    let (client, mut server) = api_server();
    let client = leadership.gate(client);
    let config_map = json!({"metadata": {"name": "onespace-index"}});

    let refused = write(&client).await.unwrap_err();
    assert!(refused.to_string().contains("does not lead"), "{refused}");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "swift");
    let (read, (method, ..)) = tokio::join!(api.get("onespace-index"), answer(&mut server, 200, &config_map));
    read.unwrap();
    assert_eq!(method, "GET", "nothing else was asked");

    // Nobody says that it ended: the clock does.
    tell.send_replace(Some(Instant::now() + Duration::from_secs(10)));
    let (written, (method, ..)) = tokio::join!(write(&client), answer(&mut server, 200, &config_map));
    written.unwrap();
    assert_eq!(method, "PATCH");
    let began = Instant::now();
    let given_up = write(&client).await.unwrap_err();
    assert!(given_up.to_string().contains("does not lead"), "{given_up}");
    assert_eq!(began.elapsed().as_secs(), 10, "given up with the leadership");
    assert!(server.next_request().await.is_some(), "this one was under way");
    write(&client).await.unwrap_err();
    let nothing = timeout(Duration::from_secs(60), server.next_request()).await;
    assert!(nothing.is_err(), "a write was sent");
}
