//! What the agent asks of a remote store.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::remote::{ListedObject, RemoteHeaders, RemoteObject};

use crate::body::{Body, BodyError};
use crate::source::SourceError;

/// Under which condition a write is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    None,
    /// Only if nothing is there (`If-None-Match: *`).
    Absent,
    /// Only if the object still has this ETag (`If-Match`), unquoted here.
    Matches(String),
}

/// What a finished write left at the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// ETag without quotes, as the remote answered it (or, where it answers none, as a HEAD gave it).
    pub etag: String,
    /// md5 of every byte that was sent, hex; for a multipart upload `md5(concat(part md5s))-N`.
    pub sent_etag: String,
}

/// One part of a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSpec {
    /// Length in bytes.
    pub length: u64,
    /// md5 that the part must have, where it is known beforehand.
    pub md5: Option<[u8; 16]>,
}

/// Opens the body of one part; called again for a retry.
pub trait PartSource: Send + Sync {
    /// The part's bytes from its start. `part` counts from 0.
    fn open(&self, part: usize) -> impl Future<Output = Result<Body, SourceError>> + Send;
}

/// One page of a listing, in key order (UTF-8 bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most as many entries as were asked for.
    pub objects: Vec<ListedObject>,
    /// Whether keys may follow after the last of these. The page after it may turn out to be empty.
    pub more: bool,
}

/// How an existing object's metadata are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Done; the object's new ETag.
    Done(String),
    /// The remote cannot copy this object (Glacier, gone): upload it anew.
    UploadAnew,
}

/// What the remote can do, found by a probe (SPEC of the policy's `Auto` settings).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// `If-None-Match: *` on PUT is honoured.
    pub put_if_absent: bool,
    /// `If-Match` on PUT is honoured.
    pub put_if_match: bool,
    /// `If-Match` on DELETE is honoured.
    pub delete_if_match: bool,
    /// ListObjectsV2 pages correctly.
    pub list_v2: bool,
    /// Checksum trailers are accepted.
    pub checksum_trailers: bool,
    /// DeleteObjects works.
    pub batch_delete: bool,
    /// Tagging works.
    pub tagging: bool,
    /// `x-amz-server-side-encryption` and storage class come back as they were sent.
    pub storage_class: bool,
    /// A key with `//` is another key than the one with a single slash.
    pub double_slash: bool,
    /// A key that starts with `/` is another key than the one without.
    pub leading_slash: bool,
    /// A key with a segment `.` or `..` is another key than the one without.
    pub dot_segments: bool,
}

impl Capabilities {
    /// Whether the remote keeps this key apart from all others. What it refuses one by one (a segment that is too
    /// long, a key below another key) only a try can tell.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        let has_dots = || key.split('/').any(|segment| matches!(segment, "." | ".."));
        (self.double_slash || !key.contains("//"))
            && (self.leading_slash || !key.starts_with('/'))
            && (self.dot_segments || !has_dots())
    }
}

/// Which of the permissions that a mapping needs are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Permissions {
    /// Each checked operation (`put`, `get`, `head`, `list`, `delete`) and whether it is allowed.
    pub operations: BTreeMap<&'static str, bool>,
}

/// Why a request to the remote failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The remote as a whole does not work: the mapping pauses, no row is charged.
    #[error("the remote is not usable ({reason}{}): {message}", code.as_deref().map(|c| format!(", {c}")).unwrap_or_default())]
    Paused {
        /// Stable reason.
        reason: PauseReason,
        /// The remote's error code or HTTP status, if one of the known ones.
        code: Option<String>,
        /// What to do.
        message: String,
        /// The remote said when to come again.
        retry_after: Option<Duration>,
    },
    /// The remote refuses this one key for good.
    #[error("the remote refuses this object ({reason}{}): {message}", code.as_deref().map(|c| format!(", {c}")).unwrap_or_default())]
    Refused {
        /// Stable reason.
        reason: HoldReason,
        /// The remote's error code or HTTP status, if one of the known ones.
        code: Option<String>,
        /// What to do.
        message: String,
    },
    /// The condition did not hold: someone else wrote. Nothing was changed.
    #[error("the object at the remote is not the one that was looked at; it is looked at again")]
    ConditionFailed,
    /// The object is not there (where one was required: a copy onto itself, a part copy).
    #[error("the object is not at the remote any more; it is looked at again")]
    NotFound,
    /// The body broke off while it was sent. Nothing was stored, or (some servers) a short object.
    #[error("{0}")]
    Body(#[from] BodyError),
    /// A part's source could not be opened.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The remote acknowledged another body than was sent.
    #[error("the remote stored an object with ETag {stored}, sent was {sent}; it is sent again")]
    Altered {
        /// ETag that came back.
        stored: String,
        /// ETag of what was sent.
        sent: String,
    },
}

/// Where uploads are noted while they are under way: a crash leaves their parts at the remote, unseen and paid for.
pub trait UploadLog: fmt::Debug + Send + Sync + 'static {
    /// An upload of this key was begun; no part is sent before this returns.
    fn begun<'a>(&'a self, key: &'a str, upload: &'a str) -> BoxFuture<'a, Result<(), RemoteError>>;

    /// The remote has the whole object, or nothing of it any more.
    fn ended<'a>(&'a self, key: &'a str, upload: &'a str) -> BoxFuture<'a, ()>;
}

/// A remote store: S3, later Swift, and the simulation's. Keys are whole keys, as the naming rules made them.
pub trait Remote: Send + Sync + 'static {
    /// What is at this key. `None` = nothing.
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<RemoteObject>, RemoteError>> + Send;

    /// The body at this key; `range` is first and last byte, inclusive.
    fn get(
        &self,
        key: &str,
        range: Option<(u64, u64)>,
    ) -> impl Future<Output = Result<Option<(RemoteObject, Body)>, RemoteError>> + Send;

    /// Stores a body in one request. `md5` is what the body must have, where it is known (the remote then refuses
    /// anything else). One attempt: the body cannot be replayed here.
    fn put(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        body: Body,
        md5: Option<[u8; 16]>,
    ) -> impl Future<Output = Result<Stored, RemoteError>> + Send;

    /// Stores a body as a multipart upload with exactly these parts, a bounded number of them at a time; on failure
    /// the upload is aborted. Each part is tried a bounded number of times.
    fn put_parts<P: PartSource>(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[PartSpec],
        source: &P,
    ) -> impl Future<Output = Result<Stored, RemoteError>> + Send;

    /// Replaces the headers and metadata of the object that has `etag`, keeping body, ETag, storage class and
    /// encryption (a multipart object is copied part by part along its own boundaries).
    fn replace_headers(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> impl Future<Output = Result<Replaced, RemoteError>> + Send;

    /// Gives up an upload that an earlier run began and a crash left behind; one that is not there any more is success.
    fn abort_upload(&self, key: &str, upload: &str) -> impl Future<Output = Result<(), RemoteError>> + Send;

    /// Deletes a key; nothing there is success. With an ETag, only if it is still that object, where the remote has
    /// conditional deletes.
    fn delete(&self, key: &str, etag: Option<&str>) -> impl Future<Output = Result<(), RemoteError>> + Send;

    /// Keys that start with `prefix` and come after `after`, in order, at most `limit` (1 to 1,000).
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, RemoteError>> + Send;

    /// Finds out what the remote can do, with a few small objects under `scratch_prefix` that it removes again.
    fn probe(
        &self,
        scratch_prefix: &str,
    ) -> impl Future<Output = Result<(Capabilities, Permissions), RemoteError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_the_remote_folds_onto_another_is_not_held() {
        let folds = Capabilities::default();
        let holds = Capabilities {
            double_slash: true,
            leading_slash: true,
            dot_segments: true,
            ..Capabilities::default()
        };
        for key in ["a//b", "/a", "a/./b", "../a", "a/.."] {
            assert!(!folds.holds(key), "{key}");
            assert!(holds.holds(key), "{key}");
        }
        for key in ["a/b", "a/", "a/.b/..c", ".onespace/x"] {
            assert!(folds.holds(key), "{key}");
        }
    }
}
