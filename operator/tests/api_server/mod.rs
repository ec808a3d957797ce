//! An API server that answers what a test wants, beside `answering` or `serving`.

use http::{Request, Response};
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

/// What an API server says when it refuses.
pub fn refusal(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "No" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
}
