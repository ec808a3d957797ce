//! Writing status: apart from the loop that writes files, so that thousands of policies do not delay one change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use onespace_crds::{SyncPolicy, SyncPolicyStatus};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, STATUS_MANAGER, within};
use crate::metrics::Metrics;
use crate::table::Key;

/// Policies that are written at the same time.
const AT_ONCE: usize = 8;

/// The wait after a write that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A status that is to be written.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The policy's uid: another policy of the same name is not meant.
    pub uid: String,
    /// The status.
    pub status: SyncPolicyStatus,
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
        self.lock().insert(key, wanted);
        self.bell.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is laid down, until cancelled.
pub async fn write_all(client: Client, desk: Arc<Desk>, metrics: Metrics, cancel: CancellationToken) {
    let mut wait = BACKOFF.0;
    loop {
        let batch = std::mem::take(&mut *desk.lock());
        if batch.is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = desk.bell.notified() => continue,
            }
        }
        let writes: Vec<_> = batch
            .into_iter()
            .map(|(key, wanted)| write(client.clone(), key, wanted))
            .collect();
        let mut writes = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
        let mut failed = false;
        loop {
            let next = tokio::select! {
                () = cancel.cancelled() => return,
                next = writes.next() => next,
            };
            let Some((key, wanted, written)) = next else { break };
            let outcome = match written {
                Ok(()) => "written",
                // Gone, another one of its name, or nothing that the CRD takes: trying again would not help.
                Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => {
                    tracing::info!(namespace = key.0, name = key.1, "status is not taken: {error}");
                    "refused"
                }
                Err(error) => {
                    tracing::warn!(
                        namespace = key.0,
                        name = key.1,
                        "status cannot be written: {error}"
                    );
                    desk.lock().entry(key).or_insert(wanted);
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

async fn write(client: Client, key: Key, wanted: Wanted) -> (Key, Wanted, Result<(), ApiError>) {
    let written = write_now(client, &key, &wanted).await;
    (key, wanted, written)
}

async fn write_now(client: Client, (namespace, name): &Key, wanted: &Wanted) -> Result<(), ApiError> {
    let resource = ApiResource::erase::<SyncPolicy>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace, "uid": wanted.uid},
        "status": wanted.status,
    });
    let manager = PatchParams::apply(STATUS_MANAGER).force();
    within(api.patch_status(name, &manager, &Patch::Apply(&patch))).await?;
    Ok(())
}
