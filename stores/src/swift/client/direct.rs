//! Storage servers asked directly, past the proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use onespace_core::naming::partition;

use super::http::{Http, quote, quote_path};
use crate::source::{ObjectPath, Primaries};
use crate::swift::conf::SwiftConf;
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
    conf: SwiftConf,
    loaded: Mutex<BTreeMap<u32, (Stamp, Arc<Ring>)>>,
}

/// What changes when a ring is replaced.
type Stamp = (Option<SystemTime>, u64);

impl ObjectRings {
    pub fn new(folder: &Path, conf: SwiftConf) -> Self {
        Self {
            folder: folder.to_owned(),
            conf,
            loaded: Mutex::default(),
        }
    }

    /// Every policy of swift.conf.
    pub fn policies(&self) -> Vec<u32> {
        self.conf.policies.iter().map(|policy| policy.index).collect()
    }

    /// The policy's ring. `None`: swift.conf has no such policy.
    fn ring(&self, policy_index: u32) -> Result<Option<Arc<Ring>>, RingError> {
        let Some(policy) = self
            .conf
            .policies
            .iter()
            .find(|policy| policy.index == policy_index)
        else {
            return Ok(None);
        };
        let path = self.folder.join(policy.ring_file());
        let metadata = std::fs::metadata(&path);
        let stamp = metadata
            .map(|metadata| (metadata.modified().ok(), metadata.len()))
            .ok();
        let loaded = || self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(stamp), Some((known, ring))) = (stamp, loaded().get(&policy_index))
            && stamp == *known
        {
            return Ok(Some(Arc::clone(ring)));
        }
        let ring = Arc::new(Ring::load(&path)?);
        if let Some(stamp) = stamp {
            loaded().insert(policy_index, (stamp, Arc::clone(&ring)));
        }
        Ok(Some(ring))
    }
}

/// Asks every primary object server whether it has the object. Whatever cannot be found out is `Unknown`.
pub(super) async fn primaries(
    http: &Http,
    rings: &Arc<ObjectRings>,
    object: &ObjectPath,
    policy_index: u32,
) -> Primaries {
    let hash_path = rings.conf.hash_path.clone();
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

    #[test]
    fn only_a_no_from_every_primary_means_that_all_lack_it() {
        assert_eq!(conclude(&[Some(false), Some(false)]), Primaries::AllLack);
        assert_eq!(conclude(&[Some(false), None]), Primaries::Unknown);
        assert_eq!(conclude(&[None, Some(true)]), Primaries::SomeHave);
        assert_eq!(conclude(&[]), Primaries::Unknown);
    }
}
