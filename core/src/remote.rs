//! An object of the remote store as rules see it: the headers to store, and what a HEAD brought back.

use std::collections::BTreeMap;

use crate::timestamp::Timestamp;

/// The headers that are stored with a remote object, as they go over the wire: values are printable ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// User metadata without the `x-amz-meta-` prefix; names in lower case.
    pub metadata: BTreeMap<String, String>,
}

/// What the remote says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteObject {
    /// ETag without quotes.
    pub etag: String,
    /// The ETag says nothing about the body: the object is encrypted with a KMS key.
    pub opaque_etag: bool,
    /// Length in bytes.
    pub size: u64,
    /// `Last-Modified`, on the remote's clock.
    pub last_modified: Timestamp,
    /// What was stored with it.
    pub headers: RemoteHeaders,
    /// Storage class, absent = STANDARD.
    pub storage_class: Option<String>,
}

/// One entry of a remote listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// The whole key.
    pub key: String,
    /// ETag without quotes.
    pub etag: String,
    /// Length in bytes.
    pub size: u64,
    /// `LastModified`, on the remote's clock.
    pub last_modified: Timestamp,
}
