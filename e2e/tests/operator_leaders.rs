//! Operators that die, come back, and take over; and many policies at once.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onespace_core::load::load;
use onespace_e2e::operator::many::{self, Resident, Writes, requests, secret};
use onespace_e2e::operator::{Cluster, NAMESPACE};
use onespace_e2e::silent_proxy::SilentProxy;
use serde_json::json;

/// Policies that are applied at once. `make bench` asks for the same of the build that is released.
const MANY: usize = 5_000;

/// What the operator may need for them, in KiB. `make bench` asks for 64 MiB of the build that is released; this one is larger.
const MOST_MEMORY: u64 = 96 << 10;

/// The first of them, and what it may need for these, in KiB.
const FEWER: usize = 1_000;
const MEMORY_FOR_FEWER: u64 = 64 << 10;

/// Creates policies, several at a time.
async fn create(cluster: &Cluster, numbers: std::ops::Range<usize>) {
    many::create(&cluster.kubernetes.client(), numbers).await.unwrap();
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
    let lease = ["--lease-seconds", "6"];
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
            .operator(&format!("turn-{turn}"), &["--lease-seconds", "5"])
            .unwrap();
        operator.until_leader().await.unwrap();
        create(&cluster, turn * 30..turn * 30 + 30).await;
        // In the middle of whatever it is doing.
        operator.kill().unwrap();
    }
    let mut operator = cluster.operator("last", &[]).unwrap();
    operator.until_leader().await.unwrap();
    until_so_many(&cluster, 120).await;
    let set = load(&cluster.files().await.unwrap()).unwrap();
    assert!(set.refused.is_empty(), "{:?}", set.refused);
}

/// A policy of the namespace `tenant`, its Secret, and the grant for it.
fn granted() -> [serde_json::Value; 3] {
    let mut secret = secret();
    secret["metadata"]["namespace"] = json!("tenant");
    let name = secret["metadata"]["name"].clone();
    [
        secret,
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "AccountGrant", "metadata": {"name": "tenant"},
            "spec": {"namespaceSelector": {}, "accounts": ["AUTH_test"]}}),
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
            "metadata": {"name": "photos", "namespace": "tenant"},
            "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
                "target": {"protocol": "S3", "endpoint": "http://s3.example.com", "bucket": "backup",
                    "credentials": {"secretRef": {"name": name}}}}}),
    ]
}

#[tokio::test]
async fn a_leader_that_hears_nothing_any_more_stops_before_another_leads_and_undoes_nothing() {
    let cluster = Cluster::start().await.unwrap();
    cluster.namespace("tenant", &json!({})).await.unwrap();
    let options = ["--lease-seconds", "12", "--watch-namespace", "*"];
    let proxy = SilentProxy::start(cluster.kubernetes.port()).await.unwrap();
    let kubeconfig = cluster.kubernetes.kubeconfig_at(proxy.port()).unwrap();
    let mut first = cluster.operator_with(&kubeconfig, "first", &options).unwrap();
    first.until_leader().await.unwrap();
    let mut second = cluster.operator("second", &options).unwrap();
    let objects = granted();
    for object in &objects {
        cluster.apply(object).await.unwrap();
    }
    cluster.until_mapped(&["tenant/photos"]).await.unwrap();

    proxy.fall_silent();
    second.until_leader().await.unwrap();
    assert!(
        first.said().contains("could not be renewed in time"),
        "two lead: {}",
        first.said()
    );
    // What the first one never heard of.
    let [_, grant, _] = &objects;
    cluster.delete(grant).await.unwrap();
    cluster.until_mapped(&[]).await.unwrap();
    proxy.take_new_connections();
    assert!(!first.until_ended().await.unwrap(), "it starts anew");
    assert!(first.said().contains("starts anew"), "{}", first.said());
    assert_eq!(cluster.mapped().await.unwrap(), Some(vec![]));
}

#[tokio::test]
async fn a_leader_whose_connections_fall_silent_leads_on_over_new_ones() {
    let cluster = Cluster::start().await.unwrap();
    let proxy = SilentProxy::start(cluster.kubernetes.port()).await.unwrap();
    let kubeconfig = cluster.kubernetes.kubeconfig_at(proxy.port()).unwrap();
    let mut operator = cluster
        .operator_with(&kubeconfig, "one", &["--lease-seconds", "12"])
        .unwrap();
    operator.until_leader().await.unwrap();
    let lease = async || {
        let leases = cluster.list("/apis/coordination.k8s.io/v1", "leases").await?;
        anyhow::ensure!(leases.len() == 1);
        Ok(leases[0]["spec"].clone())
    };
    let mut renewed = lease().await.unwrap();
    proxy.fall_silent();
    proxy.take_new_connections();
    for _ in 0..4 {
        renewed = cluster
            .until("a renewal", async || {
                let now = lease().await?;
                Ok((now["renewTime"] != renewed["renewTime"]).then_some(now))
            })
            .await
            .unwrap();
        assert_eq!(renewed["leaseTransitions"], 0, "it was renewed throughout");
        assert_eq!(renewed["holderIdentity"], "one");
    }
    operator.until_leader().await.unwrap();
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
    let cluster = Cluster::start().await.unwrap();
    let mut operator = cluster.operator("one", &[]).unwrap();
    operator.until_leader().await.unwrap();
    cluster.apply(&secret()).await.unwrap();
    let reached = async |metric: &str, count: usize| {
        cluster
            .until(&format!("{metric}: {count}"), async || {
                Ok((operator.metric(metric).await? >= count as f64).then_some(()))
            })
            .await
            .unwrap();
    };
    let accepted = r#"onespace_operator_policies{reason="Accepted"}"#;
    let written = r#"onespace_operator_status_writes_total{outcome="written"}"#;
    create(&cluster, 0..FEWER).await;
    reached(accepted, FEWER).await;
    reached(written, FEWER).await;
    let resident = Resident::of(operator.pid()).unwrap();
    assert!(resident.peak < MEMORY_FOR_FEWER, "{resident:?}");

    let started = Instant::now();
    create(&cluster, FEWER..MANY).await;
    let applied = started.elapsed();
    reached(accepted, MANY).await;
    let mapped = started.elapsed();
    reached(written, MANY).await;
    let told = started.elapsed();
    let resident = Resident::of(operator.pid()).unwrap();
    println!("{MANY} policies: applied {applied:?}, mapped {mapped:?}, told {told:?}, {resident:?}");
    assert!(resident.peak < MOST_MEMORY, "{resident:?}");

    let names = cluster.mapped().await.unwrap().unwrap();
    assert_eq!(names.len(), MANY);

    let audit = || cluster.kubernetes.audit().unwrap();
    let writes = Writes::of(&audit()).unwrap();
    println!("{} file writes", writes.files);
    writes.check(MANY).unwrap();

    // A whole minute is in operator_status.rs; some seconds show a loop that does not end.
    let before = requests(&audit()).len();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let more: BTreeSet<String> = requests(&audit()).split_off(before).into_iter().collect();
    let idle: Vec<&String> = more
        .iter()
        .filter(|request| !request.contains("leases") && !request.starts_with("watch"))
        .collect();
    assert!(idle.is_empty(), "{idle:?}");
}
