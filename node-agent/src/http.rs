//! The agent's two servers: health and metrics for anyone, status and commands on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::mapping_task::Command;
use crate::metrics;
use crate::reporter::{LIMIT, Reporter};

/// Connections of one server at a time.
const CONNECTIONS: usize = 64;

/// A request's head and body must be there by then, and an answer be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest body of a command.
const LARGEST_BODY: usize = 64 << 10;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `/metrics`, `/livez`, `/readyz`.
    Health,
    /// `/status` and commands.
    Status,
}

/// Serves until cancelled.
pub async fn serve(
    listener: TcpListener,
    server: Server,
    reporter: Arc<Reporter>,
    cancel: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: others must end before this can go on.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (reporter, cancel) = (reporter.clone(), cancel.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let reporter = reporter.clone();
                async move { Ok::<_, Infallible>(answer(server, &reporter, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = cancel.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

/// Binds an address.
///
/// # Errors
/// With what to do.
pub async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind(address).await.map_err(|error| {
        let message = format!("cannot listen on {address} ({error}); give another address with {option}");
        std::io::Error::new(error.kind(), message)
    })
}

async fn answer(server: Server, reporter: &Reporter, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (server, request.method(), path.as_str()) {
        (Server::Health, &Method::GET, "/livez") => text(StatusCode::OK, "alive\n"),
        (Server::Health, &Method::GET, "/readyz") if reporter.is_ready() => text(StatusCode::OK, "ready\n"),
        (Server::Health, &Method::GET, "/readyz") => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no set of mappings is loaded; /status on the status address says why\n",
        ),
        (Server::Health, &Method::GET, "/metrics") => {
            let broken = reporter.config_error();
            match metrics::render(reporter.is_ready(), broken, &reporter.mappings()) {
                Ok(body) => with_type(StatusCode::OK, "text/plain; version=0.0.4", body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            }
        }
        (Server::Status, &Method::GET, "/status") => {
            status(reporter, request.uri().query().unwrap_or_default())
        }
        (Server::Status, &Method::POST, "/retry") => retry(reporter, request).await,
        (Server::Status, &Method::POST, "/release-deletes") => text(
            StatusCode::NOT_IMPLEMENTED,
            "this agent holds no deletes: policies with deleteBudget are refused\n",
        ),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn status(reporter: &Reporter, query: &str) -> Response<Full<Bytes>> {
    let value = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let limit = value("limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(LIMIT)
        .clamp(1, LIMIT);
    let report = reporter.report(value("since"), value("after"), limit);
    match serde_json::to_vec(&report) {
        Ok(body) => with_type(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

#[derive(Deserialize)]
struct Retry {
    id: String,
    object: Option<String>,
}

async fn retry(reporter: &Reporter, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = tokio::time::timeout(
        PATIENCE,
        Limited::new(request.into_body(), LARGEST_BODY).collect(),
    )
    .await;
    let Ok(Ok(body)) = body else {
        return text(StatusCode::BAD_REQUEST, "the body did not arrive\n");
    };
    let wanted: Retry = match serde_json::from_slice(&body.to_bytes()) {
        Ok(wanted) => wanted,
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                &format!("not {{\"id\", \"object\"?}}: {error}\n"),
            );
        }
    };
    let Some(commands) = reporter.commands(&wanted.id) else {
        return text(
            StatusCode::NOT_FOUND,
            "no such mapping runs here; /status lists their ids\n",
        );
    };
    match commands
        .send_timeout(Command::Retry(wanted.object), PATIENCE)
        .await
    {
        Ok(()) => text(StatusCode::ACCEPTED, "held rows are tried again\n"),
        Err(_) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the mapping is busy; try again\n",
        ),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain", body.as_bytes().to_vec())
}

fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}
