//! What the operator asks of the API server, and what it makes of refusals.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use onespace_core::load::Files;
use onespace_operator::metrics::Metrics;
use onespace_operator::published::{Names, Published};
use serde_json::{Value, json};

mod answering;
mod api_server;
use answering::answer;
use api_server::{Server, api_server, refusal};

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
        mappings: BTreeMap::from([("03".to_owned(), b"m".to_vec().into())]),
        credentials: BTreeMap::from([("07".to_owned(), b"c".to_vec().into())]),
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
    assert_eq!(published.files().mappings["03"].as_ref(), b"old");
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
    assert_eq!(asked[1].2["data"], json!({"03.json": "m"}));
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

/// The next two requests, which are there before either is answered, while no other comes before both are.
async fn two_at_once(server: &mut Server) -> [String; 2] {
    let mut asked = Vec::new();
    for _ in 0..2 {
        asked.push(server.next_request().await.unwrap());
    }
    let mut paths = Vec::new();
    for (request, respond) in asked {
        let next = tokio::time::timeout(Duration::from_secs(1), server.next_request()).await;
        assert!(next.is_err(), "of the next kind");
        paths.push(request.uri().path().rsplit('/').next().unwrap().to_owned());
        let body = Body::from(written("50").to_string().into_bytes());
        respond.send_response(Response::new(body));
    }
    paths.sort();
    paths.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn files_of_one_kind_are_written_together_and_none_of_the_next_before_all_are() {
    let (client, mut server) = api_server();
    let published = read(client, &mut server).await;
    let shards = |names: [&str; 2]| names.map(|name| (name.to_owned(), b"new".to_vec().into())).into();
    let next = Files {
        index: b"{}".to_vec(),
        mappings: shards(["04", "05"]),
        credentials: shards(["07", "08"]),
    };
    let metrics = Metrics::new().unwrap();
    let answers = async {
        let credentials = two_at_once(&mut server).await;
        let mappings = two_at_once(&mut server).await;
        let index = answer(&mut server, 200, &written("51")).await.1;
        let gone = answer(&mut server, 200, &written("52")).await.1;
        (credentials, mappings, index, gone)
    };
    let (result, (credentials, mappings, index, gone)) =
        tokio::join!(published.replace(next, &metrics), answers);
    assert_eq!(result.unwrap().1, 6);
    assert_eq!(
        credentials,
        ["onespace-credentials-07", "onespace-credentials-08"]
    );
    assert_eq!(mappings, ["onespace-mappings-04", "onespace-mappings-05"]);
    assert!(index.ends_with("onespace-index"), "{index}");
    assert!(gone.ends_with("onespace-mappings-03"), "{gone}");
}

#[tokio::test]
async fn a_shard_without_mappings_loses_its_file_and_what_is_not_there_is_made() {
    let (client, mut server) = api_server();
    let published = read(client, &mut server).await;
    let metrics = Metrics::new().unwrap();
    let next = Files {
        index: b"{}".to_vec(),
        ..Files::default()
    };
    let answers = async {
        let mut asked = Vec::new();
        for _ in 0..2 {
            let (request, respond) = server.next_request().await.unwrap();
            let (parts, content) = request.into_parts();
            let content = content.collect().await.unwrap().to_bytes();
            let content: Value = serde_json::from_slice(&content).unwrap();
            let kind = parts.headers["content-type"].to_str().unwrap().to_owned();
            asked.push((kind, content["data"].clone()));
            respond.send_response(Response::new(Body::from(written("50").to_string().into_bytes())));
        }
        asked
    };
    let (result, asked) = tokio::join!(published.replace(next, &metrics), answers);
    assert_eq!(result.unwrap().1, 2);
    assert_eq!(
        asked,
        [
            (
                "application/apply-patch+yaml".to_owned(),
                json!({"index.json": "{}"})
            ),
            (
                "application/merge-patch+json".to_owned(),
                json!({"03.json": null})
            ),
        ]
    );
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
    assert!(refused.1.ends_with("onespace-mappings-03"), "{refused:?}");
    assert!(
        server.next_request().await.is_none(),
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
