//! Putting the finalizer on policies, and taking it off.

use std::collections::BTreeSet;

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

/// How often policies are looked at again that changed while their finalizers were removed.
const TURNS: u32 = 5;

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
    for scope in scopes {
        let mut turns = 0;
        while remove_in(client, scope).await? > 0 {
            turns += 1;
            if turns == TURNS {
                anyhow::bail!(
                    "policies change again and again while their finalizers are removed: try again"
                );
            }
        }
    }
    tell_of_others(client, scopes).await;
    Ok(())
}

/// Returns how many policies had changed since they were listed.
async fn remove_in(client: &Client, scope: &Scope) -> anyhow::Result<usize> {
    let mut changed = 0;
    let held = held(client, scope).await;
    for (key, version, mut finalizers) in held.context("policies cannot be listed")? {
        finalizers.retain(|name| name != FINALIZER);
        let change = Change {
            key,
            version,
            finalizers,
        };
        let (namespace, name) = &change.key;
        match write_now(client, &change).await {
            Ok(()) => tracing::info!(namespace, name, "finalizer removed"),
            Err(error) if error.code() == Some(404) => {}
            Err(error) if error.code() == Some(409) => changed += 1,
            Err(error) => {
                let error = anyhow::Error::from(error);
                return Err(error.context(format!("the finalizer of {namespace}/{name} cannot be removed")));
            }
        }
    }
    Ok(changed)
}

/// Policies of one scope that have the finalizer: key, version, finalizers.
async fn held(client: &Client, scope: &Scope) -> Result<Vec<(Key, String, Vec<String>)>, ApiError> {
    let resource = ApiResource::erase::<SyncPolicy>(&());
    let api: Api<DynamicObject> = match scope {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut page = ListParams::default().limit(PAGE);
    let mut held = Vec::new();
    loop {
        let list = match within(api.list_metadata(&page)).await {
            Ok(list) => list,
            // The CRD went with the chart.
            Err(error) if error.code() == Some(404) => return Ok(held),
            Err(error) => return Err(error),
        };
        for policy in list.items {
            let key = key_of(&policy.metadata);
            let finalizers = policy.metadata.finalizers.unwrap_or_default();
            if finalizers.iter().any(|name| name == FINALIZER) {
                held.push((
                    key,
                    policy.metadata.resource_version.unwrap_or_default(),
                    finalizers,
                ));
            }
        }
        match list.metadata.continue_ {
            Some(next) if !next.is_empty() => page = page.continue_token(&next),
            _ => return Ok(held),
        }
    }
}

/// Says where policies keep the finalizer: in namespaces that are not watched any more, or that another operator watches,
/// whose hold on them is not ours to end.
async fn tell_of_others(client: &Client, scopes: &[Scope]) {
    if scopes.contains(&None) {
        return;
    }
    // Without the right to look everywhere there is nothing to tell.
    let others = held(client, &None).await.unwrap_or_default();
    let others = others.into_iter().map(|((namespace, _), ..)| namespace);
    let others: BTreeSet<String> = others
        .filter(|namespace| !scopes.contains(&Some(namespace.clone())))
        .collect();
    for namespace in others {
        tracing::warn!(
            namespace,
            "policies here keep the finalizer: unless another operator watches this namespace, run onespace-operator --remove-finalizers --watch-namespace {namespace}"
        );
    }
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
