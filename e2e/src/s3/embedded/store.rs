//! What the embedded server keeps: buckets, objects and unfinished uploads, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

/// One object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Body.
    pub body: Bytes,
    /// ETag without quotes.
    pub etag: String,
    /// When it was written.
    pub last_modified: SystemTime,
    /// What was stored with it.
    pub headers: StoredHeaders,
    /// Lengths of the parts it was made of; empty = one PUT.
    pub parts: Vec<u64>,
    /// It came in one PUT with a checksum beside or behind it, which was verified.
    pub checksummed: bool,
}

/// What is stored with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// User metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
    /// Storage class as it was asked for.
    pub storage_class: Option<String>,
    /// Encryption as it was asked for (nothing is encrypted).
    pub encryption: Option<String>,
}

impl StoredHeaders {
    /// Whether the object must be restored before it can be read.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        matches!(self.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE"))
    }
}

/// One part of an unfinished upload.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub body: Bytes,
    pub md5: [u8; 16],
}

/// An unfinished upload.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub bucket: String,
    pub key: String,
    pub headers: StoredHeaders,
    pub parts: BTreeMap<i32, Part>,
}

/// The objects of one bucket in key order.
pub(super) type Bucket = BTreeMap<String, Arc<StoredObject>>;

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub buckets: BTreeMap<String, Bucket>,
    pub uploads: HashMap<String, Upload>,
    pub uploads_made: u64,
    /// Keys that were there and that a request removed, in the order of their removal.
    pub deleted: Vec<String>,
    pub altered_names: Option<fn(&str) -> String>,
    pub hidden: Option<fn(&str) -> bool>,
    /// Access key and secret key.
    pub keys: (String, String),
}

/// Everything, behind one lock: a condition and the write that it guards are one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    contents: Arc<Mutex<Contents>>,
}

impl Store {
    pub fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
