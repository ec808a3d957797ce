//! Storage servers asked directly, past the proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use onespace_core::naming::{HashPath, partition};

use super::http::{Http, quote, quote_path};
use crate::source::{ObjectPath, Primaries};
use crate::swift::conf::{Policy, SwiftConf};
use crate::swift::ring::{Ring, RingError};

/// A container server did not commit what waits for a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the container server {server} {what}; check that it runs and that --container-server names it")]
pub struct CommitError {
    /// `ip:port`.
    pub server: String,
    /// What it did.
    pub what: String,
}

/// The object rings by policy, read when they are needed and again when their files have changed.
#[derive(Debug)]
pub(super) struct ObjectRings {
    folder: PathBuf,
    hash_path: HashPath,
    policies: Mutex<Policies>,
    loaded: Mutex<BTreeMap<u32, (Stamp, Arc<Ring>)>>,
}

/// The storage policies of swift.conf, as it was last read.
#[derive(Debug)]
struct Policies {
    all: Vec<Policy>,
    read: Option<Stamp>,
}

/// What changes when a ring is replaced.
type Stamp = (Option<SystemTime>, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len()))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ObjectRings {
    pub fn new(folder: &Path, conf: SwiftConf) -> Self {
        let policies = Policies {
            all: conf.policies,
            read: None,
        };
        Self {
            folder: folder.to_owned(),
            hash_path: conf.hash_path,
            policies: Mutex::new(policies),
            loaded: Mutex::default(),
        }
    }

    /// Every policy that swift.conf had when it was last looked at.
    pub fn policies(&self) -> Vec<u32> {
        lock(&self.policies)
            .all
            .iter()
            .map(|policy| policy.index)
            .collect()
    }

    /// Looks for policies that were added to swift.conf. None is taken away, whatever becomes of the file: objects of a
    /// policy that is not known would be taken for gone.
    fn look_for_policies(&self) {
        let now = stamp(&self.folder.join(SwiftConf::FILE));
        let mut policies = lock(&self.policies);
        if now.is_none() || now == policies.read {
            return;
        }
        policies.read = now;
        match SwiftConf::load(&self.folder) {
            Ok(conf) if conf.hash_path == self.hash_path => {
                for policy in conf.policies {
                    if policies.all.iter().all(|known| known.index != policy.index) {
                        policies.all.push(policy);
                    }
                }
            }
            Ok(_) => tracing::warn!(
                "swift.conf in {} has another hash path than when the agent was started: put the cluster's own back",
                self.folder.display()
            ),
            Err(error) => tracing::warn!(%error, "storage policies stay as they are known"),
        }
    }

    /// The policy's ring. `None`: swift.conf has no such policy.
    fn ring(&self, policy_index: u32) -> Result<Option<Arc<Ring>>, RingError> {
        self.look_for_policies();
        let policies = lock(&self.policies);
        let policy = policies
            .all
            .iter()
            .find(|policy| policy.index == policy_index)
            .cloned();
        drop(policies);
        let Some(policy) = policy else {
            return Ok(None);
        };
        let path = self.folder.join(policy.ring_file());
        let stamp = stamp(&path);
        if let (Some(stamp), Some((known, ring))) = (stamp, lock(&self.loaded).get(&policy_index))
            && stamp == *known
        {
            return Ok(Some(Arc::clone(ring)));
        }
        let ring = Arc::new(Ring::load(&path)?);
        if let Some(stamp) = stamp {
            lock(&self.loaded).insert(policy_index, (stamp, Arc::clone(&ring)));
        }
        Ok(Some(ring))
    }
}

/// Every policy of the cluster, looked up in swift.conf.
pub(super) async fn policies(rings: &Arc<ObjectRings>) -> Vec<u32> {
    let looking = Arc::clone(rings);
    let looked = tokio::task::spawn_blocking(move || looking.look_for_policies());
    if looked.await.is_err() {
        tracing::warn!("storage policies stay as they are known");
    }
    rings.policies()
}

/// Asks every primary object server whether it has the object. Whatever cannot be found out is `Unknown`.
pub(super) async fn primaries(
    http: &Http,
    rings: &Arc<ObjectRings>,
    object: &ObjectPath,
    policy_index: u32,
) -> Primaries {
    let hash_path = rings.hash_path.clone();
    let files = Arc::clone(rings);
    let ring = match tokio::task::spawn_blocking(move || files.ring(policy_index)).await {
        Ok(Ok(Some(ring))) => ring,
        Ok(Ok(None)) => {
            tracing::warn!(
                policy_index,
                "swift.conf does not have this storage policy: copy the cluster's own"
            );
            return Primaries::Unknown;
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "object servers cannot be asked");
            return Primaries::Unknown;
        }
        Err(_) => return Primaries::Unknown,
    };
    let ObjectPath {
        account,
        container,
        object: name,
    } = object;
    let hash = hash_path.hash(account, Some(container), Some(name));
    let partition = partition(&hash, ring.part_power());
    let mut headers = HeaderMap::new();
    headers.insert("x-backend-storage-policy-index", policy_index.into());
    let urls = ring.primaries(partition).into_iter().map(|device| {
        format!(
            "http://{}/{}/{partition}/{}/{}/{}",
            device.server(),
            quote(&device.device),
            quote(account),
            quote(container),
            quote_path(name)
        )
    });
    let answers = join_all(urls.map(|url| {
        let headers = headers.clone();
        async move { has(http, &url, headers).await }
    }));
    conclude(&answers.await)
}

/// Whether the object is there; `None` if the server does not say.
async fn has(http: &Http, url: &str, headers: HeaderMap) -> Option<bool> {
    let response = http
        .send(Method::HEAD, url, headers, http.timeouts.direct)
        .await
        .ok()?;
    match response.status() {
        status if status.is_success() => Some(true),
        StatusCode::NOT_FOUND => Some(false),
        _ => None,
    }
}

fn conclude(answers: &[Option<bool>]) -> Primaries {
    if answers.contains(&Some(true)) {
        Primaries::SomeHave
    } else if answers.is_empty() || answers.contains(&None) {
        Primaries::Unknown
    } else {
        Primaries::AllLack
    }
}

pub(super) async fn commit_pending(
    http: &Http,
    server: &str,
    device: &str,
    partition: u32,
    account: &str,
    container: &str,
) -> Result<(), CommitError> {
    let error = |what: String| CommitError {
        server: server.to_owned(),
        what,
    };
    let url = format!(
        "http://{server}/{}/{partition}/{}/{}",
        quote(device),
        quote(account),
        quote(container)
    );
    let response = http
        .send(Method::HEAD, &url, HeaderMap::new(), http.timeouts.direct)
        .await;
    let status = response
        .map_err(|cause| error(format!("does not answer ({cause})")))?
        .status();
    // A deleted container answers 404, and its updates are committed all the same.
    if status.is_success() || status == StatusCode::NOT_FOUND {
        Ok(())
    } else {
        Err(error(format!("answers {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storage_policy_that_is_added_is_known_at_once_and_none_is_ever_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let write = |hash_path: &str, policies: &[u32]| {
            let mut conf = format!("[swift-hash]\nswift_hash_path_suffix = {hash_path}\n");
            for index in policies {
                conf.push_str(&format!("[storage-policy:{index}]\nname = p{index}\n"));
            }
            // Another length each time: the file's time may be the same.
            std::fs::write(folder.path().join("swift.conf"), conf).unwrap();
        };
        write("ours", &[0]);
        let conf = SwiftConf::load(folder.path()).unwrap();
        let rings = Arc::new(ObjectRings::new(folder.path(), conf));
        assert_eq!(policies(&rings).await, [0]);
        write("ours", &[0, 1]);
        assert_eq!(policies(&rings).await, [0, 1]);
        write("anothers", &[0, 1, 2]);
        assert_eq!(policies(&rings).await, [0, 1]);
        write("ours", &[3]);
        assert_eq!(policies(&rings).await, [0, 1, 3]);
        std::fs::remove_file(folder.path().join("swift.conf")).unwrap();
        assert_eq!(policies(&rings).await, [0, 1, 3]);
        assert!(matches!(rings.ring(2), Ok(None)));
        assert!(rings.ring(1).is_err(), "its ring is looked for");
    }

    #[test]
    fn only_a_no_from_every_primary_means_that_all_lack_it() {
        assert_eq!(conclude(&[Some(false), Some(false)]), Primaries::AllLack);
        assert_eq!(conclude(&[Some(false), None]), Primaries::Unknown);
        assert_eq!(conclude(&[None, Some(true)]), Primaries::SomeHave);
        assert_eq!(conclude(&[]), Primaries::Unknown);
    }
}
