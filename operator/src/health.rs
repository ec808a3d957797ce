//! `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use onespace_stores::admin::{self, text, with_type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether every watch has shown everything once.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until cancelled.
pub async fn serve(listener: TcpListener, ready: Ready, metrics: Metrics, cancel: CancellationToken) {
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let path = request.uri().path();
        let answer = match (request.method(), path) {
            (&Method::GET, "/livez") => text(StatusCode::OK, "alive\n"),
            (&Method::GET, "/readyz") if ready.is_set() => text(StatusCode::OK, "ready\n"),
            (&Method::GET, "/readyz") => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not everything was seen yet that is watched; the log says what fails\n",
            ),
            (&Method::GET, "/metrics") => match metrics.render() {
                Ok(body) => with_type(StatusCode::OK, "text/plain; version=0.0.4", body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        };
        std::future::ready(answer)
    };
    admin::serve(listener, None, answer, cancel).await;
}
