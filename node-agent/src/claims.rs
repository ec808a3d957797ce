//! One name, one piece of work at a time, in the order in which rows were read.
//!
//! Several lanes read one container: the first pass, the followed rows, the tombstones, rows tried again, and during
//! sharding a second database. A copy that was read before a tombstone must be finished before the delete looks at
//! the remote. So a lane claims the names of its rows while it reads them, and whoever claims a name later waits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard};

/// The claims on one mapping's names.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    names: Arc<Mutex<HashMap<Name, VecDeque<Arc<Place>>>>>,
    readers: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

type Name = (String, String);

#[derive(Debug, Default)]
struct Place {
    turn: Notify,
    /// Its work takes longer than a turn.
    lengthy: AtomicBool,
}

/// A place in the queue for a name; dropping it lets the next one go on.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    name: Name,
    place: Arc<Place>,
}

impl Claims {
    /// Held while rows of a container are read and their names claimed, so that claims follow the order of reading.
    pub async fn reading(&self, container: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|_, lock| Arc::strong_count(lock) > 1);
            readers.entry(container.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Takes the last place in the queue for a name.
    #[must_use]
    pub fn claim(&self, container: &str, name: &str) -> Claim {
        let name = (container.to_owned(), name.to_owned());
        let place = Arc::new(Place::default());
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = names.entry(name.clone()).or_default();
        queue.push_back(place.clone());
        if queue.len() == 1 {
            place.turn.notify_one();
        }
        drop(names);
        Claim {
            claims: self.clone(),
            name,
            place,
        }
    }
}

impl Claim {
    /// Returns when every earlier claim on the name has been dropped. To be awaited once.
    pub async fn turn(&self) {
        self.place.turn.notified().await;
    }

    /// Notes that the work under this claim will outlast the turn that began it.
    pub fn is_lengthy(&self) {
        self.place.lengthy.store(true, Ordering::Relaxed);
    }

    /// Whether such work has to end before this claim's turn comes.
    #[must_use]
    pub fn waits_for_long(&self) -> bool {
        let names = self.claims.names.lock().unwrap_or_else(PoisonError::into_inner);
        let before = names.get(&self.name).into_iter().flatten();
        before
            .take_while(|place| !Arc::ptr_eq(place, &self.place))
            .any(|place| place.lengthy.load(Ordering::Relaxed))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut names = self.claims.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = names.get_mut(&self.name) else {
            return;
        };
        let was_first = queue.front().is_some_and(|first| Arc::ptr_eq(first, &self.place));
        queue.retain(|waiting| !Arc::ptr_eq(waiting, &self.place));
        match queue.front() {
            None => {
                names.remove(&self.name);
            }
            Some(next) if was_first => next.turn.notify_one(),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn work_on_one_name_waits_for_earlier_work_on_it_alone() {
        let claims = Claims::default();
        let first = claims.claim("c", "a");
        let second = claims.claim("c", "a");
        let other = claims.claim("c", "b");
        assert!(first.turn().now_or_never().is_some());
        assert!(other.turn().now_or_never().is_some());
        assert!(second.turn().now_or_never().is_none());
        drop(first);
        assert!(second.turn().now_or_never().is_some());
    }

    #[test]
    fn who_waits_for_lengthy_work_can_tell() {
        let claims = Claims::default();
        let (first, second, other) = (
            claims.claim("c", "a"),
            claims.claim("c", "a"),
            claims.claim("c", "b"),
        );
        assert!(!second.waits_for_long());
        first.is_lengthy();
        assert!(second.waits_for_long());
        assert!(!first.waits_for_long() && !other.waits_for_long());
        drop(first);
        assert!(!second.waits_for_long());
    }

    #[test]
    fn a_claim_that_is_given_up_lets_the_ones_behind_it_keep_their_order() {
        let claims = Claims::default();
        let (first, second, third) = (
            claims.claim("c", "a"),
            claims.claim("c", "a"),
            claims.claim("c", "a"),
        );
        drop(second);
        assert!(third.turn().now_or_never().is_none());
        drop(first);
        assert!(third.turn().now_or_never().is_some());
        drop(third);
        assert!(
            claims.names.lock().unwrap().is_empty(),
            "nothing is kept of names that nobody works on"
        );
    }
}
