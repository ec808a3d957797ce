//! Namespaces that are deleted with all that is in them, and a namespace that is restored from a dump.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_core::load::load;
use onespace_e2e::site::{NAMESPACE, NODES, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::{Value, json};

use crate::agents::{DOZEN, objects, put_dozen, until_dozen};

const TENANT: &str = "leaving";

fn grant() -> Value {
    json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "AccountGrant", "metadata": {"name": TENANT},
        "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": TENANT}},
            "accounts": ["AUTH_test"]}})
}

pub async fn a_deleted_namespace_takes_its_policies_along_leaves_the_copies_and_stops_no_others(
    site: Arc<Site>,
) -> Result<()> {
    site.cluster.kubectl(&["create", "namespace", TENANT]).await?;
    site.install(&["--set", &format!("operator.watchNamespaces={{{TENANT}}}")])
        .await?;
    site.cluster.apply(&grant()).await?;
    let user = site.swift.user().await?;
    user.create_container(TENANT, NO_HEADERS).await?;
    put_dozen(&user, TENANT, "early").await?;
    let policy = site.policy(TENANT);
    let policy = policy.replace(
        &format!("namespace: {NAMESPACE}"),
        &format!("namespace: {TENANT}"),
    );
    site.cluster.apply_text(&policy).await?;
    until_dozen(&site, TENANT, "early").await?;
    let copies = site.copies(TENANT).await?;

    site.cluster
        .kubectl(&["delete", "namespace", TENANT, "--timeout=300s"])
        .await?;
    site.cluster
        .until("agents that have let go of it", async || {
            let label = format!("namespace=\"{TENANT}\"");
            for node in 0..NODES {
                let state = site.agent_metric(node, "onespace_mapping_state", &label).await?;
                ensure!(state.is_none(), "node {node} still has it");
            }
            Ok(Some(()))
        })
        .await?;
    put_dozen(&user, TENANT, "late").await?;

    // Operators that start now never see the namespace that they are to watch; it is no business of the others.
    site.cluster
        .kubectl(&[
            "rollout",
            "restart",
            "-n",
            NAMESPACE,
            "deployment/onespace-operator",
        ])
        .await?;
    site.cluster
        .kubectl(&[
            "rollout",
            "status",
            "-n",
            NAMESPACE,
            "deployment/onespace-operator",
            "--timeout=300s",
        ])
        .await?;
    user.create_container("staying", NO_HEADERS).await?;
    site.cluster.apply_text(&site.policy("staying")).await?;
    site.until_condition("staying", "Ready", "True", "Running")
        .await?;
    ensure!(
        site.copies(TENANT).await? == copies,
        "what was copied did not stay as it was"
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "staying"])
        .await?;
    site.cluster.kubectl(&["delete", "accountgrant", TENANT]).await?;
    site.install(&[]).await?;
    Ok(())
}

/// The ids of the mappings, by policy.
async fn ids(site: &Site) -> Result<Vec<(String, String)>> {
    let set = load(&site.files().await?)?;
    let mut ids: Vec<_> = set
        .mappings
        .into_iter()
        .map(|mapping| (mapping.policy.name.clone(), mapping.id.0.clone()))
        .collect();
    ids.sort();
    Ok(ids)
}

async fn sent(site: &Site, policy: &str) -> Result<f64> {
    let (mut sum, label) = (0.0, format!("name=\"{policy}\""));
    for node in 0..NODES {
        let bytes = site
            .agent_metric(node, "onespace_sent_bytes_total", &label)
            .await?;
        sum += bytes.context("an agent does not have the policy")?;
    }
    Ok(sum)
}

pub async fn a_namespace_restored_from_a_dump_goes_on_where_it_was_and_sends_nothing_again(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("restored", NO_HEADERS).await?;
    put_dozen(&user, "restored", "early").await?;
    site.cluster.apply_text(&site.policy("restored")).await?;
    until_dozen(&site, "restored", "early").await?;
    site.until_condition("restored", "InitialSyncComplete", "True", "FirstPassComplete")
        .await?;
    site.cluster
        .until("agents that have counted them", async || {
            Ok((objects(&site, "restored").await? > DOZEN as f64 - 0.5).then_some(()))
        })
        .await?;
    site.numbers("restored", "kept-in-the-dump").await?;
    let (copies, bytes) = (site.copies("restored").await?, sent(&site, "restored").await?);
    let before = ids(&site).await?;
    let dump = async |what: &str, but_for: &str| {
        let all = ["get", "-n", NAMESPACE, "-o", "yaml", what];
        let dump = match but_for {
            "" => all.to_vec(),
            but_for => [&all[..], &["--field-selector", but_for]].concat(),
        };
        site.cluster.kubectl(&dump).await
    };
    let dumps = [
        dump("syncpol", "").await?,
        dump("secrets", "type!=helm.sh/release.v1").await?,
    ];

    // Everything at once: operator, agents, policies, files.
    site.cluster
        .kubectl(&["delete", "namespace", NAMESPACE, "--timeout=300s"])
        .await?;
    ensure!(
        site.copies("restored").await? == copies,
        "something happened to the copies"
    );
    user.put("restored", "meanwhile", NO_HEADERS, "new").await?;

    site.cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
    for dump in dumps {
        site.cluster.apply_by_hand(&dump).await?;
    }
    site.install(&[]).await?;
    site.until_arrived("restored/meanwhile", "new").await?;
    site.until_condition("restored", "InitialSyncComplete", "True", "FirstPassComplete")
        .await?;
    ensure!(ids(&site).await? == before);
    let mut after = site.copies("restored").await?;
    after.remove("restored/meanwhile");
    ensure!(
        after == copies,
        "a copy was written again: {after:?}, before {copies:?}"
    );
    // What starts over counts every row again.
    site.cluster
        .until("one object more, and its bytes", async || {
            let (objects, bytes_now) = (objects(&site, "restored").await?, sent(&site, "restored").await?);
            let more = bytes_now - bytes;
            ensure!((objects - DOZEN as f64 - 1.0).abs() < 0.5, "{objects} objects");
            ensure!((more - 3.0).abs() < 0.5, "{more} bytes");
            Ok(Some(()))
        })
        .await?;
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "restored"])
        .await?;
    Ok(())
}
