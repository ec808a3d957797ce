//! Deleting a copy whose tombstone Swift has forgotten: found by a reconciling pass, and proven anew before it goes.

use onespace_core::plan::reconcile::{Facts, Verdict, judge};
use onespace_core::plan::{Done, Held, Stop};
use onespace_core::reason::HoldReason;
use onespace_core::row::{Row, RowKind};
use onespace_core::timestamp::{RowTime, Timestamp};
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use crate::clock::Clock;
use crate::delete::{Deleted, is_alive};
use crate::state::{Allowance, Begun, FORGOTTEN};
use crate::stop::from_state;
use crate::work::Work;

/// A name that no row speaks of, as if a row did.
pub(crate) fn rowless(name: &str) -> Row {
    let never = Timestamp::default();
    Row {
        rowid: FORGOTTEN,
        name: name.to_owned(),
        time: RowTime {
            data: never,
            content_type: never,
            meta: never,
        },
        size: 0,
        etag: None,
        content_type: String::new(),
        kind: RowKind::Tombstone,
        policy_index: 0,
    }
}

fn unproven(what: &str) -> Stop {
    let message = format!("no row speaks of this object any more, but {what}; it is asked again");
    Held::new(HoldReason::SourceUnproven, message).into()
}

impl<S: Source + 'static, R: Remote, C: Clock> Work<S, R, C> {
    /// What a reconciling pass thinks of the copy of a name that no row speaks of.
    pub(crate) async fn suspect(&self, container: &str, name: &str, facts: Facts) -> Result<Verdict, Stop> {
        let row = rowless(name);
        let Ok(job) = self.job(container, &row) else {
            return Ok(Verdict::Stays);
        };
        match self.look(&job).await {
            // Another source's, a damaged mark, a key that the remote refuses: not ours to touch.
            Err(Stop::Hold(_)) => Ok(Verdict::Stays),
            Err(pause) => Err(pause),
            Ok(look) => Ok(judge(&look, facts)),
        }
    }

    /// Deletes the copy of a name that no row of any replica speaks of, once every primary object server of every
    /// storage policy says that it lacks the object. On the way from the record to the second look it goes as any
    /// other delete.
    ///
    /// # Errors
    /// [`Stop`]: it waits, or the mapping pauses.
    pub(crate) async fn delete_forgotten(
        &self,
        name: &str,
        facts: Facts,
        policies: &[u32],
        allowance: &Allowance,
    ) -> Result<Deleted, Stop> {
        let container = &allowance.database.container;
        let row = rowless(name);
        let Ok(job) = self.job(container, &row) else {
            return Ok(Done::LeftAlone.into());
        };
        let state = |error| from_state(&error);
        let begun = self
            .state
            .is_deleting(&self.mapping.id, container, name)
            .await
            .map_err(state)?;
        let look = match self.look(&job).await {
            Err(Stop::Hold(_)) => return Ok(Done::LeftAlone.into()),
            look => look?,
        };
        match judge(&look, facts) {
            Verdict::Absent if begun => {}
            Verdict::Absent | Verdict::Unmarked | Verdict::Stays => return Ok(Done::LeftAlone.into()),
            Verdict::Candidate => {
                if is_alive(&self.head_newest(&job, None).await?) {
                    return Err(unproven("an object server still answers with it"));
                }
                let path = self.path(container, name);
                for policy in policies {
                    if !self.all_primaries_lack(&path, *policy).await? {
                        return Err(unproven("not every object server says that it is gone"));
                    }
                }
                let begun = self.state.begin_delete(allowance, name, self.now()).await;
                if begun.map_err(state)? == Begun::OverBudget {
                    return Ok(Deleted::OverBudget);
                }
            }
        }
        self.remove(&job, &look).await?;
        if is_alive(&self.head_newest(&job, None).await?) {
            // Its row will say under which storage policy it is; until then the delete is not over.
            return Err(unproven("it was written again while its copy was deleted"));
        }
        self.end_delete(&job).await?;
        Ok(Done::Deleted.into())
    }
}
