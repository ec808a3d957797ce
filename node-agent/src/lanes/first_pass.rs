//! Live rows that were there when the database was first seen, in name order, beside a listing of the remote: what
//! is there already costs no request of its own, and what is not is sent without a look.

use onespace_core::plan::copy::Trust;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::listing::{Listing, last_whole_name};
use super::record::Count;
use super::{Ended, Lane, Sorted, Turn, TurnError, Whose};
use crate::clock::Clock;
use crate::databases::Databases;
use crate::state::Watermark;
use crate::stop::as_pause;

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Takes a turn on the first pass.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn first_pass(mut self, mut listing: Listing) -> Result<(Ended, Listing), TurnError> {
        let after = self.progress.after_name.clone();
        let (rows, complete) = self.claim_by_name(after.as_deref()).await?;
        // Rows behind the mark belong to the lane that follows.
        let sort = |read: &_| match read {
            read if crate::databases::ReadRow::rowid(read) > self.progress.high => Sorted::Pass,
            read => self.sort(read, false, Whose::Own),
        };
        let items = match self
            .beside(&mut listing, after.as_deref(), rows, Trust::KnownAbsent, sort)
            .await
        {
            Ok(items) => items,
            Err(stop) => {
                let ended = Ended {
                    pause: Some(as_pause(stop)),
                    progress: self.progress,
                    ..Ended::default()
                };
                return Ok((ended, Listing::default()));
            }
        };
        let positions: Vec<_> = items.iter().map(|item| item.position.clone()).collect();
        let worked = self.work_on(Lane::FirstPass, items, &self.no_deletes()).await;
        let done = complete && worked.whole;
        if let Some(name) = worked
            .watermark
            .as_ref()
            .and_then(|last| last_whole_name(&positions, last))
        {
            self.progress.after_name = Some(name.to_owned());
        }
        self.progress.first_pass_done = done;
        // What was not finished is read again, and the listing with it.
        let listing = if worked.whole { listing } else { Listing::default() };
        let to = Watermark::FirstPass {
            after_name: self.progress.after_name.clone(),
            done,
        };
        let ended = self.record(worked, Some(to), Count::Passed).await;
        Ok((
            Ended {
                at_head: done && ended.pause.is_none(),
                ..ended
            },
            listing,
        ))
    }
}
