//! Live rows that were there when the database was first seen, in name order, beside a listing of the remote: what
//! is there already costs no request of its own, and what is not is sent without a look.

use std::collections::VecDeque;

use onespace_core::naming::Namespace;
use onespace_core::plan::Stop;
use onespace_core::plan::copy::Trust;
use onespace_core::remote::ListedObject;
use onespace_core::row::{Row, RowKind};
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::turn::{Item, Task};
use super::{Ended, Lane, Sorted, Turn, TurnError};
use crate::clock::Clock;
use crate::databases::{Databases, ReadRow};
use crate::state::{Adopted, Watermark};
use crate::stop::{as_pause, from_remote};

/// Keys of one listing request.
const PAGE: usize = 1000;

/// A listing of the remote that runs beside the rows, one page at a time.
#[derive(Debug, Default)]
pub struct Listing {
    page: VecDeque<ListedObject>,
    last: Option<String>,
    ended: bool,
}

impl Listing {
    /// The entry of this key; entries before it are dropped. Keys are asked for in growing order.
    async fn find<R: Remote>(
        &mut self,
        remote: &R,
        namespace: &Namespace,
        start: Option<&str>,
        key: &str,
    ) -> Result<Option<ListedObject>, Stop> {
        loop {
            while let Some(first) = self.page.front() {
                match first.key.as_str().cmp(key) {
                    std::cmp::Ordering::Less => {
                        self.page.pop_front();
                    }
                    std::cmp::Ordering::Equal => return Ok(self.page.pop_front()),
                    std::cmp::Ordering::Greater => return Ok(None),
                }
            }
            if self.ended {
                return Ok(None);
            }
            let after = self.last.as_deref().or(start);
            let page = remote
                .list(&namespace.listing_prefix(), after, PAGE)
                .await
                .map_err(from_remote)?;
            self.ended = !page.more || page.objects.is_empty();
            self.last = page
                .objects
                .last()
                .map(|object| object.key.clone())
                .or(self.last.take());
            self.page = page.objects.into();
        }
    }
}

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Takes a turn on the first pass.
    ///
    /// # Errors
    /// [`TurnError`]: nothing of the turn counts.
    pub async fn first_pass(mut self, mut listing: Listing) -> Result<(Ended, Listing), TurnError> {
        let after = self.progress.after_name.clone();
        let (rows, complete) = {
            let _reading = self.work.claims.reading(&self.replica.container).await;
            let chunk = self
                .databases
                .rows_by_name(&self.replica, after.as_deref(), self.work.limits.chunk)
                .await?;
            self.check_same(&chunk.id, chunk.max_rowid)?;
            let rows: Vec<_> = chunk
                .rows
                .into_iter()
                .map(|read| {
                    let claim = self
                        .work
                        .claims
                        .claim(&self.replica.container, read.name().unwrap_or_default());
                    (read, claim)
                })
                .collect();
            (rows, chunk.complete)
        };
        let namespace = self.work.namespace(&self.replica.container);
        let start = match after.as_deref() {
            Some(name) => namespace.object_key(name).ok(),
            // A shard begins in the middle of its container's names.
            None => rows
                .iter()
                .find_map(|(read, _)| namespace.object_key(read.name()?).ok())
                .map(|key| shortly_before(&key).to_owned()),
        };
        let mut items = Vec::with_capacity(rows.len());
        for (read, claim) in rows {
            // Rows behind the mark belong to the lane that follows.
            let sorted = if read.rowid() > self.progress.high {
                Sorted::Pass
            } else {
                self.sort(&read, false)
            };
            let task = match sorted {
                Sorted::Pass => Task::Pass,
                Sorted::Unreadable(held) => Task::Hold(held),
                Sorted::Work(row) => match namespace.object_key(&row.name) {
                    Err(_) => Task::Copy(row, Trust::None, claim),
                    Ok(key) => match listing
                        .find(&*self.work.remote, &namespace, start.as_deref(), &key)
                        .await
                    {
                        Ok(None) => Task::Copy(row, Trust::KnownAbsent, claim),
                        Ok(Some(listed)) if self.settles(&row, &listed) => Task::Settled(Adopted {
                            key: listed.key,
                            etag: listed.etag,
                        }),
                        Ok(Some(_)) => Task::Copy(row, Trust::None, claim),
                        Err(stop) => {
                            return Ok((
                                Ended {
                                    pause: Some(as_pause(stop)),
                                    progress: self.progress,
                                    ..Ended::default()
                                },
                                Listing::default(),
                            ));
                        }
                    },
                },
            };
            items.push(item(&read, task));
        }
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
        let ended = self.record(worked, Some(to)).await;
        Ok((
            Ended {
                at_head: done && ended.pause.is_none(),
                ..ended
            },
            listing,
        ))
    }

    /// A listing settles a row only if ETag and size match, and it was written later than the row's newest change by
    /// more than clocks may be apart.
    fn settles(&self, row: &Row, listed: &ListedObject) -> bool {
        row.kind == RowKind::Object
            && row.etag.as_deref() == Some(listed.etag.as_str())
            && row.size == listed.size
            && listed.last_modified > row.time.newest().plus(self.work.limits.slack)
    }
}

/// A text that comes before this key, with few keys between them.
fn shortly_before(key: &str) -> &str {
    let mut chars = key.chars();
    chars.next_back();
    chars.as_str()
}

/// The last name all of whose rows are finished, when everything up to `last` is.
fn last_whole_name<'a>(positions: &'a [(String, i64)], last: &(String, i64)) -> Option<&'a str> {
    let open = positions
        .iter()
        .find(|position| *position > last)
        .map(|(name, _)| name);
    positions
        .iter()
        .rev()
        .filter(|position| *position <= last)
        .map(|(name, _)| name)
        .find(|name| Some(*name) != open)
        .map(String::as_str)
}

/// A row of a chunk in name order; under two storage policies a name stands twice.
fn item(read: &ReadRow, task: Task) -> Item<(String, i64)> {
    Item {
        position: (read.name().unwrap_or_default().to_owned(), read.rowid()),
        rowid: read.rowid(),
        name: read.shown_name(),
        task,
    }
}
