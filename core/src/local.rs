//! An object of Swift as rules see it: what a GET or HEAD through the internal endpoint brought back.

use std::collections::BTreeMap;

use crate::timestamp::Timestamp;

/// The headers of one object of Swift, parsed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwiftObject {
    /// `ETag` without quotes: md5 of the body as it was sent to us; for a manifest, of the stored JSON.
    pub etag: String,
    /// `Content-Length` of the whole object.
    pub size: u64,
    /// `Content-Type` as it stands.
    pub content_type: String,
    /// `X-Backend-Data-Timestamp`: the body's own time, t1. Absent = this is a public proxy.
    pub data_time: Option<Timestamp>,
    /// `X-Backend-Timestamp`: the newest change of any kind, t3.
    pub time: Option<Timestamp>,
    /// `X-Static-Large-Object: True`: the body is a manifest.
    pub static_large_object: bool,
    /// `X-Object-Manifest`: a dynamic large object, `container/prefix`, percent-encoded as Swift sends it.
    pub object_manifest: Option<String>,
    /// `X-Object-Sysmeta-Crypto-Body-Meta` is there: the body is ciphertext.
    pub undecrypted: bool,
    /// `X-Delete-At`, seconds since 1970.
    pub delete_at: Option<u64>,
    /// `X-Object-Meta-*` without that prefix, names in lower case, values as UTF-8 where they are.
    pub metadata: BTreeMap<String, MetaValue>,
    /// `Content-Encoding`.
    pub content_encoding: Option<MetaValue>,
    /// `Content-Disposition`.
    pub content_disposition: Option<MetaValue>,
    /// `Cache-Control`.
    pub cache_control: Option<MetaValue>,
}

/// A header's value: text, or bytes that are not UTF-8 (which no remote can hold).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaValue {
    /// UTF-8.
    Text(String),
    /// Something else.
    Bytes(Vec<u8>),
}
