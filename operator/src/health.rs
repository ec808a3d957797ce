//! `/livez`, `/readyz`, `/metrics`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use onespace_stores::admin::{self, text, with_type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether every watch has shown everything once, and what is done without.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    complete: bool,
    unreadable: Vec<String>,
}

impl Ready {
    /// From now on.
    pub fn set(&self) {
        self.lock().complete = true;
    }

    /// Namespaces that cannot be read: nobody waits for them.
    pub fn do_without(&self, unreadable: Vec<String>) {
        self.lock().unreadable = unreadable;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> (StatusCode, String) {
        let State { complete, unreadable } = &*self.lock();
        if !complete {
            let text = "not everything was seen yet that is watched; the log says what fails\n";
            return (StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
        }
        let mut text = "ready\n".to_owned();
        for namespace in unreadable {
            text.push_str(&format!("{}\n", unreadable_namespace(namespace)));
        }
        (StatusCode::OK, text)
    }
}

/// What to tell of a watched namespace that cannot be read, and what to do.
#[must_use]
pub fn unreadable_namespace(namespace: &str) -> String {
    format!(
        "namespace {namespace} is watched, but the API server refuses to show its policies, Secrets or ConfigMaps: what agents run of it stays as it is, and changes there have no effect; make the operator's Role and RoleBinding there again (helm upgrade does, with the values as they are), or take it out of --watch-namespace"
    )
}

/// Serves until cancelled.
pub async fn serve(listener: TcpListener, ready: Ready, metrics: Metrics, cancel: CancellationToken) {
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let path = request.uri().path();
        let answer = match (request.method(), path) {
            (&Method::GET, "/livez") => text(StatusCode::OK, "alive\n"),
            (&Method::GET, "/readyz") => {
                let (status, said) = ready.said();
                text(status, &said)
            }
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
