//! The one loop that writes: everything that was seen becomes files, and every policy is told how it stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use onespace_core::admit::Incumbents;
use onespace_core::load::load_index;
use onespace_core::shard::{FoldError, fold};
use onespace_core::turns::Turns;
use onespace_stores::mutual_tls::Identity;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents::{Agents, News, Taken};
use crate::api::ApiError;
use crate::ask::{Asking, Update};
use crate::decide::{decide, wanted};
use crate::desk::Desk;
use crate::fetch::References;
use crate::finalize::{self, Finalizing};
use crate::health::{Ready, unreadable_namespace};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::poke::Pokes;
use crate::published::{Names, Published};
use crate::seen::{Effect, Event, Seen, SeenPod};
use crate::table::{Change, Key};
use crate::verdicts::{JITTER, Verdicts, count_conditions};

/// From the end of a round to the next one: at most one write per file in this time.
const ROUND_EVERY: Duration = Duration::from_millis(500);

/// So long the next round waits for agents that do not run the files of the last one: a kubelet that reads them while they are
/// written gives its agent a mixture, which that does not load.
const SETTLE: Duration = Duration::from_millis(1_500);

/// How often is looked which agents' kubelets are to be told of files now.
const NUDGE: Duration = Duration::from_millis(250);

/// The wait after a round that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The wait before what could not be got is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Status waits so long for agents' first answers, lest every policy seems abandoned whenever a leader starts.
const FIRST_WORDS: Duration = Duration::from_secs(10);

/// Events that are taken in one go.
const BATCH: usize = 1000;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Fold(#[from] FoldError),
}

/// Another replica leads now, or may soon.
#[derive(Debug, thiserror::Error)]
#[error(
    "another replica leads now, or may lead because the Lease could not be renewed in time: this one starts anew, and reads everything again"
)]
pub struct Deposed;

/// What the loop works with.
pub struct Controller {
    /// The API server, which takes writes from a leader alone.
    pub client: Client,
    /// The names of our objects.
    pub names: Names,
    /// Everything that was seen.
    pub seen: Seen,
    /// What the watches show.
    pub events: mpsc::Receiver<Event>,
    /// What agents say.
    pub updates: mpsc::Receiver<Update>,
    /// What agents said.
    pub agents: Agents,
    /// Who is asked.
    pub asking: Asking,
    /// URLs of agents that are no pods.
    pub fixed: Vec<String>,
    /// The operator's certificate, once there is one.
    pub identities: watch::Receiver<Option<Identity>>,
    /// Until when this replica leads.
    pub leadership: Leadership,
    /// Where statuses are laid down.
    pub desk: Arc<Desk>,
    /// Metrics.
    pub metrics: Metrics,
    /// Set when everything was seen once.
    pub ready: Ready,
    /// A name that no other start has.
    pub boot: String,
    /// Watched namespaces that cannot be read, as they were told.
    pub unreadable: Vec<String>,
    /// What this replica made so far as leader.
    pub made: Made,
}

/// A round that ended well.
struct Round {
    /// After which pause another one is due whatever is seen: policies wait for their turn, or something could not be got.
    again: Option<Duration>,
    /// How long it wrote files.
    took: Duration,
}

/// What a leader made so far. A new leader starts with nothing and reads what is there.
#[derive(Default)]
pub struct Made {
    references: References,
    /// The files, and whose they are.
    published: Option<(Published, Incumbents)>,
    /// The revision of the files.
    revision: Option<String>,
    pokes: Pokes,
    turns: Turns,
    finalizing: Finalizing,
    verdicts: Verdicts,
    rounds: u64,
    since: Option<Instant>,
    /// Of which mappings agents are about to say something.
    awaited: News,
}

impl Controller {
    /// Runs until cancelled.
    ///
    /// # Errors
    /// The leadership was lost: what this replica knows of status is out of date from then on, and it starts anew.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), Deposed> {
        let leadership = self.leadership.clone();
        let mut leads = false;
        let mut due: Option<Instant> = None;
        let mut last_round: Option<Instant> = None;
        let mut backoff = BACKOFF.0;
        let mut news: Option<News> = None;
        let mut ticks: u64 = 0;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut nudge = tokio::time::interval(NUDGE);
        nudge.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wait = due.filter(|_| leads && self.seen.is_complete());
            let wait = wait.map(|due| match last_round {
                Some(last) if self.are_about_to_load() => due.max(last + SETTLE),
                _ => due,
            });
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                event = self.events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    let Effect { inputs, outputs, pods } = self.take(event);
                    if pods && leads {
                        self.reach();
                    }
                    if inputs || outputs {
                        let soonest = last_round.map_or_else(Instant::now, |last| last + ROUND_EVERY);
                        due = Some(due.map_or(soonest, |due| due.min(soonest)));
                    }
                    self.tell_of_unreadable();
                    if self.seen.is_complete() {
                        self.ready.set();
                    }
                }
                () = leadership.lost(), if leads => return Err(Deposed),
                gained = leadership.gained(), if !leads => {
                    if !gained {
                        return Err(Deposed);
                    }
                    leads = true;
                    self.metrics.leader.set(1);
                    tracing::info!("this replica leads");
                    self.made = Made { since: Some(Instant::now()), ..Made::default() };
                    due = Some(Instant::now());
                    self.reach();
                }
                changed = self.identities.changed(), if leads => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.identify();
                }
                update = self.updates.recv() => {
                    if let Some(update) = update {
                        let said = self.agents.take(update, unix_now());
                        news = match (news.take(), said) {
                            (Some(before), Some(said)) => Some(before.and(said)),
                            (before, said) => before.or(said),
                        };
                    }
                }
                () = until(wait), if wait.is_some() => {
                    let started = Instant::now();
                    // Whatever a round has written until then, no reader loads a mixture.
                    let outcome = tokio::select! {
                        outcome = self.round() => outcome,
                        () = leadership.lost() => return Err(Deposed),
                        () = cancel.cancelled() => return Ok(()),
                    };
                    last_round = Some(Instant::now());
                    due = match outcome {
                        Ok(Round { again, took }) => {
                            // Kubelets that are told too early find the files of before.
                            nudge.reset_after((took / 2).min(NUDGE));
                            backoff = BACKOFF.0;
                            self.metrics.rounds.with_label_values(&["done"]).inc();
                            self.metrics.round_seconds.observe(started.elapsed().as_secs_f64());
                            again.map(|pause| Instant::now() + pause)
                        }
                        Err(error) => {
                            self.metrics.rounds.with_label_values(&["failed"]).inc();
                            tracing::warn!("files are not written, trying again in {backoff:?}: {error}");
                            let next = Instant::now() + backoff;
                            backoff = (backoff * 2).min(BACKOFF.1);
                            Some(next)
                        }
                    };
                }
                _ = nudge.tick(), if leads => self.poke(),
                _ = tick.tick() => {
                    ticks += 1;
                    if leads {
                        let changes = finalize::changes(&self.seen, &self.agents);
                        self.made.finalizing.carry_out(&self.client, changes);
                    }
                    // Numbers that had to wait are no news when it is their turn.
                    if ticks.is_multiple_of(JITTER) {
                        news = Some(News::of_all());
                    }
                    if leads {
                        let awaited = std::mem::take(&mut self.made.awaited);
                        // Also news of no mapping: the metrics tell of those.
                        if news.is_some() || awaited != News::default() {
                            self.report(&news.take().unwrap_or_default().and(awaited));
                        }
                    }
                }
            }
        }
    }

    /// Says so when namespaces begin or cease to be unreadable: in the log, in a metric and in `/readyz`.
    fn tell_of_unreadable(&mut self) {
        let unreadable: Vec<String> = self.seen.unreadable().cloned().collect();
        if unreadable == self.unreadable {
            return;
        }
        for namespace in unreadable.iter().filter(|name| !self.unreadable.contains(name)) {
            tracing::warn!(namespace, "{}", unreadable_namespace(namespace));
        }
        for namespace in self.unreadable.iter().filter(|name| !unreadable.contains(name)) {
            tracing::info!(namespace, "can be read again, or is gone");
        }
        let count = i64::try_from(unreadable.len()).unwrap_or(i64::MAX);
        self.metrics.unreadable.set(count);
        self.ready.do_without(unreadable.clone());
        self.unreadable = unreadable;
    }

    /// Takes this event and those that have come meanwhile.
    fn take(&mut self, event: Event) -> Effect {
        let mut effect = self.take_one(event);
        for _ in 1..BATCH {
            let Ok(event) = self.events.try_recv() else { break };
            effect |= self.take_one(event);
        }
        effect
    }

    fn take_one(&mut self, event: Event) -> Effect {
        let touched = touched(&event);
        let mut effect = self.seen.take(event);
        match touched {
            // Something went while nobody watched, perhaps one of ours.
            None if effect.outputs => self.made.published = None,
            None => {}
            Some(touched) if effect.outputs => {
                let Touched { key, version, .. } = touched;
                // An echo of our own write is nothing new.
                let published = self.made.published.as_ref();
                effect.outputs =
                    published.is_none_or(|(published, _)| published.is_outdated(&key.1, version.as_ref()));
                if effect.outputs && self.made.published.take().is_some() {
                    tracing::info!(name = key.1, "was changed by someone else: files are read anew");
                }
            }
            // Most Secrets and ConfigMaps of a namespace are no business of ours.
            Some(touched) => {
                let references = &self.made.references;
                effect.inputs &= match touched.is_secret {
                    true => references.wants_secret(&touched.key),
                    false => references.wants_config_map(&touched.key),
                };
            }
        }
        effect
    }

    /// One round: fetch, decide, take turns, fold, publish, report.
    async fn round(&mut self) -> Result<Round, RoundError> {
        let (published, incumbents) = match self.made.published.take() {
            Some(known) => known,
            None => {
                // Who runs may be missing in what is there now: nobody waits for a turn.
                self.made.turns = Turns::default();
                let published = Published::read(self.client.clone(), self.names.clone()).await?;
                let incumbents = Incumbents::of(published.files());
                (published, incumbents)
            }
        };
        let Seen {
            secrets, config_maps, ..
        } = &self.seen;
        let wanted = wanted(&self.seen);
        let failures = self
            .made
            .references
            .refresh(&self.client, &wanted, secrets, config_maps)
            .await;
        let references = &self.made.references;
        let mut admitted = decide(&self.seen, references, published.files(), &incumbents);
        self.made.turns.take(&mut admitted, &incumbents);
        drop(incumbents);
        self.made.rounds += 1;
        let fresh = format!("{}-{}", self.boot, self.made.rounds);
        let files = fold(
            &admitted.mappings,
            &admitted.credentials,
            published.files(),
            &fresh,
        )?;
        let revision = load_index(&files.index).ok().map(|index| index.revision);
        let begun = Instant::now();
        let (published, written) = published.replace(files, &self.metrics).await?;
        let took = begun.elapsed();
        self.made.turns.wrote(written, took);
        let waiting = admitted.waiting.len();
        if written > 0 {
            tracing::info!(
                written,
                mappings = admitted.mappings.len(),
                waiting,
                "files written in {took:.1?}"
            );
        }
        self.made.published = Some((published, Incumbents::among(&admitted.mappings)));
        self.made.revision = revision;
        let now = std::time::Instant::now();
        let (verdicts, news) = self.made.verdicts.then(&self.seen, admitted, &self.metrics, now);
        self.made.verdicts = verdicts;
        self.report(&news);
        let again = match (failures, waiting) {
            (_, 1..) => Some(ROUND_EVERY),
            (1.., _) => Some(RETRY),
            (0, 0) => None,
        };
        Ok(Round { again, took })
    }

    /// Asks the agents that there are, and tells their kubelets of the files.
    fn reach(&mut self) {
        let fixed = self.fixed.iter().map(|url| (url.clone(), url.clone()));
        let pods = self.seen.pods.iter();
        let pods = pods.filter_map(|(_, pod)| Some((pod.node.clone(), pod.url.clone()?)));
        let agents: BTreeMap<String, String> = fixed.chain(pods).collect();
        self.agents.expect(&agents);
        self.asking.follow(&agents);
    }

    /// Whether an agent in a pod answers, and does not run the newest files yet.
    fn are_about_to_load(&self) -> bool {
        let Some(revision) = &self.made.revision else {
            return false;
        };
        let mut pods = self.seen.pods.iter();
        pods.any(|(_, pod)| {
            let taken = self.agents.has_taken(&pod.node, revision);
            matches!(taken, Taken::NotYet | Taken::Failed)
        })
    }

    /// Makes the agents' kubelets look where there are files that their agents do not run, and asks those more often.
    fn poke(&mut self) {
        let Made { revision, pokes, .. } = &mut self.made;
        if let Some(revision) = revision {
            let taken = |pod: &SeenPod| self.agents.has_taken(&pod.node, revision);
            pokes.poke(&self.client, &self.seen.pods, revision, taken);
            self.asking.expect(revision);
        }
    }

    /// Asks agents with the certificate that there is now.
    fn identify(&mut self) {
        if let Some(identity) = self.identities.borrow_and_update().as_ref()
            && let Err(error) = self.asking.identify(identity)
        {
            tracing::warn!("agents in pods cannot be asked: {error}");
        }
    }

    /// Lays down every status that says something new, of those that news concern.
    fn report(&mut self, news: &News) {
        let waited = self.made.since.is_none_or(|since| since.elapsed() > FIRST_WORDS);
        let heard = waited || self.agents.is_complete();
        self.agents.count(&self.metrics, self.made.revision.as_deref());
        let Made {
            verdicts, awaited, ..
        } = &mut self.made;
        let still = verdicts.report(&mut self.seen, &self.agents, news, heard, &self.desk, unix_now());
        *awaited = std::mem::take(awaited).and(still);
        let policies = self.seen.policies.iter();
        count_conditions(policies.map(|(_, policy)| policy.status.as_ref()), &self.metrics);
    }
}

/// The Secret or ConfigMap of an event.
struct Touched {
    is_secret: bool,
    key: Key,
    /// Its version; none if it is gone.
    version: Option<String>,
}

fn touched(event: &Event) -> Option<Touched> {
    let (is_secret, change) = match event {
        Event::Secret(_, change) => (true, change),
        Event::ConfigMap(_, change) => (false, change),
        Event::Policy(..) | Event::Grant(..) | Event::Namespace(..) | Event::Pod(..) => return None,
    };
    let (key, version) = match change {
        Change::Put(key, version) | Change::Listed(key, version) => (key.clone(), Some(version.clone())),
        Change::Gone(key) => (key.clone(), None),
        Change::Restart | Change::Complete | Change::Refused => return None,
    };
    Some(Touched {
        is_secret,
        key,
        version,
    })
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}
