//! Asking agents how they are: one task an agent, which asks for what changed since it asked last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use onespace_core::report::Report;
use onespace_core::status::Page;
use onespace_stores::causes::causes;
use onespace_stores::mutual_tls::{self, AgentConnector, Identity, TlsError};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// How often an agent is asked. An agent at which nothing changed answers in a few hundred bytes.
const EVERY: Duration = Duration::from_secs(1);

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many questions without an answer, one after the other, and the agent counts as unreachable; or one whose answer was
/// waited for with all [`PATIENCE`].
const TRIES: u32 = 3;

/// Longest page that is read, bytes.
const LARGEST: usize = 16 << 20;

/// More pages than any agent has.
const PAGES: usize = 1000;

/// What an agent said, or that it is silent.
#[derive(Debug)]
pub struct Update {
    /// By what it is known here.
    pub agent: String,
    /// The pages of its answer, or why there is none.
    pub answer: Result<Vec<Page>, String>,
}

type HttpClient = Client<AgentConnector, Empty<Bytes>>;

/// All agents that are asked.
pub struct Asking {
    client: watch::Sender<Arc<HttpClient>>,
    updates: mpsc::Sender<Update>,
    tasks: BTreeMap<String, (String, AbortOnDropHandle<()>)>,
}

impl Asking {
    /// Nobody is asked yet, and `https` nobody can be asked by before [`Asking::identify`].
    ///
    /// # Errors
    /// TLS cannot be used at all.
    pub fn new(updates: mpsc::Sender<Update>) -> Result<Self, TlsError> {
        let client = Arc::new(client(mutual_tls::unknown_client()?)?);
        Ok(Self {
            client: watch::Sender::new(client),
            updates,
            tasks: BTreeMap::new(),
        })
    }

    /// From now on agents are asked with these certificates.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn identify(&self, identity: &Identity) -> Result<(), TlsError> {
        let client = Arc::new(client(identity.client()?)?);
        self.client.send_replace(client);
        Ok(())
    }

    /// Asks these agents and no others: by what each is known, and its URL.
    pub fn follow(&mut self, agents: &BTreeMap<String, String>) {
        self.tasks
            .retain(|agent, (url, _)| agents.get(agent).is_some_and(|wanted| wanted == url));
        for (agent, url) in agents {
            if !self.tasks.contains_key(agent) {
                let task = ask(
                    self.client.subscribe(),
                    agent.clone(),
                    url.clone(),
                    self.updates.clone(),
                );
                let task = AbortOnDropHandle::new(tokio::spawn(task));
                self.tasks.insert(agent.clone(), (url.clone(), task));
            }
        }
    }
}

fn client(config: rustls::ClientConfig) -> Result<HttpClient, TlsError> {
    let connector = mutual_tls::agent_connector(config, PATIENCE)?;
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

async fn ask(
    client: watch::Receiver<Arc<HttpClient>>,
    agent: String,
    url: String,
    updates: mpsc::Sender<Update>,
) {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since: Option<String> = None;
    let mut failures = 0;
    loop {
        turns.tick().await;
        let client = client.borrow().clone();
        let begun = Instant::now();
        let answer = match pages(&client, &url, since.as_deref()).await {
            Ok(pages) => {
                failures = 0;
                since = pages.first().map(|page| page.revision.clone());
                Ok(pages)
            }
            Err(why) => {
                failures += 1;
                if failures < TRIES && begun.elapsed() < PATIENCE {
                    continue;
                }
                // Whatever is missed meanwhile: a full answer is next.
                since = None;
                Err(why)
            }
        };
        let update = Update {
            agent: agent.clone(),
            answer,
        };
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

async fn pages(client: &HttpClient, url: &str, since: Option<&str>) -> Result<Vec<Page>, String> {
    let mut pages: Vec<Page> = Vec::new();
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

async fn page(client: &HttpClient, uri: Uri) -> Result<Page, String> {
    let answer = client.get(uri).await.map_err(|error| causes(&error))?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), LARGEST)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    let report: Result<Report, _> = serde_json::from_slice(&body.to_bytes());
    let report = report.map_err(|error| format!("its answer cannot be read: {error}"))?;
    Ok(report.into())
}
