//! Looks at what turns depend on: the remote's abilities, the databases on this node, their changes, their backlog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onespace_core::plan::{Pause, Stop};
use onespace_core::reason::PauseReason;
use onespace_stores::remote::{Capabilities, Permissions, Remote, RemoteError};
use onespace_stores::source::Source;

use super::{About, Event, MappingTask, Probed, report, verification};
use crate::clock::Clock;
use crate::databases::{Databases, Replica};
use crate::lanes::TurnError;
use crate::state::{DatabaseKey, Progress};
use crate::stop::{from_remote, from_state};

/// A mapping that must end leaves a probe so much time to remove what it wrote.
const PROBE_GRACE: Duration = Duration::from_secs(2);

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    pub(super) fn spawn_probe(&mut self) {
        if self.probing {
            return;
        }
        self.probing = true;
        let (work, cancel) = (self.work.clone(), self.cancel.clone());
        self.spawn(About::Probe, async move {
            let prefix = work.scratch_prefix();
            let patience = async {
                cancel.cancelled().await;
                tokio::time::sleep(PROBE_GRACE).await;
            };
            tokio::select! {
                biased;
                result = work.remote.probe(&prefix) => Event::Probed(result),
                () = patience => Event::ProbeAbandoned,
            }
        });
    }

    pub(super) fn spawn_locate(&mut self) {
        if std::mem::replace(&mut self.locating, true) {
            return;
        }
        let (databases, mapping) = (self.databases.clone(), self.work.mapping.clone());
        self.spawn(About::Locate, async move {
            Event::Located(databases.locate(&mapping).await)
        });
    }

    /// Each device by itself: one that hangs keeps no other waiting.
    pub(super) fn spawn_look(&mut self) {
        let mut devices: BTreeMap<String, Vec<Replica>> = BTreeMap::new();
        for db in self.followed.values() {
            if !self.looking.contains(&db.replica.device) {
                let replicas = devices.entry(db.replica.device.clone()).or_default();
                replicas.push(db.replica.clone());
            }
        }
        for (device, replicas) in devices {
            self.looking.insert(device.clone());
            let databases = self.databases.clone();
            self.spawn(About::Look(device.clone()), async move {
                Event::Looked(device, databases.signatures(replicas).await)
            });
        }
    }

    /// Counts anew what is left to do where something changed, whether or not the mapping can work: lag is shown also
    /// while it is paused.
    pub(super) fn spawn_count(&mut self) {
        let now = self.work.now();
        let mut devices: BTreeMap<String, Vec<(Replica, DatabaseKey, Progress)>> = BTreeMap::new();
        for db in self.followed.values_mut() {
            if !self.counting.contains(&db.replica.device) && db.may_count(now) {
                db.recount = false;
                let wanted = devices.entry(db.replica.device.clone()).or_default();
                wanted.push((db.replica.clone(), db.key.clone(), db.progress.clone()));
            }
        }
        for (device, wanted) in devices {
            self.counting.insert(device.clone());
            let (databases, work) = (self.databases.clone(), self.work.clone());
            self.spawn(About::Count(device.clone()), async move {
                let mut counted = Vec::with_capacity(wanted.len());
                for (replica, key, progress) in wanted {
                    let backlog = report::backlog(&*databases, &work, &replica, &progress).await;
                    let verify = verification::backlog(&*databases, &work.state, &replica, &key).await;
                    counted.push((replica.path, backlog.zip(verify)));
                }
                Event::Counted(device, counted)
            });
        }
    }

    pub(super) async fn apply(&mut self, event: Event) {
        let now = self.work.now();
        match event {
            Event::Located(Ok(located)) => {
                self.locating = false;
                self.apply_located(located).await;
            }
            Event::Located(Err(error)) => {
                self.locating = false;
                tracing::warn!(policy = %self.work.policy_name(), "databases cannot be located: {error}");
                self.pause_for(Stop::Pause(Pause {
                    reason: PauseReason::SourceUnavailable,
                    code: None,
                    message: error.to_string(),
                    retry_after: None,
                }));
            }
            Event::Opened(replica, result) => self.apply_opened(*replica, *result),
            Event::Failed(about, what) => self.apply_failure(about, &what),
            Event::Looked(device, signatures) => {
                self.looking.remove(&device);
                for (path, signature) in signatures {
                    match (signature, self.followed.get_mut(&path)) {
                        (Ok(signature), Some(db)) => db.saw(signature, now),
                        (Err(error), Some(db)) => {
                            db.lost_sight();
                            self.database_trouble(&path, &error);
                        }
                        (_, None) => {}
                    }
                }
                self.let_go();
            }
            Event::Counted(device, counted) => {
                self.counting.remove(&device);
                for (path, backlog) in counted {
                    let Some(db) = self.followed.get_mut(&path) else {
                        continue;
                    };
                    match backlog {
                        Some((backlog, verify)) => {
                            db.backlog = backlog;
                            db.verification.backlog = verify;
                        }
                        // What cannot be read now is counted later: a wrong number must not stay.
                        None => db.count_failed(now),
                    }
                }
            }
            Event::Transferred(path, row, ended) => self.apply_transfer(&path, row, *ended),
            Event::Probed(result) => self.apply_probe(result),
            Event::ProbeAbandoned => self.probing = false,
            Event::OldUploadsAborted => {}
            Event::Turn {
                path,
                lane,
                changes,
                passes,
                result,
            } => {
                self.turn_ended(lane);
                let Some(db) = self.followed.get_mut(&path) else {
                    return;
                };
                db.running.remove(&lane);
                db.recount |= result.is_ok();
                db.last_turn = self.turn_count;
                match *result {
                    Ok((ended, listing)) => self.apply_turn(&path, lane, (changes, passes), ended, listing),
                    Err(TurnError::Database(error)) => {
                        db.rest(lane, now);
                        self.database_trouble(&path, &error);
                    }
                    Err(TurnError::Replaced) => db.leaving = true,
                    Err(TurnError::State(error)) => self.pause_for(from_state(&error)),
                }
                self.let_go();
            }
        }
    }

    pub(super) fn apply_probe(&mut self, result: Result<(Capabilities, Permissions), RemoteError>) {
        self.probing = false;
        match result {
            Err(error) => self.pause_for(from_remote(error)),
            Ok((capabilities, permissions)) => {
                let missing = self.work.missing_permissions(&permissions);
                self.probed = Some(Probed {
                    capabilities: serde_json::to_value(&capabilities)
                        .and_then(serde_json::from_value)
                        .unwrap_or_default(),
                    permissions,
                    at: self.work.now(),
                });
                self.work.capabilities = Arc::new(capabilities);
                if let Some(pause) = missing {
                    return self.pause_for(Stop::Pause(pause));
                }
                self.abort_old_uploads();
                self.resume();
            }
        }
    }
}
