//! The API server's verdict on policies, and that `onespace validate` gives the same one offline.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use kube::core::Status;
use onespace_cli::admission::Admission;
use onespace_cli::input;
use onespace_core::validate::Finding;
use onespace_e2e::kube::Kubernetes;
use serde_json::{Value, json};

const POLICIES: &str = "/apis/onespace.dev/v1alpha1/namespaces/default/syncpolicies";

/// The smallest policy, with changes: dotted paths below the object; `Value::Null` removes.
fn policy(changes: &[(&str, Value)]) -> Value {
    let mut policy = json!({
        "apiVersion": "onespace.dev/v1alpha1",
        "kind": "SyncPolicy",
        "metadata": {"name": "case"},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}},
        },
    });
    change(&mut policy, changes);
    policy
}

fn change(policy: &mut Value, changes: &[(&str, Value)]) {
    for (path, value) in changes {
        let (parent, field) = path.rsplit_once('.').unwrap();
        let mut at = &mut *policy;
        for name in parent.split('.') {
            at = &mut at[name];
        }
        if value.is_null() {
            at.as_object_mut().unwrap().remove(field);
        } else {
            at[field] = value.clone();
        }
    }
}

type Changes = Vec<(&'static str, Value)>;

/// A policy of the given mode or protocol, and what is changed in it.
fn swift() -> Changes {
    vec![
        ("spec.target.protocol", json!("Swift")),
        (
            "spec.target.endpoint",
            json!("https://swift.example.com/auth/v1.0"),
        ),
    ]
}

fn plus(mut base: Changes, more: &[(&'static str, Value)]) -> Changes {
    base.extend(more.iter().cloned());
    base
}

/// Objects that at least one CEL rule refuses, each with the field that is named.
fn against_rules() -> Vec<(&'static str, Changes)> {
    let archive = json!("Archive");
    let migrate = json!("Migrate");
    vec![
        ("spec.source.account", vec![("spec.source.account", json!("a/b"))]),
        (
            "spec.source.container",
            vec![("spec.source.container", json!("a/b"))],
        ),
        (
            "spec.source.container",
            vec![("spec.source.container", json!("/**"))],
        ),
        (
            "spec.target.prefix",
            vec![
                ("spec.source.container", json!("/*")),
                ("spec.target.prefix", json!("")),
            ],
        ),
        ("spec.target.bucket", vec![("spec.target.bucket", json!("/*"))]),
        (
            "spec.target.bucket",
            vec![("spec.target.bucket", json!("/*")), ("spec.mode", migrate)],
        ),
        ("spec.target.bucket", vec![("spec.target.bucket", json!("ab"))]),
        ("spec.target.bucket", vec![("spec.target.bucket", json!("-abc"))]),
        ("spec.target.bucket", vec![("spec.target.bucket", json!("a/bc"))]),
        (
            "spec.target.bucket",
            plus(swift(), &[("spec.target.bucket", json!("a/b"))]),
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("http://user:pass@s3.example.com"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("s3.example.com"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("ftp://s3.example.com"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("http://s3.example.com/?a=b"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("http://s3.example.com/#a"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("http://s3 example.com"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.endpoint", json!("http://s3.example.com:port"))],
        ),
        (
            "spec.target.endpoint",
            vec![("spec.target.protocol", json!("Swift"))],
        ),
        (
            "spec.target.region",
            plus(swift(), &[("spec.target.region", json!("us-east-1"))]),
        ),
        (
            "spec.target.pathStyle",
            plus(swift(), &[("spec.target.pathStyle", json!("Auto"))]),
        ),
        (
            "spec.target.requestChecksums",
            plus(swift(), &[("spec.target.requestChecksums", json!("Auto"))]),
        ),
        (
            "spec.target.encryption",
            plus(swift(), &[("spec.target.encryption", json!({"type": "None"}))]),
        ),
        (
            "spec.target.storageClass",
            plus(swift(), &[("spec.target.storageClass", json!("STANDARD"))]),
        ),
        (
            "spec.target.credentials",
            plus(swift(), &[("spec.target.credentials", json!({"ambient": {}}))]),
        ),
        (
            "spec.target.swift",
            vec![("spec.target.swift", json!({"account": "AUTH_x"}))],
        ),
        (
            "spec.target.swift.auth.tenantName",
            plus(
                swift(),
                &[("spec.target.swift", json!({"auth": {"type": "KeystoneV2"}}))],
            ),
        ),
        (
            "spec.target.swift.auth.tenantName",
            plus(
                swift(),
                &[("spec.target.swift", json!({"auth": {"tenantName": "t"}}))],
            ),
        ),
        (
            "spec.target.swift.auth.projectName",
            plus(
                swift(),
                &[("spec.target.swift", json!({"auth": {"type": "KeystoneV3"}}))],
            ),
        ),
        (
            "spec.target.swift.auth.projectName",
            plus(
                swift(),
                &[("spec.target.swift", json!({"auth": {"projectName": "p"}}))],
            ),
        ),
        (
            "spec.target.swift.auth",
            plus(
                swift(),
                &[("spec.target.swift", json!({"auth": {"userDomainName": "d"}}))],
            ),
        ),
        (
            "spec.target.credentials",
            vec![("spec.target.credentials", json!({}))],
        ),
        (
            "spec.target.credentials",
            vec![(
                "spec.target.credentials",
                json!({"secretRef": {"name": "a"}, "ambient": {}}),
            )],
        ),
        (
            "spec.target.prefix",
            vec![("spec.target.prefix", json!(".onespace"))],
        ),
        (
            "spec.target.prefix",
            vec![("spec.target.prefix", json!("//.manifests/a"))],
        ),
        (
            "spec.target.httpProxy",
            vec![("spec.target.httpProxy", json!("http://u:p@proxy:3128"))],
        ),
        (
            "spec.target.httpProxy",
            vec![("spec.target.httpProxy", json!("proxy:3128"))],
        ),
        (
            "spec.target.httpProxy",
            vec![("spec.target.httpProxy", json!("http://proxy:3128/path"))],
        ),
        (
            "spec.target.encryption.kmsKeyID",
            vec![(
                "spec.target.encryption",
                json!({"type": "AES256", "kmsKeyID": "k"}),
            )],
        ),
        ("spec.migrate", vec![("spec.migrate", json!({}))]),
        (
            "spec.migrate",
            vec![
                ("spec.migrate", json!({"olderThan": "1h"})),
                ("spec.mode", archive),
            ],
        ),
        (
            "spec.migrate.segmentSize",
            vec![
                ("spec.migrate", json!({"segmentSize": "6Gi"})),
                ("spec.mode", json!("Migrate")),
            ],
        ),
        (
            "spec.expirationOffset",
            vec![("spec.expirationOffset", json!("1d"))],
        ),
        (
            "spec.expirationOffset",
            vec![
                ("spec.expirationOffset", json!("1d")),
                ("spec.propagateExpiration", json!(false)),
            ],
        ),
        (
            "spec.segmentsDeleteAfterAddition",
            vec![("spec.segmentsDeleteAfterAddition", json!("1d"))],
        ),
        (
            "spec.remoteDeleteAfter",
            vec![
                ("spec.remoteDeleteAfter", json!("9d")),
                ("spec.target.prefix", json!("//")),
            ],
        ),
        ("spec.minSegmentSize", vec![("spec.minSegmentSize", json!("1Mi"))]),
        (
            "spec.minSegmentSize",
            vec![("spec.minSegmentSize", json!(5_242_879))],
        ),
        (
            "spec.minSegmentSize",
            vec![("spec.minSegmentSize", json!("5.1Gi"))],
        ),
        ("spec.shunt", vec![("spec.shunt", json!({"restore": true}))]),
        (
            "spec.select.minSize",
            vec![("spec.select", json!({"minSize": "2Mi", "maxSize": 1_048_576}))],
        ),
        ("spec.select.match", vec![("spec.select", json!({"match": {}}))]),
        (
            "spec.select.match.any[1]",
            vec![(
                "spec.select",
                json!({"match": {"any": [
                    {"metadata": {"name": "a", "value": "b"}},
                    {"metadata": {"name": "a", "value": "b"}, "not": {"metadata": {"name": "a", "value": "b"}}},
                ]}}),
            )],
        ),
        (
            "spec.limits.windows[0]",
            vec![(
                "spec.limits",
                json!({"windows": [{"start": "20:00", "end": "06:00"}]}),
            )],
        ),
        (
            "spec.limits.windows[0].end",
            vec![(
                "spec.limits",
                json!({"windows": [
                    {"start": "20:00", "end": "20:00", "requestsPerSecond": 1},
                ]}),
            )],
        ),
        // Two rules at once.
        (
            "spec.migrate",
            vec![
                ("spec.migrate", json!({})),
                ("spec.shunt", json!({"restore": true})),
            ],
        ),
    ]
}

/// Objects whose form the schema refuses, each with the field that is named.
fn against_schema() -> Vec<(&'static str, Changes)> {
    let long = |n: usize| json!("x".repeat(n));
    vec![
        ("spec.mode", vec![("spec.mode", Value::Null)]),
        ("spec.mode", vec![("spec.mode", json!("sync"))]),
        ("spec.source", vec![("spec.source", Value::Null)]),
        ("spec.source.account", vec![("spec.source.account", Value::Null)]),
        ("spec.source.account", vec![("spec.source.account", json!(""))]),
        ("spec.source.account", vec![("spec.source.account", long(257))]),
        (
            "spec.source.container",
            vec![("spec.source.container", json!("é".repeat(257)))],
        ),
        ("spec.source.container", vec![("spec.source.container", json!(5))]),
        (
            "spec.target.protocol",
            vec![("spec.target.protocol", json!("GCS"))],
        ),
        (
            "spec.target.credentials",
            vec![("spec.target.credentials", Value::Null)],
        ),
        (
            "spec.target.credentials.secretRef.name",
            vec![("spec.target.credentials.secretRef", json!({"name": "Keys"}))],
        ),
        (
            "spec.target.credentials.secretRef.name",
            vec![("spec.target.credentials.secretRef", json!({}))],
        ),
        ("spec.target.bucket", vec![("spec.target.bucket", long(257))]),
        (
            "spec.target.region",
            vec![("spec.target.region", json!("eu west"))],
        ),
        (
            "spec.target.pathStyle",
            vec![("spec.target.pathStyle", json!(true))],
        ),
        (
            "spec.target.storageClass",
            vec![("spec.target.storageClass", json!("standard"))],
        ),
        (
            "spec.target.encryption.type",
            vec![("spec.target.encryption", json!({"type": "SSE"}))],
        ),
        (
            "spec.target.caBundle.configMapRef.key",
            vec![("spec.target.caBundle", json!({"configMapRef": {"name": "ca"}}))],
        ),
        ("spec.target.prefix", vec![("spec.target.prefix", long(513))]),
        ("spec.suspend", vec![("spec.suspend", json!("yes"))]),
        ("spec.copyAfter", vec![("spec.copyAfter", json!("5"))]),
        ("spec.copyAfter", vec![("spec.copyAfter", json!(5))]),
        ("spec.copyAfter", vec![("spec.copyAfter", json!("1m".repeat(17)))]),
        ("spec.copyAfter", vec![("spec.copyAfter", json!("100000s"))]),
        ("spec.exclude", vec![("spec.exclude", json!(""))]),
        ("spec.exclude", vec![("spec.exclude", long(1025))]),
        ("spec.minSegmentSize", vec![("spec.minSegmentSize", json!("5MB"))]),
        ("spec.minSegmentSize", vec![("spec.minSegmentSize", json!(-1))]),
        ("spec.minSegmentSize", vec![("spec.minSegmentSize", json!(true))]),
        ("spec.minSegmentSize", vec![("spec.minSegmentSize", json!("1m"))]),
        (
            "spec.deleteBudget.max",
            vec![("spec.deleteBudget", json!({"max": "5 %"}))],
        ),
        ("spec.deleteBudget.max", vec![("spec.deleteBudget", json!({}))]),
        (
            "spec.objective.ratio",
            vec![("spec.objective", json!({"ratio": "101%", "within": "1h"}))],
        ),
        (
            "spec.limits.requestsPerSecond",
            vec![("spec.limits", json!({"requestsPerSecond": 0}))],
        ),
        (
            "spec.limits.windows[0].days[0]",
            vec![(
                "spec.limits",
                json!({"windows": [
                    {"days": ["Monday"], "start": "20:00", "end": "06:00", "requestsPerSecond": 1},
                ]}),
            )],
        ),
        (
            "spec.limits.windows[0].start",
            vec![(
                "spec.limits",
                json!({"windows": [
                    {"start": "8pm", "end": "06:00", "requestsPerSecond": 1},
                ]}),
            )],
        ),
        (
            "spec.select.match.all",
            vec![("spec.select", json!({"match": {"all": []}}))],
        ),
        (
            "spec.select.match.all",
            vec![(
                "spec.select",
                json!({"match": {"all": vec![json!({"metadata": {"name": "a", "value": "b"}}); 17]}}),
            )],
        ),
        (
            "spec.select.match.not.not.metadata",
            vec![("spec.select", json!({"match": {"not": {"not": {}}}}))],
        ),
        // Form and rule together: a wrong value does not keep the rules from being checked, a wrong type does.
        (
            "spec.mode",
            vec![
                ("spec.mode", json!("sync")),
                ("spec.source.container", json!("a/b")),
            ],
        ),
        (
            "spec.suspend",
            vec![
                ("spec.suspend", json!(1)),
                ("spec.source.container", json!("a/b")),
            ],
        ),
    ]
}

/// Objects with fields that do not exist: strict decoding refuses them, whatever else is wrong.
fn with_unknown_fields() -> Vec<(&'static str, Changes)> {
    vec![
        ("spec.colour", vec![("spec.colour", json!("red"))]),
        (
            "spec.target.endPoint",
            vec![("spec.target.endPoint", json!("http://a"))],
        ),
        (
            "spec.select.match.any[0].none",
            vec![("spec.select", json!({"match": {"any": [{"none": 1}]}}))],
        ),
        ("metadata.nom", vec![("metadata.nom", json!("a"))]),
    ]
}

/// Changes of an existing policy: what it was, what is changed, and the field that is named; none = allowed.
fn updates() -> Vec<(Changes, Changes, Option<&'static str>)> {
    let mode = |mode: &str| vec![("spec.mode", json!(mode))];
    let archive = |more: &[(&'static str, Value)]| plus(mode("Archive"), more);
    let account = |account: &str| json!({"account": account});
    vec![
        (mode("Sync"), mode("Archive"), Some("spec.mode")),
        (
            vec![],
            vec![("spec.source.container", json!("other"))],
            Some("spec.source"),
        ),
        (
            vec![],
            vec![("spec.source.account", json!("other"))],
            Some("spec.source"),
        ),
        (vec![], swift(), Some("spec.target.protocol")),
        (vec![], vec![("spec.target.bucket", json!("other"))], None),
        (vec![], vec![("spec.target.prefix", json!("other"))], None),
        (vec![], vec![("spec.copyAfter", json!("1h"))], None),
        (vec![], vec![("spec.suspend", json!(true))], None),
        (
            archive(&[]),
            vec![("spec.target.bucket", json!("other"))],
            Some("spec.target.bucket"),
        ),
        (
            archive(&[]),
            vec![("spec.target.prefix", json!("p"))],
            Some("spec.target.prefix"),
        ),
        (
            archive(&[("spec.target.prefix", json!("p"))]),
            vec![("spec.target.prefix", json!("q"))],
            Some("spec.target.prefix"),
        ),
        (
            archive(&[("spec.target.prefix", json!("p"))]),
            vec![("spec.target.prefix", Value::Null)],
            Some("spec.target.prefix"),
        ),
        (
            archive(&[("spec.target.prefix", json!("p"))]),
            vec![("spec.exclude", json!("e"))],
            None,
        ),
        (
            archive(&[]),
            vec![("spec.target.region", json!("eu-west-1"))],
            None,
        ),
        (
            archive(&swift()),
            vec![("spec.target.swift", account("AUTH_x"))],
            Some("spec.target.swift"),
        ),
        (
            archive(&plus(swift(), &[("spec.target.swift", account("AUTH_x"))])),
            vec![("spec.target.swift", account("AUTH_y"))],
            Some("spec.target.swift"),
        ),
        (
            archive(&plus(swift(), &[("spec.target.swift", account("AUTH_x"))])),
            vec![("spec.target.swift", Value::Null)],
            Some("spec.target.swift"),
        ),
        (
            archive(&swift()),
            vec![("spec.target.swift", json!({"storagePolicy": "gold"}))],
            None,
        ),
    ]
}

/// The messages of all CEL rules of the schema.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.insert(rule["message"].as_str().unwrap().to_owned());
    }
    for property in schema["properties"].as_object().into_iter().flatten() {
        rules(property.1, found);
    }
    if let Some(items) = schema.get("items") {
        rules(items, found);
    }
}

/// Field and message of everything that the API server names.
fn causes(status: &Status) -> Vec<(String, String)> {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.clone())
        .unwrap_or_default();
    causes
        .into_iter()
        .map(|cause| (cause.field, cause.message))
        .collect()
}

/// Asserts that both say the same, and returns the messages of rules that were broken.
fn same(
    context: &str,
    online: &Status,
    offline: &[Finding],
    all_rules: &BTreeSet<String>,
) -> BTreeSet<String> {
    // The API server adds that it evaluated no rules; it says so of no field.
    let online: BTreeSet<(String, String)> = causes(online)
        .into_iter()
        .filter(|(_, message)| !message.contains("validation rules were not checked"))
        .collect();
    let rule_of = |message: &str| {
        all_rules
            .iter()
            .find(|rule| message.ends_with(rule.as_str()))
            .cloned()
    };

    let fields = |findings: BTreeSet<&str>| findings.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let online_fields = fields(online.iter().map(|(field, _)| field.as_str()).collect());
    let offline_fields = fields(offline.iter().map(|finding| finding.path.as_str()).collect());
    assert_eq!(
        online_fields, offline_fields,
        "{context}: {online:?}\n{offline:?}"
    );

    let online_rules: BTreeSet<(String, String)> = online
        .iter()
        .filter_map(|(field, message)| Some((field.clone(), rule_of(message)?)))
        .collect();
    let offline_rules: BTreeSet<(String, String)> = offline
        .iter()
        .filter(|finding| all_rules.contains(&finding.message))
        .map(|finding| (finding.path.clone(), finding.message.clone()))
        .collect();
    assert_eq!(online_rules, offline_rules, "{context}");
    offline_rules.into_iter().map(|(_, message)| message).collect()
}

#[tokio::test]
async fn the_api_server_and_the_command_line_give_the_same_verdict() {
    let kubernetes = Kubernetes::start().await.unwrap();
    let crd: Value = serde_yaml::from_str(include_str!("../../crds/syncpolicies.onespace.dev.yaml")).unwrap();
    kubernetes.install_crd(&crd).await.unwrap();
    let admission = Admission::new().unwrap();
    let mut all_rules = BTreeSet::new();
    rules(&onespace_crds::sync_policy_schema().unwrap(), &mut all_rules);
    let mut broken = BTreeSet::new();

    // Every example is accepted by both.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let examples = input::read(&[examples]).unwrap();
    assert!(!examples.policies.is_empty());
    for ((namespace, name), object) in &examples.policies {
        let namespaces = "/api/v1/namespaces";
        // It may be there from the example before.
        let _ = kubernetes
            .send(
                Method::POST,
                namespaces,
                Some(&json!({"metadata": {"name": namespace}})),
            )
            .await
            .unwrap();
        let path = format!("/apis/onespace.dev/v1alpha1/namespaces/{namespace}/syncpolicies");
        kubernetes.create(&path, &object.value).await.unwrap();
        assert!(admission.decode(&object.value, None).is_ok(), "{name}");
    }

    // So is the smallest policy.
    assert!(admission.decode(&policy(&[]), None).is_ok());
    kubernetes
        .create(POLICIES, &policy(&[("metadata.name", json!("smallest"))]))
        .await
        .unwrap();

    for (field, changes) in against_rules().into_iter().chain(against_schema()) {
        let policy = policy(&changes);
        let online = kubernetes
            .send(Method::POST, POLICIES, Some(&policy))
            .await
            .unwrap();
        let offline = admission.decode(&policy, None);
        let context = format!("{changes:?}");
        let (Err(online), Err(offline)) = (online, offline) else {
            panic!("{context}: accepted by one of them")
        };
        assert!(
            offline.iter().any(|finding| finding.path == field),
            "{context}: {offline:?}"
        );
        broken.extend(same(&context, &online, &offline, &all_rules));
    }

    for (field, changes) in with_unknown_fields() {
        let policy = policy(&changes);
        let online = kubernetes
            .send(Method::POST, POLICIES, Some(&policy))
            .await
            .unwrap()
            .unwrap_err();
        assert!(
            online.message.contains(&format!("unknown field \"{field}\"")),
            "{}",
            online.message
        );
        let offline = admission.decode(&policy, None).unwrap_err();
        assert!(
            offline
                .iter()
                .any(|finding| finding.path == field && finding.message == "unknown field"),
            "{offline:?}"
        );
    }

    for (number, (before, changes, field)) in updates().into_iter().enumerate() {
        let name = format!("update-{number}");
        let before = policy(&plus(before, &[("metadata.name", json!(name))]));
        let old = kubernetes.create(POLICIES, &before).await.unwrap();
        let mut new = old.clone();
        change(&mut new, &changes);
        let online = kubernetes
            .send(Method::PUT, &format!("{POLICIES}/{name}"), Some(&new))
            .await
            .unwrap();
        let offline = admission.decode(&new, Some(&old));
        match (online, offline, field) {
            (Ok(_), Ok(_), None) => {}
            (Err(online), Err(offline), Some(field)) => {
                assert!(
                    offline.iter().any(|finding| finding.path == field),
                    "{changes:?}: {offline:?}"
                );
                broken.extend(same(&format!("{changes:?}"), &online, &offline, &all_rules));
            }
            (online, offline, _) => panic!("{changes:?}: {online:?} {offline:?}"),
        }
    }

    // A rule that no object here breaks may just as well not be there.
    let untested: Vec<_> = all_rules.difference(&broken).collect();
    assert!(untested.is_empty(), "{untested:#?}");
}

#[tokio::test]
async fn status_is_written_apart_and_shown_in_columns() {
    let kubernetes = Kubernetes::start().await.unwrap();
    let crd = serde_json::to_value(onespace_crds::sync_policy_crd().unwrap()).unwrap();
    kubernetes.install_crd(&crd).await.unwrap();
    kubernetes.create(POLICIES, &policy(&[])).await.unwrap();

    let mut seen = kubernetes
        .send(Method::GET, &format!("{POLICIES}/case"), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        seen["status"],
        json!({"observedGeneration": -1}),
        "no operator has seen it yet"
    );
    assert_eq!(seen["spec"], policy(&[])["spec"], "nothing is written into spec");
    seen["status"] = json!({
        "observedGeneration": 1,
        "source": "AUTH_test/photos",
        "target": "s3://backup",
        "progress": {"asOf": "2026-01-01T00:00:00Z", "pending": 3, "oldestPending": "2026-01-01T00:00:00Z"},
        "failed": {"count": 1, "latest": [
            {"object": "a", "reason": "TooLarge", "attempts": 2, "since": "2026-01-01T00:00:00Z"},
        ]},
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Running", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let put = kubernetes
        .send(Method::PUT, &format!("{POLICIES}/case/status"), Some(&seen))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(put["status"]["conditions"][0]["reason"], "Running");

    let columns: Vec<_> = crd["spec"]["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        columns,
        [
            "Mode", "Source", "Target", "Ready", "Lag", "Pending", "Failed", "Age"
        ]
    );
}
