//! Swift's servers as the agent asks them: the internal endpoint, the object servers, this node's container server.

mod answer;
mod body;
mod direct;
mod http;
mod listing;
mod peers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method};
use onespace_core::local::SwiftObject;
use onespace_core::manifest::ListedSegment;
use onespace_core::plan::reconcile::ContainerSays;

use self::answer::Asked;
use self::direct::ObjectRings;
use self::http::{Endpoint, Http};
use super::conf::{ConfError, SwiftConf};
use crate::body::Body;
use crate::source::{Answer, ObjectPath, Primaries, Read, Source, SourceError};

pub use self::direct::CommitError;
pub use self::peers::Peer;

/// How long to wait for Swift.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// From a request to the headers of its answer. Swift's proxy gives up on object servers earlier by itself.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub idle: Duration,
    /// From a request to the answer of a storage server that is asked directly.
    pub direct: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            direct: Duration::from_secs(15),
        }
    }
}

/// Why the client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Not a URL of an internal endpoint.
    #[error("--internal-endpoint: {what}; give a URL like http://127.0.0.1:8081")]
    Endpoint {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Swift's configuration.
    #[error("{0}")]
    Conf(#[from] ConfError),
}

/// The Swift that is followed. Clones share connections and rings.
#[derive(Clone, Debug)]
pub struct SwiftSource {
    endpoint: Endpoint,
    http: Http,
    rings: Arc<ObjectRings>,
}

impl SwiftSource {
    /// A client of the internal endpoint at this URL and of the object servers that the rings in `swift_dir` name.
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// When the URL is not one of plain HTTP, or swift.conf cannot be read.
    pub fn new(internal_endpoint: &str, swift_dir: &Path, timeouts: Timeouts) -> Result<Self, SetupError> {
        let conf = SwiftConf::load(swift_dir)?;
        Ok(Self {
            endpoint: Endpoint::parse(internal_endpoint)?,
            http: Http::new(timeouts),
            rings: Arc::new(ObjectRings::new(swift_dir, conf)),
        })
    }

    /// Whether the internal endpoint takes connections. Nothing is asked of it.
    pub async fn takes_connections(&self) -> bool {
        let connect = tokio::net::TcpStream::connect(self.endpoint.address());
        matches!(
            tokio::time::timeout(self.http.timeouts.connect, connect).await,
            Ok(Ok(_))
        )
    }

    /// The internal endpoint's URL, without user information.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.endpoint.url()
    }

    /// Makes a container server commit the updates that wait in the pending file of a container's database, by a
    /// HEAD of the container. `server` is `ip:port`, as the ring names it.
    ///
    /// # Errors
    /// When the server does not answer, or not as a container server.
    pub async fn commit_pending(
        &self,
        server: &str,
        device: &str,
        partition: u32,
        account: &str,
        container: &str,
    ) -> Result<(), CommitError> {
        direct::commit_pending(&self.http, server, device, partition, account, container).await
    }

    /// What a container server says of its replica of a container, asked directly. `None`: nothing that can be used.
    pub async fn container(&self, peer: &Peer) -> Option<ContainerSays> {
        peers::says(&self.http, peer).await
    }

    /// Whether a container server lists this name under any storage policy of the cluster. `None`: it does not say.
    pub async fn lists(&self, peer: &Peer, name: &str) -> Option<bool> {
        for policy in direct::policies(&self.rings).await {
            if peers::lists(&self.http, peer, policy, name).await? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// The storage policies of the cluster, as [`Self::lists`] last looked them up.
    #[must_use]
    pub fn policies(&self) -> Vec<u32> {
        self.rings.policies()
    }

    async fn ask(&self, method: Method, object: &ObjectPath, read: &Read) -> Result<Asked<'_>, SourceError> {
        let query = if read.link_itself { "?symlink=get" } else { "" };
        let ObjectPath {
            account,
            container,
            object: name,
        } = object;
        let url = self.endpoint.join(&format!(
            "/v1/{}/{}/{}{query}",
            http::quote(account),
            http::quote(container),
            http::quote_path(name)
        ));
        let response = self
            .http
            .send(method, &url, headers(object, read), self.http.timeouts.answer)
            .await;
        let response = response.map_err(|error| answer::failed(&self.endpoint, object, &error))?;
        Ok(Asked {
            endpoint: &self.endpoint,
            path: object.clone(),
            read: read.clone(),
            response,
        })
    }
}

impl Source for SwiftSource {
    async fn head(&self, object: &ObjectPath, read: &Read) -> Result<Answer<SwiftObject>, SourceError> {
        self.ask(Method::HEAD, object, read).await?.headers()
    }

    async fn get(
        &self,
        object: &ObjectPath,
        read: &Read,
    ) -> Result<Answer<(SwiftObject, Body)>, SourceError> {
        let asked = self.ask(Method::GET, object, read).await?;
        asked.with_body(self.http.timeouts.idle)
    }

    async fn list(
        &self,
        prefix: &ObjectPath,
        marker: &str,
    ) -> Result<Answer<Vec<ListedSegment>>, SourceError> {
        listing::page(&self.http, &self.endpoint, prefix, marker).await
    }

    async fn primaries(&self, object: &ObjectPath, policy_index: u32) -> Result<Primaries, SourceError> {
        Ok(direct::primaries(&self.http, &self.rings, object, policy_index).await)
    }
}

fn headers(object: &ObjectPath, read: &Read) -> HeaderMap {
    let Read {
        policy_index,
        newest,
        link_itself: _, // in the query
        range,
        if_match,
    } = read;
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: String| {
        // Numbers and ETags; what cannot be a header cannot match either.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    // Names with NUL are Swift's own (versions of objects), and asked for on purpose.
    if [&object.account, &object.container, &object.object]
        .iter()
        .any(|name| name.contains('\0'))
    {
        set("x-backend-allow-reserved-names", "true".to_owned());
    }
    if let Some(index) = policy_index {
        set("x-backend-storage-policy-index", index.to_string());
    }
    if *newest {
        set("x-newest", "true".to_owned());
    }
    if let Some((first, last)) = range {
        set("range", format!("bytes={first}-{last}"));
    }
    if let Some(etag) = if_match {
        set("if-match", format!("\"{etag}\""));
    }
    headers
}
