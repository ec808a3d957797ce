//! Finalizers of policies that changed, or went, while they were written.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use onespace_operator::agents::Agents;
use onespace_operator::finalize::{Finalizing, changes, remove_all};
use onespace_operator::published::Names;
use onespace_operator::seen::{Event, Scopes, Seen, read_policy};
use onespace_operator::table::Change;
use serde_json::{Value, json};
use tokio::time::timeout;

mod answering;
mod api_server;
use answering::answer;
use api_server::{api_server, refusal};

const FINALIZER: &str = "onespace.dev/archived-data";

fn policy(version: &str) -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
        "metadata": {"name": "photos", "namespace": "swift", "uid": "uid-1", "resourceVersion": version,
            "finalizers": [FINALIZER, "example.com/other"]},
        "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": "photos"},
            "target": {"protocol": "S3", "bucket": "backup", "credentials": {"secretRef": {"name": "keys"}}}},
    })
}

fn show(seen: &mut Seen, version: &str) {
    let read = Box::new(read_policy(serde_json::from_value(policy(version)).unwrap()));
    let key = ("swift".to_owned(), "photos".to_owned());
    seen.take(Event::Policy(Some("swift".to_owned()), Change::Put(key, read)));
}

fn list(items: &[Value]) -> Value {
    json!({"metadata": {}, "items": items})
}

fn scopes() -> Vec<Option<String>> {
    vec![Some("swift".to_owned())]
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_changed_meanwhile_gets_its_finalizers_in_its_newest_version() {
    let (client, mut server) = api_server();
    let namespace = "swift".to_owned();
    let mut seen = Seen::new(&Scopes::new("swift", &[]), Names { namespace });
    let mut finalizing = Finalizing::default();
    let agents = Agents::default();
    for (version, status) in [("7", 409), ("8", 404), ("9", 500), ("10", 200)] {
        show(&mut seen, version);
        // As often as the loop asks: the batch before may not be done.
        let asked = async {
            loop {
                finalizing.carry_out(&client, changes(&seen, &agents));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let body = if status == 200 {
            policy("11")
        } else {
            refusal(status)
        };
        let (method, path, written) = tokio::select! {
            () = asked => panic!("unreachable"),
            written = answer(&mut server, status, &body) => written,
        };
        assert_eq!(method, "PATCH");
        assert!(path.ends_with("/namespaces/swift/syncpolicies/photos"), "{path}");
        assert_eq!(written["metadata"]["resourceVersion"], version);
        assert_eq!(written["metadata"]["finalizers"], json!(["example.com/other"]));
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_finalizers_go_though_policies_change_or_go_meanwhile() {
    let (client, mut server) = api_server();
    let scopes = scopes();
    let removing = remove_all(&client, &scopes);
    let answers = async {
        answer(&mut server, 200, &list(&[policy("7")])).await;
        answer(&mut server, 409, &refusal(409)).await;
        answer(&mut server, 200, &list(&[policy("8")])).await;
        let (_, _, written) = answer(&mut server, 404, &refusal(404)).await;
        assert_eq!(written["metadata"]["resourceVersion"], "8");
        // What other namespaces have is told, not touched.
        let (method, path, _) = answer(&mut server, 403, &refusal(403)).await;
        assert_eq!(method, "GET");
        assert!(path.ends_with("/v1alpha1/syncpolicies"), "{path}");
    };
    let both = async { tokio::join!(removing, answers) };
    let (removed, ()) = timeout(Duration::from_secs(120), both)
        .await
        .expect("something was not asked");
    removed.unwrap();
}

#[tokio::test]
async fn a_finalizer_that_cannot_be_removed_is_an_error_with_the_policys_name() {
    let (client, mut server) = api_server();
    let scopes = scopes();
    let answers = async {
        answer(&mut server, 200, &list(&[policy("7")])).await;
        answer(&mut server, 403, &refusal(403)).await;
    };
    let (removed, ()) = tokio::join!(remove_all(&client, &scopes), answers);
    let error = format!("{:#}", removed.unwrap_err());
    assert!(error.contains("swift/photos"), "{error}");
}

#[tokio::test]
async fn a_hold_in_a_namespace_that_is_not_watched_is_not_touched() {
    let (client, mut server) = api_server();
    let scopes = scopes();
    let mut elsewhere = policy("7");
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    let answers = async {
        answer(&mut server, 200, &list(&[])).await;
        answer(&mut server, 200, &list(&[elsewhere])).await;
    };
    let (removed, ()) = tokio::join!(remove_all(&client, &scopes), answers);
    removed.unwrap();
    drop(client);
    assert!(
        server.next_request().await.is_none(),
        "another operator's hold was ended"
    );
}
