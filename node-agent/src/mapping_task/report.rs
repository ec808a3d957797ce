//! What a mapping's task reports.

use onespace_core::mapping::MappingState;
use onespace_core::objective::{self, Tally};
use onespace_core::reason::Notice;
use onespace_core::report::{
    Databases as Counts, Handled, HeldDeletes, MappingReport, ObjectiveReport, Pending, ReconcileReport,
    RemoteReport, RunState, Verify, rfc3339,
};
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::MappingTask;
use super::followed::Backlog;
use super::pause::{Paused, concerns_remote};
use crate::clock::Clock;
use crate::databases::{Databases, Located, ReadRow, Replica};
use crate::state::Progress;
use crate::stop::from_state;
use crate::work::Work;

/// Up to so many rows a backlog is counted; beyond, it is estimated from ROWIDs.
pub(super) const COUNTED: usize = 10_000;

/// How often a row must have been tried before `--once` gives it up.
const TRIES: u32 = 3;

impl<D: Databases, S: Source + 'static, R: Remote + 'static, C: Clock> MappingTask<D, S, R, C> {
    pub(super) fn is_suspended(&self) -> bool {
        self.work.mapping.state != MappingState::Active
    }

    /// Reads what the durable sets hold.
    pub(super) async fn refresh_held(&mut self) {
        let mapping = &self.work.mapping;
        let within = mapping.objective.map_or(0, |objective| objective.within);
        let late = within.saturating_add(mapping.copy_after);
        let late_since = Timestamp::from_unix_seconds(self.work.now().unix_seconds().saturating_sub(late));
        let (id, limit, state) = (&self.work.mapping.id, self.work.limits.held, &self.work.state);
        let read = tokio::try_join!(
            state.held_report(id, limit),
            state.has_hope(id, TRIES),
            state.held_deletes(id, limit),
            state.databases_with_released(id),
            state.waiting_for_objective(id, late_since)
        );
        match read {
            Ok((report, hope, (batch, deletes_full), released, objective_waits)) => {
                self.objective_waits = objective_waits;
                self.held_changed = false;
                self.held_set_full = report.full;
                self.held = report;
                self.has_hope = hope;
                if let Some(batch) = batch.as_ref().filter(|batch| !self.shows(&batch.id)) {
                    tracing::warn!(
                        policy = %self.work.policy_name(), reason = %batch.reason, batch = %batch.id,
                        "deletes wait for a person: look why there are so many, then release them"
                    );
                }
                self.held_deletes = batch;
                self.deletes_full = deletes_full;
                self.released = released;
            }
            Err(error) => self.pause_for(from_state(&error)),
        }
    }

    fn shows(&self, batch: &str) -> bool {
        self.held_deletes.as_ref().is_some_and(|shown| shown.id == batch)
    }

    pub(super) fn publish(&self) {
        let report = self.report();
        self.reports.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
    }

    fn report(&self) -> MappingReport {
        let mapping = &self.work.mapping;
        let (state, reason, message) = self.state();
        let mut pending = Pending {
            rows: 0,
            exact: true,
            oldest: None,
        };
        let (mut verify, mut oldest_verify) = (pending.clone(), None);
        let mut oldest = None;
        for db in self.followed.values() {
            db.backlog.add_to(&mut pending, &mut oldest);
            db.verification.backlog.add_to(&mut verify, &mut oldest_verify);
        }
        let (transferring, since) = self.held.transferring;
        pending.rows += transferring;
        oldest = oldest.into_iter().chain(since).min();
        pending.oldest = oldest.map(rfc3339);
        let probed = self.probed.as_ref();
        let remote_failure = self
            .failure()
            .filter(|paused| concerns_remote(paused.pause.reason));
        MappingReport {
            id: mapping.id.0.clone(),
            policy: Some(mapping.policy.clone()),
            state,
            reason,
            message,
            ring_nodes: self
                .located
                .as_ref()
                .map(|located| located.ring_nodes.clone())
                .unwrap_or_default(),
            databases: Counts {
                open: self.followed.len() as u64,
                unreadable: self.unreadable.len() as u64
                    + self.located.as_ref().map_or(0, |located| located.unreadable),
            },
            initial_pass_complete: self.located.as_ref().is_some_and(is_there)
                && self.follows_all()
                && self.unreadable.is_empty()
                && self.followed.values().all(|db| db.progress.first_pass_done),
            pending,
            verify: Verify {
                rows: verify.rows + self.held.of_others,
                oldest: oldest_verify.map(rfc3339),
            },
            held: self.held.clone(),
            held_deletes: self.held_deletes.clone(),
            reconcile: self.reconcile_report(),
            objective: self.objective_report(),
            limits: self
                .schedule
                .as_ref()
                .map(|schedule| schedule.in_force(self.work.now()).into()),
            handled: Handled {
                retry: self.handled_retry.clone(),
                release_deletes: self.handled_release.clone(),
            },
            totals: self.totals,
            remote: RemoteReport {
                reachable: remote_failure.is_none() && (probed.is_some() || !self.needs_remote()),
                code: remote_failure.and_then(|paused| paused.pause.code.clone()),
                since: remote_failure.map(|paused| rfc3339(paused.since)),
                permissions: probed
                    .map(|probed| {
                        probed
                            .permissions
                            .operations
                            .iter()
                            .map(|(name, ok)| ((*name).to_owned(), *ok))
                            .collect()
                    })
                    .unwrap_or_default(),
                capabilities: probed
                    .map(|probed| probed.capabilities.clone())
                    .unwrap_or_default(),
                probed_at: probed.map(|probed| rfc3339(probed.at)),
            },
            idle: self.is_idle(),
        }
    }

    /// Adds what a turn counted for the objective.
    pub(super) fn count_for_objective(&mut self, tally: &Tally) {
        if let Some((window, _)) = &mut self.objective {
            window.merge(tally);
        }
    }

    /// Rows that are in step, and those that wait though they should be.
    fn objective_report(&self) -> Option<ObjectiveReport> {
        let (objective, (window, since)) = self
            .work
            .mapping
            .objective
            .as_ref()
            .zip(self.objective.as_ref())?;
        let now = self.work.now();
        let mut window = window.clone();
        window.forget(objective, now);
        let mut rows = window.sum();
        let late = self.followed.values().map(|db| db.backlog.late).sum::<u64>();
        rows.missed += late + self.objective_waits;
        Some(ObjectiveReport {
            rows,
            since: Some(rfc3339(objective::since(objective, *since, now))),
        })
    }

    fn state(&self) -> (RunState, Option<String>, Option<String>) {
        if let Some((reason, message)) = &self.refused {
            return (
                RunState::Refused,
                Some((*reason).to_owned()),
                Some(message.clone()),
            );
        }
        if let Some(paused) = self.failure() {
            let pause = &paused.pause;
            return (
                RunState::Paused,
                Some(pause.reason.to_string()),
                Some(pause.message.clone()),
            );
        }
        match self.work.mapping.state {
            MappingState::Suspended => (RunState::Suspended, None, None),
            MappingState::Removing => (RunState::Removing, None, None),
            MappingState::Active if self.held_set_full => (
                RunState::Paused,
                Some(onespace_core::reason::PauseReason::HeldSetFull.to_string()),
                Some("too many rows are held; mend what they name, then retry them".to_owned()),
            ),
            MappingState::Active => {
                let located = self.located.as_ref();
                let notice = located.and_then(|located| match (&located.missing, &located.cut_off) {
                    (Some(missing), _) => Some((Notice::SourceNotFound, missing.clone())),
                    (None, Some(cut_off)) => Some((Notice::ContainerServerSilent, cut_off.clone())),
                    (None, None) => None,
                });
                match (notice, &self.held_deletes) {
                    (Some((notice, message)), _) => {
                        (RunState::Running, Some(notice.to_string()), Some(message))
                    }
                    (None, None) => (RunState::Running, None, None),
                    (None, Some(batch)) => (
                        RunState::Running,
                        Some(batch.reason.clone()),
                        Some(self.waiting_message(batch)),
                    ),
                }
            }
        }
    }

    /// `None`: no pass was ever due, or wanted.
    fn reconcile_report(&self) -> Option<ReconcileReport> {
        let mut report = ReconcileReport::default();
        let mut oldest = None;
        for db in self.followed.values() {
            let known = &db.reconciling;
            report.running += u64::from(known.pass.is_some());
            report.refused += u64::from(db.refused.is_some());
            report.unmarked += known.unmarked;
            report.reason = report.reason.or(db.refused.map(|refusal| refusal.to_string()));
            oldest = match (oldest, known.completed.filter(|_| db.reclaim_age.is_some())) {
                (Some(a), Some(b)) => Some(std::cmp::min::<Timestamp>(a, b)),
                (a, b) => a.or(b),
            };
        }
        report.completed = oldest.map(rfc3339);
        (report != ReconcileReport::default()).then_some(report)
    }

    fn waiting_message(&self, batch: &HeldDeletes) -> String {
        let HeldDeletes { id, rows, reason: _ } = batch;
        let full = match self.deletes_full {
            true => "; no more may wait, so all later deletes stand still",
            false => "",
        };
        format!(
            "{rows} deletes wait for a person{full}. If they are meant: onespace release-deletes {} {id}, or the \
             annotation onespace.dev/release-deletes: {id}",
            self.work.mapping.id.0
        )
    }

    /// The failure that the mapping waits out, or has not yet shown to be over.
    fn failure(&self) -> Option<&Paused> {
        self.paused.as_ref().or(self.trial.as_ref())
    }

    /// Whether everything that is due is done, and every row that time may mend had its tries.
    fn is_idle(&self) -> bool {
        let still = self.refused.is_some() || self.is_suspended();
        still || (self.has_nothing_to_do() && self.trial.is_none() && (self.held_set_full || !self.has_hope))
    }

    /// Whether every database that is there was found, and is followed.
    fn follows_all(&self) -> bool {
        let is_followed = |replica: &Replica| self.followed.contains_key(&replica.path);
        let located = self.located.as_ref();
        located.is_some_and(|located| !located.walking && located.replicas.iter().all(is_followed))
    }

    /// Whether every database that is there is followed, and worked off.
    pub(super) fn has_nothing_to_do(&self) -> bool {
        let now = self.work.now();
        self.paused.is_none()
            && (self.probed.is_some() || !self.needs_remote())
            && !self.retrying
            && !self
                .followed
                .values()
                .any(|db| self.released.contains(&db.key.database))
            && self.follows_all()
            && self
                .followed
                .values()
                .all(|db| db.is_idle(now, self.deletes_full))
    }
}

/// Whether there is what is to be followed, on this node or another.
fn is_there(located: &Located) -> bool {
    located.missing.is_none()
}

/// Counts what is left to do in a database. `None` = it cannot be read now.
pub(super) async fn backlog<D: Databases, S, R, C: Clock>(
    databases: &D,
    work: &Work<S, R, C>,
    replica: &Replica,
    progress: &Progress,
) -> Option<Backlog> {
    let from = progress.processed.min(progress.deletes);
    let chunk = databases.rows_after(replica, from, COUNTED + 1).await.ok()?;
    let mut backlog = Backlog {
        exact: true,
        ..Backlog::default()
    };
    let now = work.now();
    let mut next_late: Option<Timestamp> = None;
    let mut count = |raw: &onespace_core::row::RawRow| {
        if onespace_core::naming::primary_index(&raw.name, replica.replicas) != replica.index {
            return;
        }
        backlog.rows += 1;
        if let Ok(row) = Row::parse(raw.clone()) {
            let time = row.time.newest();
            backlog.oldest = Some(backlog.oldest.map_or(time, |oldest| oldest.min(time)));
            let due = work.due_for_objective(&row, progress);
            match work
                .mapping
                .objective
                .zip(due)
                .map(|(objective, due)| objective.deadline(due))
            {
                Some(deadline) if deadline < now => backlog.late += 1,
                Some(deadline) => next_late = Some(next_late.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
    };
    for read in &chunk.rows {
        if let ReadRow::Row(raw) = read
            && raw.rowid
                > if raw.deleted {
                    progress.deletes
                } else {
                    progress.processed
                }
        {
            count(raw);
        }
    }
    let mut whole = chunk.complete;
    if !progress.first_pass_done {
        let rest = databases
            .rows_by_name(replica, progress.after_name.as_deref(), COUNTED + 1)
            .await
            .ok()?;
        for read in &rest.rows {
            if let ReadRow::Row(raw) = read
                && raw.rowid <= progress.high
            {
                count(raw);
            }
        }
        whole &= rest.complete;
    }
    if !whole {
        let behind = u64::try_from(chunk.max_rowid.saturating_sub(from)).unwrap_or(0);
        let counted = backlog.rows;
        backlog.rows = counted.max(behind / u64::from(replica.replicas.max(1)));
        // Of rows that were not counted as many are taken to be late.
        if counted > 0 {
            let late = u128::from(backlog.late) * u128::from(backlog.rows) / u128::from(counted);
            backlog.late = u64::try_from(late).unwrap_or(u64::MAX);
        }
        backlog.exact = false;
    }
    // Not at every row that comes to be late.
    backlog.next_late = next_late
        .zip(work.mapping.objective)
        .map(|(next, objective)| next.plus(objective.grain()));
    Some(backlog)
}
