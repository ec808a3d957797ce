//! An API server that answers by itself.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use crate::api_server::Server;

/// Answers every request as `said` has it: it is given method, path with query, and body. Where it has none an empty answer comes after
/// `silence`, as a watch ends in which nothing happened.
pub async fn serve(
    mut server: Server,
    silence: Duration,
    mut said: impl FnMut(&str, &str, Value) -> Option<(u16, Value)>,
) {
    while let Some((request, respond)) = server.next_request().await {
        let (parts, content) = request.into_parts();
        let content = content.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&content).unwrap_or_default();
        match said(parts.method.as_str(), &parts.uri.to_string(), body) {
            Some((status, body)) => {
                let body = Body::from(body.to_string().into_bytes());
                respond.send_response(Response::builder().status(status).body(body).unwrap());
            }
            None => drop(tokio::spawn(async move {
                tokio::time::sleep(silence).await;
                respond.send_response(Response::new(Body::empty()));
            })),
        }
    }
}
