//! What a policy's status tells of a real agent at a real Swift, and of its own deletion.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use onespace_e2e::lab::Lab;
use onespace_e2e::operator::many::requests;
use onespace_e2e::operator::{Cluster, NAMESPACE};
use onespace_e2e::swift::NO_HEADERS;
use serde::Deserialize as _;
use serde_json::{Value, json};

/// Numbers are written once a minute, if they moved: a write of numbers that did not would show, too.
const MINUTE: Duration = Duration::from_secs(75);

fn objects(yaml: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(yaml);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}

#[tokio::test]
async fn status_follows_the_agents() {
    let lab = Lab::start().await.unwrap();
    let cluster = Cluster::start().await.unwrap();
    lab.container("photos").await.unwrap();
    lab.user.put("photos", "a.jpg", NO_HEADERS, "one").await.unwrap();
    let agent = lab.unready_agent().await.unwrap();
    let operator = cluster
        .operator("one", &["--agent", &agent.status_url()])
        .unwrap();

    let yaml = lab.policy("photos", "photos", "") + "\n---\n" + &lab.policy("typo", "fotos", "");
    let objects = objects(&yaml);
    for object in &objects {
        cluster.apply(object).await.unwrap();
    }
    let (photos, typo) = ((NAMESPACE, "photos"), (NAMESPACE, "typo"));
    // Files that no agent has read yet.
    cluster
        .until_condition(photos, "Ready", "False", "NoAgent")
        .await
        .unwrap();
    cluster
        .until_condition(photos, "Reconciling", "True", "NoAgent")
        .await
        .unwrap();
    let mount = async || {
        let (mappings, credentials) = (lab.policies.mappings(), lab.policies.credentials());
        cluster.mount(&mappings, &credentials).await.unwrap();
    };
    cluster
        .until_mapped(&["swift/photos", "swift/typo"])
        .await
        .unwrap();
    mount().await;
    cluster
        .until_condition(photos, "Ready", "True", "Running")
        .await
        .unwrap();
    cluster
        .until_condition(photos, "CredentialsReady", "True", "Working")
        .await
        .unwrap();
    cluster
        .until_condition(photos, "InitialSyncComplete", "True", "FirstPassComplete")
        .await
        .unwrap();
    cluster
        .until_condition(photos, "Reconciling", "False", "Running")
        .await
        .unwrap();
    let message = cluster
        .until_condition(typo, "Ready", "False", "SourceNotFound")
        .await
        .unwrap();
    assert!(message.contains("check the names"), "{message}");
    let number = async |pointer: &str| {
        let policy = cluster.policy(NAMESPACE, "photos").await?;
        Ok::<_, anyhow::Error>(policy.pointer(pointer).cloned().unwrap_or_default())
    };
    cluster
        .until("the copy is counted", async || {
            Ok((number("/status/progress/objects").await? == json!(1)).then_some(()))
        })
        .await
        .unwrap();
    assert_eq!(number("/status/progress/bytes").await.unwrap(), json!(3));
    assert_eq!(number("/status/agents/reporting").await.unwrap(), json!(1));
    assert_eq!(number("/status/agents/current").await.unwrap(), json!(1));

    // A trigger goes all the way and comes back.
    let mut policy = objects[0].clone();
    policy["metadata"]["annotations"] = json!({"onespace.dev/retry": "now-1"});
    cluster.apply(&policy).await.unwrap();
    cluster
        .until("the trigger is echoed", async || {
            mount().await;
            Ok((number("/status/lastHandledRetry").await? == json!("now-1")).then_some(()))
        })
        .await
        .unwrap();

    // Another operator starts: it waits for the agents' first words instead of calling policies abandoned.
    let before = number("/status").await.unwrap();
    operator.stop().await.unwrap();
    let mut operator = cluster
        .operator("two", &["--agent", &agent.status_url()])
        .unwrap();
    operator.until_leader().await.unwrap();
    cluster
        .until("it has heard of the agent", async || {
            let heard = operator
                .metric(r#"onespace_operator_agents{state="current"}"#)
                .await?;
            Ok((heard > 0.0).then_some(()))
        })
        .await
        .unwrap();
    assert_eq!(number("/status/conditions").await.unwrap(), before["conditions"]);

    // A silent agent.
    agent.kill().unwrap();
    let message = cluster
        .until_condition(photos, "Degraded", "True", "AgentUnreachable")
        .await
        .unwrap();
    assert!(message.contains("do not answer"), "{message}");
    assert_eq!(number("/status/progress/objects").await.unwrap(), json!(1));
    assert!(operator.said().contains("does not answer"));
}

#[tokio::test]
async fn a_quiet_minute_costs_watches_and_the_lease_alone() {
    let lab = Lab::start().await.unwrap();
    let cluster = Cluster::start().await.unwrap();
    lab.container("photos").await.unwrap();
    lab.user.put("photos", "a.jpg", NO_HEADERS, "one").await.unwrap();
    let agent = lab.unready_agent().await.unwrap();
    let _operator = cluster
        .operator("one", &["--agent", &agent.status_url()])
        .unwrap();
    for object in &objects(&lab.policy("photos", "photos", "")) {
        cluster.apply(object).await.unwrap();
    }
    let counted = json!([1, 3, 0, 1]);
    cluster
        .until("all that moves has been written", async || {
            let (mappings, credentials) = (lab.policies.mappings(), lab.policies.credentials());
            cluster.mount(&mappings, &credentials).await?;
            let status = cluster.policy(NAMESPACE, "photos").await?["status"].take();
            let numbers = json!([
                status["progress"]["objects"],
                status["progress"]["bytes"],
                status["progress"]["pending"],
                status["agents"]["current"]
            ]);
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let complete = |of: &Value| of["type"] == "InitialSyncComplete" && of["status"] == "True";
            Ok((numbers == counted && conditions.into_iter().any(complete)).then_some(()))
        })
        .await
        .unwrap();

    let asked = || requests(&cluster.kubernetes.audit().unwrap());
    let before = asked().len();
    tokio::time::sleep(MINUTE).await;
    let asked = asked().split_off(before);
    let (lease, others): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .partition(|request| request.contains("/namespaces/swift/leases/onespace-operator"));
    // A watch is told of when it ends, and begun anew then.
    let others: Vec<String> = others
        .into_iter()
        .filter(|request| !request.starts_with("watch "))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!lease.is_empty(), "nobody leads: nothing was shown");
}

#[tokio::test]
async fn a_policy_with_the_finalizer_goes_when_its_uid_confirms_it() {
    let cluster = Cluster::start().await.unwrap();
    let _operator = cluster.operator("one", &[]).unwrap();
    let with_finalizer = |mode: &str, name: &str| {
        json!({
            "apiVersion": "onespace.dev/v1alpha1",
            "kind": "SyncPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE,
                "finalizers": ["onespace.dev/archived-data", "example.com/other"]},
            "spec": {
                "mode": mode,
                "source": {"account": "AUTH_test", "container": name},
                "target": {"protocol": "S3", "endpoint": "http://s3.example.com", "bucket": "backup", "prefix": name,
                    "credentials": {"secretRef": {"name": "keys"}}},
            },
        })
    };
    // One that releases nothing is not held, and finalizers of others stay.
    cluster.apply(&with_finalizer("Sync", "sync")).await.unwrap();
    cluster
        .until("the finalizer is off", async || {
            let policy = cluster.policy(NAMESPACE, "sync").await?;
            Ok((policy["metadata"]["finalizers"] == json!(["example.com/other"])).then_some(()))
        })
        .await
        .unwrap();

    let mut archive = with_finalizer("Archive", "archive");
    archive["metadata"]["finalizers"] = json!(["onespace.dev/archived-data"]);
    let uid = cluster.apply(&archive).await.unwrap()["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap();
    cluster.delete(&archive).await.unwrap();
    let message = cluster
        .until_condition(
            (NAMESPACE, "archive"),
            "Degraded",
            "True",
            "ArchivedDataWouldHide",
        )
        .await
        .unwrap();
    assert!(message.contains(uid), "{message}");
    let confirm = async |uid: &str| {
        let mut policy = cluster.policy(NAMESPACE, "archive").await.unwrap();
        policy["metadata"]["annotations"] = json!({"onespace.dev/confirm-delete": uid});
        cluster.apply(&policy).await
    };
    confirm("another").await.unwrap();
    assert!(cluster.policy(NAMESPACE, "archive").await.is_ok());
    confirm(uid).await.unwrap();
    cluster
        .until("it is gone", async || {
            Ok(cluster.policy(NAMESPACE, "archive").await.err().map(drop))
        })
        .await
        .unwrap();
}
