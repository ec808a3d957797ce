//! Watches that the API server refuses, on paused time.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onespace_operator::metrics::Metrics;
use onespace_operator::published::Names;
use onespace_operator::seen::{Event, Scopes, Seen};
use onespace_operator::watch;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

mod api_server;
mod serving;
use api_server::{api_server, refusal};
use serving::serve;

/// How the API server answers for the namespace `tenant`.
#[derive(Clone, Copy, PartialEq)]
enum Tenant {
    Refused,
    Broken,
    Shown,
    /// Its lists are shown, and no watch is begun.
    Listed,
}

fn list(items: &[Value]) -> Option<(u16, Value)> {
    Some((200, json!({"metadata": {"resourceVersion": "1"}, "items": items})))
}

fn policy() -> Value {
    json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "tenant", "uid": "uid-1", "resourceVersion": "1"},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}}}})
}

struct World {
    tenant: Arc<Mutex<Tenant>>,
    /// How often the tenant's policies were listed.
    lists: Arc<AtomicUsize>,
    seen: Seen,
    events: mpsc::Receiver<Event>,
    _tasks: tokio::task::JoinSet<()>,
}

impl World {
    /// An operator that watches the namespace `tenant`.
    fn start(tenant: Tenant) -> Self {
        let (client, server) = api_server();
        let tenant = Arc::new(Mutex::new(tenant));
        let state = tenant.clone();
        let lists = Arc::new(AtomicUsize::new(0));
        let count = lists.clone();
        tokio::spawn(serve(server, Duration::from_secs(60), move |_, path, _| {
            let state = *state.lock().unwrap();
            let is_watch = path.contains("watch=");
            let of_tenant = path.contains("/namespaces/tenant/");
            if of_tenant && !is_watch && path.contains("syncpolicies") {
                count.fetch_add(1, Ordering::Relaxed);
            }
            match (of_tenant, state) {
                (true, Tenant::Listed) if is_watch => Some((403, refusal(403))),
                (true, Tenant::Refused) => Some((403, refusal(403))),
                (true, Tenant::Broken) => Some((500, refusal(500))),
                _ if is_watch => None,
                (true, Tenant::Shown | Tenant::Listed) if path.contains("syncpolicies") => list(&[policy()]),
                _ if path.contains("/api/v1/namespaces?") => {
                    let namespaces = ["swift", "tenant"].map(|name| json!({"metadata": {"name": name}}));
                    list(&namespaces)
                }
                _ => list(&[]),
            }
        }));
        let names = Names {
            namespace: "swift".to_owned(),
        };
        let scopes = Scopes::new("swift", &["swift".to_owned(), "tenant".to_owned()]);
        let (events_in, events) = mpsc::channel(100);
        let metrics = Metrics::new().unwrap();
        Self {
            tenant,
            lists,
            seen: Seen::new(&scopes, names),
            events,
            _tasks: watch::start(&client, &scopes, "app=agent", &events_in, &metrics),
        }
    }

    /// Takes events until something is so. Returns whether it ever was.
    async fn until(&mut self, so: impl Fn(&Seen) -> bool) -> bool {
        let until = async {
            while !so(&self.seen) {
                self.seen.take(self.events.recv().await.unwrap());
            }
        };
        timeout(Duration::from_secs(300), until).await.is_ok()
    }
}

fn is_unreadable(seen: &Seen) -> bool {
    seen.unreadable().eq(["tenant"])
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_refused_is_done_without_until_it_can_be_read() {
    let mut world = World::start(Tenant::Refused);
    assert!(
        world
            .until(|seen| seen.is_complete() && is_unreadable(seen))
            .await
    );
    assert_eq!(world.seen.policies.iter().count(), 0);
    *world.tenant.lock().unwrap() = Tenant::Shown;
    assert!(world.until(|seen| seen.unreadable().next().is_none()).await);
    assert_eq!(world.seen.policies.iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_waited_for_while_the_api_server_cannot_say() {
    let mut world = World::start(Tenant::Broken);
    assert!(!world.until(Seen::is_complete).await);
    *world.tenant.lock().unwrap() = Tenant::Shown;
    assert!(world.until(Seen::is_complete).await);
    assert_eq!(world.seen.policies.iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_of_a_namespace_stays_when_it_is_refused_later_and_this_is_told() {
    let mut world = World::start(Tenant::Shown);
    assert!(world.until(Seen::is_complete).await);
    // Its watches end after some minutes, and cannot begin anew.
    *world.tenant.lock().unwrap() = Tenant::Refused;
    assert!(world.until(is_unreadable).await);
    assert_eq!(world.seen.policies.iter().count(), 1);
    *world.tenant.lock().unwrap() = Tenant::Shown;
    assert!(world.until(|seen| seen.unreadable().next().is_none()).await);
    assert_eq!(world.seen.policies.iter().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_may_be_listed_and_not_watched_is_listed_a_few_times_a_minute() {
    let mut world = World::start(Tenant::Listed);
    assert!(!world.until(|_| false).await);
    assert_eq!(world.seen.policies.iter().count(), 1);
    let lists = world.lists.load(Ordering::Relaxed);
    assert!((5..=31).contains(&lists), "{lists} lists in five minutes");
}
