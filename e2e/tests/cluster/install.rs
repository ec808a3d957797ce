//! The chart on the cluster: what the README's Kubernetes quick start does.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::kube::cluster::has_condition;
use onespace_e2e::site::{NAMESPACE, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::Value;

async fn policy_of(site: &Site, name: &str) -> Result<Value> {
    site.cluster.get(&["syncpol", "-n", NAMESPACE, name]).await
}

pub async fn an_installed_chart_copies_what_a_policy_says_and_leaves_policies_and_data_when_it_goes(
    site: Arc<Site>,
) -> Result<()> {
    let user = site.swift.user().await?;
    user.create_container("photos", NO_HEADERS).await?;
    user.put("photos", "beach.jpg", NO_HEADERS, "sand").await?;

    let notes = site.install_anew(&[]).await?;
    ensure!(notes.contains("kubectl get syncpol"), "{notes}");
    site.cluster.apply_text(&site.policy("photos")).await?;
    site.until_arrived("photos/beach.jpg", "sand").await?;
    site.cluster
        .until("the policy is ready", async || {
            let policy = policy_of(&site, "photos").await?;
            Ok(has_condition(&policy, "Ready").then_some(()))
        })
        .await?;
    let table = site.cluster.kubectl(&["get", "syncpol", "-n", NAMESPACE]).await?;
    ensure!(
        table.contains("Sync") && table.contains("AUTH_test/photos") && table.contains("True"),
        "{table}"
    );

    site.cluster
        .helm(&["uninstall", "onespace", "--namespace", NAMESPACE, "--wait"])
        .await?;
    let policy = policy_of(&site, "photos")
        .await
        .context("the policy went with the chart")?;
    ensure!(policy["spec"]["source"]["container"] == "photos");
    site.until_arrived("photos/beach.jpg", "sand").await?;
    // Installed again it goes on where it was, and what is not wanted any more can be deleted without it.
    user.put("photos", "hills.jpg", NO_HEADERS, "green").await?;
    site.install(&[]).await?;
    site.until_arrived("photos/hills.jpg", "green").await?;
    site.cluster
        .helm(&["uninstall", "onespace", "--namespace", NAMESPACE, "--wait"])
        .await?;
    let namespace = ["delete", "namespace", NAMESPACE, "--timeout=300s"];
    site.cluster.kubectl(&namespace).await?;
    site.cluster
        .kubectl(&[
            "delete",
            "crd",
            "syncpolicies.onespace.dev",
            "accountgrants.onespace.dev",
        ])
        .await?;
    Ok(())
}
