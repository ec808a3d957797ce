//! The container servers of a container, each asked directly: what it says of its replica, and whether it lists a
//! name. Nothing is changed but that updates which wait are committed, as by any other HEAD or GET.
//!
//! A replica's hash over its rows, which would tell most, is shown by a replication request alone. That one is a
//! write: it merges the caller's times and metadata into the replica.

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use onespace_core::plan::reconcile::ContainerSays;
use onespace_core::timestamp::Timestamp;

use super::http::{Http, quote};

/// Longest listing of one name that is read, bytes.
const LARGEST: usize = 64 << 10;

/// A replica of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `ip:port`.
    pub server: String,
    /// Device of the ring.
    pub device: String,
    /// Partition of the ring.
    pub partition: u32,
    /// Account.
    pub account: String,
    /// Container.
    pub container: String,
}

impl Peer {
    fn url(&self) -> String {
        format!(
            "http://{}/{}/{}/{}/{}",
            self.server,
            quote(&self.device),
            self.partition,
            quote(&self.account),
            quote(&self.container)
        )
    }
}

/// What the server says of the replica. `None`: nothing that can be used; a deleted container is not there.
pub(super) async fn says(http: &Http, peer: &Peer) -> Option<ContainerSays> {
    let answer = http
        .send(Method::HEAD, &peer.url(), HeaderMap::new(), http.timeouts.direct)
        .await
        .ok()?;
    if !answer.status().is_success() {
        return None;
    }
    understand(answer.headers())
}

fn understand(headers: &HeaderMap) -> Option<ContainerSays> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let number = |name: &str| text(name)?.parse().ok();
    let times = [
        "x-backend-timestamp",
        "x-backend-delete-timestamp",
        "x-backend-status-changed-at",
    ];
    let mut created = Timestamp::default();
    for name in times {
        created = created.max(Timestamp::parse(text(name)?).ok()?);
    }
    Some(ContainerSays {
        objects: number("x-container-object-count")?,
        bytes: number("x-container-bytes-used")?,
        policy_index: text("x-backend-storage-policy-index")?.parse().ok()?,
        // Swifts from before sharding do not say it: their containers are not sharded.
        sharding: text("x-backend-sharding-state").unwrap_or("unsharded").to_owned(),
        created,
    })
}

/// Whether the server lists this name under this storage policy. `None`: it does not say.
pub(super) async fn lists(http: &Http, peer: &Peer, policy_index: u32, name: &str) -> Option<bool> {
    // The name itself is the first of all that begin with it.
    let url = format!("{}?format=json&limit=1&prefix={}", peer.url(), quote(name));
    let mut headers = HeaderMap::new();
    headers.insert("x-backend-storage-policy-index", policy_index.into());
    let answer = http
        .send(Method::GET, &url, headers, http.timeouts.direct)
        .await
        .ok()?;
    match answer.status() {
        StatusCode::NO_CONTENT => return Some(false),
        StatusCode::OK => {}
        _ => return None,
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect();
    let body = tokio::time::timeout(http.timeouts.direct, body)
        .await
        .ok()?
        .ok()?;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&body.to_bytes()).ok()?;
    match listed.first() {
        None => Some(false),
        Some(entry) => Some(entry.get("name")?.as_str()? == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(more: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let usual = [
            ("x-container-object-count", "3"),
            ("x-container-bytes-used", "30"),
            ("x-backend-storage-policy-index", "1"),
            ("x-backend-timestamp", "1795331000.00000"),
            ("x-backend-delete-timestamp", "0000000000.00000"),
            ("x-backend-status-changed-at", "1795331005.00000"),
        ];
        for (name, value) in usual.iter().chain(more) {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_container_counts_as_created_when_it_last_came_to_be() {
        let says = understand(&headers(&[("x-backend-sharding-state", "sharding")])).unwrap();
        assert_eq!(says.created, Timestamp::from_unix_seconds(1_795_331_005));
        assert_eq!((says.objects, says.bytes, says.policy_index), (3, 30, 1));
        assert_eq!(says.sharding, "sharding");
        let again = understand(&headers(&[("x-backend-delete-timestamp", "1795332000.00000")])).unwrap();
        assert_eq!(again.created, Timestamp::from_unix_seconds(1_795_332_000));
    }

    #[test]
    fn an_answer_that_lacks_something_says_nothing() {
        for name in [
            "x-container-object-count",
            "x-backend-status-changed-at",
            "x-backend-storage-policy-index",
        ] {
            let mut lacking = headers(&[]);
            lacking.remove(name);
            assert_eq!(understand(&lacking), None, "{name}");
        }
        assert_eq!(
            understand(&headers(&[("x-backend-timestamp", "yesterday")])),
            None
        );
    }
}
