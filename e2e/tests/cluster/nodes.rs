//! The cluster itself: what every other scenario relies on.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use onespace_e2e::kube::cluster::{Cluster, Image, node_name};
use serde_json::{Value, json};

const IMAGE: &str = "onespace.dev/idle:test";

/// Pods that wait; restricted, as ours are.
fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "idle",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "resources": {"limits": {"memory": "32Mi"}},
                "securityContext": {
                    "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

pub async fn pods_run_on_three_nodes_and_leave_one_that_is_drained(cluster: Arc<Cluster>) -> Result<()> {
    ensure!(cluster.ready_nodes().await? == 3);
    let image = Image::new(IMAGE, &["/bin/sleep", "infinity"])
        .program(Path::new("/bin/sleep"), "/bin/sleep")?
        .program(Path::new("/bin/bash"), "/bin/bash")?;
    cluster.import(&[image])?;
    cluster.kubectl(&["create", "namespace", "nodes"]).await?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "two", "namespace": "nodes"}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "two"}}, "template": template("two")}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "each", "namespace": "nodes"}, "spec": {
            "selector": {"matchLabels": {"app": "each"}}, "template": template("each")}},
    ]})).await?;
    for name in ["deployment/two", "daemonset/each"] {
        cluster
            .kubectl(&["rollout", "status", "-n", "nodes", name])
            .await?;
    }
    ensure!(places(&cluster, "each").await? == [node_name(0), node_name(1), node_name(2)]);

    // A name, a service's address, and a pod, which is on another node for at least two of the three.
    for pod in names(&cluster, "each").await? {
        let look = "exec 3<>/dev/tcp/kube-dns.kube-system.svc.cluster.local/53 && echo reached";
        cluster
            .until("a pod reaches a service by its name", async || {
                let said = cluster
                    .kubectl(&["exec", "-n", "nodes", &pod, "--", "/bin/bash", "-c", look])
                    .await?;
                Ok((said.trim() == "reached").then_some(()))
            })
            .await?;
    }

    let full = places(&cluster, "two").await?[0].clone();
    cluster
        .kubectl(&["drain", &full, "--ignore-daemonsets", "--delete-emptydir-data"])
        .await?;
    cluster
        .kubectl(&["rollout", "status", "-n", "nodes", "deployment/two"])
        .await?;
    ensure!(!places(&cluster, "two").await?.contains(&full));
    cluster.kubectl(&["uncordon", &full]).await?;
    cluster.kubectl(&["delete", "namespace", "nodes"]).await?;
    Ok(())
}

async fn pods(cluster: &Cluster, app: &str) -> Result<Vec<Value>> {
    let pods = cluster
        .get(&["pods", "-n", "nodes", "-l", &format!("app={app}")])
        .await?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    Ok(pods
        .into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect())
}

async fn names(cluster: &Cluster, app: &str) -> Result<Vec<String>> {
    Ok(texts(&pods(cluster, app).await?, "/metadata/name"))
}

/// On which nodes they are, in order.
async fn places(cluster: &Cluster, app: &str) -> Result<Vec<String>> {
    Ok(texts(&pods(cluster, app).await?, "/spec/nodeName"))
}

fn texts(objects: &[Value], pointer: &str) -> Vec<String> {
    let mut found: Vec<String> = objects
        .iter()
        .filter_map(|object| object.pointer(pointer)?.as_str().map(str::to_owned))
        .collect();
    found.sort();
    found
}
