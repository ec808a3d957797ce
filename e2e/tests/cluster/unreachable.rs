//! Agents that the operator cannot reach.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::kube::cluster::node_address;
use onespace_e2e::site::{NAMESPACE, NODES, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::json;

use crate::agents::{DOZEN, put_dozen, until_dozen};

/// Adds (`-I`) or removes (`-D`) a rule of the network of a process's pod: what is asked of an agent gets no answer, not
/// even a refusal.
fn silence(change: &str, process: u32) -> Result<()> {
    let status = Command::new("nsenter")
        .args([
            "--target",
            &process.to_string(),
            "--net",
            "iptables",
            change,
            "INPUT",
        ])
        .args(["-p", "tcp", "--dport", "9181", "-j", "DROP"])
        .status()?;
    ensure!(status.success(), "iptables {change}: {status}");
    Ok(())
}

pub async fn an_agent_that_the_operator_cannot_reach_is_told_and_works_on_and_learns_of_changes(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("apart", NO_HEADERS).await?;
    site.cluster.apply_text(&site.policy("apart")).await?;
    put_dozen(&user, "apart", "early").await?;
    until_dozen(&site, "apart", "early").await?;
    let healthy = async || {
        site.until_condition("apart", "Degraded", "False", "Healthy")
            .await
    };
    healthy().await?;
    let policy = site.numbers("apart", "before").await?;
    ensure!(
        policy["status"]["progress"]["objects"] == DOZEN,
        "{}",
        policy["status"]
    );

    let agent = site.agent_process(2).context("no agent on the third node")?;
    silence("-I", agent)?;
    let told = site
        .until_said("apart", "Degraded", "True", "AgentUnreachable", &node_address(2))
        .await?;
    ensure!(
        told["status"]["agents"]["expected"] == NODES,
        "{}",
        told["status"]
    );
    ensure!(told["status"]["agents"]["reporting"] == 2, "{}", told["status"]);
    ensure!(
        told["status"]["progress"]["objects"] == DOZEN,
        "{}",
        told["status"]
    );

    let own = async || {
        site.agent_metric(2, "onespace_objects_total", "name=\"apart\"")
            .await
    };
    let before = own().await?.context("it has no part in it")?;
    put_dozen(&user, "apart", "meanwhile").await?;
    until_dozen(&site, "apart", "meanwhile").await?;
    site.cluster
        .until("its own part of the dozen", async || {
            Ok((own().await? > Some(before)).then_some(()))
        })
        .await?;
    let suspend = async |suspend: bool| {
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        let patch = [
            "patch",
            "syncpol",
            "-n",
            NAMESPACE,
            "apart",
            "--type=merge",
            "-p",
            &patch,
        ];
        site.cluster.kubectl(&patch).await?;
        let state = match suspend {
            true => r#"name="apart",namespace="swift",state="Suspended""#,
            false => r#"name="apart",namespace="swift",state="Running""#,
        };
        site.cluster
            .until("the agent has learned of it", async || {
                let is_so = site.agent_metric(2, "onespace_mapping_state", state).await?;
                Ok(is_so.filter(|is_so| *is_so > 0.5).map(drop))
            })
            .await
    };
    suspend(true).await?;
    suspend(false).await?;
    ensure!(site.agent_process(2) == Some(agent), "it was started anew");

    silence("-D", agent)?;
    healthy().await?;
    let policy = site.numbers("apart", "after").await?;
    let status = &policy["status"];
    ensure!(status["agents"]["reporting"] == NODES, "{status}");
    ensure!(status["progress"]["objects"] == 2 * DOZEN, "{status}");
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "apart"])
        .await?;
    Ok(())
}
