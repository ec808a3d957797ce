//! Putting the finalizer on policies, and taking it off.

use anyhow::Context as _;
use futures::StreamExt as _;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use onespace_core::finalizer::{FINALIZER, FinalizerStep};
use onespace_core::status::sum;
use onespace_crds::{Mode, SyncPolicy};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::agents::Agents;
use crate::api::{ApiError, FIELD_MANAGER, within};
use crate::seen::{Seen, SeenPolicy, key_of};
use crate::table::{Key, Scope};

/// Policies that are written at the same time.
const AT_ONCE: usize = 4;

/// Policies of one list.
const PAGE: u32 = 500;

/// The finalizers that a policy is to have instead of those of this version.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    key: Key,
    version: String,
    finalizers: Vec<String>,
}

/// All changes that are due now.
#[must_use]
pub fn changes(seen: &Seen, agents: &Agents) -> Vec<Change> {
    let policies = seen.policies.iter();
    policies
        .filter_map(|(key, policy)| change(key, policy, has_released(policy, agents)))
        .collect()
}

fn has_released(policy: &SeenPolicy, agents: &Agents) -> bool {
    // Nobody else can, and sums of thousands cost.
    policy.mode == Some(Mode::Archive)
        && policy.verdict.as_ref().is_ok_and(|valid| {
            let sum = sum(&valid.mapping.id.0, policy.generation, agents.views());
            sum.totals.released > 0
        })
}

fn change(key: &Key, policy: &SeenPolicy, released: bool) -> Option<Change> {
    let mut finalizers = policy.finalizers.clone();
    match policy.finalizer(released) {
        FinalizerStep::Nothing | FinalizerStep::Hold => return None,
        FinalizerStep::Add => finalizers.push(FINALIZER.to_owned()),
        FinalizerStep::Remove => finalizers.retain(|name| name != FINALIZER),
    }
    Some(Change {
        key: key.clone(),
        version: policy.version.clone(),
        finalizers,
    })
}

/// Writes finalizers beside everything else, one batch after the other.
#[derive(Debug, Default)]
pub struct Finalizing {
    under_way: Option<AbortOnDropHandle<()>>,
}

impl Finalizing {
    /// Carries changes out, unless others still are. Those that are left are due again.
    pub fn carry_out(&mut self, client: &Client, changes: Vec<Change>) {
        let busy = self.under_way.as_ref().is_some_and(|batch| !batch.is_finished());
        if busy || changes.is_empty() {
            return;
        }
        let client = client.clone();
        let batch = async move {
            let writes: Vec<_> = changes.iter().map(|change| write(&client, change)).collect();
            futures::stream::iter(writes)
                .buffer_unordered(AT_ONCE)
                .collect::<()>()
                .await;
        };
        self.under_way = Some(AbortOnDropHandle::new(tokio::spawn(batch)));
    }
}

/// Takes the finalizer off every policy of these scopes, whatever the policy is held for.
///
/// # Errors
/// Policies cannot be listed or written; those that were written until then stay so.
pub async fn remove_all(client: &Client, scopes: &[Scope]) -> anyhow::Result<()> {
    let resource = ApiResource::erase::<SyncPolicy>(&());
    for scope in scopes {
        let api: Api<DynamicObject> = match scope {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = match within(api.list_metadata(&page)).await {
                Ok(list) => list,
                // The CRD went with the chart.
                Err(error) if error.code() == Some(404) => break,
                Err(error) => return Err(error.into()),
            };
            for policy in list.items {
                let key = key_of(&policy.metadata);
                let mut finalizers = policy.metadata.finalizers.unwrap_or_default();
                if !finalizers.iter().any(|name| name == FINALIZER) {
                    continue;
                }
                finalizers.retain(|name| name != FINALIZER);
                let change = Change {
                    version: policy.metadata.resource_version.unwrap_or_default(),
                    finalizers,
                    key,
                };
                let (namespace, name) = &change.key;
                write_now(client, &change)
                    .await
                    .with_context(|| format!("the finalizer of {namespace}/{name} cannot be removed"))?;
                tracing::info!(namespace, name, "finalizer removed");
            }
            match list.metadata.continue_ {
                Some(next) if !next.is_empty() => page = page.continue_token(&next),
                _ => break,
            }
        }
    }
    Ok(())
}

async fn write(client: &Client, change: &Change) {
    let (namespace, name) = &change.key;
    match write_now(client, change).await {
        Ok(()) => tracing::info!(namespace, name, finalizers = ?change.finalizers, "finalizers written"),
        // Gone or changed meanwhile: its newest version is looked at.
        Err(error) if matches!(error.code(), Some(404 | 409)) => {
            tracing::debug!(namespace, name, "{error}");
        }
        Err(error) => tracing::warn!(namespace, name, "finalizers cannot be written: {error}"),
    }
}

async fn write_now(client: &Client, change: &Change) -> Result<(), ApiError> {
    let Change {
        key: (namespace, name),
        version,
        finalizers,
    } = change;
    let resource = ApiResource::erase::<SyncPolicy>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    let manager = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    within(api.patch_metadata(name, &manager, &Patch::Merge(&patch))).await?;
    Ok(())
}
