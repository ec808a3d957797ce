//! Rows of the others, a slack after this agent read past them: found in step, or finished. A node that is down is
//! healed so. Every row is looked at first, and nothing newer is overwritten.
//!
//! Few rows are looked at one by one, many in name order beside a listing, whichever takes fewer requests.

use onespace_core::mapping::Encryption;
use onespace_core::plan::Pause;
use onespace_core::plan::copy::Trust;
use onespace_core::plan::verify::{Outlook, Stretch, listing_is_cheaper, may_be_settled};
use onespace_core::row::Row;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::by_rowid::item;
use super::listing::{Listing, last_whole_name};
use super::record::Count;
use super::turn::Task;
use super::{Ended, Lane, Sorted, Turn, TurnError, Whose};
use crate::clock::Clock;
use crate::databases::{Chunk, Databases, ReadRow};
use crate::state::{Ahead, Reached, StateError, Verified, Watermark};
use crate::stop::{as_pause, from_state};

/// So many rows are read to decide how a long stretch is worked on.
const SAMPLE: usize = 10_000;

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Takes a turn on the rows of others. `turn` counts: several stretches that are due take turns.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn verify(self, turn: u64, listing: Listing) -> Result<(Ended, Listing), TurnError> {
        let next = self
            .work
            .state
            .next_stretch(&self.key, turn, self.passing())
            .await;
        let mut stretch = match next {
            Ok(Some(stretch)) => stretch,
            Ok(None) => return Ok((self.nothing_due().await, listing)),
            Err(error) => return Ok((self.stopped(state_pause(&error)), listing)),
        };
        if !stretch.tombstones && stretch.after_name.is_none() && self.is_better_listed(&stretch).await? {
            stretch = match self.work.state.begin_by_name(&self.key, &stretch).await {
                Ok(Some(stretch)) => stretch,
                Ok(None) => return Ok((self.nothing_due().await, listing)),
                Err(error) => return Ok((self.stopped(state_pause(&error)), listing)),
            };
        }
        if stretch.after_name.is_some() {
            let listing = listing.beside_stretch(stretch.after);
            return self.verify_by_name(stretch, listing).await;
        }
        self.verify_by_rowid(stretch).await.map(|ended| (ended, listing))
    }

    async fn verify_by_rowid(mut self, stretch: Stretch) -> Result<Ended, TurnError> {
        self.deletes_wait = stretch.many && self.work.mapping.delete_budget.is_some();
        let allowance = match stretch.tombstones && !self.deletes_wait {
            true => self.allowance().await?,
            false => self.no_deletes(),
        };
        let mut items = Vec::new();
        let end = {
            let _reading = self.work.claims.reading(&self.replica.container).await;
            let chunk = self
                .databases
                .rows_after(&self.replica, stretch.after, self.work.limits.chunk)
                .await?;
            self.check_same(&chunk.id, chunk.max_rowid)?;
            for read in chunk.rows.iter().filter(|read| read.rowid() <= stretch.to) {
                let task = match self.sort(read, stretch.tombstones, whose(&stretch)) {
                    Sorted::Pass => Task::Pass,
                    Sorted::Unreadable(held) => Task::Hold(held),
                    Sorted::Work(row) => {
                        let claim = self.work.claims.claim(&self.replica.container, &row.name);
                        match stretch.tombstones {
                            true => Task::Delete(row, claim),
                            false => Task::Copy(row, Trust::None, claim),
                        }
                    }
                };
                items.push(item(read, task));
            }
            is_last(&chunk, &stretch)
        };
        let worked = self.work_on(Lane::Verify, items, &allowance).await;
        let reached = match worked.whole && end {
            true => Some(stretch.to),
            false => worked.watermark,
        };
        let to = reached.map(|rowid| moved(&stretch, Reached::Row(rowid)));
        let ended = self.record(worked, to, Count::Passed).await;
        Ok(Ended {
            at_head: reached.is_some(),
            ..ended
        })
    }

    async fn verify_by_name(
        self,
        stretch: Stretch,
        mut listing: Listing,
    ) -> Result<(Ended, Listing), TurnError> {
        let after = stretch.after_name.as_deref().filter(|name| !name.is_empty());
        let (rows, complete) = self.claim_by_name(after).await?;
        let sort = |read: &ReadRow| match (stretch.after + 1..=stretch.to).contains(&read.rowid()) {
            true => self.sort(read, false, whose(&stretch)),
            false => Sorted::Pass,
        };
        let items = match self.beside(&mut listing, after, rows, Trust::None, sort).await {
            Ok(items) => items,
            Err(stop) => return Ok((self.stopped(as_pause(stop)), Listing::default())),
        };
        let positions: Vec<_> = items.iter().map(|item| item.position.clone()).collect();
        let worked = self.work_on(Lane::Verify, items, &self.no_deletes()).await;
        let reached = match worked.whole && complete {
            true => Some(Reached::LastName),
            false => worked
                .watermark
                .as_ref()
                .and_then(|last| last_whole_name(&positions, last))
                .map(|name| Reached::Name(name.to_owned())),
        };
        // What was not finished is read again, and the listing with it.
        let listing = if worked.whole { listing } else { Listing::default() };
        let got_on = reached.is_some();
        let to = reached.map(|reached| moved(&stretch, reached));
        let ended = self.record(worked, to, Count::Passed).await;
        let ended = Ended {
            at_head: got_on,
            ..ended
        };
        Ok((ended, listing))
    }

    /// Whether a stretch of live rows takes fewer requests beside a listing.
    async fn is_better_listed(&self, stretch: &Stretch) -> Result<bool, TurnError> {
        let whole = stretch.to - stretch.after;
        let sample = usize::try_from(whole).map_or(SAMPLE, |whole| whole.min(SAMPLE));
        let chunk = self
            .databases
            .rows_after(&self.replica, stretch.after, sample)
            .await?;
        let settleable = chunk.rows.iter().filter(|read| {
            read.rowid() <= stretch.to
                && matches!(self.sort(read, false, whose(stretch)),
                    Sorted::Work(row) if self.may_be_settled(&row, stretch))
        });
        let read = match chunk.rows.last() {
            Some(last) if !is_last(&chunk, stretch) => last.rowid() - stretch.after,
            _ => whole,
        };
        Ok(listing_is_cheaper(Outlook {
            settleable: settleable.count() as u64,
            read,
            whole,
            names: chunk.max_rowid,
        }))
    }

    fn may_be_settled(&self, row: &Row, stretch: &Stretch) -> bool {
        let opaque = matches!(self.work.mapping.target.encryption, Encryption::KMS { .. });
        !opaque && may_be_settled(row, stretch.passed, self.work.limits.slack)
    }

    pub(super) async fn ahead(&self) -> Result<Ahead, StateError> {
        let open = self.work.state.stretches(&self.key).await?;
        Ok(Ahead {
            unverified: open.iter().map(|stretch| stretch.passed).min(),
            look: self.work.state.next_look(&self.key).await?,
        })
    }

    async fn nothing_due(self) -> Ended {
        match self.ahead().await {
            Ok(ahead) => Ended {
                at_head: true,
                ahead,
                progress: self.progress,
                ..Ended::default()
            },
            Err(error) => self.stopped(state_pause(&error)),
        }
    }

    fn stopped(self, pause: Pause) -> Ended {
        Ended {
            pause: Some(pause),
            progress: self.progress,
            ..Ended::default()
        }
    }
}

fn state_pause(error: &StateError) -> Pause {
    as_pause(from_state(error))
}

/// Whether a chunk has all rows of the stretch behind its beginning.
fn is_last(chunk: &Chunk, stretch: &Stretch) -> bool {
    chunk.complete || chunk.rows.last().is_some_and(|read| read.rowid() >= stretch.to)
}

fn whose(stretch: &Stretch) -> Whose {
    if stretch.own { Whose::All } else { Whose::Others }
}

fn moved(stretch: &Stretch, to: Reached) -> Watermark {
    Watermark::Verified(Verified {
        tombstones: stretch.tombstones,
        after: stretch.after,
        to,
    })
}
