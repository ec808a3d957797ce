//! Stands before an S3 server and counts the requests that pass.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use http::header::EXPECT;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Passes every request on as it is, host and signature included. Dropping it closes its port.
#[derive(Debug)]
pub struct Counter {
    address: SocketAddr,
    counts: Counts,
    task: JoinHandle<()>,
}

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

impl Counter {
    /// Counts what goes to the server with this base URL.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn before(server: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counts = Counts::default();
        let task = tokio::spawn(serve(listener, server.parse()?, counts.clone()));
        Ok(Self {
            address,
            counts,
            task,
        })
    }

    /// Base URL to use instead of the server's.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far, by method.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, server: Uri, counts: Counts) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (client, server, counts) = (client.clone(), server.clone(), counts.clone());
        tokio::spawn(async move {
            let pass =
                service_fn(move |request| pass(client.clone(), server.clone(), counts.clone(), request));
            // A broken connection is the client's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), pass)
                .await;
        });
    }
}

async fn pass(
    client: Client<HttpConnector, Incoming>,
    server: Uri,
    counts: Counts,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>> {
    *counts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(request.method().to_string())
        .or_default() += 1;
    let mut parts = server.into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts)?;
    // Answered here already.
    request.headers_mut().remove(EXPECT);
    Ok(client.request(request).await?)
}
