//! An agent's status server, as a client sees it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use onespace_core::report::{MappingReport, Report};
use onespace_stores::mutual_tls::{AgentConnector, Identity, agent_connector, unknown_client};

use crate::place::{Place, Usage};

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest page that is read, bytes.
const LARGEST: usize = 64 << 20;

/// More pages than any agent has.
const PAGES: usize = 1000;

/// One answer.
pub struct Page {
    /// As it came.
    pub body: Bytes,
    /// Understood.
    pub report: Report,
}

/// An agent's status server.
pub struct Agent {
    url: String,
    client: Client<AgentConnector, Full<Bytes>>,
}

impl Agent {
    /// The agent that options name.
    ///
    /// # Errors
    /// Its URL or the certificates cannot be used.
    pub fn new(place: &Place) -> Result<Self> {
        let url = place.agent().trim_end_matches('/');
        let config = match (url.split_once("://"), &place.tls) {
            (Some(("http", _)), _) => unknown_client()?,
            (Some(("https", _)), Some(folder)) => Identity::read(folder)?.client()?,
            (Some(("https", _)), None) => {
                return Err(Usage(format!(
                    "{url} wants a certificate: give the folder with ca.crt, tls.crt and tls.key as --tls"
                ))
                .into());
            }
            _ => {
                return Err(Usage(format!(
                    "--agent {url} is not a URL like http://127.0.0.1:9181, the agent's --status-listen"
                ))
                .into());
            }
        };
        Ok(Self {
            url: url.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(agent_connector(config, PATIENCE)?),
        })
    }

    /// Every page of the status.
    ///
    /// # Errors
    /// No answer, or one that is no agent's.
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

    /// What it reports of one policy: `NAMESPACE/NAME`, or the id of its mapping.
    ///
    /// # Errors
    /// As [`Agent::pages`]; or there is no such mapping.
    pub async fn find(&self, policy: &str) -> Result<MappingReport> {
        let pages = self.pages().await?;
        let mut mappings = pages.into_iter().flat_map(|page| page.report.mappings);
        let found = mappings.find(|mapping| {
            let name = mapping.policy.as_ref();
            mapping.id == policy
                || name.is_some_and(|name| policy == format!("{}/{}", name.namespace, name.name))
        });
        found.with_context(|| {
            format!(
                "no mapping of {policy} runs at {}: `onespace status --json` shows ids and names of those that do",
                self.url
            )
        })
    }

    /// Has it do something. Returns what it says to that.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn tell(&self, path: &str, body: &serde_json::Value) -> Result<String> {
        let url = format!("{}/{path}", self.url);
        let (status, body) = self
            .ask(Method::POST, &url, Bytes::from(body.to_string()))
            .await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure!(status.is_success(), "{}", text.trim_end());
        Ok(text)
    }

    async fn page(&self, after: Option<&str>) -> Result<Page> {
        let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
        let url = format!("{}/status{query}", self.url);
        let (status, body) = self.ask(Method::GET, &url, Bytes::new()).await?;
        ensure!(
            status.is_success(),
            "{url} answers {status}; is it an agent's --status-listen?"
        );
        let report = serde_json::from_slice(&body).with_context(|| {
            format!("{url} does not answer with an agent's status; is it an agent's --status-listen?")
        })?;
        Ok(Page { body, report })
    }

    async fn ask(&self, method: Method, url: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(url).body(Full::new(body));
        let request = request.with_context(|| format!("{url} is not a URL"))?;
        let unreachable = || {
            let with = match url.starts_with("https") {
                true => ", and are the certificates in --tls of its authority?",
                false => "? (With --status-tls it is asked at https, with --tls.)",
            };
            format!("{url} cannot be asked; is the agent running, is this its --status-listen{with}")
        };
        let answer = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .with_context(unreachable)?
            .with_context(unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let place = Place {
            agent: Some(url.to_owned()),
            ..Place::default()
        };
        let error = Agent::new(&place).err().unwrap();
        assert!(error.is::<Usage>(), "{error}");
        error.to_string()
    }

    #[test]
    fn a_url_that_cannot_be_asked_is_refused_with_what_to_write_instead() {
        assert!(refused("127.0.0.1:9181").contains("http://127.0.0.1:9181"));
        assert!(refused("https://n1:9181").contains("--tls"));
    }
}
