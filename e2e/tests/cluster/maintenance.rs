//! Nodes that are drained, lose their agent, or whose Swift is stopped.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::kube::cluster::{node_address, node_name};
use onespace_e2e::site::{NAMESPACE, Site};
use onespace_e2e::swift::NO_HEADERS;

use crate::agents::{put_dozen, until_dozen};

const TAINT: &str = "tests/maintenance=yes:NoExecute";

pub async fn a_drained_node_keeps_its_agent_and_the_others_do_the_part_of_one_that_lost_it_or_its_swift(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("nodes", NO_HEADERS).await?;
    site.cluster.apply_text(&site.policy("nodes")).await?;
    site.until_condition("nodes", "Ready", "True", "Running").await?;
    let healthy = async || {
        site.until_condition("nodes", "Degraded", "False", "Healthy")
            .await
    };
    healthy().await?;

    let node = node_name(1);
    let before = site.agent_pod(1).await?.context("no agent")?;
    site.cluster
        .kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data"])
        .await?;
    let operators = site.pods("operator").await?;
    ensure!(
        operators.iter().all(|pod| pod["spec"]["nodeName"] != node),
        "{operators:?}"
    );
    let after = site.agent_pod(1).await?.context("its agent was drained, too")?;
    ensure!(before["metadata"]["uid"] == after["metadata"]["uid"]);
    put_dozen(&user, "nodes", "drained").await?;
    until_dozen(&site, "nodes", "drained").await?;

    site.cluster.kubectl(&["taint", "node", &node, TAINT]).await?;
    let told = site
        .until_said("nodes", "Degraded", "True", "AgentUnreachable", &node_address(1))
        .await?;
    ensure!(site.agent_pod(1).await?.is_none());
    ensure!(told["status"]["agents"]["reporting"] == 2, "{}", told["status"]);
    put_dozen(&user, "nodes", "tainted").await?;
    until_dozen(&site, "nodes", "tainted").await?;
    let untaint = format!("{TAINT}-");
    site.cluster.kubectl(&["taint", "node", &node, &untaint]).await?;
    site.cluster.kubectl(&["uncordon", &node]).await?;
    healthy().await?;

    site.swift.stop_node(2);
    put_dozen(&user, "nodes", "stopped").await?;
    let server = site.swift.nodes()[2].container_server();
    site.until_said("nodes", "Degraded", "True", "ContainerServerSilent", &server)
        .await?;
    until_dozen(&site, "nodes", "stopped").await?;
    site.swift.start_node(2).await?;
    healthy().await?;
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "nodes"])
        .await?;
    Ok(())
}
