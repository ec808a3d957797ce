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
#[allow(dead_code, reason = "not every test needs it")]
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

/// What becomes of a request.
#[allow(dead_code, reason = "not every test needs it")]
pub enum Said {
    /// It is answered.
    Now(u16, Value),
    /// A watch in which nothing happens: it ends after a minute.
    Nothing,
    /// No answer ever comes.
    Never,
}

/// Answers every request as `said` has it: it is given method, path with query, and body.
#[allow(dead_code, reason = "not every test needs it")]
pub async fn serve(mut server: Server, mut said: impl FnMut(&str, &str, Value) -> Said) {
    let mut unanswered = Vec::new();
    while let Some((request, respond)) = server.next_request().await {
        let (parts, content) = request.into_parts();
        let content = content.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&content).unwrap_or_default();
        match said(parts.method.as_str(), &parts.uri.to_string(), body) {
            Said::Now(status, body) => {
                let body = Body::from(body.to_string().into_bytes());
                respond.send_response(Response::builder().status(status).body(body).unwrap());
            }
            Said::Nothing => drop(tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
                respond.send_response(Response::new(Body::empty()));
            })),
            Said::Never => unanswered.push(respond),
        }
    }
}

/// What an API server says when it refuses.
pub fn refusal(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "No" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
}
