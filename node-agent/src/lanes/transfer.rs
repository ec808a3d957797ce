//! A copy that outlasts the turn that began it goes on by itself, so that one huge object keeps no other row waiting.
//!
//! Its row is durably held meanwhile, as one that is under way: the watermark moves on, and what a crash interrupts is
//! tried again. Later rows of the name wait in the same way. How many copies go on so is bounded.

use std::fmt;
use std::pin::Pin;

use onespace_core::plan::copy::Trust;
use onespace_core::plan::{Held, Stop};
use onespace_core::reason::HoldReason;
use onespace_core::row::Row;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote;
use onespace_stores::source::Source;

use super::record::{Count, Worked};
use super::turn::Which;
use super::{Ended, Lane, Turn};
use crate::claims::Claim;
use crate::clock::Clock;
use crate::copy::Copied;
use crate::databases::Databases;
use crate::state::{HeldKey, Holding, Kept};
use crate::turnstile::Pass;

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// A copy that goes on after its turn.
pub struct Transfer {
    /// The row.
    pub rowid: i64,
    /// How it ends; `None` = it was broken off because the mapping's task ends.
    pub end: Future<Option<Ended>>,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("rowid", &self.rowid)
            .finish_non_exhaustive()
    }
}

/// A copy that is under way, and what it must keep while it is.
pub(super) struct Copying {
    pub lane: Lane,
    pub which: Which,
    pub name: String,
    /// Its newest time.
    pub time: Timestamp,
    /// Whether it may change while its row does not.
    pub link: bool,
    pub claim: Claim,
    pub pass: Pass,
    pub result: Future<Result<Copied, Stop>>,
}

/// What became of a copy that its turn cannot wait for.
pub(super) enum HandedOver {
    /// It goes on by itself.
    Yes(Transfer),
    /// Its turn has to wait for it.
    No(Box<Copying>),
}

/// Why a row waits whose name is being copied.
pub(super) fn behind_a_transfer() -> Held {
    Held::new(
        HoldReason::Transferring,
        "an earlier version of this object is on its way to the remote; this one follows it",
    )
}

impl<D: Databases, S: Source + 'static, R: Remote, C: Clock> Turn<D, S, R, C> {
    /// Begins a copy that needs nothing of this turn.
    pub(super) fn begin_copy(&self, row: Row, trust: Trust) -> Future<Result<Copied, Stop>> {
        let (work, container) = (self.work.clone(), self.replica.container.clone());
        Box::pin(async move { work.copy(&container, &row, trust).await })
    }

    /// Lets a copy go on by itself, if there is a place for it and its row is durably held.
    pub(super) async fn hand_over(&self, mut copying: Copying) -> HandedOver {
        if !copying.pass.linger() {
            return HandedOver::No(Box::new(copying));
        }
        copying.claim.is_lengthy();
        let holding = Holding {
            key: HeldKey {
                database: self.key.clone(),
                name: copying.name.clone(),
            },
            row: copying.which.rowid,
            own: self.is_own(&copying.name),
            counted: copying.which.due.is_some(),
            held: Held::new(
                HoldReason::Transferring,
                "it is on its way to the remote; nothing waits for it but later versions of it",
            ),
            since: copying.time,
        };
        let (now, limit) = (self.work.now(), self.work.limits.held);
        match self.work.state.hold(holding, now, limit).await {
            Ok(Kept::Yes) => HandedOver::Yes(Transfer {
                rowid: copying.which.rowid,
                end: Box::pin(self.clone().finish(copying)),
            }),
            Ok(Kept::Full) | Err(_) => HandedOver::No(Box::new(copying)),
        }
    }

    async fn finish(self, copying: Copying) -> Option<Ended> {
        let Copying {
            lane,
            which,
            name,
            link,
            claim,
            pass,
            result,
            time: _,
        } = copying;
        let result = tokio::select! {
            biased;
            () = self.halt.cancelled() => return None,
            result = result => result,
        };
        let end = self.judge(which, &name, result).await;
        drop(pass);
        let mut worked = Worked::<i64>::default();
        worked.in_step.extend(self.in_step(which, &end));
        self.take(&mut worked, lane, (name.clone(), which.rowid), link, end);
        let (state, key) = (self.work.state.clone(), self.key.clone());
        let mapping = key.mapping.clone();
        let ended = self.record(worked, None, Count::Now).await;
        // What waits for this name, or for another try, goes on. If this cannot be recorded it does a little later.
        drop(claim);
        let waiting = HeldKey { database: key, name };
        let _ = state.transfers_over(&mapping, Some(&waiting)).await;
        Some(ended)
    }
}
