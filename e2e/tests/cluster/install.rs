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

async fn helm_test(site: &Site) -> Result<String> {
    site.cluster
        .helm(&[
            "test",
            "onespace",
            "--namespace",
            NAMESPACE,
            "--logs",
            "--timeout",
            "360s",
        ])
        .await
}

pub async fn helm_test_says_what_does_not_work(site: Arc<Site>) -> Result<()> {
    site.install(&["--set", "helmTest.patienceSeconds=2"]).await?;
    let scale = async |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let scale = [
            "scale",
            "-n",
            NAMESPACE,
            "deployment/onespace-operator",
            &replicas,
        ];
        site.cluster.kubectl(&scale).await
    };
    scale("0").await?;
    let error = helm_test(&site)
        .await
        .err()
        .context("it passed without an operator")?;
    let pod = ["logs", "-n", NAMESPACE, "onespace-test"];
    let said = site.cluster.kubectl(&pod).await?;
    ensure!(said.contains("not well within 2 s"), "{said}\n{error:#}");
    scale("2").await?;
    site.install(&[]).await?;
    helm_test(&site).await?;
    Ok(())
}

/// Prints user and capabilities of every child of a pod's first process, and the user of that itself.
const WHO_SERVES: &str = "
import glob
for path in glob.glob('/proc/[0-9]*/status'):
    lines = dict(line.split(':', 1) for line in open(path).read().splitlines())
    process, parent = int(lines['Pid']), int(lines['PPid'])
    if process == 1 or parent == 1:
        print('first' if process == 1 else 'worker', lines['Uid'].split()[0], int(lines['CapEff'], 16))
";

pub async fn agents_on_their_nodes_network_copy_and_an_endpoint_that_starts_as_root_serves_nothing_as_root(
    site: Arc<Site>,
) -> Result<()> {
    let user = site.swift.user().await?;
    user.create_container("rooted", NO_HEADERS).await?;
    user.put("rooted", "oak", NO_HEADERS, "green").await?;
    let values = "agents.poolDefaults.hostNetwork=true,internalEndpoint.runAsUser=0";
    site.install_anew(&["--set", values]).await?;
    site.cluster.apply_text(&site.policy("rooted")).await?;
    site.until_arrived("rooted/oak", "green").await?;
    helm_test(&site).await?;
    for pod in site.pods("node-agent").await? {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let exec = ["exec", "-n", NAMESPACE, name, "-c", "internal-endpoint", "--"];
        let python = ["/opt/swift/bin/python", "-c", WHO_SERVES];
        let said = site.cluster.kubectl(&[&exec[..], &python].concat()).await?;
        let workers: Vec<&str> = said.lines().filter(|line| line.starts_with("worker")).collect();
        ensure!(
            said.contains("first 0 ") && workers == ["worker 160 0"; 2],
            "{name}: {said}"
        );
    }
    Ok(())
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
    ensure!(notes.contains("helm test onespace"), "{notes}");
    let said = helm_test(&site).await?;
    ensure!(
        said.contains("2 replicas of the operator, of which one leads; 3 agents"),
        "{said}"
    );
    // Agents started together with their internal endpoints, and none was refused there: that would have been a pause.
    let logs = site.agents_logs().await?;
    ensure!(
        logs.contains("mappings loaded") && !logs.contains("Connection refused"),
        "{logs}"
    );
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
