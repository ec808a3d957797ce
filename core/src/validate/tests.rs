use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::budget::{BudgetMax, DeleteBudget};
use crate::mapping::Mapping;
use crate::select::{Match, Select};

fn base() -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift"},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": "photos"},
            "target": {
                "protocol": "S3", "endpoint": "http://s3.example.com:9000", "bucket": "backup",
                "credentials": {"secretRef": {"name": "keys"}},
            },
        },
    })
}

/// The base policy with changes: JSON pointers below `spec`, `null` removes.
fn with(changes: &[(&str, Value)]) -> SyncPolicy {
    let mut policy = base();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = policy["spec"]
            .pointer_mut(parent)
            .unwrap()
            .as_object_mut()
            .unwrap();
        if value.is_null() {
            parent.remove(field);
        } else {
            parent.insert(field.to_owned(), value.clone());
        }
    }
    serde_json::from_value(policy).unwrap()
}

fn valid(changes: &[(&str, Value)]) -> Mapping {
    Arc::unwrap_or_clone(validate(&with(changes)).unwrap().mapping)
}

fn findings(changes: &[(&str, Value)]) -> Vec<(String, PolicyFault)> {
    let findings = validate(&with(changes)).unwrap_err();
    findings
        .into_iter()
        .map(|finding| (finding.path, finding.reason))
        .collect()
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let mapping = valid(&[]);
    assert_eq!(
        mapping.policy,
        PolicyRef {
            namespace: "swift".into(),
            name: "photos".into(),
            generation: 1
        }
    );
    assert_eq!(mapping.state, MappingState::Active);
    assert_eq!(mapping.requires, ["sync"]);
    assert_eq!(mapping.target.region, "us-east-1");
    assert_eq!(mapping.target.prefix, None);
    assert_eq!(mapping.target.encryption, Encryption::None);
    assert_eq!(
        (mapping.target.path_style, mapping.target.request_checksums),
        (None, None)
    );
    assert_eq!(mapping.copy_after, 0);
    assert!(mapping.propagate_delete && mapping.retain_local_segments);
    assert_eq!(mapping.min_segment_size, 5 << 20);
    assert_eq!((mapping.exclude, mapping.select), (None, None));
}

#[test]
fn at_aws_copies_are_encrypted_unless_the_policy_says_otherwise() {
    assert_eq!(
        valid(&[("/target/endpoint", Value::Null)]).target.encryption,
        Encryption::AES256
    );
    let none = [
        ("/target/endpoint", Value::Null),
        ("/target/encryption", json!({"type": "None"})),
    ];
    assert_eq!(valid(&none).target.encryption, Encryption::None);
}

#[test]
fn every_supported_option_reaches_the_mapping() {
    let mapping = valid(&[
        ("/suspend", json!(true)),
        ("/target/region", json!("eu-west-1")),
        ("/target/prefix", json!("/pre/fix/")),
        ("/target/pathStyle", json!("Never")),
        ("/target/requestChecksums", json!("Always")),
        ("/target/encryption", json!({"type": "KMS", "kmsKeyID": "k"})),
        ("/target/storageClass", json!("STANDARD_IA")),
        ("/copyAfter", json!("1h30m")),
        ("/retainLocalSegments", json!(false)),
        ("/propagateDelete", json!(false)),
        ("/exclude", json!("tmp/")),
        ("/minSegmentSize", json!("8Mi")),
        (
            "/select",
            json!({"prefix": "2024/", "minSize": "1Mi", "maxSize": 100, "match": {"any": [
                {"metadata": {"name": "Keep", "value": "yes"}},
                {"not": {"metadata": {"name": "Tmp", "value": "1"}}},
            ]}}),
        ),
    ]);
    assert_eq!(mapping.state, MappingState::Suspended);
    assert_eq!(mapping.requires, ["sync", "select", "exclude", "copy-after"]);
    assert_eq!(mapping.target.region, "eu-west-1");
    assert_eq!(mapping.target.prefix.as_deref(), Some("pre/fix"));
    assert_eq!(
        (mapping.target.path_style, mapping.target.request_checksums),
        (Some(false), Some(true))
    );
    assert_eq!(
        mapping.target.encryption,
        Encryption::KMS {
            kms_key_id: Some("k".into())
        }
    );
    assert_eq!(mapping.target.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(mapping.copy_after, 5400);
    assert!(!mapping.propagate_delete && !mapping.retain_local_segments);
    assert_eq!(mapping.exclude.as_deref(), Some("tmp/"));
    assert_eq!(mapping.min_segment_size, 8 << 20);
    let leaf = |name: &str, value: &str| Match::Metadata {
        name: name.into(),
        value: value.into(),
    };
    let select = Select {
        prefix: Some("2024/".into()),
        min_size: Some(1 << 20),
        max_size: Some(100),
        matcher: Some(Match::Any(vec![
            leaf("Keep", "yes"),
            Match::Not(Box::new(leaf("Tmp", "1"))),
        ])),
    };
    assert_eq!(mapping.select, Some(select));
}

#[test]
fn an_empty_prefix_is_not_the_same_as_none() {
    assert_eq!(
        valid(&[("/target/prefix", json!(""))]).target.prefix.as_deref(),
        Some("")
    );
    assert_eq!(
        valid(&[("/target/prefix", json!("/"))]).target.prefix.as_deref(),
        Some("")
    );
    assert_eq!(valid(&[]).target.prefix, None);
}

#[test]
fn what_is_not_done_yet_is_refused_by_name_and_never_ignored() {
    let duration = json!("1h");
    for (pointer, value) in [
        ("/mode", json!("Archive")),
        ("/mode", json!("Migrate")),
        ("/target/protocol", json!("Swift")),
        ("/target/swift", json!({"account": "AUTH_x"})),
        ("/propagateExpiration", json!(true)),
        ("/expirationOffset", duration.clone()),
        ("/remoteDeleteAfter", duration.clone()),
        ("/segmentsDeleteAfterAddition", duration.clone()),
        ("/containerMetadata", json!(true)),
        ("/containerAcl", json!(true)),
        ("/convertDlo", json!(true)),
        ("/shunt", json!({"merge": true})),
        ("/shunt", json!({"restore": true})),
        ("/shunt", json!({"onRemoteUnavailable": "Fail"})),
        ("/migrate", json!({})),
    ] {
        let path = format!("spec{}", pointer.replace('/', "."));
        assert_eq!(
            findings(&[(pointer, value)]),
            [(path, PolicyFault::NotYetSupported)]
        );
    }
    let ambient = findings(&[("/target/credentials", json!({"ambient": {}}))]);
    assert_eq!(
        ambient,
        [(
            "spec.target.credentials.ambient".to_owned(),
            PolicyFault::NotYetSupported
        )]
    );
}

#[test]
fn limits_are_taken_with_their_windows_and_refused_where_they_cannot_be_kept() {
    let night = json!({"days": ["Sat"], "start": "20:00", "end": "06:00", "timeZone": "Europe/Berlin", "bytesPerSecond": "500Mi"});
    let limits = json!({"bytesPerSecond": "50Mi", "requestsPerSecond": 200, "windows": [night]});
    let mapping = valid(&[("/limits", limits)]);
    assert!(mapping.requires.contains(&"limits".to_owned()));
    let limits = mapping.limits.unwrap();
    assert_eq!(limits.bytes_per_second, Some(50 << 20));
    assert_eq!(limits.windows[0].bytes_per_second, Some(500 << 20));
    assert_eq!(limits.windows[0].time_zone, "Europe/Berlin");
    // Rates do not tell what is remote: a change of them starts nothing over.
    assert_eq!(mapping.starts_over, valid(&[]).starts_over);
    for (limits, path) in [
        (json!({"bytesPerSecond": "1k"}), "spec.limits.bytesPerSecond"),
        (
            json!({"windows": [{"start": "20:00", "end": "06:00", "timeZone": "Europe/Atlantis", "requestsPerSecond": 1}]}),
            "spec.limits.windows[0].timeZone",
        ),
    ] {
        assert_eq!(
            findings(&[("/limits", limits)]),
            [(path.to_owned(), PolicyFault::Invalid)]
        );
    }
}

#[test]
fn an_objective_is_taken_over_a_day_unless_said_otherwise_and_refused_where_it_means_nothing() {
    let mapping = valid(&[("/objective", json!({"ratio": "99.9%", "within": "10m"}))]);
    assert!(mapping.requires.contains(&"objective".to_owned()));
    let objective = mapping.objective.unwrap();
    assert_eq!((objective.within, objective.over), (600, 86_400));
    assert_eq!(String::from(objective.ratio), "99.9%");
    // What is remote does not follow from it: a change of it starts nothing over.
    assert_eq!(mapping.starts_over, valid(&[]).starts_over);
    for (objective, path) in [
        (json!({"ratio": "99%", "within": "0s"}), "spec.objective.within"),
        (json!({"ratio": "99%", "within": "24h"}), "spec.objective.over"),
        (
            json!({"ratio": "99%", "within": "1h", "over": "1h"}),
            "spec.objective.over",
        ),
        (json!({"ratio": "99", "within": "1h"}), "spec.objective.ratio"),
    ] {
        assert_eq!(
            findings(&[("/objective", objective)]),
            [(path.to_owned(), PolicyFault::Invalid)]
        );
    }
}

#[test]
fn a_delete_budget_is_a_number_or_a_share_within_an_hour_unless_a_window_is_given() {
    let budget = |value| valid(&[("/deleteBudget", value)]).delete_budget.unwrap();
    let of = |max, window| DeleteBudget { max, window };
    assert_eq!(budget(json!({"max": 100})), of(BudgetMax::Rows(100), 3600));
    assert_eq!(
        budget(json!({"max": "0.5%", "window": "1d"})),
        of(BudgetMax::Share(500), 86400)
    );
    assert_eq!(valid(&[]).delete_budget, None);
    assert!(
        valid(&[("/deleteBudget", json!({"max": 1}))])
            .requires
            .contains(&"delete-budget".to_owned()),
        "an agent that knows no budgets must not run it"
    );
    assert_eq!(
        findings(&[("/deleteBudget", json!({"max": 1, "window": "0s"}))]),
        [("spec.deleteBudget.window".to_owned(), PolicyFault::Invalid)]
    );
}

#[test]
fn saying_no_to_an_option_is_always_possible() {
    let no = json!(false);
    valid(&[
        ("/propagateExpiration", no.clone()),
        ("/containerMetadata", no.clone()),
        ("/containerAcl", no.clone()),
        ("/convertDlo", no.clone()),
        ("/shunt", json!({"merge": false, "restore": false})),
        ("/suspend", no),
    ]);
}

#[test]
fn all_faults_are_told_at_once() {
    let found = findings(&[
        ("/exclude", json!("(")),
        ("/target/endpoint", json!("http://a:99999")),
        ("/containerAcl", json!(true)),
    ]);
    let reasons: Vec<_> = found.into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(
        reasons,
        [
            PolicyFault::NotYetSupported,
            PolicyFault::InvalidPattern,
            PolicyFault::InvalidEndpoint
        ]
    );
}

#[test]
fn triggers_are_annotations() {
    let mut policy = with(&[]);
    let annotate = |policy: &mut SyncPolicy, token: &str| {
        policy.metadata.annotations = Some(
            [
                (RETRY.to_owned(), token.to_owned()),
                (RELEASE_DELETES.to_owned(), String::new()),
            ]
            .into(),
        );
    };
    annotate(&mut policy, "monday");
    let triggers = validate(&policy).unwrap().mapping.triggers.clone();
    assert_eq!(
        triggers,
        Triggers {
            retry: Some("monday".into()),
            release_deletes: None
        }
    );
    annotate(&mut policy, &"x".repeat(257));
    assert_eq!(validate(&policy).unwrap_err()[0].reason, PolicyFault::Invalid);
}

#[test]
fn an_account_wide_policy_with_a_prefix_never_becomes_a_mapping() {
    let found = findings(&[("/source/container", json!("/*")), ("/target/prefix", json!("p"))]);
    assert_eq!(found, [("spec.target.prefix".to_owned(), PolicyFault::Invalid)]);
}

#[test]
fn identity_is_source_and_target_alone() {
    let id = valid(&[]).id;
    assert_eq!(id.0.len(), 32);
    let mut renamed = with(&[]);
    renamed.metadata.name = Some("other".into());
    renamed.metadata.namespace = None;
    assert_eq!(validate(&renamed).unwrap().mapping.id, id);
    for (pointer, value) in [
        ("/target/region", json!("eu-west-1")),
        ("/target/credentials", json!({"secretRef": {"name": "others"}})),
        ("/target/endpoint", json!("http://S3.example.com:9000/")),
        ("/target/pathStyle", json!("Always")),
        ("/exclude", json!("a")),
    ] {
        assert_eq!(valid(&[(pointer, value)]).id, id, "{pointer}");
    }
    for (pointer, value) in [
        ("/source/account", json!("AUTH_other")),
        ("/source/container", json!("other")),
        ("/target/endpoint", json!("http://s3.example.com:9001")),
        ("/target/endpoint", Value::Null),
        ("/target/bucket", json!("other")),
        ("/target/prefix", json!("")),
        ("/target/prefix", json!("p")),
    ] {
        assert_ne!(valid(&[(pointer, value)]).id, id, "{pointer}");
    }
}

#[test]
fn a_mapping_starts_over_when_what_it_copies_changes_and_else_not() {
    let digest = valid(&[]).starts_over;
    for (pointer, value) in [
        ("/target/bucket", json!("other")),
        ("/target/prefix", json!("p")),
        ("/exclude", json!("a")),
        ("/select", json!({"minSize": 1})),
        ("/copyAfter", json!("1s")),
        ("/retainLocalSegments", json!(false)),
        ("/propagateDelete", json!(false)),
    ] {
        assert_ne!(valid(&[(pointer, value)]).starts_over, digest, "{pointer}");
    }
    for (pointer, value) in [
        ("/suspend", json!(true)),
        ("/copyAfter", json!("0m")),
        ("/propagateDelete", json!(true)),
        ("/target/credentials", json!({"secretRef": {"name": "others"}})),
        ("/target/storageClass", json!("GLACIER_IR")),
        ("/target/encryption", json!({"type": "AES256"})),
    ] {
        assert_eq!(valid(&[(pointer, value)]).starts_over, digest, "{pointer}");
    }
}

// Conflicts.

fn candidate(name: &str, changes: &[(&str, Value)]) -> Candidate {
    let mut policy = with(changes);
    policy.metadata.name = Some(name.to_owned());
    Candidate {
        policy: validate(&policy).unwrap(),
        incumbent: false,
        created: None,
    }
}

fn clash(one: &[(&str, Value)], other: &[(&str, Value)]) -> Option<Clash> {
    let there = settle(vec![candidate("a", one), candidate("b", other)]).1;
    let back = settle(vec![candidate("b", other), candidate("a", one)]).1;
    assert_eq!(there, back, "the order of the input does not count");
    there.first().map(|conflict| conflict.clash)
}

fn prefix(prefix: &str) -> Vec<(&'static str, Value)> {
    vec![("/target/prefix", json!(prefix))]
}

fn container(name: &str) -> Vec<(&'static str, Value)> {
    vec![("/source/container", json!(name))]
}

#[test]
fn several_policies_on_one_container_are_legal() {
    assert_eq!(clash(&prefix("a"), &prefix("b")), None);
    assert_eq!(clash(&[], &prefix("b")), None);
    assert_eq!(clash(&[], &[("/target/bucket", json!("other"))]), None);
}

#[test]
fn equal_and_nested_keys_in_one_bucket_clash() {
    assert_eq!(clash(&[], &[]), Some(Clash::Same));
    assert_eq!(
        clash(
            &prefix("a"),
            &[
                ("/target/prefix", json!("/a/")),
                ("/source/container", json!("c"))
            ]
        ),
        Some(Clash::Keys)
    );
    assert_eq!(clash(&prefix("a"), &prefix("a/b")), Some(Clash::Keys));
    assert_eq!(clash(&prefix("a"), &prefix("ab")), None);
    assert_eq!(clash(&prefix(""), &prefix("a")), Some(Clash::Keys));
    assert_eq!(clash(&prefix(""), &[]), Some(Clash::Keys));
    // The hash of AUTH_test/plain is 19dae2.
    assert_eq!(clash(&container("plain"), &prefix("19dae2")), Some(Clash::Keys));
    assert_eq!(
        clash(&container("plain"), &prefix("19dae2/AUTH_test/plain/x")),
        Some(Clash::Keys)
    );
    assert_eq!(
        clash(&container("plain"), &prefix("19dae2/.manifests/AUTH_test")),
        Some(Clash::Keys)
    );
    assert_eq!(
        clash(&container("plain"), &prefix("19dae2/AUTH_test/plainer")),
        None
    );
}

#[test]
fn the_same_bucket_name_at_another_remote_is_another_bucket() {
    let other = [
        ("/target/prefix", json!("a")),
        ("/target/endpoint", json!("http://s3.example.com:9001")),
    ];
    assert_eq!(clash(&prefix("a"), &other), None);
    let same = [
        ("/target/prefix", json!("a/b")),
        ("/target/endpoint", json!("http://S3.EXAMPLE.com:9000/")),
    ];
    assert_eq!(clash(&prefix("a"), &same), Some(Clash::Keys));
}

#[test]
fn a_bucket_of_aws_is_the_same_by_each_of_its_names() {
    let by = |endpoint: &str| {
        [
            ("/target/prefix", json!("a/b")),
            ("/target/endpoint", json!(endpoint)),
        ]
    };
    let at_aws = [("/target/prefix", json!("a")), ("/target/endpoint", Value::Null)];
    for (endpoint, expected) in [
        ("https://s3.eu-west-1.amazonaws.com", Some(Clash::Keys)),
        ("https://s3.dualstack.us-east-1.amazonaws.com/", Some(Clash::Keys)),
        ("https://s3.cn-north-1.amazonaws.com.cn", None),
        ("https://s3.example.com", None),
    ] {
        assert_eq!(clash(&at_aws, &by(endpoint)), expected, "{endpoint}");
    }
    let china = "https://s3.cn-north-1.amazonaws.com.cn";
    assert_eq!(
        clash(&by(china), &by("https://s3.cn-northwest-1.amazonaws.com.cn")),
        Some(Clash::Keys)
    );
}

#[test]
fn a_container_with_a_policy_of_its_own_goes_beside_its_account_wide_one() {
    assert_eq!(clash(&container("/*"), &container("one")), None);
    assert_eq!(clash(&container("/*"), &prefix("mine")), None);
    assert_eq!(clash(&container("/*"), &container("/*")), Some(Clash::Same));
    // But not with keys that are those of another container.
    assert_eq!(clash(&container("/*"), &prefix("abc")), Some(Clash::Keys));
    assert_eq!(
        clash(&container("/*"), &prefix("abc/AUTH_test")),
        Some(Clash::Keys)
    );
    assert_eq!(
        clash(&container("/*"), &prefix("abc/.manifests")),
        Some(Clash::Keys)
    );
    assert_eq!(clash(&container("/*"), &prefix("abc/AUTH_other")), None);
    assert_eq!(clash(&container("/*"), &prefix("0abc/AUTH_test")), None);
    let other_account = [
        ("/source/account", json!("AUTH_2")),
        ("/source/container", json!("/*")),
    ];
    assert_eq!(clash(&container("/*"), &other_account), None);
}

#[test]
fn two_policies_that_release_or_fill_one_container_clash() {
    let archive = |name: &str, bucket: &str, mode| {
        let mut candidate = candidate(name, &[("/target/bucket", json!(bucket))]);
        Arc::make_mut(&mut candidate.policy.mapping).mode = mode;
        candidate
    };
    for (one, other, clashes) in [
        (Mode::Archive, Mode::Archive, true),
        (Mode::Archive, Mode::Migrate, true),
        (Mode::Archive, Mode::Sync, false),
    ] {
        let conflicts = settle(vec![archive("a", "one", one), archive("b", "two", other)]).1;
        assert_eq!(!conflicts.is_empty(), clashes, "{one:?} {other:?}");
    }
}

#[test]
fn the_incumbent_wins_then_the_older_then_the_first_by_name() {
    let winner = |candidates: Vec<Candidate>| settle(candidates).0[0].mapping.policy.name.clone();
    let with = |name: &str, incumbent, created| Candidate {
        incumbent,
        created,
        ..candidate(name, &[])
    };
    assert_eq!(
        winner(vec![with("a", false, Some(1)), with("b", true, Some(2))]),
        "b"
    );
    assert_eq!(
        winner(vec![with("a", false, Some(2)), with("b", false, Some(1))]),
        "b"
    );
    assert_eq!(winner(vec![with("b", false, None), with("a", false, None)]), "a");
}

#[test]
fn a_loser_excludes_nobody() {
    // b loses against a; c clashes with b alone.
    let candidates = vec![
        candidate("a", &prefix("p")),
        candidate("b", &prefix("p/q/r")),
        candidate("c", &prefix("p2")),
    ];
    let (accepted, conflicts) = settle(candidates);
    assert_eq!(accepted.len(), 2);
    assert_eq!(conflicts.len(), 1);
    let candidates = vec![
        candidate("b", &prefix("q/r")),
        candidate("a", &prefix("q")),
        candidate("c", &prefix("q/r/s")),
    ];
    assert_eq!(settle(candidates).0.len(), 1);
}

#[test]
fn a_conflict_does_not_name_a_policy_of_another_namespace() {
    let mut other = candidate("a", &[]);
    Arc::make_mut(&mut other.policy.mapping).policy.namespace = "elsewhere".into();
    let conflicts = settle(vec![other, candidate("b", &[])]).1;
    assert!(!conflicts[0].message().contains("elsewhere"));
    let conflicts = settle(vec![candidate("a", &[]), candidate("b", &[])]).1;
    assert!(conflicts[0].message().contains("swift/a"));
}

proptest! {
    #[test]
    fn accepted_policies_never_write_each_others_keys(
        prefixes in proptest::collection::vec("[ab]?(/[ab]){0,2}", 1..8),
        containers in proptest::collection::vec("[xy]", 8),
    ) {
        let candidates = prefixes.iter().zip(&containers).enumerate().map(|(n, (prefix, container))| {
            candidate(&format!("p{n}"), &[("/target/prefix", json!(prefix)), ("/source/container", json!(container))])
        });
        let (accepted, conflicts) = settle(candidates.collect());
        prop_assert_eq!(accepted.len() + conflicts.len(), prefixes.len());
        let keys: Vec<String> = accepted.iter().map(|policy| {
            let prefix = policy.mapping.target.prefix.as_deref().unwrap();
            if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
        }).collect();
        for (i, one) in keys.iter().enumerate() {
            for other in &keys[i + 1..] {
                prop_assert!(!one.starts_with(other.as_str()) && !other.starts_with(one.as_str()), "{} {}", one, other);
            }
        }
    }
}

// References.

fn secret(data: &Value) -> SecretObject {
    serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": data}),
    )
    .unwrap()
}

fn secret_fault(data: &Value) -> String {
    let policy = validate(&with(&[])).unwrap();
    let findings = resolve(&policy, Some(&secret(data)), None).unwrap_err();
    assert_eq!(findings[0].reason, PolicyFault::SecretInvalid);
    findings[0].message.clone()
}

#[test]
fn keys_come_from_the_secret() {
    use secrecy::ExposeSecret;
    let policy = validate(&with(&[])).unwrap();
    let data: SecretObject = serde_json::from_value(json!({
        "data": {"AWS_ACCESS_KEY_ID": "QUtJQQ==", "AWS_SECRET_ACCESS_KEY": "bm90IHRoaXM="},
        "stringData": {"AWS_SECRET_ACCESS_KEY": "this", "AWS_SESSION_TOKEN": "token"},
    }))
    .unwrap();
    let (_, credentials) = resolve(&policy, Some(&data), None).unwrap();
    let keys = credentials.keys().unwrap();
    assert_eq!(keys.access_key_id, "AKIA");
    assert_eq!(keys.secret_access_key.expose_secret(), "this");
    assert_eq!(keys.session_token.as_ref().unwrap().expose_secret(), "token");
}

#[test]
fn a_secret_that_cannot_be_used_is_described_without_its_content() {
    let good = json!({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"});
    let change = |key: &str, value: Value| {
        let mut data = good.clone();
        data[key] = value;
        data
    };
    assert!(secret_fault(&json!({"AWS_ACCESS_KEY_ID": "AKIA"})).contains("AWS_SECRET_ACCESS_KEY"));
    for (key, value) in [
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_SECRET_ACCESS_KEY", "hush\n"),
        ("AWS_ACCESS_KEY_ID", "AK IA"),
        ("PROXY_USERNAME", "u"),
    ] {
        let message = secret_fault(&change(key, json!(value)));
        assert!(message.contains(key) && !message.contains("hush"), "{message}");
    }
    let policy = validate(&with(&[])).unwrap();
    assert_eq!(
        resolve(&policy, None, None).unwrap_err()[0].reason,
        PolicyFault::SecretNotFound
    );
    let garbled: SecretObject =
        serde_json::from_value(json!({"data": {"AWS_ACCESS_KEY_ID": "hush!"}})).unwrap();
    let findings = resolve(&policy, Some(&garbled), None).unwrap_err();
    assert!(findings[0].message.contains("base64") && !findings[0].message.contains("hush"));
}

#[test]
fn certificates_come_from_the_config_map() {
    let good = json!({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"});
    let bundle = [(
        "/target/caBundle",
        json!({"configMapRef": {"name": "ca", "key": "ca.crt"}}),
    )];
    let policy = validate(&with(&bundle)).unwrap();
    let resolved = |text: Option<&str>| {
        let data: BTreeMap<&str, &str> = text.map(|text| ("ca.crt", text)).into_iter().collect();
        let config_map: ConfigMapObject = serde_json::from_value(json!({"data": data})).unwrap();
        resolve(&policy, Some(&secret(&good)), Some(&config_map))
            .map(|(mapping, _)| mapping.target.ca_bundle.clone())
            .map_err(|findings| findings[0].reason)
    };
    let pem = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
    assert_eq!(resolved(Some(pem)), Ok(Some(pem.to_owned())));
    for text in [
        None,
        Some(""),
        Some("QUJD"),
        Some("-----BEGIN CERTIFICATE-----\nQUJD\n"),
    ] {
        assert_eq!(resolved(text), Err(PolicyFault::ConfigMapInvalid), "{text:?}");
    }
    let missing = resolve(&policy, Some(&secret(&good)), None).unwrap_err();
    assert_eq!(missing[0].reason, PolicyFault::ConfigMapNotFound);
}
