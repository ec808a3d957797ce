//! The tests' own HTTP client: independent of the code under test, whole bodies in memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub use http::{Method, StatusCode};

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// A header's value as text; none if it is absent or not ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// This reply, if its status is 2xx.
    ///
    /// # Errors
    /// Another status.
    pub fn success(self) -> Result<Self> {
        ensure!(
            self.status.is_success(),
            "answered {}: {}",
            self.status,
            self.text()
        );
        Ok(self)
    }
}

/// A client. A request that takes longer than a minute is an error.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Http {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            // No idle connections: a server that was stopped and started again is no surprise.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
        }
    }
}

impl Http {
    /// Sends one request. Header values are bytes, so that tests can send what is not UTF-8.
    ///
    /// # Errors
    /// No answer, or a header that HTTP cannot carry.
    pub async fn send<V: AsRef<[u8]>>(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, V)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        let mut request = http::Request::builder().method(method.clone()).uri(url);
        for (name, value) in headers {
            request = request.header(*name, http::HeaderValue::from_bytes(value.as_ref())?);
        }
        let body: Bytes = body.into();
        if method == Method::PUT || method == Method::POST {
            // hyper announces no length for an empty body; Swift wants one.
            request = request.header(http::header::CONTENT_LENGTH, body.len());
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let (parts, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Reply {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        tokio::time::timeout(Duration::from_secs(60), exchange)
            .await
            .with_context(|| format!("{method} {url}: no answer within a minute"))?
            .with_context(|| format!("{method} {url}"))
    }
}
