//! An API server whose requests a test answers one by one.

use http::Response;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use crate::api_server::Server;

/// Answers the next request, and returns what it asked: method, path, body.
pub async fn answer(server: &mut Server, status: u16, body: &Value) -> (String, String, Value) {
    let (request, respond) = server.next_request().await.unwrap();
    let (parts, content) = request.into_parts();
    let content = content.collect().await.unwrap().to_bytes();
    let response = Response::builder()
        .status(status)
        .body(Body::from(body.to_string().into_bytes()));
    respond.send_response(response.unwrap());
    (
        parts.method.to_string(),
        parts.uri.path().to_owned(),
        serde_json::from_slice(&content).unwrap_or_default(),
    )
}
