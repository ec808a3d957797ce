//! What the work on one mapping shares: its rules, its stores, its state.

use std::sync::Arc;
use std::time::Duration;

use onespace_core::mapping::Mapping;
use onespace_core::mark::Mark;
use onespace_core::naming::{self, Namespace};
use onespace_core::plan::copy::Times;
use onespace_core::plan::{Pause, Stop};
use onespace_core::reason::PauseReason;
use onespace_core::select::Selector;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::{Capabilities, Permissions, Remote};
use onespace_stores::source::ObjectPath;
use tokio::time::Instant;

use crate::claims::Claims;
use crate::clock::Clock;
use crate::state::State;
use crate::stop::from_remote;
use crate::turnstile::Turnstile;

/// For how long the answer to "is only this key denied?" holds.
const DENIAL: Duration = Duration::from_secs(3);

/// Bounds and times that hold for the whole agent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far clocks may be apart, and how long a row counts as fresh.
    pub slack: Duration,
    /// Bodies up to so many bytes are kept until the remote has them.
    pub replay: u64,
    /// Rows of one read.
    pub chunk: usize,
    /// A turn of a lane starts no new row after this long.
    pub turn: Duration,
    /// Held rows of one mapping.
    pub held: u64,
    /// Largest manifest that is read, bytes.
    pub manifest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slack: Duration::from_secs(3600),
            replay: 1 << 20,
            chunk: 500,
            turn: Duration::from_secs(10),
            held: 10_000,
            manifest: 8 << 20,
        }
    }
}

/// All that work on one object needs. Cheap to clone.
pub struct Work<S, R, C> {
    /// The mapping.
    pub mapping: Arc<Mapping>,
    /// What it leaves alone.
    pub selector: Arc<Selector>,
    /// The followed Swift.
    pub source: Arc<S>,
    /// The remote.
    pub remote: Arc<R>,
    /// What the remote can do.
    pub capabilities: Arc<Capabilities>,
    /// Durable state.
    pub state: State,
    /// Who works on which name.
    pub claims: Claims,
    /// Workers.
    pub turnstile: Turnstile,
    /// The time.
    pub clock: C,
    /// Bounds.
    pub limits: Limits,
    /// The last answer to "is only this key denied?", and when.
    pub others_allowed: Arc<tokio::sync::Mutex<Option<(Instant, bool)>>>,
    /// When the last listing began that showed the bucket to be there.
    pub bucket_seen: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl<S, R, C: Clone> Clone for Work<S, R, C> {
    fn clone(&self) -> Self {
        Self {
            mapping: self.mapping.clone(),
            selector: self.selector.clone(),
            source: self.source.clone(),
            remote: self.remote.clone(),
            capabilities: self.capabilities.clone(),
            state: self.state.clone(),
            claims: self.claims.clone(),
            turnstile: self.turnstile.clone(),
            clock: self.clock.clone(),
            limits: self.limits,
            others_allowed: self.others_allowed.clone(),
            bucket_seen: self.bucket_seen.clone(),
        }
    }
}

impl<S, R, C: Clock> Work<S, R, C> {
    /// The policy as logs name it.
    pub fn policy_name(&self) -> String {
        format!("{}/{}", self.mapping.policy.namespace, self.mapping.policy.name)
    }

    /// Where the probe may write: among onespace's own keys, never among objects.
    pub fn scratch_prefix(&self) -> String {
        match self.mapping.target.prefix.as_deref() {
            None | Some("") => ".onespace/probe/".to_owned(),
            Some(prefix) => format!("{prefix}/.onespace/probe/"),
        }
    }

    /// Why the mapping cannot run with these permissions.
    pub fn missing_permissions(&self, permissions: &Permissions) -> Option<Pause> {
        let missing: Vec<_> = permissions
            .operations
            .iter()
            .filter(|(operation, allowed)| {
                !**allowed && (**operation != "delete" || self.mapping.propagate_delete)
            })
            .map(|(operation, _)| *operation)
            .collect();
        (!missing.is_empty()).then(|| Pause {
            reason: PauseReason::AccessDenied,
            code: None,
            message: format!(
                "the credentials do not allow {} under the mapping's prefix; extend the bucket's policy",
                missing.join(", ")
            ),
            retry_after: None,
        })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The keys of a container's objects.
    pub fn namespace(&self, container: &str) -> Namespace {
        Namespace::new(
            &self.mapping.source.account,
            container,
            self.mapping.target.prefix.as_deref(),
        )
    }

    /// Where Swift has an object of this mapping.
    pub fn path(&self, container: &str, object: &str) -> ObjectPath {
        ObjectPath {
            account: self.mapping.source.account.clone(),
            container: container.to_owned(),
            object: object.to_owned(),
        }
    }

    /// The source hash of an object: what its mark must carry.
    pub fn source_hash(&self, container: &str, object: &str) -> String {
        naming::source_hash(&self.mapping.source.account, container, object)
    }

    /// The mark of a copy that is made now.
    pub fn mark(&self, source: String, times: Times, etag: &str, delete_at: Option<u64>) -> Mark {
        Mark {
            data_time: times.data_time,
            time: times.time,
            etag: etag.to_owned(),
            mode: self.mapping.mode,
            mapping: self.mapping.id.clone(),
            source,
            delete_at,
        }
    }
}

impl<S, R: Remote, C: Clock> Work<S, R, C> {
    /// Whether the credentials still work for other keys: then a denied key is that row's trouble alone.
    pub(crate) async fn others_are_allowed(&self) -> bool {
        let mut known = self.others_allowed.lock().await;
        let now = Instant::now();
        if let Some((at, allowed)) = *known
            && now.duration_since(at) < DENIAL
        {
            return allowed;
        }
        let allowed = match self.remote.probe(&self.scratch_prefix()).await {
            Ok((_, permissions)) => self.missing_permissions(&permissions).is_none(),
            Err(_) => false,
        };
        *known = Some((now, allowed));
        allowed
    }

    /// Makes sure that a key which was missing at `looked_at` was missing from a bucket that is there: the answer to
    /// a HEAD is the same without the bucket. Many rows share one listing of one key.
    ///
    /// # Errors
    /// [`Stop::Pause`]: the bucket is gone, or cannot be listed.
    pub(crate) async fn bucket_is_there(&self, looked_at: Instant) -> Result<(), Stop> {
        let mut seen = self.bucket_seen.lock().await;
        if seen.is_some_and(|seen| seen >= looked_at) {
            return Ok(());
        }
        let begun = Instant::now();
        self.remote
            .list(&self.scratch_prefix(), None, 1)
            .await
            .map_err(from_remote)?;
        *seen = Some(begun);
        Ok(())
    }
}
