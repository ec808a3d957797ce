//! What the agent asks of the Swift that it follows: reads through the internal endpoint, and proof of absence.

use std::fmt;
use std::future::Future;

use onespace_core::local::SwiftObject;
use onespace_core::manifest::ListedSegment;
use onespace_core::timestamp::Timestamp;

use crate::body::Body;

/// A name in Swift.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath {
    /// Account.
    pub account: String,
    /// Container.
    pub container: String,
    /// Object.
    pub object: String,
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.account, self.container, self.object)
    }
}

/// How an object is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// `X-Backend-Storage-Policy-Index`: the row's, for the row's own object; none for anything else.
    pub policy_index: Option<u32>,
    /// `X-Newest: true`: ask all replicas and answer with the newest.
    pub newest: bool,
    /// `?symlink=get`: the link itself, not its target.
    pub link_itself: bool,
    /// First and last byte, inclusive.
    pub range: Option<(u64, u64)>,
    /// `If-Match`, for ranges of one and the same body.
    pub if_match: Option<String>,
}

/// Swift's answer about one name.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is there.
    Found(T),
    /// Status 404. The time is `X-Backend-Timestamp`: a tombstone's, or (expired) the object's own. Without one the 404
    /// proves nothing.
    Absent(Option<Timestamp>),
    /// 412: the body is not the one that was asked for any more.
    Changed,
}

/// What the primary object servers say when each is asked directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primaries {
    /// Every one of them answered, and none has the object.
    AllLack,
    /// At least one has it.
    SomeHave,
    /// At least one did not answer, and none has it.
    Unknown,
}

/// Why Swift gave no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing of Swift can be read: every mapping waits.
    #[error("the internal endpoint {endpoint} is not usable: {message}")]
    Unavailable {
        /// URL without user information.
        endpoint: String,
        /// What happened and what to do.
        message: String,
    },
    /// The endpoint is one for users: nothing that every check rests on can be read there.
    #[error(
        "the internal endpoint {endpoint} is a public proxy: it answers {status}, so it wants a login; \
             set --internal-endpoint to a proxy without auth and gatekeeper"
    )]
    Public {
        /// URL without user information.
        endpoint: String,
        /// HTTP status.
        status: u16,
    },
    /// This one object cannot be read now.
    #[error("Swift answered {status} for {object}: it is tried again later")]
    Failed {
        /// HTTP status.
        status: u16,
        /// Which.
        object: ObjectPath,
    },
    /// The answer's headers cannot be understood.
    #[error(
        "Swift's answer for {object} cannot be understood ({what}); check that {endpoint} is Swift's internal endpoint"
    )]
    Unreadable {
        /// Which.
        object: ObjectPath,
        /// What in it.
        what: String,
        /// URL without user information.
        endpoint: String,
    },
    /// The object is not what the reader relied on (a segment with another ETag, gone, changed).
    #[error("{object} is not what was expected: {what}")]
    Mismatch {
        /// Which.
        object: ObjectPath,
        /// What is different.
        what: String,
    },
}

/// The followed Swift: the internal endpoint and the object servers; and the simulation's.
pub trait Source: Send + Sync {
    /// The object's headers.
    fn head(
        &self,
        object: &ObjectPath,
        read: &Read,
    ) -> impl Future<Output = Result<Answer<SwiftObject>, SourceError>> + Send;

    /// The object's headers and body.
    fn get(
        &self,
        object: &ObjectPath,
        read: &Read,
    ) -> impl Future<Output = Result<Answer<(SwiftObject, Body)>, SourceError>> + Send;

    /// A page of the listing of a container: what begins with `prefix.object`, after `marker`, in order. An empty page is
    /// the end. All replicas are asked.
    fn list(
        &self,
        prefix: &ObjectPath,
        marker: &str,
    ) -> impl Future<Output = Result<Answer<Vec<ListedSegment>>, SourceError>> + Send;

    /// Asks every primary object server of that policy directly whether it has the object.
    fn primaries(
        &self,
        object: &ObjectPath,
        policy_index: u32,
    ) -> impl Future<Output = Result<Primaries, SourceError>> + Send;
}
