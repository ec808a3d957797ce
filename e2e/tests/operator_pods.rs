//! Agents in pods: found by their labels, asked with certificates, told of new files.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use onespace_core::load::load_index;
use onespace_e2e::lab::Lab;
use onespace_e2e::operator::{Cluster, NAMESPACE};
use onespace_e2e::swift::NO_HEADERS;
use serde::Deserialize as _;
use serde_json::{Value, json};

fn objects(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}

/// Makes the pod of an agent as kubelets show it: no kubelet is here.
async fn pod(cluster: &Cluster, port: u16) {
    let account = json!({"metadata": {"name": "default"}});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    cluster.kubernetes.create(&path, &account).await.unwrap();
    let labels =
        json!({"app.kubernetes.io/part-of": "onespace", "app.kubernetes.io/component": "node-agent"});
    let container =
        json!({"name": "agent", "image": "agent", "ports": [{"name": "status", "containerPort": port}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "agent-1", "namespace": NAMESPACE, "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [container]}});
    let mut pod = cluster.apply(&pod).await.unwrap();
    pod["status"] = json!({"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/agent-1/status");
    let answer = cluster
        .kubernetes
        .send(Method::PUT, &path, Some(&pod))
        .await
        .unwrap();
    answer.unwrap();
}

/// Writes the Secret's files, as a kubelet would.
async fn mount_certificates(cluster: &Cluster, folder: &Path) {
    let secret = cluster
        .until("certificates", async || {
            cluster.object("secrets", "onespace-status-tls").await
        })
        .await
        .unwrap();
    for (name, value) in secret["data"].as_object().unwrap() {
        let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

#[tokio::test]
async fn agents_in_pods_are_asked_with_certificates_and_told_of_new_files_until_they_run_them() {
    let mut lab = Lab::start().await.unwrap();
    let cluster = Cluster::start().await.unwrap();
    lab.container("photos").await.unwrap();
    lab.user.put("photos", "a.jpg", NO_HEADERS, "one").await.unwrap();
    let certificates = cluster.folder().join("certificates");
    std::fs::create_dir(&certificates).unwrap();
    lab.settings.status_tls = Some(certificates.clone());
    let agent = lab.unready_agent().await.unwrap();
    pod(&cluster, agent.status_port()).await;
    let mut operator = cluster.operator("one", &[]).unwrap();
    operator.until_leader().await.unwrap();

    for object in objects(&lab.policy("photos", "photos", "")) {
        cluster.apply(&object).await.unwrap();
    }
    cluster.until_mapped(&["swift/photos"]).await.unwrap();
    let revision = load_index(&cluster.files().await.unwrap().index)
        .unwrap()
        .revision;
    let told = async || {
        let pod = cluster.object("pods", "agent-1").await?.unwrap_or_default();
        Ok::<_, anyhow::Error>(pod["metadata"]["annotations"]["onespace.dev/revision"].clone())
    };
    // Nothing is mounted yet: its kubelet is made to look again.
    cluster
        .until("the second try", async || {
            Ok((told().await? == json!(format!("{revision}.1"))).then_some(()))
        })
        .await
        .unwrap();
    mount_certificates(&cluster, &certificates).await;
    cluster
        .mount(&lab.policies.mappings(), &lab.policies.credentials())
        .await
        .unwrap();
    cluster
        .until_condition((NAMESPACE, "photos"), "Ready", "True", "Running")
        .await
        .unwrap();
    assert!(
        agent.report().await.is_err(),
        "someone without a certificate was heard"
    );

    // The first copy is told of once.
    cluster
        .until_condition(
            (NAMESPACE, "photos"),
            "InitialSyncComplete",
            "True",
            "FirstPassComplete",
        )
        .await
        .unwrap();
    let reasons = async || {
        let events = cluster.list("/apis/events.k8s.io/v1", "events").await?;
        let of_policy = events
            .iter()
            .filter(|event| event["regarding"]["kind"] == "SyncPolicy");
        Ok::<Vec<Value>, anyhow::Error>(of_policy.map(|event| event["reason"].clone()).collect())
    };
    cluster
        .until("the event", async || {
            let reasons = reasons().await?;
            let told = reasons.iter().filter(|reason| *reason == "FirstPassComplete");
            // On a busy machine there may be others: of an agent that did not answer for a while.
            anyhow::ensure!(told.count() == 1, "{reasons:?}");
            Ok(Some(()))
        })
        .await
        .unwrap();

    // An agent whose pod is gone.
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/agent-1");
    let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    let gone = cluster
        .kubernetes
        .send(Method::DELETE, &path, Some(&now))
        .await
        .unwrap();
    gone.unwrap();
    cluster
        .until_condition((NAMESPACE, "photos"), "Degraded", "True", "AgentUnreachable")
        .await
        .unwrap();
    operator.stop().await.unwrap();
}
