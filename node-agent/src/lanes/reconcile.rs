//! The reconciling pass over one database: live rows beside the remote's listing, one page of both in each turn.
//!
//! A pass deletes nothing. It records candidates, and only when it has come to its end, and they are few, are they
//! worked off as held rows are: each is proven again then.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use onespace_core::mapping::Mode;
use onespace_core::plan::copy::Trust;
use onespace_core::plan::reconcile::{Facts, Names, Verdict, agree, compare, is_mass};
use onespace_core::plan::{Done, Held, Stop};
use onespace_core::reason::{HoldReason, PassRefusal, PauseReason};
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::{Ended, Turn, TurnError};
use crate::clock::Clock;
use crate::databases::{DatabaseError, Databases, ReadRow};
use crate::delete::Deleted;
use crate::state::{Allowance, Kept, Pass, Reconciling};
use crate::stop::{as_pause, from_remote, from_state};

/// Keys of one listing request.
const PAGE: usize = 1000;

/// Suspects that are looked at side by side.
const LOOKS: usize = 8;

/// What one page showed.
struct Page {
    candidates: Vec<String>,
    compared: u64,
    unmarked: u64,
    to: Option<String>,
}

/// Why there is no page.
enum NoPage {
    Refused(PassRefusal),
    Stop(Stop),
    /// The mapping is to end.
    Halted,
    Turn(TurnError),
}

impl<E: Into<TurnError>> From<E> for NoPage {
    fn from(error: E) -> Self {
        Self::Turn(error.into())
    }
}

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Takes a turn on a pass; begins one, if none is under way.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn reconcile(self, mut known: Reconciling) -> Result<Ended, TurnError> {
        let Some(last_pass) = known.completed else {
            return Ok(Ended::default());
        };
        let mut pass = known.pass.take().unwrap_or_else(|| Pass {
            started: self.work.now(),
            ..Pass::default()
        });
        let page = match self.page(pass.after.as_deref(), last_pass).await {
            Ok(page) => page,
            Err(NoPage::Turn(error)) => return Err(error),
            Err(NoPage::Halted) => return Ok(Ended::default()),
            Err(NoPage::Refused(refusal)) => {
                return Ok(Ended {
                    refused: Some(refusal),
                    ..Ended::default()
                });
            }
            Err(NoPage::Stop(stop)) => {
                return Ok(Ended {
                    pause: Some(as_pause(stop)),
                    ..Ended::default()
                });
            }
        };
        pass.after.clone_from(&page.to);
        pass.compared += page.compared;
        pass.found += page.candidates.len() as u64;
        pass.unmarked += page.unmarked;
        let (state, limit) = (&self.work.state, self.work.limits.held);
        let room = state
            .advance_pass(&self.key, &pass, page.candidates, limit)
            .await?;
        if page.to.is_none() || room == Kept::Full {
            let whole = room == Kept::Yes;
            let mass = !whole || is_mass(pass.found, pass.compared);
            state.end_pass(&self.key, &pass, mass, whole).await?;
            tracing::info!(
                policy = %self.work.policy_name(), container = %self.key.container, compared = pass.compared,
                candidates = pass.found, unmarked = pass.unmarked, mass, "a reconciling pass is over"
            );
        }
        Ok(Ended {
            reconciling: Some(state.reconciling(&self.key, self.work.now()).await?),
            ..Ended::default()
        })
    }

    async fn page(&self, after: Option<&str>, last_pass: Timestamp) -> Result<Page, NoPage> {
        let created = agree(&self.databases.peers(&self.replica).await).map_err(NoPage::Refused)?;
        let container = &self.replica.container;
        let namespace = self.work.namespace(container);
        let prefix = namespace.listing_prefix();
        // Keys before rows: what is put and copied between the two must not look like a copy without a row.
        let start = after.map(|after| format!("{prefix}{after}"));
        let listed = self
            .work
            .remote
            .list(&prefix, start.as_deref(), PAGE)
            .await
            .map_err(|error| NoPage::Stop(from_remote(error)))?;
        let keys = listed.objects.iter();
        let copies: Vec<String> = keys
            .filter_map(|object| object.key.strip_prefix(&prefix))
            .map(ToOwned::to_owned)
            .collect();
        let chunk = self
            .databases
            .rows_by_name(&self.replica, after, self.work.limits.chunk)
            .await?;
        self.check_same(&chunk.id, chunk.max_rowid)?;
        let names: Option<Vec<String>> = chunk
            .rows
            .iter()
            .map(|read| read.name().map(ToOwned::to_owned))
            .collect();
        let rows = names.ok_or(NoPage::Refused(PassRefusal::NameUnreadable))?;
        let compared = compare(
            Names {
                names: &rows,
                more: !chunk.complete,
            },
            Names {
                names: &copies,
                more: listed.more && !copies.is_empty(),
            },
        );
        let facts = Facts {
            last_pass,
            created,
            slack: self.work.limits.slack,
        };
        let suspects = compared.missing.into_iter().filter(|name| self.may_be_ours(name));
        let examined: Vec<(String, Verdict)> = futures::stream::iter(suspects)
            .map(async |name| {
                let verdict = self.examine(&name, facts).await?;
                Ok::<_, NoPage>((name, verdict))
            })
            .buffered(LOOKS)
            .try_collect()
            .await?;
        // What an agent deletes is held against its own part of the names: several agents together delete no greater share.
        let own = |name: &&String| self.is_own(name);
        let within = |name: &&String| compared.to.as_ref().is_none_or(|to| *name <= to);
        let own_copies = copies.iter().take_while(within).filter(own).count() as u64;
        let unmarked = examined
            .iter()
            .filter(|(_, verdict)| *verdict == Verdict::Unmarked);
        Ok(Page {
            unmarked: unmarked.count() as u64,
            candidates: examined
                .into_iter()
                .filter(|(_, verdict)| *verdict == Verdict::Candidate)
                .map(|(name, _)| name)
                .collect(),
            compared: own_copies,
            to: compared.to,
        })
    }

    /// Whether a key can be that of an object which this agent is responsible for: one of onespace's own keys, one that
    /// the remote folds onto another, an excluded name, another agent's name cannot.
    fn may_be_ours(&self, name: &str) -> bool {
        let namespace = self.work.namespace(&self.replica.container);
        let Ok(key) = namespace.object_key(name) else {
            return false;
        };
        namespace.object_name(&key) == Some(name)
            && self.work.capabilities.holds(&key)
            && !self.work.selector.excludes(name)
            && self.is_own(name)
    }

    async fn examine(&self, name: &str, facts: Facts) -> Result<Verdict, NoPage> {
        if self.halt.is_cancelled() {
            return Err(NoPage::Halted);
        }
        let flow = format!("{}/reconcile", self.key.database);
        let _pass = self.work.turnstile.enter(&self.work.mapping.id, &flow).await;
        // A tombstone that is still there is the deletes' lane's work, whoever wrote it.
        if !self.databases.rows_of(&self.replica, name).await?.is_empty() {
            return Ok(Verdict::Stays);
        }
        match self.work.suspect(&self.replica.container, name, facts).await {
            Err(Stop::Pause(pause))
                if pause.reason == PauseReason::AccessDenied && self.work.others_are_allowed().await =>
            {
                Ok(Verdict::Stays)
            }
            verdict => verdict.map_err(NoPage::Stop),
        }
    }

    /// Deletes a candidate. Everything that made it one is asked again. `None`: its name has a row again, which says
    /// what is to be done. `seen`: its tombstone was read before it was forgotten, so that no pass has to tell that there
    /// was one.
    pub(crate) async fn delete_forgotten(
        &self,
        name: &str,
        seen: bool,
        allowance: &Allowance,
    ) -> Result<Option<Deleted>, Stop> {
        let (work, container) = (&self.work, &self.replica.container);
        let (state, now) = (&work.state, work.now());
        let unreadable = |error: DatabaseError| Held::new(HoldReason::SourceFailed, error.to_string());
        let known = state
            .reconciling(&self.key, now)
            .await
            .map_err(|error| from_state(&error))?;
        let Some(last_pass) = Some(now).filter(|_| seen).or(known.before).or(known.completed) else {
            return Ok(None);
        };
        if work.mapping.mode != Mode::Sync || !work.mapping.propagate_delete || !self.may_be_ours(name) {
            return Ok(None);
        }
        let peers = agree(&self.databases.peers(&self.replica).await);
        let rows = self
            .databases
            .rows_of(&self.replica, name)
            .await
            .map_err(unreadable)?;
        if !rows.is_empty() {
            return self.lives_again(name, &rows).await;
        }
        let created = peers.map_err(|refusal| {
            let message =
                format!("the replicas of the container do not agree ({refusal}); they are asked again");
            Held::new(HoldReason::SourceUnproven, message)
        })?;
        let lack = self.databases.peers_lack(&self.replica, name).await;
        if !lack {
            return Err(Held::new(
                HoldReason::SourceUnproven,
                "not every replica of the container says that it lacks this object; they are asked again",
            )
            .into());
        }
        let facts = Facts {
            last_pass,
            created,
            slack: work.limits.slack,
        };
        let policies: BTreeSet<u32> = self.databases.policies().into_iter().collect();
        let policies: Vec<u32> = policies.into_iter().collect();
        debug_assert_eq!(container, &allowance.database.container);
        work.delete_forgotten(name, facts, &policies, allowance)
            .await
            .map(Some)
    }

    /// A delete that was under way when the name was written again is over when the object is copied again.
    async fn lives_again(&self, name: &str, rows: &[ReadRow]) -> Result<Option<Deleted>, Stop> {
        let (work, container) = (&self.work, &self.replica.container);
        let state = |error| from_state(&error);
        let under_way = work.state.is_deleting(&work.mapping.id, container, name);
        if !under_way.await.map_err(state)? {
            return Ok(None);
        }
        let live = rows.iter().find_map(|read| match read {
            ReadRow::Row(raw) if !raw.deleted => Row::parse(raw.clone()).ok(),
            _ => None,
        });
        let Some(row) = live else {
            return Ok(None);
        };
        work.copy(container, &row, Trust::Doubted).await?;
        let job = work.job(container, &row)?;
        work.end_delete(&job).await?;
        Ok(Some(Done::Superseded.into()))
    }
}
