//! Statuses that are to be written: the newest of each policy, what somebody waits for first.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onespace_core::status::{Event, Urgency};
use onespace_crds::SyncPolicyStatus;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::table::Key;

/// Events of one policy that may wait.
const EVENTS: usize = 8;

/// A status that is to be written.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The policy's uid: another policy of the same name is not meant.
    pub uid: String,
    /// Who is written first.
    pub urgency: Urgency,
    /// The status.
    pub status: Arc<SyncPolicyStatus>,
    /// What to tell once it is written.
    pub events: Vec<Event>,
    /// Where is noted what the API server has then.
    pub written: Written,
}

impl Wanted {
    /// In the place of one that was not written: what it was to tell is told, too, and who waited for it still does.
    fn after(mut self, before: Self) -> Self {
        if before.uid == self.uid {
            let newest = self
                .events
                .into_iter()
                .rev()
                .chain(before.events.into_iter().rev());
            self.events = newest.take(EVENTS).collect();
            self.events.reverse();
            self.urgency = self.urgency.min(before.urgency);
        }
        self
    }
}

/// What the API server made of the status that was written last, shared between who decides and who writes.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<AtomicU64>);

impl Written {
    /// Takes down the status of an answer.
    pub fn note(&self, status: &Value) {
        self.0.store(print_of(status), Ordering::Relaxed);
    }

    /// Whether something was written, and what a watch has shown since is something else.
    #[must_use]
    pub fn is_other_than(&self, shown: u64) -> bool {
        ![0, shown].contains(&self.0.load(Ordering::Relaxed))
    }
}

/// What a status is told from others by; never 0.
#[must_use]
pub fn print_of(status: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.to_string().hash(&mut hasher);
    hasher.finish().max(1)
}

/// What is to be written, by policy: a newer status takes the place of one that waits.
#[derive(Debug, Default)]
pub struct Desk {
    papers: Mutex<Papers>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Papers {
    all: BTreeMap<Key, Paper>,
    /// Those whose turn it is, in order.
    ready: BTreeSet<(Urgency, u64, Key)>,
    /// Those that wait after a failure.
    later: BTreeSet<(Instant, Key)>,
    /// Policies of which one is being written: a second one at the same time could be overtaken.
    in_hand: BTreeSet<Key>,
    laid_down: u64,
}

/// One of them.
#[derive(Debug)]
struct Paper {
    wanted: Wanted,
    number: u64,
    /// How long was waited before this try.
    waited: Duration,
    until: Option<Instant>,
}

impl Desk {
    /// Lays a status down to be written. It is tried at once, whatever became of those before it.
    pub fn put(&self, key: Key, wanted: Wanted) {
        let mut papers = self.lock();
        papers.laid_down += 1;
        let mut paper = Paper {
            wanted,
            number: papers.laid_down,
            waited: Duration::ZERO,
            until: None,
        };
        if let Some(before) = papers.remove(&key) {
            let was = before.wanted.urgency;
            paper.wanted = paper.wanted.after(before.wanted);
            if paper.wanted.urgency == was {
                paper.number = before.number;
            }
        }
        papers.insert(key, paper);
        drop(papers);
        self.bell.notify_one();
    }

    /// The next one to be written, and how long was waited before this try. Its policy has no other one written until
    /// [`Desk::done`] or [`Desk::put_back`].
    pub fn take(&self, now: Instant) -> Option<(Key, Wanted, Duration)> {
        let mut papers = self.lock();
        while let Some((until, key)) = papers.later.first().cloned()
            && until <= now
            && let Some(mut paper) = papers.remove(&key)
        {
            paper.until = None;
            papers.insert(key, paper);
        }
        let Papers { ready, in_hand, .. } = &*papers;
        let next = ready.iter().find(|(_, _, key)| !in_hand.contains(key));
        let (_, _, key) = next.cloned()?;
        let Paper { wanted, waited, .. } = papers.remove(&key)?;
        papers.in_hand.insert(key.clone());
        Some((key, wanted, waited))
    }

    /// It was written, or never will be.
    pub fn done(&self, key: &Key) {
        self.lock().in_hand.remove(key);
    }

    /// Lays a status down again that could not be written, unless a newer one is there: to be tried after this wait.
    pub fn put_back(&self, key: Key, wanted: Wanted, wait: Duration, now: Instant) {
        let mut papers = self.lock();
        papers.in_hand.remove(&key);
        let paper = match papers.remove(&key) {
            Some(newer) => Paper {
                wanted: newer.wanted.after(wanted),
                ..newer
            },
            None => {
                papers.laid_down += 1;
                Paper {
                    wanted,
                    number: papers.laid_down,
                    waited: wait,
                    until: (!wait.is_zero()).then(|| now + wait),
                }
            }
        };
        papers.insert(key, paper);
    }

    /// When one that waits after a failure is tried again.
    pub fn next_turn(&self) -> Option<Instant> {
        self.lock().later.first().map(|(until, _)| *until)
    }

    /// Waits until something is laid down.
    pub async fn bell(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Papers {
    fn insert(&mut self, key: Key, paper: Paper) {
        match paper.until {
            Some(until) => self.later.insert((until, key.clone())),
            None => self
                .ready
                .insert((paper.wanted.urgency, paper.number, key.clone())),
        };
        self.all.insert(key, paper);
    }

    fn remove(&mut self, key: &Key) -> Option<Paper> {
        let paper = self.all.remove(key)?;
        match paper.until {
            Some(until) => self.later.remove(&(until, key.clone())),
            None => self
                .ready
                .remove(&(paper.wanted.urgency, paper.number, key.clone())),
        };
        Some(paper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("swift".to_owned(), name.to_owned())
    }

    fn wanted(urgency: Urgency, generation: i64) -> Wanted {
        Wanted {
            uid: "uid-1".to_owned(),
            urgency,
            status: Arc::new(SyncPolicyStatus {
                observed_generation: Some(generation),
                ..SyncPolicyStatus::default()
            }),
            events: Vec::new(),
            written: Written::default(),
        }
    }

    fn taken(desk: &Desk, now: Instant) -> Option<(String, Option<i64>)> {
        let ((_, name), wanted, _) = desk.take(now)?;
        Some((name, wanted.status.observed_generation))
    }

    #[test]
    fn what_a_user_changed_goes_before_news_and_these_before_numbers() {
        let (desk, now) = (Desk::default(), Instant::now());
        for (name, urgency) in [
            ("a", Urgency::Numbers),
            ("b", Urgency::News),
            ("c", Urgency::News),
            ("d", Urgency::Numbers),
            ("e", Urgency::Generation),
        ] {
            desk.put(key(name), wanted(urgency, 1));
        }
        // A newer one in its place: it is as urgent as both.
        desk.put(key("b"), wanted(Urgency::Numbers, 2));
        desk.put(key("d"), wanted(Urgency::News, 2));
        let order = std::iter::from_fn(|| taken(&desk, now));
        let order: Vec<(String, i64)> = order.map(|(name, number)| (name, number.unwrap())).collect();
        let order: Vec<(&str, i64)> = order
            .iter()
            .map(|(name, number)| (name.as_str(), *number))
            .collect();
        assert_eq!(order, [("e", 1), ("b", 2), ("c", 1), ("d", 2), ("a", 1)]);
    }

    #[test]
    fn of_one_policy_one_status_is_written_at_a_time_and_the_newest_next() {
        let (desk, now) = (Desk::default(), Instant::now());
        desk.put(key("a"), wanted(Urgency::News, 1));
        let (_, first, _) = desk.take(now).unwrap();
        desk.put(key("a"), wanted(Urgency::News, 2));
        desk.put(key("a"), wanted(Urgency::Numbers, 3));
        assert_eq!(taken(&desk, now), None, "it could be overtaken");
        desk.put_back(key("a"), first, Duration::from_secs(60), now);
        assert_eq!(taken(&desk, now), Some(("a".to_owned(), Some(3))));
        desk.done(&key("a"));
        assert_eq!(taken(&desk, now), None);
    }

    #[test]
    fn a_status_that_was_refused_waits_alone_and_a_newer_one_does_not() {
        let (desk, now) = (Desk::default(), Instant::now());
        let minute = Duration::from_secs(60);
        desk.put(key("a"), wanted(Urgency::News, 1));
        let (_, refused, waited) = desk.take(now).unwrap();
        assert_eq!(waited, Duration::ZERO);
        desk.put_back(key("a"), refused, minute, now);
        assert_eq!(desk.next_turn(), Some(now + minute));
        assert_eq!(taken(&desk, now), None);
        desk.put(key("b"), wanted(Urgency::Numbers, 1));
        assert_eq!(taken(&desk, now), Some(("b".to_owned(), Some(1))));
        let (_, again, waited) = desk.take(now + minute).unwrap();
        assert_eq!(waited, minute);
        desk.put_back(key("a"), again, minute, now);
        desk.put(key("a"), wanted(Urgency::Numbers, 2));
        assert_eq!(taken(&desk, now), Some(("a".to_owned(), Some(2))));
        assert_eq!(desk.next_turn(), None);
    }
}
