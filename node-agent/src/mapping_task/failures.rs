//! Mistakes in our own program: work that panics is noticed, shown and tried again.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures::FutureExt as _;
use onespace_core::plan::{Pause, Stop};
use onespace_core::reason::PauseReason;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::{Event, MappingTask};
use crate::clock::Clock;
use crate::databases::Databases;
use crate::lanes::Lane;

/// What a piece of work was about that failed in itself.
#[derive(Clone, Debug)]
pub(super) enum About {
    Turn { path: PathBuf, lane: Lane },
    Transfer(PathBuf),
    Probe,
    OldUploads,
    Locate,
    Open(PathBuf),
    Look(String),
    Count(String),
}

/// What is said of it; its own words are for the log, they may contain anything.
#[must_use]
pub fn internal_error() -> Pause {
    Pause {
        reason: PauseReason::InternalError,
        code: None,
        message: "the agent failed in itself; report this with its log. It tries again".to_owned(),
        retry_after: None,
    }
}

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    /// Starts work beside the loop; it ends with an event, whatever happens in it.
    pub(super) fn spawn(&mut self, about: About, work: impl Future<Output = Event> + Send + 'static) {
        self.events.spawn(async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(event) => event,
                Err(panic) => Event::Failed(about, said(&*panic)),
            }
        });
    }

    pub(super) fn apply_failure(&mut self, about: About, what: &str) {
        tracing::error!(policy = %self.work.policy_name(), ?about, "the agent failed in itself: {what}");
        let now = self.work.now();
        match about {
            About::Turn { path, lane } => {
                self.turn_ended(lane);
                if let Some(db) = self.followed.get_mut(&path) {
                    db.running.remove(&lane);
                    db.rest(lane, now);
                }
                self.let_go();
            }
            About::Transfer(path) => self.transfer_ended(&path),
            About::Probe => self.probing = false,
            About::OldUploads => {}
            About::Locate => self.locating = false,
            About::Open(path) => drop(self.opening.remove(&path)),
            About::Look(device) => drop(self.looking.remove(&device)),
            About::Count(device) => {
                self.counting.remove(&device);
                for db in self.followed.values_mut() {
                    if db.replica.device == device {
                        db.count_failed(now);
                    }
                }
            }
        }
        self.pause_for(Stop::Pause(internal_error()));
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
