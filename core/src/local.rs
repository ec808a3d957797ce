//! An object of Swift as rules see it: what a GET or HEAD through the internal endpoint brought back.

use std::collections::BTreeMap;

use crate::row::split_swift_bytes;
use crate::timestamp::Timestamp;

/// The headers of one object of Swift, parsed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwiftObject {
    /// `ETag` without quotes: md5 of the body as it was sent to us; for a manifest, of the stored JSON.
    pub etag: String,
    /// `Content-Length`: of the whole object, or (asked for a range) of what was sent.
    pub size: u64,
    /// `Content-Type`, without the `swift_bytes` that Swift stores with a manifest.
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

impl MetaValue {
    /// Takes a value from the wire.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Self {
        match std::str::from_utf8(value) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(value.to_vec()),
        }
    }
}

/// Why an answer's headers cannot be understood. No header's value is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Every object of Swift has this header.
    #[error("{0} is missing: check that the endpoint is Swift's internal one, with nothing in between")]
    Missing(&'static str),
    /// A number, a time or a text that is none.
    #[error("{0} cannot be read: check that the endpoint is Swift's internal one, with nothing in between")]
    Malformed(&'static str),
    /// One header with two different values.
    #[error("{0} is there twice with different values: check what stands between the agent and Swift")]
    Repeated(&'static str),
}

const ETAG: &str = "ETag";
const CONTENT_LENGTH: &str = "Content-Length";
const CONTENT_TYPE: &str = "Content-Type";
const DATA_TIMESTAMP: &str = "X-Backend-Data-Timestamp";
const TIMESTAMP: &str = "X-Backend-Timestamp";
const OBJECT_MANIFEST: &str = "X-Object-Manifest";
const DELETE_AT: &str = "X-Delete-At";
const META_PREFIX: &str = "x-object-meta-";

impl SwiftObject {
    /// Whether it stands for other objects' bytes.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.static_large_object || self.is_dynamic()
    }

    /// Whether it is a dynamic large object: what it stands for may change while it does not. A manifest that is both
    /// counts as static.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        !self.static_large_object && self.object_manifest.is_some()
    }

    /// Understands the headers of a GET or HEAD, names in any case. What is not about the object is passed over.
    ///
    /// # Errors
    /// When a header that every object has is missing, or one cannot be read or has two values.
    pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, HeaderError> {
        let mut object = Self::default();
        let (mut etag, mut size, mut content_type) = (None, None, None);
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "etag" => set(&mut etag, ETAG, visible(ETAG, unquoted(text(ETAG, value)?))?)?,
                "content-length" => set(&mut size, CONTENT_LENGTH, number(CONTENT_LENGTH, value)?)?,
                "content-type" => set(&mut content_type, CONTENT_TYPE, text(CONTENT_TYPE, value)?)?,
                "x-backend-data-timestamp" => {
                    set(
                        &mut object.data_time,
                        DATA_TIMESTAMP,
                        time(DATA_TIMESTAMP, value)?,
                    )?;
                }
                "x-backend-timestamp" => set(&mut object.time, TIMESTAMP, time(TIMESTAMP, value)?)?,
                "x-static-large-object" => object.static_large_object |= is_true(value),
                "x-object-manifest" => {
                    let manifest = text(OBJECT_MANIFEST, value)?.to_owned();
                    set(&mut object.object_manifest, OBJECT_MANIFEST, manifest)?;
                }
                "x-object-sysmeta-crypto-body-meta" => object.undecrypted = true,
                "x-delete-at" => set(&mut object.delete_at, DELETE_AT, number(DELETE_AT, value)?)?,
                "content-encoding" => {
                    set(
                        &mut object.content_encoding,
                        "Content-Encoding",
                        MetaValue::from_bytes(value),
                    )?;
                }
                "content-disposition" => set(
                    &mut object.content_disposition,
                    "Content-Disposition",
                    MetaValue::from_bytes(value),
                )?,
                "cache-control" => {
                    set(
                        &mut object.cache_control,
                        "Cache-Control",
                        MetaValue::from_bytes(value),
                    )?;
                }
                _ => {
                    if let Some(name) = name.strip_prefix(META_PREFIX) {
                        let value = MetaValue::from_bytes(value);
                        let before = object.metadata.insert(name.to_owned(), value);
                        if before.is_some_and(|before| Some(&before) != object.metadata.get(name)) {
                            return Err(HeaderError::Repeated("X-Object-Meta-*"));
                        }
                    }
                }
            }
        }
        object.etag = etag.ok_or(HeaderError::Missing(ETAG))?.to_owned();
        object.size = size.ok_or(HeaderError::Missing(CONTENT_LENGTH))?;
        object.content_type = split_swift_bytes(content_type.unwrap_or_default()).0;
        Ok(object)
    }
}

/// Keeps the one value of a header.
fn set<T: PartialEq>(field: &mut Option<T>, header: &'static str, value: T) -> Result<(), HeaderError> {
    match field {
        Some(before) if *before != value => Err(HeaderError::Repeated(header)),
        _ => {
            *field = Some(value);
            Ok(())
        }
    }
}

fn text<'a>(header: &'static str, value: &'a [u8]) -> Result<&'a str, HeaderError> {
    std::str::from_utf8(value).map_err(|_| HeaderError::Malformed(header))
}

/// A word: what an ETag is, and what can stand in a mark and be read again.
fn visible<'a>(header: &'static str, value: &'a str) -> Result<&'a str, HeaderError> {
    let is_word = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then_some(value).ok_or(HeaderError::Malformed(header))
}

fn number(header: &'static str, value: &[u8]) -> Result<u64, HeaderError> {
    let digits = text(header, value)?.trim();
    digits.parse().map_err(|_| HeaderError::Malformed(header))
}

fn time(header: &'static str, value: &[u8]) -> Result<Timestamp, HeaderError> {
    let time = text(header, value)?.trim();
    Timestamp::parse(time).map_err(|_| HeaderError::Malformed(header))
}

/// An ETag without quotes and without the sign of a weak one.
fn unquoted(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// Swift's idea of yes.
fn is_true(value: &[u8]) -> bool {
    ["true", "1", "yes", "on", "t", "y"]
        .iter()
        .any(|word| value.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MD5: &[u8] = b"d41d8cd98f00b204e9800998ecf8427e";

    fn parse(more: &[(&str, &[u8])]) -> Result<SwiftObject, HeaderError> {
        let basic: [(&str, &[u8]); 2] = [("Etag", MD5), ("Content-Length", b"6")];
        SwiftObject::from_headers(basic.iter().chain(more).copied())
    }

    #[test]
    fn a_whole_object_is_read_whatever_the_case_of_names() {
        let object = parse(&[
            ("CONTENT-TYPE", b"video/x; charset=x;swift_bytes=6144"),
            ("X-Backend-Data-Timestamp", b"1795331103.54963"),
            ("x-backend-timestamp", b"1795331109.02225_0000000000000001"),
            ("X-Static-Large-Object", b"True"),
            ("X-Delete-At", b"1800000000"),
            ("X-Object-Meta-Foo", b"bar"),
            ("x-object-meta-bär", "ß".as_bytes()),
            ("X-Object-Meta-Raw", b"\xff"),
            ("Content-Encoding", b"gzip"),
            ("X-Trans-Id", b"tx"),
        ]);
        let object = object.unwrap();
        assert_eq!(object.etag.as_bytes(), MD5);
        assert_eq!(object.size, 6);
        assert_eq!(object.content_type, "video/x; charset=x");
        assert_eq!(object.data_time.unwrap().to_string(), "1795331103.54963");
        assert_eq!(object.time.unwrap().offset(), 1);
        assert!(object.static_large_object);
        assert_eq!(object.delete_at, Some(1_800_000_000));
        let metadata = BTreeMap::from([
            ("foo".to_owned(), MetaValue::Text("bar".into())),
            ("bär".to_owned(), MetaValue::Text("ß".into())),
            ("raw".to_owned(), MetaValue::Bytes(vec![0xff])),
        ]);
        assert_eq!(object.metadata, metadata);
        assert_eq!(object.content_encoding, Some(MetaValue::Text("gzip".into())));
        assert_eq!(object.content_disposition, None);
    }

    #[test]
    fn an_etag_may_be_quoted() {
        for quoted in [&b"\"abc\""[..], b"W/\"abc\"", b"abc"] {
            let headers: [(&str, &[u8]); 2] = [("ETag", quoted), ("content-length", b"0")];
            assert_eq!(
                SwiftObject::from_headers(headers.into_iter()).unwrap().etag,
                "abc"
            );
        }
    }

    #[test]
    fn a_manifest_and_ciphertext_are_recognised() {
        let object = parse(&[
            ("X-Object-Manifest", b"segs/a%20b/"),
            ("X-Object-Sysmeta-Crypto-Body-Meta", b"{}"),
            ("X-Static-Large-Object", b"no"),
        ])
        .unwrap();
        assert_eq!(object.object_manifest.as_deref(), Some("segs/a%20b/"));
        assert!(object.undecrypted);
        assert!(!object.static_large_object);
    }

    #[test]
    fn headers_that_cannot_be_true_are_named() {
        let none: [(&str, &[u8]); 0] = [];
        assert_eq!(
            SwiftObject::from_headers(none.into_iter()),
            Err(HeaderError::Missing("ETag"))
        );
        for (name, value) in [
            ("X-Backend-Timestamp", &b"yesterday"[..]),
            ("X-Delete-At", b"-1"),
            ("X-Object-Manifest", b"\xff"),
        ] {
            assert_eq!(parse(&[(name, value)]), Err(HeaderError::Malformed(name)));
        }
        assert_eq!(
            parse(&[("content-length", b"7")]),
            Err(HeaderError::Repeated("Content-Length"))
        );
        assert!(parse(&[("content-length", b"6")]).is_ok());
        assert!(parse(&[("x-object-meta-a", b"6"), ("X-Object-Meta-A", b"7")]).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_panics(headers in proptest::collection::vec((
            r"(?i)etag|content-(length|type)|x-(delete-at|backend-timestamp|object-meta-a|static-large-object)|\PC*",
            proptest::collection::vec(any::<u8>(), 0..20)), 0..8)
        ) {
            let _ = SwiftObject::from_headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        }
    }
}
