//! What all agents of a run share: Swift, the remote, the dice, and what went wrong so far.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use onespace_core::reason::PauseReason;
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::clock::Clock;

use crate::bucket::Bucket;
use crate::deletes::Watch;
use crate::dice::Dice;
use crate::swift::{Cluster, skewed};

/// How far clocks may be apart, and how long a row counts as fresh, in this small world.
pub const SLACK: Duration = Duration::from_secs(5);

/// When it begins.
const BEGINNING: u64 = 1_800_000_000;

/// How often requests go wrong, in percent.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// A request to the remote fails without effect.
    pub before: u64,
    /// A request to the remote has its effect, but the answer is lost.
    pub after: u64,
    /// A request takes seconds.
    pub slow: u64,
    /// Swift answers 503 for one object.
    pub source: u64,
    /// A body breaks off.
    pub broken: u64,
    /// A database is busy.
    pub busy: u64,
    /// The remote as a whole does not work.
    pub remote_is_down: Option<PauseReason>,
    /// The internal endpoint of these agents does not work.
    pub endpoint_is_down: BTreeSet<usize>,
    /// Keys that the remote refuses now.
    pub refused: BTreeSet<String>,
}

/// The world's contents.
#[derive(Debug)]
pub struct Shared {
    /// Decides what happens to requests.
    pub dice: Dice,
    /// Swift.
    pub swift: Cluster,
    /// The remote.
    pub remote: Bucket,
    /// What goes wrong now.
    pub trouble: Trouble,
    /// What each agent may delete, and did.
    pub watch: Vec<Watch>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// What happened, for who reads it.
    pub story: Option<Vec<String>>,
    /// Requests to Swift and the remote.
    pub requests: u64,
    /// Deletes at the remote, and those of them whose tombstones Swift had forgotten.
    pub deletes: (u64, u64),
}

/// A handle on the world; clones are the same one.
#[derive(Clone, Debug)]
pub struct World {
    shared: Arc<Mutex<Shared>>,
    began: tokio::time::Instant,
}

impl World {
    /// A new world.
    pub fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(Mutex::new(shared)),
            began: tokio::time::Instant::now(),
        }
    }

    /// All of it. Not to be held over an await.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// True time.
    pub fn now(&self) -> Timestamp {
        beginning().plus(self.began.elapsed())
    }

    /// A clock that is off by so many seconds.
    pub fn clock(&self, skew: i64) -> SimClock {
        SimClock {
            world_began: self.began,
            skew,
        }
    }

    /// Writes a line of the story, if someone reads it.
    pub fn tell(&self, line: impl FnOnce(&Shared) -> String) {
        let now = self.began.elapsed();
        let mut shared = self.shared();
        if shared.story.is_some() {
            let line = format!("{:>9.3} {}", now.as_secs_f64(), line(&shared));
            shared.story.get_or_insert_default().push(line);
        }
    }

    /// Notes that something happened which must never happen.
    pub fn violation(&self, what: String) {
        self.tell(|_| format!("!!! {what}"));
        self.shared().violations.push(what);
    }
}

/// When the world begins.
pub fn beginning() -> Timestamp {
    Timestamp::from_unix_seconds(BEGINNING)
}

/// Tokio's clock as the time of day, off by some seconds.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    world_began: tokio::time::Instant,
    skew: i64,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        skewed(beginning().plus(self.world_began.elapsed()), self.skew)
    }
}
