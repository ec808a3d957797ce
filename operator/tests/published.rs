//! What the operator asks of the API server, and what it makes of refusals.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use kube::Client;
use onespace_core::load::Files;
use onespace_operator::metrics::Metrics;
use onespace_operator::published::{Names, Published};
use serde_json::{Value, json};

mod api_server;
use api_server::{Server, answer, api_server, refusal};

fn names() -> Names {
    Names {
        namespace: "swift".to_owned(),
    }
}

fn written(version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "resourceVersion": version}})
}

fn set() -> Files {
    Files {
        index: b"{}".to_vec(),
        mappings: BTreeMap::from([("03".to_owned(), b"m".to_vec())]),
        credentials: BTreeMap::from([("07".to_owned(), b"c".to_vec())]),
    }
}

/// Reads the files of a cluster where there is the ConfigMap of one shard.
async fn read(client: Client, server: &mut Server) -> Published {
    let config_maps = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": [
        {"metadata": {"name": "onespace-mappings-03", "resourceVersion": "41"}, "data": {"03.json": "old"}},
        {"metadata": {"name": "onespace-something", "resourceVersion": "42"}, "data": {"03.json": "other"}},
    ]});
    let secrets = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []});
    let answers = async {
        answer(server, 200, &config_maps).await;
        answer(server, 200, &secrets).await;
    };
    let (published, ()) = tokio::join!(Published::read(client, names()), answers);
    published.unwrap()
}

#[tokio::test]
async fn credentials_come_first_the_index_last_and_each_write_names_what_it_replaces() {
    let (client, mut server) = api_server();
    let published = read(client, &mut server).await;
    assert_eq!(published.files().mappings["03"], b"old");
    let metrics = Metrics::new().unwrap();
    let next = set();
    let answers = async {
        let mut asked = Vec::new();
        for version in ["50", "51", "52"] {
            asked.push(answer(&mut server, 200, &written(version)).await);
        }
        asked
    };
    let (result, asked) = tokio::join!(published.replace(next.clone(), &metrics), answers);
    let (published, written) = result.unwrap();
    assert_eq!(written, 3);
    let paths: Vec<&str> = asked.iter().map(|(_, path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/api/v1/namespaces/swift/secrets/onespace-credentials-07",
            "/api/v1/namespaces/swift/configmaps/onespace-mappings-03",
            "/api/v1/namespaces/swift/configmaps/onespace-index",
        ]
    );
    assert!(asked.iter().all(|(method, _, _)| method == "PATCH"));
    assert_eq!(asked[1].2["metadata"]["resourceVersion"], "41");
    assert!(
        asked[2].2["metadata"].get("resourceVersion").is_none(),
        "it was not there"
    );
    assert!(!published.is_outdated("onespace-mappings-03", Some(&"51".to_owned())));
    assert!(published.is_outdated("onespace-mappings-03", Some(&"60".to_owned())));
    assert!(published.is_outdated("onespace-mappings-03", None));

    // The same again costs nothing.
    let (_, written) = published.replace(next, &metrics).await.unwrap();
    assert_eq!(written, 0);
}

#[tokio::test]
async fn after_a_conflict_nothing_more_is_written() {
    let (client, mut server) = api_server();
    let published = read(client, &mut server).await;
    let metrics = Metrics::new().unwrap();
    let answers = async {
        answer(&mut server, 200, &written("50")).await;
        answer(&mut server, 409, &refusal(409)).await
    };
    let (result, refused) = tokio::join!(published.replace(set(), &metrics), answers);
    assert_eq!(result.err().unwrap().code(), Some(409));
    assert!(
        refused.1.ends_with("onespace-mappings-03"),
        "the index is never reached"
    );
}

#[tokio::test]
async fn a_refusal_to_list_is_an_error_and_not_an_empty_set() {
    let (client, mut server) = api_server();
    let no = refusal(403);
    let (result, _) = tokio::join!(Published::read(client, names()), answer(&mut server, 403, &no));
    assert_eq!(result.err().unwrap().code(), Some(403));
}
