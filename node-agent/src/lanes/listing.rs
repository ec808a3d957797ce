//! Rows in name order beside a listing of the remote: what is there already costs no request of its own.

use std::collections::VecDeque;

use onespace_core::naming::Namespace;
use onespace_core::plan::Stop;
use onespace_core::plan::copy::Trust;
use onespace_core::plan::verify::settles;
use onespace_core::remote::ListedObject;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::turn::{Item, Task};
use super::{Sorted, Turn, TurnError};
use crate::claims::Claim;
use crate::clock::Clock;
use crate::databases::{Databases, ReadRow};
use crate::state::Adopted;
use crate::stop::from_remote;

/// Keys of one listing request.
const PAGE: usize = 1000;

/// A listing of the remote that runs beside the rows, one page at a time.
#[derive(Debug, Default)]
pub struct Listing {
    page: VecDeque<ListedObject>,
    last: Option<String>,
    ended: bool,
    /// The stretch of rows that it runs beside.
    stretch: Option<i64>,
}

impl Listing {
    /// This listing, if it runs beside this stretch; else a new one that does.
    pub(super) fn beside_stretch(self, after: i64) -> Self {
        if self.stretch == Some(after) {
            return self;
        }
        Self {
            stretch: Some(after),
            ..Self::default()
        }
    }

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
    /// Live rows behind a name, with their names claimed, and whether there are no more.
    pub(super) async fn claim_by_name(
        &self,
        after: Option<&str>,
    ) -> Result<(Vec<(ReadRow, Claim)>, bool), TurnError> {
        let _reading = self.work.claims.reading(&self.replica.container).await;
        let chunk = self
            .databases
            .rows_by_name(&self.replica, after, self.work.limits.chunk)
            .await?;
        self.check_same(&chunk.id, chunk.max_rowid)?;
        let claim = |read: ReadRow| {
            let name = read.name().unwrap_or_default();
            let claim = self.work.claims.claim(&self.replica.container, name);
            (read, claim)
        };
        Ok((chunk.rows.into_iter().map(claim).collect(), chunk.complete))
    }

    /// What rows behind a name lead to, beside the listing: settled, to be looked at, or missing there (`absent` says
    /// what that is worth: some servers hide keys).
    pub(super) async fn beside(
        &self,
        listing: &mut Listing,
        after: Option<&str>,
        rows: Vec<(ReadRow, Claim)>,
        absent: Trust,
        sort: impl Fn(&ReadRow) -> Sorted,
    ) -> Result<Vec<Item<(String, i64)>>, Stop> {
        let namespace = self.work.namespace(&self.replica.container);
        let start = match after {
            Some(name) => namespace.object_key(name).ok(),
            // A shard begins in the middle of its container's names.
            None => rows
                .iter()
                .find_map(|(read, _)| namespace.object_key(read.name()?).ok())
                .map(|key| shortly_before(&key).to_owned()),
        };
        let mut items = Vec::with_capacity(rows.len());
        for (read, claim) in rows {
            let task = match sort(&read) {
                Sorted::Pass => Task::Pass,
                Sorted::Unreadable(held) => Task::Hold(held),
                Sorted::Work(row) => match namespace.object_key(&row.name) {
                    Err(_) => Task::Copy(row, Trust::None, claim),
                    Ok(key) => match listing
                        .find(&*self.work.remote, &namespace, start.as_deref(), &key)
                        .await?
                    {
                        None => Task::Copy(row, absent, claim),
                        Some(listed) if settles(&row, &listed, self.work.limits.slack) => {
                            Task::Settled(Adopted {
                                key: listed.key,
                                etag: listed.etag,
                            })
                        }
                        Some(_) => Task::Copy(row, Trust::None, claim),
                    },
                },
            };
            items.push(item(&read, task));
        }
        Ok(items)
    }
}

/// A text that comes before this key, with few keys between them.
fn shortly_before(key: &str) -> &str {
    let mut chars = key.chars();
    chars.next_back();
    chars.as_str()
}

/// The last name all of whose rows are finished, when everything up to `last` is.
pub(super) fn last_whole_name<'a>(positions: &'a [(String, i64)], last: &(String, i64)) -> Option<&'a str> {
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
        due: None,
        task,
    }
}
