//! Asking agents how they are. One task an agent; each answer goes to the controller, which adds them up.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use onespace_core::report::Report;
use onespace_core::status::AgentView;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::metrics::Metrics;

/// How often an agent is asked. An agent at which nothing changed answers in a few hundred bytes.
const EVERY: Duration = Duration::from_secs(1);

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many questions without an answer, one after the other, and the agent counts as unreachable.
const TRIES: u32 = 3;

/// Longest page that is read, bytes.
const LARGEST: usize = 16 << 20;

/// More pages than any agent has.
const PAGES: usize = 1000;

/// What an agent said, or that it is silent.
#[derive(Debug)]
pub struct Update {
    /// Its URL.
    pub url: String,
    /// The pages of its answer, or why there is none.
    pub answer: Result<Vec<Report>, String>,
}

/// What all agents said last.
#[derive(Debug, Default)]
pub struct Agents {
    views: BTreeMap<String, AgentView>,
    /// Agents that have not been heard of since they were first asked, well or ill.
    awaited: std::collections::BTreeSet<String>,
}

impl Agents {
    /// No agent has answered yet.
    #[must_use]
    pub fn new(urls: &[String]) -> Self {
        Self {
            views: BTreeMap::new(),
            awaited: urls.iter().cloned().collect(),
        }
    }

    /// Takes an answer. Returns whether it says anything new.
    pub fn take(&mut self, update: Update, now: i64) -> bool {
        let Update { url, answer } = update;
        let first_word = self.awaited.remove(&url);
        let view = self.views.entry(url.clone()).or_default();
        match answer {
            Ok(pages) => {
                let news = first_word
                    || !view.reachable
                    || pages
                        .iter()
                        .any(|page| page.full || !page.mappings.is_empty() || !page.removed.is_empty());
                for (number, page) in pages.into_iter().enumerate() {
                    view.take(page, number == 0, now);
                }
                news
            }
            Err(why) => {
                let news = first_word || view.reachable;
                if news {
                    tracing::warn!(agent = url, "does not answer: {why}");
                }
                view.reachable = false;
                if view.node.is_empty() {
                    view.node = url;
                }
                news
            }
        }
    }

    /// Whether every agent was heard of once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Counts them in the metrics, by whether they answer.
    pub fn count(&self, metrics: &Metrics) {
        let reachable = self.views().filter(|view| view.reachable).count();
        for (state, count) in [("reachable", reachable), ("silent", self.views.len() - reachable)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.agents.with_label_values(&[state]).set(count);
        }
    }

    /// All views.
    pub fn views(&self) -> impl Iterator<Item = &AgentView> + Clone {
        self.views.values()
    }
}

/// Starts asking agents at these URLs.
pub fn ask_all(urls: &[String], updates: &mpsc::Sender<Update>) -> JoinSet<()> {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let mut tasks = JoinSet::new();
    for url in urls {
        tasks.spawn(ask(client.clone(), url.clone(), updates.clone()));
    }
    tasks
}

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

async fn ask(client: HttpClient, url: String, updates: mpsc::Sender<Update>) {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since: Option<String> = None;
    let mut failures = 0;
    loop {
        turns.tick().await;
        let answer = match pages(&client, &url, since.as_deref()).await {
            Ok(pages) => {
                failures = 0;
                since = pages.first().map(|page| page.revision.clone());
                Ok(pages)
            }
            Err(why) => {
                failures += 1;
                if failures < TRIES {
                    continue;
                }
                // Whatever is missed meanwhile: a full answer is next.
                since = None;
                Err(why)
            }
        };
        let update = Update {
            url: url.clone(),
            answer,
        };
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

async fn pages(client: &HttpClient, url: &str, since: Option<&str>) -> Result<Vec<Report>, String> {
    let mut pages: Vec<Report> = Vec::new();
    let mut after: Option<String> = None;
    while pages.len() < PAGES {
        let mut query = String::from("limit=500");
        for (name, value) in [("since", since), ("after", after.as_deref())] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={value}"));
            }
        }
        let uri: Uri = format!("{}/status?{query}", url.trim_end_matches('/'))
            .parse()
            .map_err(|error| format!("{url} is no URL: {error}"))?;
        let page = tokio::time::timeout(PATIENCE, page(client, uri))
            .await
            .map_err(|_| format!("no answer within {PATIENCE:?}"))??;
        after.clone_from(&page.next);
        pages.push(page);
        if after.is_none() {
            return Ok(pages);
        }
    }
    Err(format!("more than {PAGES} pages"))
}

async fn page(client: &HttpClient, uri: Uri) -> Result<Report, String> {
    let answer = client.get(uri).await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), LARGEST)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("its answer cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(answer: Result<Report, &str>) -> Update {
        Update {
            url: "http://a".to_owned(),
            answer: answer.map(|page| vec![page]).map_err(str::to_owned),
        }
    }

    #[test]
    fn a_silent_agent_is_news_once_and_so_is_its_return() {
        let mut agents = Agents::new(&["http://a".to_owned()]);
        assert!(!agents.is_complete());
        assert!(agents.take(update(Ok(Report::default())), 1));
        assert!(agents.is_complete());
        assert!(!agents.take(update(Ok(Report::default())), 2), "nothing changed");
        assert!(agents.take(update(Err("silence")), 3));
        assert!(!agents.take(update(Err("silence")), 4));
        assert!(agents.views().all(|view| !view.reachable && view.as_of == 2));
        assert!(agents.take(update(Ok(Report::default())), 5));
    }
}
