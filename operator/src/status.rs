//! Writing status: apart from the loop that writes files, so that thousands of policies do not delay one change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use onespace_core::status::Event;
use onespace_crds::{SyncPolicy, SyncPolicyStatus};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, STATUS_MANAGER, within};
use crate::events::post;
use crate::metrics::Metrics;
use crate::table::Key;

/// Policies that are written at the same time.
const AT_ONCE: usize = 8;

/// Events of one policy that may wait.
const EVENTS: usize = 8;

/// The wait after a write that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The wait before a status is tried again that the CRD does not take.
const REFUSED: Duration = Duration::from_secs(60);

/// A status that is to be written.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The policy's uid: another policy of the same name is not meant.
    pub uid: String,
    /// The status.
    pub status: Arc<SyncPolicyStatus>,
    /// What to tell once it is written.
    pub events: Vec<Event>,
}

impl Wanted {
    /// In the place of one that was not written: what it was to tell is told, too.
    fn after(mut self, before: Self) -> Self {
        if before.uid == self.uid {
            let newest = self
                .events
                .into_iter()
                .rev()
                .chain(before.events.into_iter().rev());
            self.events = newest.take(EVENTS).collect();
            self.events.reverse();
        }
        self
    }
}

/// What is to be written, by policy: a newer status takes the place of one that waits.
#[derive(Debug, Default)]
pub struct Desk {
    wanted: Mutex<BTreeMap<Key, Wanted>>,
    bell: Notify,
}

impl Desk {
    /// Lays a status down to be written.
    pub fn put(&self, key: Key, wanted: Wanted) {
        let mut all = self.lock();
        let wanted = match all.remove(&key) {
            Some(before) => wanted.after(before),
            None => wanted,
        };
        all.insert(key, wanted);
        drop(all);
        self.bell.notify_one();
    }

    /// Lays a status down again that could not be written, unless a newer one is there.
    fn put_back(&self, key: Key, wanted: Wanted) {
        let mut all = self.lock();
        let wanted = match all.remove(&key) {
            Some(newer) => newer.after(wanted),
            None => wanted,
        };
        all.insert(key, wanted);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is laid down, until cancelled. `instance` is this replica's name in events.
pub async fn write_all(
    client: Client,
    desk: Arc<Desk>,
    metrics: Metrics,
    instance: String,
    cancel: CancellationToken,
) {
    let mut wait = BACKOFF.0;
    let mut refused: BTreeMap<Key, Wanted> = BTreeMap::new();
    let mut again = Instant::now();
    loop {
        if !refused.is_empty() && Instant::now() >= again {
            for (key, wanted) in std::mem::take(&mut refused) {
                desk.put_back(key, wanted);
            }
        }
        let batch = std::mem::take(&mut *desk.lock());
        if batch.is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = desk.bell.notified() => continue,
                () = tokio::time::sleep_until(again), if !refused.is_empty() => continue,
            }
        }
        refused.retain(|key, _| !batch.contains_key(key));
        // One after the other from the batch: thousands of requests at hand would cost more than what they write.
        let mut writes = futures::stream::iter(batch)
            .map(|(key, wanted)| write(client.clone(), key, wanted, &instance))
            .buffer_unordered(AT_ONCE);
        let mut failed = false;
        loop {
            let next = tokio::select! {
                () = cancel.cancelled() => return,
                next = writes.next() => next,
            };
            let Some((key, wanted, written)) = next else { break };
            let outcome = match written {
                Ok(()) => "written",
                // Gone, or another one of its name: trying again would not help.
                Err(error) if matches!(error.code(), Some(404 | 409)) => {
                    tracing::info!(namespace = key.0, name = key.1, "status is not taken: {error}");
                    "gone"
                }
                // The CRD may be of another version than this program. The others need not wait for that.
                Err(error) if error.code() == Some(422) => {
                    tracing::warn!(
                        namespace = key.0,
                        name = key.1,
                        "the CRD does not take this status; install the one that belongs to the operator: {error}"
                    );
                    if refused.is_empty() {
                        again = Instant::now() + REFUSED;
                    }
                    refused.insert(key, wanted);
                    "refused"
                }
                Err(error) => {
                    tracing::warn!(
                        namespace = key.0,
                        name = key.1,
                        "status cannot be written: {error}"
                    );
                    desk.put_back(key, wanted);
                    failed = true;
                    "failed"
                }
            };
            metrics.status_writes.with_label_values(&[outcome]).inc();
        }
        if failed {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        } else {
            wait = BACKOFF.0;
        }
    }
}

async fn write(
    client: Client,
    key: Key,
    mut wanted: Wanted,
    instance: &str,
) -> (Key, Wanted, Result<(), ApiError>) {
    let written = write_now(&client, &key, &wanted).await;
    if written.is_ok() {
        for event in std::mem::take(&mut wanted.events) {
            if let Err(error) = post(&client, &key, &wanted.uid, event, instance).await {
                tracing::warn!(
                    namespace = key.0,
                    name = key.1,
                    "an event cannot be told: {error}"
                );
            }
        }
    }
    (key, wanted, written)
}

async fn write_now(client: &Client, (namespace, name): &Key, wanted: &Wanted) -> Result<(), ApiError> {
    let resource = ApiResource::erase::<SyncPolicy>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace, "uid": wanted.uid},
        "status": *wanted.status,
    });
    let manager = PatchParams::apply(STATUS_MANAGER).force();
    within(api.patch_status(name, &manager, &Patch::Apply(&patch))).await?;
    Ok(())
}
