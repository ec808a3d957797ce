//! `onespace import`

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test")]

mod common;

use common::{Ran, onespace, text};
use serde::Deserialize as _;
use serde_json::{Value, json};

fn import(config: &Value) -> (Ran, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sync.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let ran = onespace(&["import", text(&file), "--namespace", "swift"]);
    let documents =
        serde_yaml::Deserializer::from_str(&ran.out).map(|document| Value::deserialize(document).unwrap());
    let documents = documents.filter(|document| !document.is_null()).collect();
    (ran, documents)
}

fn entry(changes: Value) -> Value {
    let mut entry = json!({
        "account": "AUTH_test", "container": "photos", "protocol": "s3", "aws_bucket": "backup",
        "aws_endpoint": "http://s3.example.com:9000", "aws_identity": "AKIA", "aws_secret": "hush-hush",
    });
    for (name, value) in changes.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry
}

/// The policy that a container entry with these options becomes, and what was said.
fn policy(changes: Value) -> (Ran, Value) {
    let (ran, documents) = import(&json!({"containers": [entry(changes)]}));
    (ran, documents[0].clone())
}

#[test]
fn a_container_becomes_a_policy_and_a_secret_that_render_takes() {
    let (ran, documents) = import(&json!({"containers": [entry(json!({
        "custom_prefix": "/pre/fix/", "copy_after": 5400, "exclude_pattern": "tmp/", "propagate_delete": false,
        "retain_local": true, "aws_session_token": "token", "min_segment_size": 8_388_608,
        "selection_criteria": {"OR": [{"X-Object-Meta-Keep": "yes"}, {"NOT": {"x-object-meta-tmp": "1"}}]},
    }))]}));
    assert!(ran.ok, "{}", ran.err);
    assert_eq!(
        documents[0],
        json!({
            "apiVersion": "onespace.dev/v1alpha1",
            "kind": "SyncPolicy",
            "metadata": {"name": "auth-test-photos", "namespace": "swift"},
            "spec": {
                "mode": "Sync",
                "source": {"account": "AUTH_test", "container": "photos"},
                "target": {
                    "protocol": "S3", "endpoint": "http://s3.example.com:9000", "bucket": "backup", "prefix": "/pre/fix/",
                    "credentials": {"secretRef": {"name": "auth-test-photos-keys"}},
                },
                "copyAfter": "1h30m",
                "exclude": "tmp/",
                "propagateDelete": false,
                "minSegmentSize": 8_388_608,
                "select": {"match": {"any": [
                    {"metadata": {"name": "keep", "value": "yes"}},
                    {"not": {"metadata": {"name": "tmp", "value": "1"}}},
                ]}},
            },
        })
    );
    assert_eq!(
        documents[1],
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "auth-test-photos-keys", "namespace": "swift"},
            "stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_SESSION_TOKEN": "token"},
        })
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.yaml");
    std::fs::write(&file, &ran.out).unwrap();
    let (mappings, credentials) = (folder.path().join("m"), folder.path().join("c"));
    let ran = onespace(&[
        "render",
        "-f",
        text(&file),
        "--mappings",
        text(&mappings),
        "--credentials",
        text(&credentials),
    ]);
    assert!(ran.ok, "{}", ran.err);
}

#[test]
fn settings_of_the_daemons_are_named_and_dropped_without_their_values() {
    let (ran, _) = import(&json!({
        "containers": [entry(json!({"colour": "red"}))],
        "devices": "/srv/node", "poll_interval": 5, "sentry_dsn": "https://hush-hush@sentry",
    }));
    assert!(ran.ok, "{}", ran.err);
    for word in ["devices", "poll_interval", "sentry_dsn", "colour"] {
        assert!(
            ran.err.contains(&format!("{word} is dropped"))
                && ran.out.contains(&format!("# {word} is dropped"))
        );
    }
    assert!(!ran.err.contains("hush"));
}

#[test]
fn what_cannot_be_translated_is_named_and_never_left_out() {
    // Python's negative look-ahead is not in Rust's syntax: the policy stays invalid until a person has decided.
    let (ran, spec) = policy(json!({"exclude_pattern": "(?!keep)"}));
    assert!(
        !ran.ok && ran.err.contains("containers[0]: spec.exclude: InvalidPattern"),
        "{}",
        ran.err
    );
    assert_eq!(spec["spec"]["exclude"], "(?!keep)");
    assert!(ran.out.contains("# CORRECT THIS: spec.exclude"), "{}", ran.out);

    let (ran, spec) = policy(json!({"selection_criteria": {"content-type": "image/png"}}));
    assert!(
        !ran.ok && ran.err.contains("selection_criteria cannot be translated"),
        "{}",
        ran.err
    );
    assert!(
        spec["spec"]["select"].is_object(),
        "not a policy that copies everything"
    );

    let (ran, _) = policy(json!({"container": "/*", "custom_prefix": "all"}));
    assert!(
        !ran.ok && ran.err.contains("spec.target.prefix: Invalid"),
        "{}",
        ran.err
    );
}

#[test]
fn archives_migrations_and_swift_remotes_are_translated_and_marked_as_not_supported_yet() {
    let (ran, documents) = import(&json!({
        "containers": [entry(json!({
            "retain_local": false, "protocol": "swift", "auth_type": "keystone_v3", "project_name": "p",
            "project_domain_name": "d", "user_domain_name": "d", "remote_account": "AUTH_x",
            "merge_namespaces": true, "restore_object": true, "remote_delete_after": 86_400,
        }))],
        "migrations": [{
            "account": "AUTH_test", "aws_endpoint": "http://swift.example.com/auth/v1.0", "aws_identity": "admin:admin",
            "aws_secret": "hush", "aws_bucket": "/*", "protocol": "swift", "older_than": 60, "prefix": "",
        }],
    }));
    assert!(!ran.ok && ran.err.contains("NotYetSupported"));
    let kinds: Vec<_> = documents
        .iter()
        .map(|document| document["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["SyncPolicy", "Secret", "SyncPolicy", "Secret"]);
    let archive = &documents[0]["spec"];
    assert_eq!(archive["mode"], "Archive");
    assert_eq!(archive["propagateDelete"], true, "1space's default");
    assert_eq!(archive["shunt"], json!({"merge": true, "restore": true}));
    assert_eq!(archive["remoteDeleteAfter"], "1d");
    let auth =
        json!({"type": "KeystoneV3", "projectName": "p", "projectDomainName": "d", "userDomainName": "d"});
    assert_eq!(
        archive["target"]["swift"],
        json!({"auth": auth, "account": "AUTH_x"})
    );
    assert_eq!(
        documents[1]["stringData"],
        json!({"USERNAME": "AKIA", "PASSWORD": "hush-hush"})
    );
    let migration = &documents[2]["spec"];
    assert_eq!(migration["mode"], "Migrate");
    assert_eq!(migration["source"]["container"], "/*");
    assert_eq!(migration["migrate"], json!({"olderThan": "1m"}));
}

#[test]
fn equal_credentials_become_one_secret_and_names_are_not_used_twice() {
    let other = entry(json!({"aws_bucket": "other"}));
    let (ran, documents) = import(&json!({"containers": [entry(json!({})), other]}));
    assert!(ran.ok, "{}", ran.err);
    let names: Vec<_> = documents
        .iter()
        .map(|document| document["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["auth-test-photos", "auth-test-photos-keys", "auth-test-photos-2"]
    );
}

#[test]
fn a_login_in_a_proxys_address_goes_into_the_secret() {
    let (_, documents) =
        import(&json!({"containers": [entry(json!({"http_proxy": "http://me:hush@proxy:3128"}))]}));
    assert_eq!(documents[0]["spec"]["target"]["httpProxy"], "http://proxy:3128");
    assert_eq!(documents[1]["stringData"]["PROXY_PASSWORD"], "hush");
}

#[test]
fn what_is_no_sync_json_is_an_error_that_names_the_place() {
    for (config, message) in [
        (json!([]), "no sync.json"),
        (json!({}), "neither containers nor migrations"),
        (json!({"containers": [5]}), "containers[0] must be an object"),
        (
            json!({"containers": [{}]}),
            "containers[0]: aws_bucket is missing",
        ),
        (
            json!({"containers": [entry(json!({"protocol": "ftp"}))]}),
            "protocol \"ftp\" is unknown",
        ),
        (
            json!({"containers": [entry(json!({"copy_after": "soon"}))]}),
            "copy_after must be a whole number",
        ),
    ] {
        let (ran, _) = import(&config);
        assert!(!ran.ok && ran.err.contains(message), "{config}: {}", ran.err);
        assert!(ran.err.contains("sync.json"));
    }
}
