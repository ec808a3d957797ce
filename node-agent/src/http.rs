//! The agent's two servers: health and metrics for anyone, status and commands on loopback or with TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use onespace_stores::admin::{self, text, with_type};
use onespace_stores::mutual_tls::Reloading;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::mapping_task::{Command, Order};
use crate::metrics;
use crate::reporter::{LIMIT, Reporter};

/// A request's body must be there by then, a command be taken, and be carried out.
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
    tls: Option<Arc<Reloading>>,
    server: Server,
    reporter: Arc<Reporter>,
    cancel: CancellationToken,
) {
    let answering = move |request| {
        let reporter = reporter.clone();
        async move { answer(server, &reporter, request).await }
    };
    admin::serve(listener, tls, answering, cancel).await;
}

async fn answer(server: Server, reporter: &Reporter, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (server, request.method(), path.as_str()) {
        (Server::Health, &Method::GET, "/livez") => text(StatusCode::OK, "alive\n"),
        (Server::Health, &Method::GET, "/readyz") if reporter.is_ready() => text(StatusCode::OK, "ready\n"),
        (Server::Health, &Method::GET, "/readyz") if reporter.waits_for_endpoint() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the internal endpoint takes no connections yet; start what --internal-endpoint names\n",
        ),
        (Server::Health, &Method::GET, "/readyz") => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no set of mappings is loaded; /status on the status address says why\n",
        ),
        (Server::Health, &Method::GET, "/metrics") => {
            match metrics::render(reporter.is_ready(), &reporter.config(), &reporter.mappings()) {
                Ok(body) => with_type(StatusCode::OK, "text/plain; version=0.0.4", body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            }
        }
        (Server::Status, &Method::GET, "/status") => {
            status(reporter, request.uri().query().unwrap_or_default())
        }
        (Server::Status, &Method::POST, "/retry") => retry(reporter, request).await,
        (Server::Status, &Method::POST, "/release-deletes") => release_deletes(reporter, request).await,
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
    let Retry { id, object } = match read(request, "{\"id\", \"object\"?}").await {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    match tell(reporter, &id, Command::Retry(object)).await {
        Ok(0) => text(StatusCode::ACCEPTED, "nothing of it is held here\n"),
        Ok(rows) => text(
            StatusCode::ACCEPTED,
            &format!("held rows are tried again: {rows}\n"),
        ),
        Err(refusal) => refusal,
    }
}

#[derive(Deserialize)]
struct ReleaseDeletes {
    id: String,
    batch: String,
}

async fn release_deletes(reporter: &Reporter, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let ReleaseDeletes { id, batch } = match read(request, "{\"id\", \"batch\"}").await {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    let held = reporter
        .mappings()
        .into_iter()
        .find(|mapping| mapping.id == id)
        .and_then(|mapping| mapping.held_deletes);
    if held.is_some_and(|held| held.id != batch) {
        return text(
            StatusCode::CONFLICT,
            "another batch of deletes waits now; /status shows its id and size\n",
        );
    }
    match tell(reporter, &id, Command::ReleaseDeletes(batch)).await {
        Ok(0) => text(
            StatusCode::NOT_FOUND,
            "no such batch of deletes waits here; /status shows its id and size, if there is one\n",
        ),
        Ok(_) => text(StatusCode::ACCEPTED, "the deletes are carried out\n"),
        Err(refusal) => refusal,
    }
}

/// The command in a request's body.
async fn read<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
    form: &str,
) -> Result<T, Response<Full<Bytes>>> {
    let body = Limited::new(request.into_body(), LARGEST_BODY).collect();
    let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
        return Err(text(StatusCode::BAD_REQUEST, "the body did not arrive\n"));
    };
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| text(StatusCode::BAD_REQUEST, &format!("not {form}: {error}\n")))
}

/// Passes a command on to a mapping, and waits until it is carried out.
async fn tell(reporter: &Reporter, id: &str, command: Command) -> Result<usize, Response<Full<Bytes>>> {
    let Some(commands) = reporter.commands(id) else {
        return Err(text(
            StatusCode::NOT_FOUND,
            "no such mapping runs here; /status lists their ids\n",
        ));
    };
    let busy = || {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the mapping is busy; try again\n",
        )
    };
    let (order, obeyed) = Order::new(command);
    if commands.send_timeout(order, PATIENCE).await.is_err() {
        return Err(busy());
    }
    match tokio::time::timeout(PATIENCE, obeyed).await {
        Ok(Ok(Ok(count))) => Ok(count),
        Ok(Ok(Err(error))) => Err(text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("nothing was done: {error}\n"),
        )),
        // It ends, and takes orders no more.
        Ok(Err(_)) => Err(busy()),
        Err(_) => Err(text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the mapping took the order, but did not carry it out in time; /status shows whether it has\n",
        )),
    }
}
