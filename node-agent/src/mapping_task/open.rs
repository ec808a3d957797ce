//! Opening a mapping's state and its databases: where work goes on, and where it starts over.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use onespace_core::mapping::{Mapping, Mode};
use onespace_core::objective::Tally;
use onespace_core::plan::due_at;
use onespace_core::planted::{Fault, planted};
use onespace_core::reason::{PassRefusal, RefuseReason};
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::followed::Followed;
use super::verification::Verification;
use super::{About, Event, MappingTask};
use crate::clock::Clock;
use crate::databases::{Chunk, DatabaseError, Databases, Located, ReadRow, Replica};
use crate::state::{
    Ahead, Assignment, DatabaseKey, Opened, Passing, Progress, Reconciling, StateError, Window,
};
use crate::stop::from_state;
use crate::work::Work;

/// Rows of one read while the beginning of what is not due is looked for.
const SCAN: usize = 1000;

/// Databases of one device that are opened at the same time.
const OPENS: usize = 4;

/// Uploads of earlier tasks that one task aborts; the next one goes on.
const OLD_UPLOADS: u32 = 1000;

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    /// Opens the mapping's state; `false` = the mapping is refused.
    pub(super) async fn open(&mut self) -> bool {
        let mapping = self.work.mapping.clone();
        loop {
            match self.open_state(&mapping).await {
                Ok((Opened::Found(state), window)) => {
                    self.objective = window;
                    self.totals = state.totals;
                    self.handled_retry = state.handled_retry;
                    self.handled_release = state.handled_release;
                    break;
                }
                Ok((Opened::ModeChanged { made_with }, _)) => {
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
        self.clear_up_after_the_last_task().await;
        self.handle_triggers().await;
        self.refresh_held().await;
        true
    }

    /// Whatever was on its way when the last task ended is not any more.
    async fn clear_up_after_the_last_task(&mut self) {
        let (id, state) = (&self.work.mapping.id, &self.work.state);
        let found = match state.transfers_over(id, None).await {
            Ok(()) => state.uploads(id, OLD_UPLOADS).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(uploads) => self.old_uploads = uploads,
            Err(error) => self.pause_for(from_state(&error)),
        }
    }

    async fn open_state(
        &self,
        mapping: &Mapping,
    ) -> Result<(Opened, Option<(Tally, Timestamp)>), StateError> {
        let state = &self.work.state;
        let opened = state
            .open_mapping(&mapping.id, mapping.mode, &mapping.starts_over)
            .await?;
        let window = match opened {
            Opened::Found(_) => {
                let passing = Passing {
                    at: self.work.now(),
                    slack: self.work.limits.slack,
                };
                state.clock_was_set_back(&mapping.id, passing).await?;
                state
                    .open_objective(&mapping.id, mapping.objective, self.work.now())
                    .await?
            }
            Opened::ModeChanged { .. } => None,
        };
        Ok((opened, window))
    }

    /// Acts on the policy's triggers that were not acted on yet.
    pub(super) async fn handle_triggers(&mut self) {
        self.handle_retry_trigger().await;
        self.handle_release_trigger().await;
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
            Ok(_) => self.handled_retry = token,
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
            Ok(_) => self.handled_release = trigger,
            Err(error) => self.pause_for(from_state(&error)),
        }
    }

    /// Takes up databases that are new, and lets go of those that went away.
    pub(super) async fn apply_located(&mut self, located: Located) {
        let present: BTreeSet<_> = located
            .replicas
            .iter()
            .map(|replica| replica.path.clone())
            .collect();
        self.to_open.clear();
        for replica in &located.replicas {
            match self.followed.get_mut(&replica.path) {
                // The ring gave this replica another part of the work, or another server: it is opened anew.
                Some(db) => db.leaving |= db.replica != *replica,
                None if self.opening.contains_key(&replica.path) => {}
                None => {
                    let device = self.to_open.entry(replica.device.clone()).or_default();
                    device.push_back(replica.clone());
                }
            }
        }
        for (path, db) in &mut self.followed {
            db.leaving |= !present.contains(path);
        }
        self.followed
            .retain(|_, db| !db.leaving || !db.running.is_empty());
        self.unreadable.retain(|path| present.contains(path));
        self.busy.retain(|path, _| present.contains(path));
        let all_seen = located.unreadable == 0 && !located.walking;
        if all_seen && self.located.as_ref() != Some(&located) {
            self.forget_absent(&located.replicas, &present).await;
        }
        self.located = Some(located);
        self.open_next();
        self.spawn_look();
    }

    /// What is kept of a database that is gone goes, if its container has others here: it was the file that the
    /// container had before it was sharded, a shard that was merged into another, or a replica that the ring moved. Its
    /// rows are in other databases by now, and whoever follows those begins with all of them. Of a container that is
    /// gone altogether held rows stay to be seen.
    async fn forget_absent(&mut self, replicas: &[Replica], present: &BTreeSet<PathBuf>) {
        let containers = replicas.iter().map(|replica| replica.container.clone()).collect();
        let mut paths = present.clone();
        paths.extend(self.followed.keys().cloned());
        self.held_changed = true;
        let id = &self.work.mapping.id;
        if let Err(error) = self.work.state.forget_absent(id, containers, paths).await {
            self.pause_for(from_state(&error));
        }
    }

    /// Starts to open the next databases, some at a time on each device. A disk that is slow keeps the others' waiting
    /// no more than the loop.
    fn open_next(&mut self) {
        let mut next = Vec::new();
        for (device, waiting) in &mut self.to_open {
            let busy = self.opening.values().filter(|of| *of == device).count();
            let places = OPENS.saturating_sub(busy).min(waiting.len());
            next.extend(waiting.drain(..places));
        }
        self.to_open.retain(|_, waiting| !waiting.is_empty());
        for replica in next {
            self.opening.insert(replica.path.clone(), replica.device.clone());
            let opening = Opening {
                work: self.work.clone(),
                databases: self.databases.clone(),
            };
            self.spawn(About::Open(replica.path.clone()), async move {
                let opened = opening.open(&replica).await;
                Event::Opened(Box::new(replica), Box::new(opened))
            });
        }
    }

    pub(super) fn apply_opened(&mut self, replica: Replica, opened: Result<OpenedDatabase, OpenError>) {
        self.opening.remove(&replica.path);
        self.open_next();
        let is_ours = |located: &Located| located.replicas.contains(&replica);
        match opened {
            Ok(OpenedDatabase {
                key,
                progress,
                verification,
                reconciling,
            }) => {
                // A database that starts over has no held rows.
                self.held_changed = true;
                self.was_read(&replica.path);
                if self.located.as_ref().is_some_and(is_ours) {
                    let mut followed = Followed::new(replica.clone(), key, progress, self.work.now());
                    followed.verification = verification;
                    let mapping = &self.work.mapping;
                    let reconciles = mapping.mode == Mode::Sync && mapping.propagate_delete;
                    if replica.shard.is_some() {
                        // Rows of a shard move: what it lacks another shard may have.
                        followed.refused = reconciles.then_some(PassRefusal::ContainerSharded);
                    } else {
                        followed.reclaim_age = reconciles.then(|| self.databases.reclaim_age());
                    }
                    followed.reconciling = reconciling;
                    self.followed.insert(replica.path, followed);
                    self.spawn_look();
                }
            }
            Err(OpenError::State(error)) => self.pause_for(from_state(&error)),
            Err(OpenError::Database(error)) => self.database_trouble(&replica.path, &error),
        }
    }
}

/// What a database is opened with.
struct Opening<D, S, R, C> {
    work: Work<S, R, C>,
    databases: Arc<D>,
}

/// A database that can be followed.
#[derive(Debug)]
pub(super) struct OpenedDatabase {
    key: DatabaseKey,
    progress: Progress,
    verification: Verification,
    reconciling: Reconciling,
}

/// Why a database is not followed yet; it is tried again when databases are located anew.
#[derive(Debug)]
pub(super) enum OpenError {
    Database(DatabaseError),
    State(StateError),
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<StateError> for OpenError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl<D: Databases, S: Source, R: Remote, C: Clock> Opening<D, S, R, C> {
    async fn open(&self, replica: &Replica) -> Result<OpenedDatabase, OpenError> {
        let file = self.file(replica).await?;
        let head = self.databases.rows_after(replica, i64::MAX, 1).await?;
        let key = DatabaseKey {
            mapping: self.work.mapping.id.clone(),
            database: head.id.clone(),
            container: replica.container.clone(),
        };
        let now = self.work.now();
        if let Some(progress) = self.work.state.progress(&key).await?
            && self.goes_on(replica, &progress, file, &head).await?
        {
            self.work.state.is_at(&key, &replica.path, file).await?;
            if planted(Fault::BudgetRefilled) {
                self.work.state.begin_window(&key, Window::default()).await?;
            }
            return Ok(self.assigned(replica, key, progress, now).await?);
        }
        let progress = Progress {
            file: NonZeroU64::new(file),
            ..self.beginning(replica, &head, now).await?
        };
        let replaced = self.work.state.at_path(&key, &replica.path).await?;
        self.work
            .state
            .begin(&key, &replica.path, &progress, replaced)
            .await?;
        Ok(self.assigned(replica, key, progress, now).await?)
    }

    /// Verification starts over when the replica's part of the rows is another than before.
    async fn assigned(
        &self,
        replica: &Replica,
        key: DatabaseKey,
        progress: Progress,
        now: Timestamp,
    ) -> Result<OpenedDatabase, StateError> {
        let state = &self.work.state;
        let assignment = Assignment {
            index: replica.index,
            replicas: replica.replicas,
        };
        if state.assign(&key, assignment, now).await? {
            tracing::info!(
                policy = %self.work.policy_name(), index = replica.index, replicas = replica.replicas,
                "the ring gives this node another part of the rows; all of them are verified anew"
            );
        }
        let progress = state.progress(&key).await?.unwrap_or(progress);
        let ahead = Ahead {
            unverified: state.stretches(&key).await?.iter().map(|open| open.passed).min(),
            look: state.next_look(&key).await?,
        };
        Ok(OpenedDatabase {
            reconciling: state.reconciling(&key, now).await?,
            key,
            progress,
            verification: Verification::new(ahead, self.work.limits.slack),
        })
    }

    /// The inode of a database's file.
    async fn file(&self, replica: &Replica) -> Result<u64, DatabaseError> {
        let looked = self.databases.signatures(vec![replica.clone()]).await;
        let gone = || DatabaseError::Gone(replica.path.clone());
        let (_, signature) = looked.into_iter().next().ok_or_else(gone)?;
        Ok(signature?.database.0)
    }

    /// Whether a database is still the one that the progress speaks of: one that was restored from a backup keeps
    /// its id, but is another file, has fewer rows, or other names at their numbers.
    async fn goes_on(
        &self,
        replica: &Replica,
        progress: &Progress,
        file: u64,
        head: &Chunk,
    ) -> Result<bool, DatabaseError> {
        if planted(Fault::RestoredUnnoticed) {
            return Ok(true);
        }
        if progress.is_of_another(file)
            || head.max_rowid < progress.processed
            || head.max_rowid < progress.deletes
        {
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
    ) -> Result<Progress, DatabaseError> {
        let mut high = head.max_rowid;
        if self.work.mapping.copy_after > 0 {
            high = self.last_due(replica, head.max_rowid, now).await?;
        }
        Ok(Progress {
            high,
            processed: high,
            first_pass_done: high == 0,
            seen: now,
            ..Progress::default()
        })
    }

    async fn last_due(
        &self,
        replica: &Replica,
        max_rowid: i64,
        now: Timestamp,
    ) -> Result<i64, DatabaseError> {
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
