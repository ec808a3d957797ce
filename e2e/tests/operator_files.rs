//! From SyncPolicies in a real API server to the agents' files.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use onespace_cli::input;
use onespace_e2e::operator::{Cluster, NAMESPACE};
use onespace_e2e::programs::program;
use serde_json::{Value, json};

fn policy(namespace: &str, name: &str, container: &str, prefix: &str) -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1",
        "kind": "SyncPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": container},
            "target": {"protocol": "S3", "endpoint": "http://s3.example.com", "bucket": "backup", "prefix": prefix,
                "credentials": {"secretRef": {"name": "keys"}}},
        },
    })
}

fn secret(namespace: &str, name: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": key},
    })
}

/// Every file below a folder.
fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Renders everything that is in the cluster over the operator's files, and asserts that not a byte changes.
async fn same_as_rendered(cluster: &Cluster) {
    let (mappings, credentials) = (
        cluster.folder().join("mappings"),
        cluster.folder().join("credentials"),
    );
    cluster.mount(&mappings, &credentials).await.unwrap();
    let before = (files_in(&mappings), files_in(&credentials));
    let dump = cluster.folder().join("dump.json");
    std::fs::write(&dump, cluster.dump().await.unwrap().to_string()).unwrap();
    let output = Command::new(program("onespace").unwrap())
        .arg("render")
        .arg("-f")
        .arg(&dump)
        .arg("--mappings")
        .arg(&mappings)
        .arg("--credentials")
        .arg(&credentials)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let after = (files_in(&mappings), files_in(&credentials));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before.0), names(&after.0));
    for (name, bytes) in &before.0 {
        assert_eq!(
            String::from_utf8_lossy(bytes),
            String::from_utf8_lossy(&after.0[name]),
            "{name}"
        );
    }
    assert!(before.1 == after.1, "credentials differ");
}

#[tokio::test]
async fn the_operator_makes_the_files_that_render_writes() {
    let cluster = Cluster::start().await.unwrap();
    let mut operator = cluster.operator("one", &[]).unwrap();
    operator.until_leader().await.unwrap();

    // Policies of every kind, and what they name.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let examples = input::read(&[examples]).unwrap();
    let mut names = Vec::new();
    for object in examples
        .secrets
        .values()
        .chain(examples.config_maps.values())
        .chain(examples.policies.values())
    {
        cluster.apply(&object.value).await.unwrap();
    }
    for (namespace, name) in examples.policies.keys() {
        assert_eq!(namespace, NAMESPACE);
        names.push(format!("{namespace}/{name}"));
    }
    let certificates = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": NAMESPACE},
        "data": {"ca.crt": certificates}});
    cluster.apply(&config_map).await.unwrap();
    cluster.apply(&secret(NAMESPACE, "keys", "hush")).await.unwrap();
    let mut trusting = policy(NAMESPACE, "trusting", "trusting", "trusting");
    trusting["spec"]["target"]["caBundle"] = json!({"configMapRef": {"name": "ca", "key": "ca.crt"}});
    trusting["spec"]["suspend"] = json!(true);
    cluster.apply(&trusting).await.unwrap();
    names.push(format!("{NAMESPACE}/trusting"));
    names.sort();
    let expected: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.until_mapped(&expected).await.unwrap();
    same_as_rendered(&cluster).await;

    // A change reaches the files of its shard alone, and a policy that goes leaves nothing behind.
    let before = cluster.files().await.unwrap();
    trusting["spec"]["suspend"] = json!(false);
    trusting["spec"]["exclude"] = json!("tmp/");
    let changed = cluster.apply(&trusting).await.unwrap();
    assert_eq!(changed["metadata"]["generation"], 2);
    cluster
        .until_condition((NAMESPACE, "trusting"), "Accepted", "True", "Accepted")
        .await
        .unwrap();
    same_as_rendered(&cluster).await;
    let after = cluster.files().await.unwrap();
    let differing = after
        .mappings
        .iter()
        .filter(|(shard, bytes)| before.mappings.get(*shard) != Some(bytes))
        .count();
    assert_eq!(differing, 1, "files of other shards were written");
    assert!(before.credentials == after.credentials);
    cluster.delete(&trusting).await.unwrap();
    let without: Vec<&str> = expected
        .iter()
        .copied()
        .filter(|name| !name.ends_with("/trusting"))
        .collect();
    cluster.until_mapped(&without).await.unwrap();
    same_as_rendered(&cluster).await;

    assert_eq!(operator.health("/livez").await.unwrap().0, 200);
    assert_eq!(operator.health("/readyz").await.unwrap().0, 200);
    assert!(!operator.said().contains("hush"), "a password is in the log");
    operator.stop().await.unwrap();
}

#[tokio::test]
async fn a_secret_may_come_late_change_and_go() {
    let cluster = Cluster::start().await.unwrap();
    let _operator = cluster.operator("one", &[]).unwrap();
    let photos = (NAMESPACE, "photos");
    cluster
        .apply(&policy(NAMESPACE, "photos", "photos", "p"))
        .await
        .unwrap();
    let message = cluster
        .until_condition(photos, "CredentialsReady", "False", "SecretNotFound")
        .await
        .unwrap();
    assert!(message.contains("create it"), "{message}");
    cluster
        .until_condition(photos, "Stalled", "True", "SecretNotFound")
        .await
        .unwrap();
    cluster
        .until_mapped(&["refused CredentialsMissing"])
        .await
        .unwrap();

    let key_is = async |key: &str| {
        let files = cluster.files().await?;
        let all: Vec<u8> = files
            .credentials
            .values()
            .flat_map(|bytes| bytes.to_vec())
            .collect();
        Ok(String::from_utf8_lossy(&all).contains(key).then_some(()))
    };
    cluster.apply(&secret(NAMESPACE, "keys", "first")).await.unwrap();
    cluster
        .until_condition(photos, "CredentialsReady", "True", "Found")
        .await
        .unwrap();
    cluster
        .until("the first key", async || key_is("first").await)
        .await
        .unwrap();
    cluster.until_mapped(&["swift/photos"]).await.unwrap();
    cluster.apply(&secret(NAMESPACE, "keys", "second")).await.unwrap();
    cluster
        .until("the second key", async || key_is("second").await)
        .await
        .unwrap();

    let mut broken = secret(NAMESPACE, "keys", "second");
    broken["stringData"] = json!({"AWS_ACCESS_KEY_ID": "AKIA"});
    cluster.delete(&broken).await.unwrap();
    cluster
        .until_condition(photos, "CredentialsReady", "False", "SecretNotFound")
        .await
        .unwrap();
    cluster
        .until("no key any more", async || {
            Ok(cluster.files().await?.credentials.is_empty().then_some(()))
        })
        .await
        .unwrap();
    cluster.apply(&broken).await.unwrap();
    let message = cluster
        .until_condition(photos, "CredentialsReady", "False", "SecretInvalid")
        .await
        .unwrap();
    assert!(message.contains("AWS_SECRET_ACCESS_KEY"), "{message}");
}

#[tokio::test]
async fn a_policy_that_cannot_be_run_is_told_why_and_the_others_run() {
    let cluster = Cluster::start().await.unwrap();
    let mut operator = cluster.operator("one", &[]).unwrap();
    operator.until_leader().await.unwrap();
    cluster.apply(&secret(NAMESPACE, "keys", "hush")).await.unwrap();

    // Of two in conflict the one that is in wins, and the other takes over when it goes.
    let (later, first) = (
        policy(NAMESPACE, "a", "one", "p"),
        policy(NAMESPACE, "b", "one", "p/q"),
    );
    cluster.apply(&first).await.unwrap();
    cluster.until_mapped(&["swift/b"]).await.unwrap();
    cluster.apply(&later).await.unwrap();
    let message = cluster
        .until_condition((NAMESPACE, "a"), "Accepted", "False", "Conflict")
        .await
        .unwrap();
    assert!(message.contains("swift/b"), "{message}");
    cluster.until_mapped(&["swift/b"]).await.unwrap();

    // What the schema cannot see.
    let mut pattern = policy(NAMESPACE, "pattern", "two", "two");
    pattern["spec"]["exclude"] = json!("(");
    cluster.apply(&pattern).await.unwrap();
    cluster
        .until_condition((NAMESPACE, "pattern"), "Accepted", "False", "InvalidPattern")
        .await
        .unwrap();
    cluster
        .until_condition((NAMESPACE, "pattern"), "Ready", "False", "NotAccepted")
        .await
        .unwrap();
    let mut archive = policy(NAMESPACE, "archive", "three", "three");
    archive["spec"]["mode"] = json!("Archive");
    cluster.apply(&archive).await.unwrap();
    cluster
        .until_condition((NAMESPACE, "archive"), "Accepted", "False", "NotYetSupported")
        .await
        .unwrap();

    // A malformed object: stored under a CRD that checks nothing.
    loosen(&cluster).await;
    let malformed = json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "malformed", "namespace": NAMESPACE}, "spec": {"mode": ["Sync"], "source": 5}});
    cluster
        .until("the loose CRD", async || Ok(cluster.apply(&malformed).await.ok()))
        .await
        .unwrap();
    let message = cluster
        .until_condition((NAMESPACE, "malformed"), "Accepted", "False", "Invalid")
        .await
        .unwrap();
    assert!(message.contains("cannot read it"), "{message}");
    cluster.delete(&first).await.unwrap();
    cluster.until_mapped(&["swift/a"]).await.unwrap();
    cluster
        .until_condition((NAMESPACE, "a"), "Accepted", "True", "Accepted")
        .await
        .unwrap();

    // It starts with the malformed object just as well.
    operator.stop().await.unwrap();
    let _operator = cluster.operator("two", &[]).unwrap();
    cluster
        .apply(&policy(NAMESPACE, "c", "four", "four"))
        .await
        .unwrap();
    cluster.until_mapped(&["swift/a", "swift/c"]).await.unwrap();
}

/// Installs the CRD anew with a schema that lets everything in.
async fn loosen(cluster: &Cluster) {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/syncpolicies.onespace.dev";
    let send = async |method, body: Option<&Value>| {
        cluster
            .kubernetes
            .send(method, path, body)
            .await
            .unwrap()
            .unwrap()
    };
    let mut crd = send(http::Method::GET, None).await;
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    });
    send(http::Method::PUT, Some(&crd)).await;
}

#[tokio::test]
async fn a_policy_of_another_namespace_runs_while_a_grant_covers_it() {
    let cluster = Cluster::start().await.unwrap();
    cluster
        .namespace("tenant", &json!({"team": "red"}))
        .await
        .unwrap();
    let _operator = cluster.operator("one", &["--watch-namespace", "*"]).unwrap();
    cluster.apply(&secret("tenant", "keys", "hush")).await.unwrap();
    cluster
        .apply(&policy("tenant", "photos", "photos", "p"))
        .await
        .unwrap();
    let photos = ("tenant", "photos");
    let message = cluster
        .until_condition(photos, "Accepted", "False", "NotGranted")
        .await
        .unwrap();
    assert!(message.contains("AUTH_test"), "{message}");
    assert_eq!(cluster.mapped().await.unwrap(), Some(vec![]));
    // Secrets are read only where a policy that counts names them.
    let reads = |cluster: &Cluster| {
        let audit = cluster.kubernetes.audit().unwrap();
        audit
            .iter()
            .filter(|event| {
                event["verb"] == "get"
                    && event["objectRef"]["resource"] == "secrets"
                    && event["objectRef"]["name"] == "keys"
                    && event["userAgent"] != "test"
            })
            .count()
    };
    let before = reads(&cluster);

    let mut grant = json!({
        "apiVersion": "onespace.dev/v1alpha1",
        "kind": "AccountGrant",
        "metadata": {"name": "red"},
        "spec": {"namespaceSelector": {"matchLabels": {"team": "red"}}, "accounts": ["AUTH_te*"], "endpoints": ["AWS"]},
    });
    cluster.apply(&grant).await.unwrap();
    grant["spec"]["endpoints"] = json!(["http://s3.example.com"]);
    assert_eq!(
        reads(&cluster),
        before,
        "the Secret of a policy without a grant was read"
    );
    cluster.apply(&grant).await.unwrap();
    cluster.until_mapped(&["tenant/photos"]).await.unwrap();
    cluster
        .until_condition(photos, "Accepted", "True", "Accepted")
        .await
        .unwrap();

    cluster.delete(&grant).await.unwrap();
    cluster.until_mapped(&[]).await.unwrap();
    cluster
        .until_condition(photos, "Accepted", "False", "NotGranted")
        .await
        .unwrap();
    assert!(
        cluster.files().await.unwrap().credentials.is_empty(),
        "its credentials went, too"
    );

    // What the API server itself refuses.
    grant["metadata"]["name"] = json!("bad");
    grant["spec"]["namespaceSelector"] =
        json!({"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["red"]}]});
    let refused = cluster.apply(&grant).await.unwrap_err();
    assert!(format!("{refused:#}").contains("take none"), "{refused:#}");
}
