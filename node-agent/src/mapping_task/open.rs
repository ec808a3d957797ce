//! Opening a mapping's state and its databases: where work goes on, and where it starts over.

use onespace_core::plan::due_at;
use onespace_core::reason::RefuseReason;
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::MappingTask;
use super::followed::Followed;
use crate::clock::Clock;
use crate::databases::{Chunk, DatabaseError, Databases, Located, ReadRow, Replica};
use crate::lanes::TurnError;
use crate::state::{DatabaseKey, Opened, Progress};
use crate::stop::from_state;

/// Rows of one read while the beginning of what is not due is looked for.
const SCAN: usize = 1000;

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    /// Opens the mapping's state; `false` = the mapping is refused.
    pub(super) async fn open(&mut self) -> bool {
        let mapping = self.work.mapping.clone();
        loop {
            match self
                .work
                .state
                .open_mapping(&mapping.id, mapping.mode, &mapping.starts_over)
                .await
            {
                Ok(Opened::Found(state)) => {
                    self.totals = state.totals;
                    self.handled_retry = state.handled_retry;
                    self.handled_release = state.handled_release;
                    break;
                }
                Ok(Opened::ModeChanged { made_with }) => {
                    let message = format!(
                        "this mapping's progress was made with mode {made_with}; delete the policy and make one with \
                         another name of the target, or go back to that mode"
                    );
                    self.refused = Some((RefuseReason::ModeChanged.as_str(), message));
                    return false;
                }
                Err(error) => {
                    self.pause_for(from_state(&error));
                    tokio::select! {
                        () = self.cancel.cancelled() => return false,
                        () = tokio::time::sleep(super::LOCATE) => {}
                    }
                }
            }
        }
        self.paused = None;
        self.handle_retry_trigger().await;
        self.handle_release_trigger().await;
        self.refresh_held().await;
        true
    }

    /// Acts on the policy's retry trigger, once for each of its values.
    async fn handle_retry_trigger(&mut self) {
        let token = self.work.mapping.triggers.retry.clone();
        if token.is_none() || token == self.handled_retry {
            return;
        }
        match self
            .work
            .state
            .handle_retry(&self.work.mapping.id, token.clone(), self.work.now())
            .await
        {
            Ok(()) => self.handled_retry = token,
            Err(error) => self.pause_for(from_state(&error)),
        }
    }

    /// Releases the batches of deletes that the policy's trigger names, once for each of its values. Agents have
    /// batches of their own: the value may name several, with commas between them.
    async fn handle_release_trigger(&mut self) {
        let trigger = self.work.mapping.triggers.release_deletes.clone();
        if trigger.is_none() || trigger == self.handled_release {
            return;
        }
        let batches = trigger.iter().flat_map(|value| value.split(','));
        let batches = batches.map(|batch| batch.trim().to_owned()).collect();
        match self
            .work
            .state
            .release_deletes(&self.work.mapping.id, batches, trigger.clone())
            .await
        {
            Ok(()) => self.handled_release = trigger,
            Err(error) => self.pause_for(from_state(&error)),
        }
    }

    /// Takes up databases that are new, and lets go of those that went away.
    pub(super) async fn open_databases(&mut self, located: Located) {
        let mut unreadable = std::collections::BTreeSet::new();
        for replica in &located.replicas {
            if let Some(db) = self.followed.get_mut(&replica.path) {
                // The ring gave this replica another part of the work, or another server: it is opened anew.
                db.leaving |= db.replica != *replica;
                continue;
            }
            match self.open_database(replica).await {
                Ok(()) => {}
                Err(
                    TurnError::Database(DatabaseError::Gone(_) | DatabaseError::Busy(_))
                    | TurnError::Replaced,
                ) => {}
                Err(TurnError::State(error)) => self.pause_for(from_state(&error)),
                Err(TurnError::Database(error)) => {
                    if !self.unreadable.contains(&replica.path) {
                        tracing::warn!(policy = %self.work.policy_name(), "{error}");
                    }
                    unreadable.insert(replica.path.clone());
                }
            }
        }
        self.unreadable.retain(|path| self.followed.contains_key(path));
        self.unreadable.extend(unreadable);
        let present: std::collections::BTreeSet<_> = located
            .replicas
            .iter()
            .map(|replica| replica.path.clone())
            .collect();
        for (path, db) in &mut self.followed {
            db.leaving |= !present.contains(path);
        }
        self.followed
            .retain(|_, db| !db.leaving || !db.running.is_empty());
        self.located = Some(located);
        self.spawn_look();
    }

    async fn open_database(&mut self, replica: &Replica) -> Result<(), TurnError> {
        let head = self.databases.rows_after(replica, i64::MAX, 1).await?;
        let key = DatabaseKey {
            mapping: self.work.mapping.id.clone(),
            database: head.id.clone(),
            container: replica.container.clone(),
        };
        let now = self.work.now();
        let kept = match self.work.state.progress(&key).await {
            Ok(kept) => kept,
            Err(error) => {
                self.pause_for(from_state(&error));
                return Ok(());
            }
        };
        let progress = match kept {
            Some(progress) if self.goes_on(replica, &progress, &head).await? => progress,
            _ => {
                let progress = self.beginning(replica, &head, now).await?;
                let replaced = self.work.state.at_path(&key, &replica.path).await;
                let begun = match replaced {
                    Ok(replaced) => {
                        self.work
                            .state
                            .begin(&key, &replica.path, &progress, replaced)
                            .await
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = begun {
                    self.pause_for(from_state(&error));
                    return Ok(());
                }
                progress
            }
        };
        self.followed.insert(
            replica.path.clone(),
            Followed::new(replica.clone(), key, progress, now),
        );
        Ok(())
    }

    /// Whether a database is still the one that the progress speaks of: one that was restored from a backup keeps
    /// its id, but has fewer rows, or other names at their numbers.
    async fn goes_on(&self, replica: &Replica, progress: &Progress, head: &Chunk) -> Result<bool, TurnError> {
        if head.max_rowid < progress.processed || head.max_rowid < progress.deletes {
            return Ok(false);
        }
        let Some(name) = &progress.processed_name else {
            return Ok(true);
        };
        let there = self.databases.name_at(replica, progress.processed).await?;
        Ok(there.is_none_or(|there| there == *name))
    }

    /// The progress of a database that is seen for the first time: the first pass takes the rows that are there and
    /// due, the others are followed.
    async fn beginning(
        &self,
        replica: &Replica,
        head: &Chunk,
        now: Timestamp,
    ) -> Result<Progress, TurnError> {
        let mut high = head.max_rowid;
        if self.work.mapping.copy_after > 0 {
            high = self.last_due(replica, head.max_rowid, now).await?;
        }
        Ok(Progress {
            high,
            processed: high,
            first_pass_done: high == 0,
            ..Progress::default()
        })
    }

    async fn last_due(&self, replica: &Replica, max_rowid: i64, now: Timestamp) -> Result<i64, TurnError> {
        let mut after = 0;
        loop {
            let chunk = self.databases.rows_after(replica, after, SCAN).await?;
            for read in &chunk.rows {
                let not_due = match read {
                    ReadRow::Row(raw) if !raw.deleted => Row::parse(raw.clone())
                        .is_ok_and(|row| due_at(&row, self.work.mapping.copy_after, now, now).is_some()),
                    _ => false,
                };
                if not_due {
                    return Ok(read.rowid() - 1);
                }
                after = read.rowid();
            }
            if chunk.complete {
                return Ok(max_rowid);
            }
        }
    }
}
