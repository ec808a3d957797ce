//! Statuses and events at an API server that fails.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use onespace_core::status::Event;
use onespace_crds::SyncPolicyStatus;
use onespace_operator::metrics::Metrics;
use onespace_operator::status::{Desk, Wanted, write_all};
use serde_json::json;
use tokio_util::sync::CancellationToken;

mod api_server;
use api_server::{answer, api_server, refusal};

fn wanted(generation: i64, event: &str) -> Wanted {
    Wanted {
        uid: "uid-1".to_owned(),
        status: Arc::new(SyncPolicyStatus {
            observed_generation: Some(generation),
            ..SyncPolicyStatus::default()
        }),
        events: vec![Event {
            warning: true,
            reason: event.to_owned(),
            message: "look".to_owned(),
        }],
    }
}

#[tokio::test]
async fn a_status_that_cannot_be_written_is_tried_again_and_its_events_are_told_once_it_is() {
    let (client, mut server) = api_server();
    let desk = Arc::new(Desk::default());
    let cancel = CancellationToken::new();
    let metrics = Metrics::new().unwrap();
    let writer = tokio::spawn(write_all(
        client,
        desk.clone(),
        metrics.clone(),
        "one".to_owned(),
        cancel.clone(),
    ));
    let key = |name: &str| ("swift".to_owned(), name.to_owned());
    let policy =
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy", "metadata": {"name": "a"}});

    desk.put(key("a"), wanted(1, "First"));
    let (method, path, _) = answer(&mut server, 500, &refusal(500)).await;
    assert_eq!(method, "PATCH");
    assert!(
        path.ends_with("/namespaces/swift/syncpolicies/a/status"),
        "{path}"
    );
    // A newer one meanwhile: it is written instead, and nothing that was to be told is lost.
    desk.put(key("a"), wanted(2, "Second"));
    let (_, _, body) = answer(&mut server, 200, &policy).await;
    assert_eq!(body["status"]["observedGeneration"], 2);
    assert_eq!(
        body["metadata"]["uid"], "uid-1",
        "another policy of that name is not meant"
    );
    for reason in ["First", "Second"] {
        let (method, path, event) =
            answer(&mut server, 201, &json!({"metadata": {}, "eventTime": null})).await;
        assert_eq!((method.as_str(), &event["reason"]), ("POST", &json!(reason)));
        assert!(path.ends_with("/namespaces/swift/events"), "{path}");
        assert_eq!(event["regarding"]["uid"], "uid-1");
        assert_eq!(event["type"], "Warning");
    }

    // A policy that is gone is not tried again, and nothing is told of it.
    desk.put(key("gone"), wanted(1, "Never"));
    answer(&mut server, 404, &refusal(404)).await;
    desk.put(key("b"), wanted(1, "Refused"));
    let (_, path, _) = answer(&mut server, 200, &policy).await;
    assert!(path.ends_with("/b/status"), "{path}");
    // A refused event does not matter to the status.
    answer(&mut server, 403, &refusal(403)).await;
    desk.put(key("c"), wanted(1, "Last"));
    let (_, path, _) = answer(&mut server, 200, &policy).await;
    assert!(path.ends_with("/c/status"), "{path}");
    cancel.cancel();
    writer.await.unwrap();
    let count = |outcome: &str| metrics.status_writes.with_label_values(&[outcome]).get();
    assert_eq!((count("failed"), count("refused")), (1, 1));
}
