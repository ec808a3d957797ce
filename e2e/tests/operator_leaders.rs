//! Operators that die, come back, and take over; and many policies at once.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use onespace_core::load::load;
use onespace_e2e::operator::{Cluster, NAMESPACE};
use serde_json::{Value, json};

/// Policies that are applied at once; `ONESPACE_TEST_POLICIES` says another number.
const MANY: usize = 1_000;

fn policy(number: usize) -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1",
        "kind": "SyncPolicy",
        "metadata": {"name": format!("p{number:04}"), "namespace": NAMESPACE},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": format!("c{number:04}")},
            "target": {"protocol": "S3", "endpoint": "http://s3.example.com", "bucket": "backup",
                "prefix": format!("all/p{number:04}"), "credentials": {"secretRef": {"name": "keys"}}},
        },
    })
}

fn secret() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"},
    })
}

/// Creates policies, several at a time.
async fn create(cluster: &Cluster, numbers: std::ops::Range<usize>) {
    use futures::StreamExt as _;
    let creations = numbers.map(|number| async move { cluster.apply(&policy(number)).await.unwrap() });
    let mut creations = futures::stream::iter(creations).buffer_unordered(8);
    while creations.next().await.is_some() {}
}

async fn until_so_many(cluster: &Cluster, count: usize) {
    cluster
        .until(&format!("{count} mappings"), async || {
            Ok(cluster
                .mapped()
                .await?
                .filter(|mapped| mapped.len() == count)
                .map(drop))
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_standby_takes_over_when_the_leader_dies_and_nothing_starts_over() {
    let cluster = Cluster::start().await.unwrap();
    let lease = ["--lease-seconds", "3"];
    let mut first = cluster.operator("first", &lease).unwrap();
    first.until_leader().await.unwrap();
    let mut second = cluster.operator("second", &lease).unwrap();
    cluster
        .until("the standby is ready", async || {
            Ok(second
                .health("/readyz")
                .await
                .ok()
                .filter(|(status, _)| *status == 200))
        })
        .await
        .unwrap();
    cluster.apply(&secret()).await.unwrap();
    create(&cluster, 0..20).await;
    until_so_many(&cluster, 20).await;
    let leader = second.metric("onespace_operator_leader").await.unwrap();
    assert!(leader < 1.0, "two lead");
    let before = cluster.files().await.unwrap();
    first.kill().unwrap();

    second.until_leader().await.unwrap();
    create(&cluster, 20..21).await;
    until_so_many(&cluster, 21).await;
    let after = cluster.files().await.unwrap();
    // The new leader wrote the shard of the new policy and the index, nothing else.
    let differing = after
        .mappings
        .iter()
        .filter(|(shard, bytes)| before.mappings.get(*shard) != Some(bytes));
    assert_eq!(differing.count(), 1);
    assert!(before.credentials == after.credentials);
    let writes = second
        .metric(r#"onespace_operator_file_writes_total{kind="mappings"}"#)
        .await
        .unwrap();
    assert!(writes < 1.5, "{writes} files were written");

    // One that ends well gives its Lease back: the next leads at once.
    let third = Instant::now();
    let mut next = cluster.operator("third", &["--lease-seconds", "600"]).unwrap();
    second.stop().await.unwrap();
    next.until_leader().await.unwrap();
    assert!(third.elapsed() < Duration::from_secs(60), "{:?}", third.elapsed());
}

#[tokio::test]
async fn an_operator_killed_again_and_again_while_it_writes_ends_with_whole_files() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply(&secret()).await.unwrap();
    for turn in 0..4 {
        let mut operator = cluster
            .operator(&format!("turn-{turn}"), &["--lease-seconds", "2"])
            .unwrap();
        operator.until_leader().await.unwrap();
        create(&cluster, turn * 30..turn * 30 + 30).await;
        // In the middle of whatever it is doing.
        operator.kill().unwrap();
    }
    let mut operator = cluster.operator("last", &["--lease-seconds", "2"]).unwrap();
    operator.until_leader().await.unwrap();
    until_so_many(&cluster, 120).await;
    let set = load(&cluster.files().await.unwrap()).unwrap();
    assert!(set.refused.is_empty(), "{:?}", set.refused);
}

#[tokio::test]
async fn somebody_elses_edit_of_a_file_is_undone() {
    let cluster = Cluster::start().await.unwrap();
    let _operator = cluster.operator("one", &[]).unwrap();
    cluster.apply(&secret()).await.unwrap();
    create(&cluster, 0..1).await;
    until_so_many(&cluster, 1).await;
    let before = cluster.files().await.unwrap();
    let (shard, _) = before.mappings.first_key_value().unwrap();
    let edited = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {format!("{shard}.json"): "{}"},
        "metadata": {"name": format!("onespace-mappings-{shard}"), "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "onespace-operator"}}});
    cluster.apply(&edited).await.unwrap();
    cluster
        .until("the files are as they were", async || {
            Ok((cluster.files().await? == before).then_some(()))
        })
        .await
        .unwrap();
    cluster.delete(&edited).await.unwrap();
    cluster
        .until("the files are as they were", async || {
            Ok((cluster.files().await? == before).then_some(()))
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn many_policies_cost_few_writes_and_quiet_costs_none() {
    let many = option_env!("ONESPACE_TEST_POLICIES").map_or(MANY, |number| number.parse().unwrap());
    let cluster = Cluster::start().await.unwrap();
    let mut operator = cluster.operator("one", &[]).unwrap();
    operator.until_leader().await.unwrap();
    cluster.apply(&secret()).await.unwrap();
    let started = Instant::now();
    create(&cluster, 0..many).await;
    let applied = started.elapsed();
    let accepted = async || {
        operator
            .metric(r#"onespace_operator_policies{reason="Accepted"}"#)
            .await
    };
    cluster
        .until("every policy accepted", async || {
            Ok((accepted().await? >= many as f64).then_some(()))
        })
        .await
        .unwrap();
    let mapped = started.elapsed();
    let written = async || {
        operator
            .metric(r#"onespace_operator_status_writes_total{outcome="written"}"#)
            .await
    };
    cluster
        .until("every status written", async || {
            Ok((written().await? >= many as f64).then_some(()))
        })
        .await
        .unwrap();
    let told = started.elapsed();
    let memory = std::fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let resident = memory
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    println!("{many} policies: applied {applied:?}, mapped {mapped:?}, told {told:?}, {resident}");

    let names = cluster.mapped().await.unwrap().unwrap();
    assert_eq!(names.len(), many);

    // Each file at most once in 500 ms, by the API server's own record.
    let audit = cluster.kubernetes.audit().unwrap();
    let ours = |event: &&Value| {
        event["verb"] == "patch"
            && event["objectRef"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("onespace-"))
    };
    let mut last: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut writes = 0;
    for event in audit.iter().filter(ours) {
        let at = event["requestReceivedTimestamp"].as_str().unwrap();
        let at: f64 = seconds(at);
        let object = (
            event["objectRef"]["resource"].to_string(),
            event["objectRef"]["name"].to_string(),
        );
        if object.0.contains("leases") {
            continue;
        }
        writes += 1;
        if let Some(before) = last.insert(object.clone(), at) {
            assert!(
                at - before >= 0.5,
                "{object:?} was written twice within {} s",
                at - before
            );
        }
    }
    println!("{writes} file writes");
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    for event in &audit {
        let object = &event["objectRef"];
        // The API server writes statuses of its own resources.
        let of_policy = object["resource"] == "syncpolicies" && object["subresource"] == "status";
        if of_policy && event["verb"] == "patch" {
            *statuses.entry(object["name"].to_string()).or_default() += 1;
        }
    }
    assert_eq!(statuses.len(), many);
    statuses.retain(|_, writes| *writes > 1);
    assert!(statuses.is_empty(), "one status write per policy: {statuses:?}");

    // A minute without changes would show more; some seconds show a loop that does not end.
    let before = requests(&cluster);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let more: BTreeSet<String> = requests(&cluster).split_off(before.len()).into_iter().collect();
    let idle: Vec<&String> = more
        .iter()
        .filter(|request| !request.contains("leases") && !request.starts_with("watch"))
        .collect();
    assert!(idle.is_empty(), "{idle:?}");
}

/// What the operator asked of the API server, in order.
fn requests(cluster: &Cluster) -> Vec<String> {
    let audit = cluster.kubernetes.audit().unwrap();
    let ours = audit.iter().filter(|event| {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        !agent.contains("kube-apiserver")
            && !event["requestURI"]
                .as_str()
                .unwrap_or_default()
                .contains("readyz")
    });
    ours.map(|event| {
        format!(
            "{} {}",
            event["verb"].as_str().unwrap_or_default(),
            event["requestURI"]
        )
    })
    .collect()
}

/// The time of day of an RFC 3339 time, in seconds.
fn seconds(time: &str) -> f64 {
    let clock = time.split('T').nth(1).unwrap().trim_end_matches('Z');
    clock
        .split(':')
        .fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}
