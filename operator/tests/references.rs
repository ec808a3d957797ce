//! What policies refer to, and policies themselves, at an API server that does not hand them out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use onespace_core::admit::{Admitted, Incumbents};
use onespace_core::grant::Grant;
use onespace_core::load::Files;
use onespace_core::mapping::MappingState;
use onespace_core::reason::PolicyFault;
use onespace_core::shard::fold;
use onespace_operator::decide::{decide, wanted};
use onespace_operator::fetch::References;
use onespace_operator::published::Names;
use onespace_operator::seen::{Event, Scopes, Seen, SeenPolicy, read_policy};
use onespace_operator::table::Change;
use serde_json::{Value, json};

mod answering;
mod api_server;
use answering::answer;
use api_server::{Server, api_server, refusal};

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
    decide_over(seen, references, files)
}

fn decide_over(seen: &Seen, references: &References, files: &Files) -> Admitted {
    decide(seen, references, files, &Incumbents::of(files))
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

/// A policy of any namespace, for a container of its own unless it says otherwise.
fn policy_of(namespace: &str, name: &str, prefix: &str) -> Box<SeenPolicy> {
    let policy = json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": name},
            "target": {"protocol": "S3", "bucket": "backup", "prefix": prefix,
                "credentials": {"secretRef": {"name": "keys"}}}},
    });
    Box::new(read_policy(serde_json::from_value(policy).unwrap()))
}

fn put(seen: &mut Seen, namespace: &str, name: &str, prefix: &str) {
    let key = (namespace.to_owned(), name.to_owned());
    let policy = policy_of(namespace, name, prefix);
    seen.take(Event::Policy(
        Some(namespace.to_owned()),
        Change::Put(key, policy),
    ));
}

fn grant(accounts: &str) -> Option<Grant> {
    let spec = json!({"namespaceSelector": {}, "accounts": [accounts]});
    Some(Grant::new(&serde_json::from_value(spec).unwrap()))
}

/// The namespace `tenant` is watched, too, and has a grant for accounts like this.
fn with_tenant(accounts: &str) -> Seen {
    let namespace = "swift".to_owned();
    let scopes = Scopes::new("swift", &["swift".to_owned(), "tenant".to_owned()]);
    let mut seen = Seen::new(&scopes, Names { namespace });
    let cluster = |name: &str| (String::new(), name.to_owned());
    for name in ["swift", "tenant"] {
        seen.take(Event::Namespace(
            None,
            Change::Put(cluster(name), BTreeMap::new()),
        ));
    }
    seen.take(Event::Grant(None, Change::Put(cluster("all"), grant(accounts))));
    seen
}

fn names_of(admitted: &Admitted) -> Vec<String> {
    let policies = admitted.mappings.iter().map(|mapping| &mapping.policy);
    let mut names: Vec<String> = policies
        .map(|policy| format!("{}/{}", policy.namespace, policy.name))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_agents_run_of_a_namespace_that_cannot_be_read_stays_as_it_is_while_the_others_go_on() {
    // Before: both namespaces are read.
    let mut seen = with_tenant("AUTH_*");
    put(&mut seen, "swift", "photos", "p");
    put(&mut seen, "tenant", "films", "f");
    let mut references = References::default();
    let (client, mut server) = api_server();
    let wanted_now = wanted(&seen);
    let refresh = references.refresh(&client, &wanted_now, &seen.secrets, &seen.config_maps);
    let (status, secret_object) = secret("hush");
    let answers = async {
        for _ in 0..2 {
            answer(&mut server, status, &secret_object).await;
        }
    };
    tokio::join!(refresh, answers);
    let before = decide_over(&seen, &references, &Files::default());
    assert_eq!(names_of(&before), ["swift/photos", "tenant/films"]);
    let files = files_of(&before);

    // An operator that starts anew, and is not shown anything of the tenant.
    let tenant = Some("tenant".to_owned());
    let refused = |seen: &mut Seen| {
        seen.take(Event::Policy(tenant.clone(), Change::Refused));
        seen.take(Event::Secret(tenant.clone(), Change::Refused));
        seen.take(Event::ConfigMap(tenant.clone(), Change::Refused));
    };
    let mut seen = with_tenant("AUTH_*");
    refused(&mut seen);
    put(&mut seen, "swift", "photos", "p");
    let same = decide_over(&seen, &references, &files);
    let again = fold(&same.mappings, &same.credentials, &files, "2").unwrap();
    assert!(again == files, "not a byte changes");

    // The others go on, and take over nothing that the tenant has.
    let own = Some("swift".to_owned());
    seen.take(Event::Policy(own, Change::Gone(key("photos"))));
    put(&mut seen, "swift", "books", "b");
    put(&mut seen, "swift", "thief", "f/stolen");
    let others = decide_over(&seen, &references, &files);
    assert_eq!(names_of(&others), ["swift/books", "tenant/films"]);
    assert_eq!(others.refused[&key("thief")].reason, PolicyFault::Conflict);
    let keys = &others
        .mappings
        .iter()
        .find(|mapping| mapping.policy.name == "films")
        .unwrap()
        .target
        .credential
        .0;
    assert!(others.credentials.contains_key(keys), "its keys stay, too");

    // A grant can be read: where it is withdrawn, nothing hides a policy from that.
    let mut withdrawn = with_tenant("AUTH_other");
    refused(&mut withdrawn);
    assert_eq!(
        names_of(&decide_over(&withdrawn, &references, &files)),
        [] as [&str; 0]
    );

    // Shown again, and gone meanwhile.
    seen.take(Event::Policy(tenant.clone(), Change::Restart));
    seen.take(Event::Policy(tenant, Change::Complete));
    assert_eq!(
        names_of(&decide_over(&seen, &references, &files)),
        ["swift/books", "swift/thief"]
    );
}
