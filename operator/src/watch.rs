//! The watches: streams of the API server's events, reduced and sent to the controller. They never end: a watch that
//! breaks is begun anew, with a growing delay. One that is refused begins with a list: what changed meanwhile nobody said.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, watcher::Event as Watched};
use kube::{Api, Client};
use onespace_crds::{AccountGrant, SyncPolicy};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::seen::{Event, Scopes, key_of, read_grant, read_pod, read_policy};
use crate::table::{Change, Scope};

/// Objects in one page of a list. A page is in memory as a whole, and what is parsed of it is many times its size.
const PAGE: u32 = 100;

/// The wait before a list that follows a refused watch. It may succeed, and then no failure before it makes the next wait longer.
const UNWATCHED: Duration = Duration::from_secs(10);

/// Starts every watch.
pub fn start(
    client: &Client,
    scopes: &Scopes,
    agent_selector: &str,
    events: &mpsc::Sender<Event>,
    metrics: &Metrics,
) -> JoinSet<()> {
    let Scopes {
        policies,
        cluster,
        objects,
        pods,
    } = scopes;
    let mut tasks = JoinSet::new();
    macro_rules! follow {
        ($scopes:expr, $kind:literal, $event:path, $watch:expr, $read:expr) => {
            for scope in $scopes {
                let begin = {
                    let (watch, client, scope) = ($watch, client.clone(), scope.clone());
                    move || watch(&client, &scope).default_backoff()
                };
                let (events, metrics) = (events.clone(), metrics.clone());
                let wrap = $event;
                let scope = scope.clone();
                tasks.spawn(async move {
                    let mut stream = Box::pin(begin());
                    while let Some(event) = stream.next().await {
                        let mut unwatched = false;
                        let change = match event {
                            Ok(event) => change(event, $read),
                            Err(error) => {
                                metrics.watch_errors.with_label_values(&[$kind]).inc();
                                tracing::warn!(kind = $kind, scope, "a watch is begun anew: {error}");
                                if !is_refusal(&error) {
                                    continue;
                                }
                                unwatched = matches!(error, watcher::Error::WatchStartFailed(_));
                                Change::Refused
                            }
                        };
                        if events.send(wrap(scope.clone(), change)).await.is_err() {
                            return;
                        }
                        if unwatched {
                            tokio::time::sleep(UNWATCHED).await;
                            stream = Box::pin(begin());
                        }
                    }
                });
            }
        };
    }
    let dynamic = |resource: ApiResource| {
        move |client: &Client, scope: &Scope| {
            let api: Api<DynamicObject> = match scope {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            watcher(api, everything())
        }
    };
    let dynamic_key = |object: &DynamicObject| key_of(&object.metadata);
    follow!(
        policies,
        "SyncPolicy",
        Event::Policy,
        dynamic(ApiResource::erase::<SyncPolicy>(&())),
        |object: DynamicObject| (dynamic_key(&object), Box::new(read_policy(object)))
    );
    follow!(
        cluster,
        "AccountGrant",
        Event::Grant,
        dynamic(ApiResource::erase::<AccountGrant>(&())),
        |object: DynamicObject| (dynamic_key(&object), read_grant(object))
    );
    follow!(
        cluster,
        "Namespace",
        Event::Namespace,
        |client: &Client, _: &Scope| watcher(
            Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
            everything()
        ),
        |object: PartialObjectMeta<Namespace>| {
            let key = key_of(&object.metadata);
            (key, object.metadata.labels.unwrap_or_default())
        }
    );
    follow!(
        objects,
        "Secret",
        Event::Secret,
        |client: &Client, scope: &Scope| watcher(
            scoped::<PartialObjectMeta<Secret>>(client, scope),
            everything()
        ),
        |object: PartialObjectMeta<Secret>| versioned(object.metadata)
    );
    follow!(
        objects,
        "ConfigMap",
        Event::ConfigMap,
        |client: &Client, scope: &Scope| watcher(
            scoped::<PartialObjectMeta<ConfigMap>>(client, scope),
            everything()
        ),
        |object: PartialObjectMeta<ConfigMap>| versioned(object.metadata)
    );
    follow!(
        pods,
        "Pod",
        Event::Pod,
        {
            let selected = everything().labels(agent_selector);
            move |client: &Client, scope: &Scope| watcher(scoped::<Pod>(client, scope), selected.clone())
        },
        |pod: Pod| (key_of(&pod.metadata), read_pod(pod))
    );
    tasks
}

fn everything() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn scoped<K>(client: &Client, scope: &Scope) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Whether this is the API server's word, and not that it cannot be asked.
fn is_refusal(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => {
            status.code == 403
        }
        _ => false,
    }
}

fn versioned(metadata: ObjectMeta) -> (crate::table::Key, String) {
    (key_of(&metadata), metadata.resource_version.unwrap_or_default())
}

fn change<K, V>(event: Watched<K>, read: impl Fn(K) -> (crate::table::Key, V)) -> Change<V> {
    match event {
        Watched::Apply(object) => {
            let (key, value) = read(object);
            Change::Put(key, value)
        }
        Watched::Delete(object) => Change::Gone(read(object).0),
        Watched::Init => Change::Restart,
        Watched::InitApply(object) => {
            let (key, value) = read(object);
            Change::Listed(key, value)
        }
        Watched::InitDone => Change::Complete,
    }
}
