//! An API server that answers what a test wants.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::Handle;

/// The server's side.
pub type Server = Handle<Request<Body>, Response<Body>>;

/// A client, and what answers it.
pub fn api_server() -> (Client, Server) {
    let (service, server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    (Client::new(service, "swift"), server)
}

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

/// What an API server says when it refuses.
pub fn refusal(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "No" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
}
