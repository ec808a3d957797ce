//! Agents that die, stand still, or are gone for a while.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::kube::cluster::node_address;
use onespace_e2e::site::{NAMESPACE, NODES, Site, signal};
use onespace_e2e::swift::{NO_HEADERS, User};
use serde_json::{Value, json};

/// Objects that come together: some are every agent's.
pub const DOZEN: usize = 12;

/// Puts a dozen objects whose names begin so.
pub async fn put_dozen(user: &User, container: &str, beginning: &str) -> Result<()> {
    for number in 0..DOZEN {
        let name = format!("{beginning}-{number:02}");
        user.put(container, &name, NO_HEADERS, name.clone()).await?;
    }
    Ok(())
}

/// Waits until a dozen copies are there whose names begin so.
pub async fn until_dozen(site: &Site, container: &str, beginning: &str) -> Result<()> {
    let what = format!("copies of {container}/{beginning}");
    site.cluster
        .until(&what, async || {
            let copies = site.copies(container).await?;
            let beginning = format!("{container}/{beginning}-");
            let there = copies.keys().filter(|key| key.starts_with(&beginning)).count();
            ensure!(there == DOZEN, "{there} of {DOZEN}");
            Ok(Some(()))
        })
        .await
}

/// What all agents have brought in step.
pub async fn objects(site: &Site, policy: &str) -> Result<f64> {
    let (mut sum, label) = (0.0, format!("name=\"{policy}\""));
    for node in 0..NODES {
        let objects = site.agent_metric(node, "onespace_objects_total", &label).await?;
        sum += objects.unwrap_or_default();
    }
    Ok(sum)
}

pub async fn an_agent_that_dies_or_stands_still_is_told_with_its_last_numbers_until_it_is_back(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("agents", NO_HEADERS).await?;
    site.cluster.apply_text(&site.policy("agents")).await?;
    put_dozen(&user, "agents", "early").await?;
    until_dozen(&site, "agents", "early").await?;
    site.cluster
        .until("agents that have counted them", async || {
            Ok((objects(&site, "agents").await? > DOZEN as f64 - 0.5).then_some(()))
        })
        .await?;
    let healthy = async || {
        site.until_condition("agents", "Degraded", "False", "Healthy")
            .await
    };
    healthy().await?;
    let policy = site.numbers("agents", "before").await?;
    ensure!(
        policy["status"]["progress"]["objects"] == DOZEN,
        "{}",
        policy["status"]
    );

    let frozen = site.agent_process(2).context("no agent on the third node")?;
    signal(frozen, "STOP")?;
    // Whenever its kubelet starts it anew.
    let told = site
        .cluster
        .until("the status that tells of the killed agent", async || {
            if let Some(agent) = site.agent_process(0) {
                signal(agent, "KILL")?;
            }
            let policy = site.policy_of("agents").await?;
            let conditions = policy.pointer("/status/conditions").and_then(Value::as_array);
            let told = conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Degraded"
                    && condition["status"] == "True"
                    && condition["reason"] == "AgentUnreachable"
                    && condition["message"]
                        .as_str()
                        .is_some_and(|said| said.contains(&node_address(0)))
            });
            Ok(told.then_some(policy))
        })
        .await?;
    ensure!(
        told["status"]["progress"]["objects"] == DOZEN,
        "{}",
        told["status"]
    );
    ensure!(
        told["status"]["agents"]["expected"] == NODES,
        "{}",
        told["status"]
    );
    ensure!(
        told["status"]["agents"]["reporting"] != json!(NODES),
        "{}",
        told["status"]
    );
    put_dozen(&user, "agents", "meanwhile").await?;
    until_dozen(&site, "agents", "meanwhile").await?;
    let told = site
        .until_said("agents", "Degraded", "True", "AgentUnreachable", &node_address(2))
        .await?;
    let objects = told["status"]["progress"]["objects"].as_u64();
    ensure!(
        objects.is_some_and(|objects| objects >= DOZEN as u64),
        "{}",
        told["status"]
    );
    signal(frozen, "CONT")?;
    healthy().await?;

    let pod = site.agent_pod(1).await?.context("no agent on the second node")?;
    let name = pod
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .context("no name")?;
    site.cluster
        .kubectl(&["delete", "pod", "-n", NAMESPACE, name])
        .await?;
    put_dozen(&user, "agents", "late").await?;
    until_dozen(&site, "agents", "late").await?;
    site.cluster
        .until("another pod in its place", async || {
            let new = site.agent_pod(1).await?.context("no agent")?;
            Ok((new["metadata"]["uid"] != pod["metadata"]["uid"]).then_some(()))
        })
        .await?;
    healthy().await?;
    let policy = site.numbers("agents", "after").await?;
    ensure!(
        policy["status"]["agents"]["reporting"] == NODES,
        "{}",
        policy["status"]
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "agents"])
        .await?;
    Ok(())
}
