//! Carrying a user's delete out at the remote, and nothing else.

use onespace_core::plan::copy::{Look, Trust};
use onespace_core::plan::delete::{AfterLook, AfterSwift, First, SwiftSays, after_look, after_swift, first};
use onespace_core::plan::{Done, Held, Stop};
use onespace_core::planted::{Fault, planted};
use onespace_core::reason::HoldReason;
use onespace_core::row::{Row, RowKind};
use onespace_stores::remote::{Remote, RemoteError};
use onespace_stores::source::{Answer, Read, Source};

use crate::clock::Clock;
use crate::copy::{Job, has_manifest};
use crate::state::{Allowance, Begun};
use crate::stop::{from_remote, from_source, from_state};
use crate::work::Work;

impl<S: Source + 'static, R: Remote, C: Clock> Work<S, R, C> {
    /// Carries out a tombstone row of the database that the allowance names, which must have no live row of that name.
    ///
    /// At most five requests: look at the remote, ask Swift, remove object (and manifest), ask Swift again.
    ///
    /// # Errors
    /// [`Stop`]: the row waits, or the mapping pauses.
    pub async fn delete(&self, row: &Row, allowance: &Allowance) -> Result<Deleted, Stop> {
        let container = &allowance.database.container;
        if first(row, self.mapping.propagate_delete) == First::Leave {
            return Ok(Done::LeftAlone.into());
        }
        let Ok(job) = self.job(container, row) else {
            // What could never be stored need not be removed.
            return Ok(Done::LeftAlone.into());
        };
        let state = |error| from_state(&error);
        let begun = self
            .state
            .is_deleting(&self.mapping.id, container, &row.name)
            .await
            .map_err(state)?;
        let look = match self.look(&job).await {
            // A key that the remote refuses, or under which it keeps another object: this name was never stored.
            Err(Stop::Hold(held))
                if held.reason == HoldReason::NameNotRepresentable
                    || (held.reason == HoldReason::ForeignCopy && !self.capabilities.holds(&job.key)) =>
            {
                return Ok(Done::LeftAlone.into());
            }
            look => look?,
        };
        let looked_at = tokio::time::Instant::now();
        let adopted = self
            .state
            .adopted(&self.mapping.id, &job.key)
            .await
            .map_err(state)?;
        match after_look(row, &look, adopted.as_deref(), self.limits.slack) {
            AfterLook::Absent if begun => {}
            AfterLook::Absent => {
                self.bucket_is_there(looked_at).await?;
                return Ok(Done::Absent.into());
            }
            AfterLook::Superseded => {
                if begun {
                    self.end_delete(&job).await?;
                }
                return Ok(Done::Superseded.into());
            }
            AfterLook::Hold(held) => return Err(held.into()),
            AfterLook::AskSwift => {
                if let Some(done) = self.confirm_deleted(&job).await? {
                    return Ok(done.into());
                }
                let begun = self.state.begin_delete(allowance, &row.name, self.now()).await;
                if begun.map_err(state)? == Begun::OverBudget {
                    return Ok(Deleted::OverBudget);
                }
            }
        }
        self.remove(&job, &look).await?;
        if planted(Fault::NoSecondLook) {
            self.end_delete(&job).await?;
            return Ok(Done::Deleted.into());
        }
        // The second look: whoever wrote the object again meanwhile must find it at the remote, and the delete is over
        // only then. (A body older than the tombstone is a server that is behind.)
        let again = self.head_newest(&job, Some(row.policy_index)).await?;
        if matches!(again, SwiftSays::Alive(time) if time.is_none_or(|time| time > row.time.data)) {
            let revived = Row {
                kind: RowKind::Object,
                size: 0,
                etag: None,
                ..row.clone()
            };
            self.copy(container, &revived, Trust::None).await?;
            self.end_delete(&job).await?;
            return Ok(Done::Superseded.into());
        }
        self.end_delete(&job).await?;
        Ok(Done::Deleted.into())
    }

    /// Asks Swift whether the name is still deleted. `Some` = it is not, and nothing is to be done here.
    async fn confirm_deleted(&self, job: &Job<'_>) -> Result<Option<Done>, Stop> {
        match after_swift(job.row, self.head_newest(job, Some(job.row.policy_index)).await?) {
            AfterSwift::Remove => Ok(None),
            AfterSwift::Superseded => Ok(Some(Done::Superseded)),
            AfterSwift::Hold(held) => Err(held.into()),
            AfterSwift::AskPrimaries => {
                let path = self.path(job.container, &job.row.name);
                if self.all_primaries_lack(&path, job.row.policy_index).await? {
                    return Ok(None);
                }
                Err(Held::new(
                    HoldReason::SourceUnproven,
                    "Swift answers 404 without a tombstone, and not every object server that should know says that \
                     the object is gone; they are asked again",
                )
                .into())
            }
        }
    }

    /// Asks Swift about the name, all replicas of it; without a storage policy in the container's own.
    pub(crate) async fn head_newest(
        &self,
        job: &Job<'_>,
        policy_index: Option<u32>,
    ) -> Result<SwiftSays, Stop> {
        let read = Read {
            policy_index,
            newest: true,
            link_itself: true,
            ..Read::default()
        };
        let path = self.path(job.container, &job.row.name);
        match self
            .source
            .head(&path, &read)
            .await
            .map_err(|error| from_source(&error))?
        {
            Answer::Found(object) => Ok(SwiftSays::Alive(object.data_time)),
            Answer::Absent(time) => Ok(SwiftSays::Absent(time)),
            Answer::Changed => Err(Held::new(
                HoldReason::ChangedMeanwhile,
                "the object changed while it was looked at",
            )
            .into()),
        }
    }

    /// Removes what was looked at, and its manifest.
    pub(crate) async fn remove(&self, job: &Job<'_>, look: &Look) -> Result<(), Stop> {
        let (etag, large) = (
            look.object.as_ref().map(|object| object.etag.as_str()),
            is_large(look),
        );
        if let Some(etag) = etag {
            let condition = self.capabilities.delete_if_match.then_some(etag);
            match self.remote.delete(&job.key, condition).await {
                Ok(()) | Err(RemoteError::NotFound) => {}
                Err(error) => return Err(from_remote(error)),
            }
        }
        if large != Large::No {
            self.remote
                .delete(&job.namespace.manifest_key(&job.row.name), None)
                .await
                .map_err(from_remote)?;
        }
        Ok(())
    }

    pub(crate) async fn end_delete(&self, job: &Job<'_>) -> Result<(), Stop> {
        self.state
            .end_delete(&self.mapping.id, job.container, &job.row.name, &job.key)
            .await
            .map_err(|error| from_state(&error))
    }
}

/// Whether Swift has the object, in whatever state.
pub(crate) fn is_alive(says: &SwiftSays) -> bool {
    matches!(says, SwiftSays::Alive(_))
}

/// What became of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// There is nothing more to do.
    Done(Done),
    /// It could be carried out, but the budget is used up.
    OverBudget,
}

impl From<Done> for Deleted {
    fn from(done: Done) -> Self {
        Self::Done(done)
    }
}

/// Whether a manifest lies beside the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Large {
    Yes,
    No,
    /// The object is gone already: an earlier try may have left the manifest.
    Unknown,
}

fn is_large(look: &Look) -> Large {
    match &look.object {
        None => Large::Unknown,
        Some(object) if has_manifest(object) => Large::Yes,
        Some(_) => Large::No,
    }
}
