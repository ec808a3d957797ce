//! What policies refer to, at an API server that does not hand it out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use onespace_core::admit::Admitted;
use onespace_core::load::Files;
use onespace_core::mapping::MappingState;
use onespace_core::reason::PolicyFault;
use onespace_core::shard::fold;
use onespace_operator::decide::{decide, wanted};
use onespace_operator::fetch::References;
use onespace_operator::published::Names;
use onespace_operator::seen::{Event, Scopes, Seen, read_policy};
use onespace_operator::table::Change;
use serde_json::{Value, json};

mod api_server;
use api_server::{Server, answer, api_server, refusal};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";

fn key(name: &str) -> (String, String) {
    ("swift".to_owned(), name.to_owned())
}

fn scope() -> Option<String> {
    Some("swift".to_owned())
}

fn nothing_seen() -> Seen {
    let namespace = "swift".to_owned();
    Seen::new(&Scopes::new("swift", &[]), Names { namespace })
}

/// A policy that names the Secret `keys` and the ConfigMap `ca`.
fn put_policy(seen: &mut Seen, generation: i64) {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift", "uid": "uid-1", "generation": generation},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "prefix": "p",
                "credentials": {"secretRef": {"name": "keys"}},
                "caBundle": {"configMapRef": {"name": "ca", "key": "ca.crt"}}}},
    });
    let policy = Box::new(read_policy(serde_json::from_value(policy).unwrap()));
    seen.take(Event::Policy(scope(), Change::Put(key("photos"), policy)));
}

/// The watches show these versions.
fn put_versions(seen: &mut Seen, version: &str) {
    let change = |name: &str| Change::Put(key(name), version.to_owned());
    seen.take(Event::Secret(scope(), change("keys")));
    seen.take(Event::ConfigMap(scope(), change("ca")));
}

fn secret(password: &str) -> (u16, Value) {
    let secret = json!({"stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": password}});
    (200, secret)
}

fn config_map() -> (u16, Value) {
    (200, json!({"data": {"ca.crt": PEM}}))
}

/// Gets both, which are answered like this, and decides.
async fn decided(
    seen: &Seen,
    references: &mut References,
    files: &Files,
    answers: [(u16, Value); 2],
) -> Admitted {
    let (client, mut server) = api_server();
    let wanted = wanted(seen);
    let refresh = references.refresh(&client, &wanted, &seen.secrets, &seen.config_maps);
    let [secret, config_map] = answers;
    let failed = [&secret, &config_map]
        .iter()
        .filter(|(status, _)| ![200, 404].contains(status))
        .count();
    let serve = async {
        serve(&mut server, "secrets/keys", secret).await;
        serve(&mut server, "configmaps/ca", config_map).await;
    };
    let (failures, ()) = tokio::join!(refresh, serve);
    assert_eq!(failures, failed);
    decide(seen, references, files)
}

async fn serve(server: &mut Server, path: &str, (status, body): (u16, Value)) {
    let (_, asked, _) = answer(server, status, &body).await;
    assert!(asked.ends_with(path), "{asked}");
}

fn refused(status: u16) -> (u16, Value) {
    (status, refusal(status))
}

fn files_of(admitted: &Admitted) -> Files {
    fold(&admitted.mappings, &admitted.credentials, &Files::default(), "1").unwrap()
}

fn reasons(findings: &BTreeMap<(String, String), Vec<onespace_core::validate::Finding>>) -> Vec<PolicyFault> {
    let findings = findings.values().flatten();
    findings.map(|finding| finding.reason).collect()
}

const BOTH: [PolicyFault; 2] = [PolicyFault::ConfigMapUnavailable, PolicyFault::SecretUnavailable];

fn sorted(mut reasons: Vec<PolicyFault>) -> Vec<PolicyFault> {
    reasons.sort_by_key(|reason| reason.as_str());
    reasons
}

#[tokio::test]
async fn what_ran_before_the_operator_started_anew_runs_on_though_nothing_can_be_got() {
    let mut seen = nothing_seen();
    put_policy(&mut seen, 1);
    put_versions(&mut seen, "1");
    let whole = decided(
        &seen,
        &mut References::default(),
        &Files::default(),
        [secret("hush"), config_map()],
    )
    .await;
    assert!(whole.lacking.is_empty() && whole.outdated.is_empty());
    let files = files_of(&whole);

    let mut references = References::default();
    let kept = decided(&seen, &mut references, &files, [refused(500), refused(403)]).await;
    assert_eq!(kept.mappings, whole.mappings);
    assert!(files_of(&kept) == files, "not a byte of what agents have changes");
    assert!(kept.lacking.is_empty());
    assert_eq!(sorted(reasons(&kept.outdated)), BOTH);

    // Of another generation nobody knows whether these certificates are meant.
    put_policy(&mut seen, 2);
    let changed = decided(&seen, &mut references, &files, [refused(500), refused(403)]).await;
    assert_eq!(changed.mappings[0].state, MappingState::Suspended);
    assert_eq!(changed.mappings[0].target.ca_bundle, None);
    assert_eq!(reasons(&changed.lacking), [PolicyFault::ConfigMapUnavailable]);
    assert_eq!(reasons(&changed.outdated), [PolicyFault::SecretUnavailable]);
    let message = &changed.lacking.values().next().unwrap()[0].message;
    assert!(
        message.contains("could not be got") && !message.contains("create it"),
        "{message}"
    );
}

#[tokio::test]
async fn what_cannot_be_got_and_never_was_does_not_run_and_is_not_called_absent() {
    let mut seen = nothing_seen();
    put_policy(&mut seen, 1);
    put_versions(&mut seen, "1");
    let mut references = References::default();
    let none = Files::default();
    let admitted = decided(&seen, &mut references, &none, [refused(500), refused(403)]).await;
    assert_eq!(sorted(reasons(&admitted.lacking)), BOTH);
    assert!(admitted.credentials.is_empty());
    assert_eq!(admitted.mappings[0].state, MappingState::Suspended);
    // Absent is another matter.
    let admitted = decided(&seen, &mut references, &none, [refused(404), refused(404)]).await;
    assert_eq!(
        sorted(reasons(&admitted.lacking)),
        BOTH,
        "a watch still shows them"
    );
    let (secrets, config_maps) = (Change::Gone(key("keys")), Change::Gone(key("ca")));
    seen.take(Event::Secret(scope(), secrets));
    seen.take(Event::ConfigMap(scope(), config_maps));
    let admitted = decided(&seen, &mut references, &none, [refused(404), refused(404)]).await;
    assert_eq!(
        sorted(reasons(&admitted.lacking)),
        [PolicyFault::ConfigMapNotFound, PolicyFault::SecretNotFound]
    );
}

#[tokio::test]
async fn a_change_that_cannot_be_got_is_told_and_what_was_known_stays() {
    let mut seen = nothing_seen();
    put_policy(&mut seen, 1);
    put_versions(&mut seen, "1");
    let mut references = References::default();
    let none = Files::default();
    let first = decided(&seen, &mut references, &none, [secret("first"), config_map()]).await;
    put_versions(&mut seen, "2");
    let stale = decided(&seen, &mut references, &none, [refused(500), refused(500)]).await;
    assert!(files_of(&stale) == files_of(&first));
    assert!(stale.lacking.is_empty());
    assert_eq!(sorted(reasons(&stale.outdated)), BOTH);
    let second = decided(&seen, &mut references, &none, [secret("second"), config_map()]).await;
    assert!(second.outdated.is_empty());
    assert!(files_of(&second) != files_of(&first));
}
