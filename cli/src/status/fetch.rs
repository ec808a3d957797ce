//! Asking an agent.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use onespace_core::report::Report;

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest page that is read, bytes.
const LARGEST: usize = 64 << 20;

/// More pages than any agent has.
const PAGES: usize = 1000;

/// One answer.
pub(super) struct Page {
    /// As it came.
    pub body: Bytes,
    /// Understood.
    pub report: Report,
}

/// An agent's status server.
pub(super) struct Agent {
    url: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Agent {
    pub fn new(url: &str) -> Result<Self> {
        ensure!(
            url.starts_with("http://"),
            "--agent {url} is not a URL like http://127.0.0.1:9181, the agent's --status-listen"
        );
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Every page of the status.
    pub async fn pages(&self) -> Result<Vec<Page>> {
        let mut pages: Vec<Page> = Vec::new();
        let mut after = None;
        while pages.len() < PAGES {
            let page = self.page(after.as_deref()).await?;
            after.clone_from(&page.report.next);
            pages.push(page);
            if after.is_none() {
                return Ok(pages);
            }
        }
        bail!(
            "{} names ever more pages; is it an agent's --status-listen?",
            self.url
        )
    }

    async fn page(&self, after: Option<&str>) -> Result<Page> {
        let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let url = format!("{}/status{query}", self.url);
        let unreachable =
            || format!("{url} cannot be asked; is the agent running, and is this its --status-listen?");
        let uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let answer = tokio::time::timeout(PATIENCE, self.client.get(uri))
            .await
            .with_context(unreachable)?;
        let answer = answer.with_context(unreachable)?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "{url} answers {status}; is it an agent's --status-listen?"
        );
        let body = tokio::time::timeout(PATIENCE, Limited::new(answer.into_body(), LARGEST).collect()).await;
        let body = body
            .with_context(unreachable)?
            .map_err(|error| anyhow::anyhow!("{url}: {error}"))?
            .to_bytes();
        let report = serde_json::from_slice(&body).with_context(|| {
            format!("{url} does not answer with an agent's status; is it an agent's --status-listen?")
        })?;
        Ok(Page { body, report })
    }
}
