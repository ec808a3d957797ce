//! Copies that outlast their turns.

use std::path::{Path, PathBuf};

use onespace_core::plan::Stop;
use onespace_core::report::Totals;
use onespace_stores::remote::{Remote, RemoteError};
use onespace_stores::source::Source;

use super::{About, Event, MappingTask};
use crate::clock::Clock;
use crate::databases::Databases;
use crate::lanes::{Ended, Transfer};

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    pub(super) fn spawn_transfer(&mut self, path: &Path, transfer: Transfer) {
        if let Some(db) = self.followed.get_mut(path) {
            db.transfers += 1;
        }
        let path = PathBuf::from(path);
        self.spawn(About::Transfer(path.clone()), async move {
            let ended = transfer.end.await;
            Event::Transferred(path, transfer.rowid, Box::new(ended))
        });
    }

    /// Frees what uploads that a crash cut off left at the remote. One that cannot be aborted now stays noted for the
    /// next task.
    pub(super) fn abort_old_uploads(&mut self) {
        let uploads = std::mem::take(&mut self.old_uploads);
        if uploads.is_empty() {
            return;
        }
        let (remote, cancel, policy) = (
            self.work.remote.clone(),
            self.cancel.clone(),
            self.work.policy_name(),
        );
        self.spawn(About::OldUploads, async move {
            for (key, upload) in uploads {
                let aborted = tokio::select! {
                    () = cancel.cancelled() => break,
                    aborted = remote.abort_upload(&key, &upload) => aborted,
                };
                if let Err(error) = aborted {
                    tracing::warn!(%policy, "an upload that was cut off cannot be aborted, its parts stay: {error}");
                    if matches!(error, RemoteError::Paused { .. }) {
                        break;
                    }
                }
            }
            Event::OldUploadsAborted
        });
    }

    /// Notes that a copy ended, however it did.
    pub(super) fn transfer_ended(&mut self, path: &Path) {
        self.held_changed = true;
        if let Some(db) = self.followed.get_mut(path) {
            db.transfers = db.transfers.saturating_sub(1);
        }
    }

    pub(super) fn apply_transfer(&mut self, path: &Path, row: i64, ended: Option<Ended>) {
        self.transfer_ended(path);
        let Some(ended) = ended else {
            return;
        };
        self.totals += ended.totals;
        self.count_for_objective(&ended.tally);
        self.held_set_full |= ended.held_set_full;
        if ended.totals != Totals::default() {
            self.trial = None;
        }
        if let Some(db) = self.followed.get_mut(path) {
            db.blame_transfer(row, ended.pause.is_some());
            db.verification.saw(ended.ahead);
        }
        if let Some(pause) = ended.pause.filter(|_| !ended.told) {
            self.pause_for(Stop::Pause(pause));
        }
    }
}
