//! Runs one task for each mapping of the loaded set. What changes in a mapping starts its task anew, but for keys and
//! triggers: those are handed over, so that no long transfer ends with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onespace_core::credentials::Credentials;
use onespace_core::limits::Schedule;
use onespace_core::load::{LoadedSet, Refused};
use onespace_core::mapping::{Mapping, MappingId, MappingState};
use onespace_core::reason::{PauseReason, RefuseReason};
use onespace_core::report::{ConfigReport, MappingReport, RunState, rfc3339};
use onespace_core::select::Selector;
use onespace_stores::egress::DenyList;
use onespace_stores::remote::{Capabilities, RemoteError};
use onespace_stores::s3::{S3Config, S3Remote, SharedKeys, Transports};
use onespace_stores::source::Source;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::claims::Claims;
use crate::clock::Clock;
use crate::databases::Databases;
use crate::files::{FilesError, Folders};
use crate::mapping_task::{Command, Handle, MappingTask, Order, internal_error};
use crate::pace::Limited;
use crate::reading::Reading;
use crate::state::{State, Uploads};
use crate::turnstile::Turnstile;
use crate::work::{Limits, Work};

/// How often the index, a small file, is looked at: a change is to be in every agent within a second, and most of that is
/// Kubernetes'.
const LOOK: Duration = Duration::from_millis(100);

/// When a set that cannot be loaded, and may be large, is read anew.
const ANEW: Duration = Duration::from_millis(500);

/// How long a task that failed in itself waits before it starts anew, the first time and at most.
const FIRST_REVIVAL: Duration = Duration::from_secs(1);
const LAST_REVIVAL: Duration = Duration::from_secs(60);

/// How long a mapping that must end may finish the rows under way.
const GRACE: Duration = Duration::from_secs(20);

/// What the agent runs, as its servers show it.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// The configuration.
    pub config: ConfigReport,
    /// A set was loaded.
    pub loaded: bool,
    /// Nothing was begun yet: the internal endpoint is not up.
    pub waits_for_endpoint: bool,
    /// The latest report of each mapping.
    pub mappings: BTreeMap<MappingId, Entry>,
}

/// One running mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Reports.
    pub reports: watch::Receiver<MappingReport>,
    /// Commands.
    pub commands: tokio::sync::mpsc::Sender<Order>,
}

/// Everything that mappings share.
pub struct Supervisor<D, S, C> {
    /// Files.
    pub folders: Folders,
    /// Databases of this node.
    pub databases: Arc<D>,
    /// The followed Swift.
    pub source: Arc<S>,
    /// Durable state.
    pub state: State,
    /// Workers.
    pub turnstile: Turnstile,
    /// The time.
    pub clock: C,
    /// Bounds.
    pub limits: Limits,
    /// Addresses that must not be dialled.
    pub deny: DenyList,
    /// What mappings reach their remotes by.
    pub transports: Transports,
    /// What the servers show.
    pub running: watch::Sender<Running>,
}

/// What a task works with.
type AtS3<S, C> = Work<S, Limited<S3Remote, C>, C>;

struct Active {
    fingerprint: Fingerprint,
    handle: Handle,
    keys: SharedKeys,
    /// How often its task failed in itself.
    failures: u32,
}

impl Active {
    /// Hands over what changed, if the task can go on with it.
    fn takes_up(&mut self, new: &Fingerprint) -> bool {
        let renewed = match self.fingerprint.change(new) {
            Change::Nothing => return true,
            Change::Handed { renewed } => renewed,
            Change::Work => return false,
        };
        if let Some(keys) = new.credentials.as_deref().and_then(Credentials::keys) {
            self.keys.replace(keys.into());
        }
        let mapping = new.mapping.clone();
        let order = Command::GoOn { mapping, renewed };
        let taken = self.handle.commands.try_send(order.into()).is_ok();
        if taken {
            tracing::info!(mapping = %new.mapping.id.0, renewed, "keys or triggers changed: its work goes on with them");
            self.fingerprint = new.clone();
        }
        taken
    }
}

/// What a change of a mapping means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Nothing changed.
    Nothing,
    /// It can be handed over: triggers, and keys, if they are `renewed`.
    Handed { renewed: bool },
    /// Work under the former one must end.
    Work,
}

/// What a task works by.
#[derive(Clone, Debug)]
struct Fingerprint {
    mapping: Arc<Mapping>,
    credentials: Option<Arc<Credentials>>,
}

impl Fingerprint {
    fn change(&self, new: &Self) -> Change {
        let (renewed, handed) = match (&self.credentials, &new.credentials) {
            // Most are the very ones of the set before.
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => (false, true),
            (Some(old), Some(new)) => (!old.is_same(new), old.is_same_but_for_keys(new)),
            (old, new) => (old.is_some() != new.is_some(), false),
        };
        let same = Arc::ptr_eq(&self.mapping, &new.mapping) || self.mapping == new.mapping;
        if !renewed && same {
            Change::Nothing
        } else if (!renewed || handed) && self.mapping.is_same_work(&new.mapping) {
            Change::Handed { renewed }
        } else {
            Change::Work
        }
    }
}

impl<D: Databases, S: Source + 'static, C: Clock> Supervisor<D, S, C> {
    /// Runs until cancelled; then ends every mapping at its next row.
    pub async fn run(self, cancel: CancellationToken) {
        let mut active: BTreeMap<MappingId, Active> = BTreeMap::new();
        let mut ending: BTreeMap<MappingId, JoinHandle<()>> = BTreeMap::new();
        let mut reading = Reading::new(self.folders.clone());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = look.tick() => {}
            }
            let had_error = self.running.borrow().config.error.is_some();
            let read = tokio::select! {
                () = cancel.cancelled() => break,
                read = reading.next(had_error) => read,
            };
            match read {
                Ok(None) => {}
                Ok(Some(set)) => {
                    tracing::info!(revision = %set.revision, mappings = set.mappings.len(), refused = set.refused.len(), "mappings loaded");
                    ending.retain(|_, task| !task.is_finished());
                    self.apply(&mut active, &mut ending, set);
                }
                Err(error) => {
                    self.keep_last(&error);
                    look.reset_after(ANEW);
                }
            }
            self.revive(&mut active);
        }
        for (id, active) in active {
            ending.insert(id, end(active.handle));
        }
        for task in ending.into_values() {
            let _ = task.await;
        }
    }

    /// Says why a newer set was not loaded, once for each reason.
    fn keep_last(&self, error: &FilesError) {
        let message = Some(error.to_string());
        self.running.send_if_modified(|running| {
            let is_new = running.config.error != message;
            if is_new {
                tracing::error!("the mapping files are not loaded, the last good set stays: {error}");
                running.config.error = message;
            }
            is_new
        });
    }

    fn apply(
        &self,
        active: &mut BTreeMap<MappingId, Active>,
        ending: &mut BTreeMap<MappingId, JoinHandle<()>>,
        set: LoadedSet,
    ) {
        let LoadedSet {
            revision,
            mappings,
            mut refused,
            credentials,
        } = set;
        let is_wanted = |id: &MappingId| mappings.binary_search_by(|mapping| mapping.id.cmp(id)).is_ok();
        let mut changed = false;
        for (id, running) in active.extract_if(.., |id, _| !is_wanted(id)) {
            changed = true;
            tracing::info!(mapping = %id.0, "the mapping is gone: its work ends");
            ending.insert(id, end(running.handle));
        }
        for mapping in mappings {
            let fingerprint = Fingerprint {
                credentials: credentials.get(&mapping.target.credential.0).cloned(),
                mapping,
            };
            let running = active.get_mut(&fingerprint.mapping.id);
            if running.is_some_and(|running| running.takes_up(&fingerprint)) {
                continue;
            }
            changed = true;
            let id = fingerprint.mapping.id.clone();
            let mut shown = MappingReport {
                id: id.0.clone(),
                policy: Some(fingerprint.mapping.policy.clone()),
                ..MappingReport::default()
            };
            if let Some(running) = active.remove(&id) {
                shown = running.handle.reports.borrow().clone();
                if fingerprint.mapping.state == MappingState::Suspended {
                    // No row is begun any more, though some may still be under way.
                    shown.state = RunState::Suspended;
                    (shown.reason, shown.message) = (None, None);
                }
                ending.insert(id.clone(), end(running.handle));
            }
            match self.work(&fingerprint.mapping, fingerprint.credentials.as_deref()) {
                Ok((work, keys)) => {
                    let (cancel, previous) = (CancellationToken::new(), ending.remove(&id));
                    let handle =
                        MappingTask::start_after(work, self.databases.clone(), cancel, previous, shown);
                    let running = Active {
                        fingerprint,
                        handle,
                        keys,
                        failures: 0,
                    };
                    active.insert(id, running);
                }
                Err(refusal) => refused.push(refusal),
            }
        }
        let entries = changed.then(|| entries(active));
        self.running.send_modify(|running| {
            running.loaded = true;
            if let Some(entries) = entries {
                running.mappings = entries;
            }
            running.config = ConfigReport {
                revision,
                loaded_at: Some(rfc3339(self.clock.now())),
                error: None,
                refused: refused.into_iter().map(shown).collect(),
            };
        });
    }

    /// Starts tasks anew that ended though nobody ended them: a mistake in this program. It is shown, and each is tried
    /// again after a while.
    fn revive(&self, active: &mut BTreeMap<MappingId, Active>) {
        let mut revived = false;
        for (id, running) in active
            .iter_mut()
            .filter(|(_, running)| running.handle.task.is_finished())
        {
            tracing::error!(mapping = %id.0, "its work ended abnormally and starts anew: report this with the log");
            let Ok((work, keys)) = self.work(
                &running.fingerprint.mapping,
                running.fingerprint.credentials.as_deref(),
            ) else {
                continue;
            };
            let wait = FIRST_REVIVAL
                .saturating_mul(1 << running.failures.min(10))
                .min(LAST_REVIVAL);
            running.failures += 1;
            running.keys = keys;
            let pause = internal_error();
            let shown = MappingReport {
                state: RunState::Paused,
                reason: Some(pause.reason.to_string()),
                message: Some(pause.message),
                ..running.handle.reports.borrow().clone()
            };
            running.handle = MappingTask::start_after(
                work,
                self.databases.clone(),
                CancellationToken::new(),
                Some(tokio::spawn(tokio::time::sleep(wait))),
                shown,
            );
            revived = true;
        }
        if revived {
            let entries = entries(active);
            self.running.send_modify(|running| running.mappings = entries);
        }
    }

    fn work(
        &self,
        mapping: &Arc<Mapping>,
        credentials: Option<&Credentials>,
    ) -> Result<(AtS3<S, C>, SharedKeys), Refused> {
        let refuse = |reason, message: String| Refused {
            id: mapping.id.clone(),
            reason,
            message,
        };
        let proxy_login = credentials.and_then(|credentials| credentials.proxy.as_ref());
        let keys = credentials.and_then(Credentials::keys).ok_or_else(|| {
            refuse(
                RefuseReason::CredentialsMissing,
                "the credential files have no S3 keys for it; render the policy together with its Secret"
                    .into(),
            )
        })?;
        let unusable = |message: String| refuse(RefuseReason::Unparseable, message);
        let config = S3Config::from_target(&mapping.target, keys.into(), self.deny.clone())
            .with_proxy_login(proxy_login);
        let remote = S3Remote::sharing(config, &self.transports).map_err(|error| match error {
            RemoteError::Paused {
                reason: PauseReason::AddressDenied,
                message,
                ..
            } => refuse(RefuseReason::AddressDenied, message),
            error => unusable(error.to_string()),
        })?;
        let keys = remote.keys();
        let remote = remote.with_upload_log(Arc::new(Uploads {
            state: self.state.clone(),
            mapping: mapping.id.clone(),
        }));
        let schedule = Schedule::new(&mapping.limits.clone().unwrap_or_default())
            .map_err(|error| unusable(format!("limits.{error}")))?;
        let selector = Selector::new(mapping.exclude.as_deref(), mapping.select.as_ref())
            .map_err(|error| unusable(error.to_string()))?;
        let work = Work {
            mapping: mapping.clone(),
            selector: Arc::new(selector),
            source: self.source.clone(),
            remote: Arc::new(Limited::new(remote, schedule, self.clock.clone())),
            capabilities: Arc::new(Capabilities::default()),
            state: self.state.clone(),
            claims: Claims::default(),
            turnstile: self.turnstile.clone(),
            clock: self.clock.clone(),
            limits: self.limits,
            others_allowed: Arc::default(),
            bucket_seen: Arc::default(),
        };
        Ok((work, keys))
    }
}

/// Tells a mapping to end; what is returned has ended when it has. Whoever is in the middle of a long transfer is cut
/// off after a while, which costs nothing but that transfer.
fn end(handle: Handle) -> JoinHandle<()> {
    let Handle { cancel, mut task, .. } = handle;
    cancel.cancel();
    tokio::spawn(async move {
        if tokio::time::timeout(GRACE, &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
    })
}

fn entries(active: &BTreeMap<MappingId, Active>) -> BTreeMap<MappingId, Entry> {
    let entry = |running: &Active| Entry {
        reports: running.handle.reports.clone(),
        commands: running.handle.commands.clone(),
    };
    active
        .iter()
        .map(|(id, running)| (id.clone(), entry(running)))
        .collect()
}

fn shown(refused: Refused) -> onespace_core::report::Refused {
    onespace_core::report::Refused {
        id: refused.id.0,
        reason: refused.reason.to_string(),
        message: refused.message,
    }
}

#[cfg(test)]
mod tests {
    use onespace_core::mapping::Triggers;

    use super::*;

    fn fingerprint(change: impl FnOnce(&mut Mapping), credentials: &str) -> Fingerprint {
        let mapping = r#"{"id": "1", "startsOver": "1", "policy": {"namespace": "swift", "name": "p", "generation": 1},
            "state": "Active", "mode": "Sync", "source": {"account": "a", "container": "c"},
            "target": {"protocol": "S3", "region": "us-east-1", "bucket": "b", "credential": "k", "encryption": {"type": "None"}},
            "retainLocalSegments": true, "propagateDelete": true, "minSegmentSize": 1}"#;
        let mut mapping: Mapping = serde_json::from_str(mapping).unwrap();
        change(&mut mapping);
        let credentials: Option<Credentials> = serde_json::from_str(credentials).unwrap();
        Fingerprint {
            mapping: Arc::new(mapping),
            credentials: credentials.map(Arc::new),
        }
    }

    #[test]
    fn keys_and_triggers_are_handed_over_and_all_else_ends_the_work() {
        let keys = r#"{"accessKeyId": "a", "secretAccessKey": "b"}"#;
        let others = r#"{"accessKeyId": "a", "secretAccessKey": "c", "sessionToken": "t"}"#;
        let behind_a_proxy =
            r#"{"accessKeyId": "a", "secretAccessKey": "b", "proxy": {"username": "u", "password": "p"}}"#;
        let now = fingerprint(|_| {}, keys);
        let change = |new: Fingerprint| now.change(&new);
        let retry = |mapping: &mut Mapping| {
            mapping.policy.generation = 2;
            mapping.triggers = Triggers {
                retry: Some("now".into()),
                ..Triggers::default()
            };
        };
        assert_eq!(change(fingerprint(|_| {}, keys)), Change::Nothing);
        assert_eq!(
            change(fingerprint(|_| {}, others)),
            Change::Handed { renewed: true }
        );
        assert_eq!(
            change(fingerprint(retry, keys)),
            Change::Handed { renewed: false }
        );
        assert_eq!(
            change(fingerprint(retry, others)),
            Change::Handed { renewed: true }
        );
        assert_eq!(change(fingerprint(|_| {}, behind_a_proxy)), Change::Work);
        assert_eq!(change(fingerprint(|_| {}, "null")), Change::Work);
        let suspend = |mapping: &mut Mapping| mapping.state = MappingState::Suspended;
        assert_eq!(change(fingerprint(suspend, keys)), Change::Work);
        let moved = |mapping: &mut Mapping| mapping.target.bucket = "another".into();
        assert_eq!(change(fingerprint(moved, others)), Change::Work);
    }
}
