//! What is left when the chart goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use onespace_core::finalizer::FINALIZER;
use onespace_e2e::site::{NAMESPACE, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::json;

/// As README and the chart's notes say.
async fn what_the_operator_made_goes_with_two_commands(site: &Site) -> Result<()> {
    let left = async || -> Result<BTreeSet<String>> {
        let kinds = ["configmaps,secrets,leases", "-n", NAMESPACE];
        let left = site.cluster.get(&kinds).await?;
        let names = left["items"].as_array().into_iter().flatten();
        let names = names.filter_map(|object| object["metadata"]["name"].as_str());
        let ours = names.filter(|name| name.starts_with("onespace-"));
        Ok(ours.map(str::to_owned).collect())
    };
    let before = left().await?;
    for name in ["onespace-operator", "onespace-index", "onespace-status-authority"] {
        ensure!(before.contains(name), "{name}: {before:?}");
    }
    let copies = |name: &String| name.starts_with("onespace-credentials-");
    ensure!(before.iter().any(copies), "{before:?}");
    let ours = "app.kubernetes.io/managed-by=onespace-operator";
    for what in [
        &["configmap,secret", "-l", ours][..],
        &["lease", "onespace-operator"],
    ] {
        let delete = [&["-n", NAMESPACE, "delete"], what].concat();
        site.cluster.kubectl(&delete).await?;
    }
    let after = left().await?;
    ensure!(after.is_empty(), "{after:?}");
    Ok(())
}

pub async fn uninstalling_leaves_policies_and_copies_and_nothing_that_cannot_be_deleted(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("left", NO_HEADERS).await?;
    user.put("left", "behind", NO_HEADERS, "here").await?;
    site.cluster.apply_text(&site.policy("left")).await?;
    site.until_arrived("left/behind", "here").await?;
    // What the operator puts on a policy of mode Archive that has released objects. It keeps it: this one may have.
    let archive = site.policy("held").replace("mode: Sync", "mode: Archive");
    site.cluster.apply_text(&archive).await?;
    let finalizers = json!({"metadata": {"finalizers": [FINALIZER]}}).to_string();
    let put_finalizer = async |name: &str| {
        let patch = [
            "patch",
            "syncpol",
            "-n",
            NAMESPACE,
            name,
            "--type=merge",
            "-p",
            &finalizers,
        ];
        site.cluster.kubectl(&patch).await
    };
    put_finalizer("held").await?;
    let held = ["delete", "syncpol", "-n", NAMESPACE, "held", "--wait=false"];
    site.cluster.kubectl(&held).await?;
    site.until_condition("held", "Degraded", "True", "ArchivedDataWouldHide")
        .await?;
    let second = site.policy("kept").replace("mode: Sync", "mode: Archive");
    site.cluster.apply_text(&second).await?;
    put_finalizer("kept").await?;

    let uninstall = ["uninstall", "onespace", "--namespace", NAMESPACE, "--wait"];
    site.cluster.helm(&uninstall).await?;
    let left = site
        .cluster
        .get(&[
            "all,serviceaccounts,roles,rolebindings",
            "-n",
            NAMESPACE,
            "-l",
            "app.kubernetes.io/part-of=onespace",
        ])
        .await?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    what_the_operator_made_goes_with_two_commands(&site).await?;
    let policies = site.cluster.get(&["syncpol", "-n", NAMESPACE]).await?;
    let is_there = |name: &str| {
        let mut policies = policies["items"].as_array().into_iter().flatten();
        policies.any(|policy| policy["metadata"]["name"] == name)
    };
    ensure!(
        is_there("left") && is_there("kept") && !is_there("held"),
        "{policies}"
    );
    site.until_arrived("left/behind", "here").await?;
    site.cluster
        .kubectl(&["delete", "namespace", NAMESPACE, "--timeout=300s"])
        .await?;
    let crds = ["syncpolicies.onespace.dev", "accountgrants.onespace.dev"];
    site.cluster
        .kubectl(&[&["delete", "crd", "--timeout=300s"], &crds[..]].concat())
        .await?;
    site.until_arrived("left/behind", "here").await?;
    Ok(())
}
