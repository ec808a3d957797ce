//! Which replica writes. The others watch, so that they are ready at once.
//!
//! A loop of our own, where `kube-lease-manager` was: that one goes on as leader however long it cannot renew, its
//! requests wait for ever, it compares times of other machines' clocks, and its claims do not name the version that they
//! replace, so that two replicas may both believe to lead.
//!
//! A leader may write until [`Terms::hold`] after it asked for its last renewal. That is looked at before each write,
//! wherever it comes from, by [`Leadership::gate`], and ends those under way: also in a process that stood still meanwhile.

use http::Request;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use crate::api::FIELD_MANAGER;
use crate::lease::{Candidate, Terms};

/// Name of the Lease.
pub const LEASE: &str = "onespace-operator";

/// A write that was not sent, or given up.
#[derive(Debug, thiserror::Error)]
#[error("this replica does not lead, or could not renew its Lease in time: it writes nothing")]
pub struct NotLeading;

/// Why the Lease is not had.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("allow the operator get, create and patch of leases there: {0}")]
    Forbidden(kube::Error),
    #[error("{0}")]
    Kube(kube::Error),
}

impl From<kube::Error> for LeaseError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(error),
            _ => Self::Kube(error),
        }
    }
}

/// Until when this replica may write.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// What whoever runs for leader tells, and what everybody else knows of it.
    #[must_use]
    pub fn new() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Whether this replica may write now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this replica leads. Returns whether it ever will.
    pub async fn gained(&self) -> bool {
        self.0.clone().wait_for(Option::is_some).await.is_ok()
    }

    /// Waits until this replica does not lead, by the clock: whatever became of those who would say so.
    pub async fn lost(&self) {
        let mut told = self.0.clone();
        loop {
            let Some(until) = *told.borrow_and_update() else {
                return;
            };
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                // Renewed meanwhile, mostly.
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The same client, but that it writes nothing while this replica does not lead, and gives up what it is writing when
    /// that ends.
    #[must_use]
    pub fn gate(&self, client: Client) -> Client {
        let leadership = self.clone();
        let namespace = client.default_namespace().to_owned();
        let gate = tower::service_fn(move |request: Request<Body>| {
            let (client, leadership) = (client.clone(), leadership.clone());
            async move {
                if request.method().is_safe() {
                    return Ok(client.send(request).await?);
                }
                tokio::select! {
                    biased;
                    () = leadership.lost() => Err(BoxError::from(NotLeading)),
                    answer = client.send(request) => Ok(answer?),
                }
            }
        });
        Client::new(gate, namespace)
    }
}

/// A client for the Lease alone: no other request keeps it waiting, and a connection on which nothing comes is given up
/// soon. (Of HTTP/1 a request that is given up takes its connection along.)
///
/// # Errors
/// The configuration cannot be used.
pub fn client(mut config: Config, terms: Terms) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(terms.patience);
    config.read_timeout = Some(terms.patience);
    config.write_timeout = Some(terms.patience);
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// Runs for leader until it ends: then the Lease is given back. Whoever was leader and is it no more never leads again:
/// it starts anew, and so sees everything anew.
#[must_use]
pub fn run_for_leader(
    client: Client,
    namespace: &str,
    identity: &str,
    terms: Terms,
    end: CancellationToken,
) -> (Leadership, JoinHandle<()>) {
    let (tell, leadership) = Leadership::new();
    let candidacy = Candidacy {
        api: Api::namespaced(client, namespace),
        candidate: Candidate::new(identity, terms),
        terms,
    };
    let namespace = namespace.to_owned();
    (leadership, tokio::spawn(candidacy.run(namespace, tell, end)))
}

struct Candidacy {
    api: Api<Lease>,
    candidate: Candidate,
    terms: Terms,
}

impl Candidacy {
    async fn run(mut self, namespace: String, tell: watch::Sender<Option<Instant>>, end: CancellationToken) {
        let mut until: Option<Instant> = None;
        // The same thing again and again is said once.
        let mut said = String::new();
        loop {
            let asked = Instant::now();
            let claimed = tokio::select! {
                biased;
                () = end.cancelled() => break,
                () = sleep_until(until) => Err(LeaseError::Timeout),
                claimed = self.claim_in_time() => claimed,
            };
            let mut wait = self.terms.every;
            match claimed {
                Ok(true) => {
                    said.clear();
                    let renewed = asked + self.terms.hold;
                    until = Some(renewed);
                    // A renewal is nothing new.
                    tell.send_if_modified(|until| until.replace(renewed).is_none());
                }
                Ok(false) if until.is_some() => {
                    tracing::warn!("another replica has taken the Lease");
                    break;
                }
                Ok(false) => {
                    let runs_out = self.candidate.runs_out();
                    let left = runs_out.map_or(wait, |end| end.saturating_duration_since(Instant::now()));
                    wait = wait.min(left);
                }
                Err(error) => {
                    let error = error.to_string();
                    if said != error {
                        tracing::warn!("the Lease {namespace}/{LEASE} cannot be had or renewed: {error}");
                        said = error;
                    }
                    if until.is_some() {
                        wait = self.terms.pause;
                    }
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                tracing::warn!("the Lease could not be renewed in time: another replica may lead soon");
                break;
            }
            tokio::select! {
                () = end.cancelled() => break,
                () = sleep_until(until) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        tell.send_replace(None);
        // Who is told now may be writing still.
        end.cancelled().await;
        self.give_back().await;
    }

    async fn claim_in_time(&mut self) -> Result<bool, LeaseError> {
        let patience = self.terms.patience;
        let claimed = tokio::time::timeout(patience, self.claim()).await;
        claimed.map_err(|_| LeaseError::Timeout)?
    }

    /// Claims the Lease if it may be claimed. Returns whether this replica has it now.
    async fn claim(&mut self) -> Result<bool, LeaseError> {
        let candidate = &mut self.candidate;
        if !candidate.is_certain() {
            let there = self.api.get_opt(LEASE).await?;
            let is_there = there.is_some();
            if let Some(lease) = there {
                candidate.observe(lease, Instant::now());
            }
            // One that is not there any more may have been deleted under a holder, which makes it anew.
            if !candidate.may_claim(Instant::now()) {
                return Ok(false);
            }
            if !is_there {
                candidate.forget();
                let mut claim = candidate.claim(jiff::Timestamp::now());
                claim["metadata"] = json!({"name": LEASE});
                let claim = serde_json::from_value(claim).map_err(kube::Error::SerdeError)?;
                let manager = PostParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let lease = self.api.create(&manager, &claim).await?;
                candidate.claimed(lease, Instant::now());
                return Ok(true);
            }
        }
        let claim = Patch::Merge(candidate.claim(jiff::Timestamp::now()));
        let lease = self.api.patch(LEASE, &manager(), &claim).await?;
        candidate.claimed(lease, Instant::now());
        Ok(true)
    }

    async fn give_back(&mut self) {
        let given = tokio::time::timeout(self.terms.patience, async {
            // What became of the last claim is not known.
            if !self.candidate.is_certain()
                && let Some(lease) = self.api.get_opt(LEASE).await?
            {
                self.candidate.observe(lease, Instant::now());
            }
            if let Some(nobody) = self.candidate.give_back() {
                self.api.patch(LEASE, &manager(), &Patch::Merge(nobody)).await?;
                tracing::info!("the Lease is given back");
            }
            Ok::<_, kube::Error>(())
        });
        match given.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!("the Lease is not given back, it runs out: {error}"),
            Err(_) => tracing::info!("the Lease is not given back, it runs out"),
        }
    }
}

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
