//! Manifests of large objects: the JSON that Swift stores of static ones, what dynamic ones name, and the bytes that they
//! stand for.

mod dynamic;
mod flatten;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde::Deserialize;
use serde_json::Value;

pub use self::dynamic::{
    DynamicError, ListedSegment, MAX_SEGMENTS, Prefix, Resolved, Segments, parse_listing,
};
pub use self::flatten::{Extent, Flatten, InlineExtent, SegmentExtent, flatten};
use crate::row::split_swift_bytes;

/// The longest manifest that is worth reading: Swift's own limit, 8 MiB unless configured, and room above it.
pub const MAX_MANIFEST_BYTES: u64 = 32 << 20;

/// A manifest, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The account that manifest and segments are in.
    pub account: String,
    /// What the object consists of, in order.
    pub entries: Vec<Entry>,
}

/// One entry of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Another object, or a range of it.
    Segment(Segment),
    /// Bytes that stand in the manifest itself.
    Inline(Arc<[u8]>),
}

/// An entry that names an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Container.
    pub container: String,
    /// Object.
    pub object: String,
    /// ETag that it had: the md5 of its body, or (nested) what [`Manifest::etag`] makes of its manifest.
    pub etag: Option<String>,
    /// Size of the whole object, of a nested one what a client sees.
    pub bytes: u64,
    /// First and last byte, inclusive, where only a range is meant.
    pub range: Option<(u64, u64)>,
    /// The object is a static large object itself.
    pub nested: bool,
}

impl Segment {
    /// First byte and number of bytes that are meant.
    #[must_use]
    pub const fn span(&self) -> (u64, u64) {
        match self.range {
            Some((first, last)) => (first, last - first + 1),
            None => (0, self.bytes),
        }
    }
}

/// Why a manifest cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not a list in JSON.
    #[error("the manifest is not a list in JSON ({0}): upload the object again")]
    NotAList(String),
    /// One entry.
    #[error("entry {index} of the manifest {what}: upload the object again")]
    Entry {
        /// Counted from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// An entry as Swift stores it. `content_type` matters only for manifests of old releases, `last_modified` never.
#[derive(Deserialize)]
struct Stored {
    name: Option<String>,
    #[serde(default)]
    bytes: Value,
    hash: Option<String>,
    content_type: Option<String>,
    range: Option<String>,
    #[serde(default)]
    sub_slo: Value,
    data: Option<String>,
}

impl Manifest {
    /// Understands the body of a manifest object, as it is read without Swift's large object middleware (or with
    /// `multipart-manifest=get`).
    ///
    /// # Errors
    /// When it is not what Swift stores.
    pub fn parse(account: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        let entries: Vec<Value> =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::NotAList(error.to_string()))?;
        let entries = entries
            .into_iter()
            .enumerate()
            .map(|(index, entry)| {
                let stored = serde_json::from_value(entry).map_err(|_| "is not what Swift stores");
                stored
                    .and_then(Entry::from_stored)
                    .map_err(|what| ManifestError::Entry { index, what })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            account: account.to_owned(),
            entries,
        })
    }

    /// The length of the object that the manifest stands for.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.entries
            .iter()
            .fold(0, |length: u64, entry| length.saturating_add(entry.length()))
    }

    /// Roughly how many bytes of memory it takes.
    fn weight(&self) -> usize {
        let of_entry = |entry: &Entry| match entry {
            Entry::Segment(segment) => segment.container.len() + segment.object.len(),
            Entry::Inline(data) => data.len(),
        };
        self.entries
            .iter()
            .map(|entry| size_of::<Entry>() + of_entry(entry))
            .sum()
    }

    /// The ETag of the large object: md5 over the entries' ETags, with their ranges. `None` if an entry lacks one.
    #[must_use]
    pub fn etag(&self) -> Option<String> {
        let mut md5 = Md5::new();
        for entry in &self.entries {
            match entry {
                Entry::Inline(data) => md5.update(hex::encode(Md5::digest(data))),
                Entry::Segment(segment) => {
                    md5.update(segment.etag.as_ref()?);
                    if let Some((first, last)) = segment.range {
                        md5.update(format!(":{first}-{last};"));
                    }
                }
            }
        }
        Some(hex::encode(md5.finalize()))
    }
}

impl Entry {
    /// How many bytes of the large object it stands for.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Segment(segment) => segment.span().1,
            Self::Inline(data) => data.len() as u64,
        }
    }

    fn from_stored(stored: Stored) -> Result<Self, &'static str> {
        let Stored {
            name,
            bytes,
            hash,
            content_type,
            range,
            sub_slo,
            data,
        } = stored;
        if let Some(data) = data {
            let data = STANDARD
                .decode(data)
                .map_err(|_| "has data that are not base64")?;
            return Ok(Self::Inline(data.into()));
        }
        let name = name.ok_or("names no object")?;
        let (container, object) = name
            .trim_start_matches('/')
            .split_once('/')
            .filter(|(_, object)| !object.is_empty())
            .ok_or("has a name that is not /container/object")?;
        let nested = is_true(&sub_slo);
        // Old releases gave a nested manifest's own size here, and the large object's in the content type.
        let visible = content_type
            .filter(|_| nested)
            .and_then(|content_type| split_swift_bytes(&content_type).1);
        let bytes = visible.or_else(|| number(&bytes)).ok_or("has no size")?;
        let range = range.map(|range| parse_range(&range, bytes)).transpose()?;
        Ok(Self::Segment(Segment {
            container: container.to_owned(),
            object: object.to_owned(),
            etag: hash.map(|hash| hash.trim_matches('"').to_owned()),
            bytes,
            range,
            nested,
        }))
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "1" | "yes" | "on" | "t" | "y"
        ),
        _ => false,
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// `first-last`, both given and within the object: Swift has resolved every other form before storing it.
fn parse_range(range: &str, bytes: u64) -> Result<(u64, u64), &'static str> {
    let (first, last) = range
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
        .ok_or("has a range that is not first-last")?;
    if first > last || last >= bytes {
        return Err("has a range that does not lie within its object");
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";

    fn parse(json: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse("AUTH_test", json.as_bytes())
    }

    fn segment(object: &str, bytes: u64) -> Segment {
        Segment {
            container: "c".into(),
            object: object.into(),
            etag: Some(MD5.into()),
            bytes,
            range: None,
            nested: false,
        }
    }

    #[test]
    fn a_manifest_is_read_as_swift_stores_it() {
        let manifest = parse(&format!(
            r#"[{{"name": "/segs/a\u00e4/1", "bytes": 1048576, "hash": "{MD5}",
                 "content_type": "application/octet-stream", "last_modified": "2026-11-22T17:00:00.000000"}},
                {{"name": "/segs//2", "bytes": 2097152, "hash": "{MD5}", "range": "10-19",
                 "content_type": "x/y", "last_modified": "2026-11-22T17:00:00.000000"}},
                {{"data": "aGVsbG8="}},
                {{"name": "/c/slo", "bytes": 6144, "hash": "{MD5}", "sub_slo": true,
                 "content_type": "video/x", "last_modified": "2026-11-22T17:00:00.000000"}}]"#
        ))
        .unwrap();
        let in_segs = |object: &str, bytes| Segment {
            container: "segs".into(),
            ..segment(object, bytes)
        };
        assert_eq!(
            manifest.entries,
            [
                Entry::Segment(in_segs("aä/1", 1_048_576)),
                Entry::Segment(Segment {
                    range: Some((10, 19)),
                    ..in_segs("/2", 2_097_152)
                }),
                Entry::Inline(b"hello"[..].into()),
                Entry::Segment(Segment {
                    nested: true,
                    ..segment("slo", 6144)
                }),
            ]
        );
        assert_eq!(manifest.length(), 1_048_576 + 10 + 5 + 6144);
        // echo -n 'MD5MD5:10-19;MD5MD5' | md5sum, the inline data's md5 being the same one.
        let text = format!("{MD5}{MD5}:10-19;{MD5}{MD5}");
        assert_eq!(manifest.etag().unwrap(), hex::encode(Md5::digest(text)));
    }

    #[test]
    fn a_nested_manifest_of_an_old_release_counts_as_a_client_sees_it() {
        let manifest = parse(
            r#"[{"name": "/c/slo", "bytes": 300, "hash": "x", "sub_slo": "True", "content_type": "a/b;swift_bytes=6144"},
                {"name": "/c/plain", "bytes": "300", "hash": "\"x\"", "content_type": "a/b;swift_bytes=6144"}]"#,
        )
        .unwrap();
        assert_eq!(
            manifest.entries.iter().map(Entry::length).collect::<Vec<_>>(),
            [6144, 300]
        );
        let Entry::Segment(plain) = &manifest.entries[1] else {
            panic!()
        };
        assert_eq!(plain.etag.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_entry() {
        for text in ["", "{}", "[", "\u{fffd}"] {
            assert!(matches!(parse(text), Err(ManifestError::NotAList(_))), "{text}");
        }
        for entry in [
            "1",
            "{}",
            r#"{"name": "/c", "bytes": 1}"#,
            r#"{"name": "/c/", "bytes": 1}"#,
            r#"{"name": "/c/o"}"#,
            r#"{"name": "/c/o", "bytes": -1}"#,
            r#"{"name": "/c/o", "bytes": 5, "range": "0-5"}"#,
            r#"{"name": "/c/o", "bytes": 5, "range": "3-2"}"#,
            r#"{"name": "/c/o", "bytes": 5, "range": "-2"}"#,
            r#"{"data": "?"}"#,
        ] {
            let error = parse(&format!(r#"[{{"data": "aGVsbG8="}}, {entry}]"#)).unwrap_err();
            assert!(
                matches!(error, ManifestError::Entry { index: 1, .. }),
                "{entry}: {error}"
            );
        }
    }

    #[test]
    fn an_empty_manifest_is_an_empty_object() {
        let empty = parse("[]").unwrap();
        assert_eq!(
            (empty.length(), flatten(&empty, &BTreeMap::new())),
            (0, Ok(vec![]))
        );
        assert_eq!(empty.etag().as_deref(), Some("d41d8cd98f00b204e9800998ecf8427e"));
        let one = parse(r#"[{"name": "/c/a", "bytes": 0}]"#).unwrap();
        assert_eq!(flatten(&one, &BTreeMap::new()), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in r#"\[(\{("(name|bytes|range|data|hash|sub_slo)": ?("/c/o"|"[0-9]{0,3}-?[0-9]{0,20}"|[0-9]{1,20}|true),?){0,6}\},?){0,3}\]|\PC*"#) {
            if let Ok(manifest) = parse(&text) {
                let _ = (manifest.length(), manifest.etag(), flatten(&manifest, &BTreeMap::new()));
            }
        }
    }
}
