//! Asking agents how they are: one task an agent, which asks for what changed since it asked last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How often an agent is asked. An agent at which nothing changed answers in a few hundred bytes.
const EVERY: Duration = Duration::from_secs(1);

/// How often an agent is asked that is about to run new files.
const HURRY: Duration = Duration::from_millis(100);

/// How long an agent counts as about to.
const ABOUT: Duration = Duration::from_secs(3);

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

/// A revision of the files, and since when agents may run it.
type Wanted = Option<(String, Instant)>;

type HttpClient = Client<AgentConnector, Empty<Bytes>>;

/// All agents that are asked.
pub struct Asking {
    client: watch::Sender<Arc<HttpClient>>,
    wanted: watch::Sender<Wanted>,
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
            wanted: watch::Sender::new(None),
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

    /// From now on agents may run this revision of the files: those that do not are asked more often for a moment.
    pub fn expect(&self, revision: &str) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.as_ref().is_none_or(|(before, _)| before != revision);
            if is_new {
                *wanted = Some((revision.to_owned(), Instant::now()));
            }
            is_new
        });
    }

    /// Asks these agents and no others: by what each is known, and its URL.
    pub fn follow(&mut self, agents: &BTreeMap<String, String>) {
        self.tasks
            .retain(|agent, (url, _)| agents.get(agent).is_some_and(|wanted| wanted == url));
        for (agent, url) in agents {
            if !self.tasks.contains_key(agent) {
                let task = ask(
                    self.client.subscribe(),
                    self.wanted.subscribe(),
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
    mut wanted: watch::Receiver<Wanted>,
    agent: String,
    url: String,
    updates: mpsc::Sender<Update>,
) {
    let mut turn = Instant::now();
    let mut since: Option<String> = None;
    let mut failures = 0;
    loop {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(turn) => break,
                Ok(()) = wanted.changed() => turn = turn.min(Instant::now() + HURRY),
            }
        }
        let client = client.borrow().clone();
        let begun = Instant::now();
        turn = begun + EVERY;
        let answer = match pages(&client, &url, since.as_deref()).await {
            Ok(pages) => {
                failures = 0;
                since = pages.first().map(|page| page.revision.clone());
                let runs = pages.first().map(|page| page.config_revision.as_str());
                turn = begun + pause(&wanted.borrow_and_update(), runs);
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

/// From one question to an agent that runs this revision to the next.
fn pause(wanted: &Wanted, runs: Option<&str>) -> Duration {
    match wanted {
        Some((revision, since)) if Some(revision.as_str()) != runs && since.elapsed() < ABOUT => HURRY,
        _ => EVERY,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_asked_ten_times_a_second_for_a_moment_until_it_runs_new_files() {
        let wanted = Some(("r2".to_owned(), Instant::now()));
        let asked = |wanted: &Wanted, runs: Option<&str>| 1_000 / pause(wanted, runs).as_millis();
        assert_eq!((asked(&wanted, Some("r1")), asked(&wanted, None)), (10, 10));
        assert_eq!(asked(&wanted, Some("r2")), 1, "it runs them");
        assert_eq!(asked(&None, Some("r1")), 1, "there are none");
        tokio::time::advance(ABOUT).await;
        assert_eq!(asked(&wanted, Some("r1")), 1, "something keeps it");
    }
}
