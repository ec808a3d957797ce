//! Writing status: apart from the loop that writes files, so that thousands of policies do not delay one change.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use onespace_crds::SyncPolicy;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, STATUS_MANAGER, within};
use crate::desk::{Desk, Wanted};
use crate::events::post;
use crate::metrics::Metrics;
use crate::table::Key;

/// Policies that are written at the same time.
const AT_ONCE: usize = 8;

/// The wait after a write that failed, at first and at most: of all policies, if the API server does not work, else of this
/// policy alone.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The wait before a status is tried again that the CRD does not take.
const REFUSED: Duration = Duration::from_secs(60);

/// Writes what is laid down, until cancelled. `instance` is this replica's name in events.
pub async fn write_all(
    client: Client,
    desk: Arc<Desk>,
    metrics: Metrics,
    instance: String,
    cancel: CancellationToken,
) {
    let mut pause = Duration::ZERO;
    let mut paused_until = Instant::now();
    let mut writes = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        while writes.len() < AT_ONCE
            && now >= paused_until
            && let Some((key, wanted, waited)) = desk.take(now)
        {
            writes.push(write(client.clone(), key, wanted, waited, &instance));
        }
        let turn = match now < paused_until {
            true => Some(paused_until),
            false => desk.next_turn().filter(|_| writes.len() < AT_ONCE),
        };
        let Done {
            key,
            wanted,
            waited,
            written,
        } = tokio::select! {
            () = cancel.cancelled() => return,
            Some(done) = writes.next() => done,
            () = desk.bell(), if now >= paused_until => continue,
            () = tokio::time::sleep_until(turn.unwrap_or(now)), if turn.is_some() => continue,
        };
        let fate = written.as_ref().err().map_or(Fate::Written, Fate::of);
        if let Err(error) = written {
            let (namespace, name) = &key;
            match fate {
                Fate::Gone => tracing::info!(namespace, name, "status is not taken: {error}"),
                Fate::NotTaken => tracing::warn!(
                    namespace,
                    name,
                    "the CRD does not take this status; install the one that belongs to the operator: {error}"
                ),
                _ => tracing::warn!(namespace, name, "status cannot be written: {error}"),
            }
        }
        let now = Instant::now();
        if fate != Fate::NoServer {
            pause = Duration::ZERO;
            paused_until = paused_until.min(now);
        }
        match fate {
            Fate::Written | Fate::Gone => desk.done(&key),
            Fate::NotTaken => desk.put_back(key, wanted, REFUSED, now),
            Fate::Refused => desk.put_back(key, wanted, longer(waited), now),
            Fate::NoServer => {
                // Those that were under way together fail together: that is one failure.
                if now >= paused_until {
                    pause = longer(pause);
                    paused_until = now + pause;
                }
                desk.put_back(key, wanted, Duration::ZERO, now);
            }
        }
        metrics.status_writes.with_label_values(&[fate.outcome()]).inc();
    }
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).clamp(BACKOFF.0, BACKOFF.1)
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    /// Gone, or another one of its name: trying again would not help.
    Gone,
    /// The CRD may be of another version than this program. The others need not wait for that.
    NotTaken,
    /// This one is not taken now, by a right that lacks in its namespace or a webhook. The others need not wait for that.
    Refused,
    /// No other one would be taken.
    NoServer,
}

impl Fate {
    fn of(error: &ApiError) -> Self {
        match error.code() {
            Some(404 | 409) => Self::Gone,
            Some(422) => Self::NotTaken,
            // Who fails to ask a webhook says 500.
            None | Some(401 | 429 | 502..=504) => Self::NoServer,
            Some(_) => Self::Refused,
        }
    }

    fn outcome(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Gone => "gone",
            Self::NotTaken => "refused",
            Self::Refused | Self::NoServer => "failed",
        }
    }
}

/// A write that is over.
struct Done {
    key: Key,
    wanted: Wanted,
    /// How long was waited before it.
    waited: Duration,
    written: Result<(), ApiError>,
}

async fn write(client: Client, key: Key, mut wanted: Wanted, waited: Duration, instance: &str) -> Done {
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
    Done {
        key,
        wanted,
        waited,
        written,
    }
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
    let policy = within(api.patch_status(name, &manager, &Patch::Apply(&patch))).await?;
    if let Some(status) = policy.data.get("status") {
        wanted.written.note(status);
    }
    Ok(())
}
