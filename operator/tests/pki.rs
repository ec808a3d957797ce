//! The certificates between operator and agents, at an API server.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use http::Response;
use http_body_util::BodyExt as _;
use jiff::{Timestamp, ToSpan as _};
use kube::client::Body;
use onespace_operator::pki::{Certificates, certificates};
use serde_json::{Value, json};

mod answering;
mod api_server;
use answering::answer;
use api_server::{Server, api_server, refusal};

/// The Secrets of a small API server.
#[derive(Default)]
struct Secrets {
    authority: Option<Value>,
    agents: Option<Value>,
    writes: Vec<String>,
}

impl Secrets {
    /// Answers one request.
    async fn answer(&mut self, server: &mut Server) {
        let (request, respond) = server.next_request().await.unwrap();
        let (parts, content) = request.into_parts();
        let content = content.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&content).unwrap_or_default();
        let last = parts.uri.path().rsplit('/').next().unwrap();
        let name = body["metadata"]["name"].as_str().unwrap_or(last);
        let place = match name {
            "onespace-status-authority" => &mut self.authority,
            "onespace-status-tls" => &mut self.agents,
            name => panic!("{name} is no business of the operator's"),
        };
        if parts.method != "GET" {
            self.writes.push(format!("{} {name}", parts.method));
            let mut written = body.clone();
            written["metadata"]["resourceVersion"] = json!(self.writes.len().to_string());
            *place = Some(written);
        }
        let (status, answer) = match place {
            Some(secret) => (200, secret.clone()),
            None => (404, refusal(404)),
        };
        let body = Body::from(answer.to_string().into_bytes());
        respond.send_response(Response::builder().status(status).body(body).unwrap());
    }
}

#[tokio::test]
async fn certificates_are_made_once_and_made_anew_before_they_end() {
    let (client, mut server) = api_server();
    let mut secrets = Secrets::default();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut at = async |days: i64| {
        let made = certificates(&client, "swift", start + (days * 24).hours());
        let mut made = std::pin::pin!(made);
        let Certificates { identity, renewals } = loop {
            tokio::select! {
                certificates = &mut made => break certificates.unwrap(),
                () = secrets.answer(&mut server) => {}
            }
        };
        // What the operator holds and what agents mount belong together.
        identity.client().unwrap();
        let due = renewals.map(|(_, renewal)| (renewal - start).total(jiff::Unit::Hour).unwrap() / 24.0);
        (identity.authority, std::mem::take(&mut secrets.writes), due)
    };
    let (first, writes, due) = at(0).await;
    assert_eq!(due, [3000.0, 60.0]);
    assert_eq!(
        writes,
        ["POST onespace-status-authority", "POST onespace-status-tls"]
    );
    let (second, writes, due) = at(59).await;
    assert_eq!(due, [3000.0, 60.0], "what is there says so, not who looks");
    assert!(writes.is_empty(), "{writes:?}");
    assert!(first == second);
    let (_, writes, due) = at(60).await;
    assert_eq!(due, [3000.0, 120.0]);
    assert_eq!(writes, ["PATCH onespace-status-tls"]);
    let (third, writes, due) = at(3000).await;
    assert_eq!(due, [6000.0, 3060.0]);
    assert_eq!(
        writes,
        ["PATCH onespace-status-authority", "PATCH onespace-status-tls"]
    );
    assert!(first != third);
}

#[tokio::test]
async fn a_refusal_is_an_error_and_a_broken_authority_says_what_to_do() {
    let (client, mut server) = api_server();
    let now = Timestamp::now();
    let no = refusal(403);
    let (refused, _) = tokio::join!(certificates(&client, "swift", now), answer(&mut server, 403, &no));
    assert!(refused.is_err());
    let later = (now + 24.hours()).to_string();
    let broken = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "onespace-status-authority", "resourceVersion": "1", "annotations": {"onespace.dev/renew-after": later}},
        "data": {"ca.crt": "eA==", "tls.crt": "eA==", "tls.key": "eA=="}});
    let (refused, _) = tokio::join!(
        certificates(&client, "swift", now),
        answer(&mut server, 200, &broken)
    );
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("delete the Secret"), "{message}");
}
