//! Dynamic large objects: what `X-Object-Manifest` names, and the segments that a container lists for it.
//!
//! Swift serves whatever is listed at the moment, in the order of the listing. Segments that have no bytes of their own
//! (a manifest, which may be the object itself, or a symlink) add none, so that nothing is followed from here.

use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{Extent, SegmentExtent};

/// How many segments an object may have: all of them are in memory while it is copied, some 200 bytes each.
pub const MAX_SEGMENTS: usize = 100_000;

/// Where the segments of a dynamic large object are, in its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Container.
    pub container: String,
    /// What their names begin with.
    pub prefix: String,
}

/// Why a dynamic large object cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DynamicError {
    /// The header.
    #[error("X-Object-Manifest is not container/prefix: write the object again")]
    NotAPrefix,
    /// A listing that is none.
    #[error("Swift's listing of the segments cannot be read ({0}); it is read again")]
    Listing(String),
    /// A listing that goes back, and so might never end.
    #[error("Swift's listing of the segments is out of order; it is read again")]
    OutOfOrder,
    /// More segments than are kept in memory.
    #[error("it has more than {MAX_SEGMENTS} segments: write it with fewer, or exclude it")]
    TooMany,
    /// What Swift does not resolve either.
    #[error(
        "the segment {0} is a static large object itself, which Swift does not serve as a segment: remove it"
    )]
    Nested(String),
}

impl Prefix {
    /// Understands the header as Swift sends it: percent-encoded.
    ///
    /// # Errors
    /// [`DynamicError::NotAPrefix`].
    pub fn parse(header: &str) -> Result<Self, DynamicError> {
        let decoded = percent_decode_str(header)
            .decode_utf8()
            .map_err(|_| DynamicError::NotAPrefix)?;
        let (container, prefix) = decoded.split_once('/').ok_or(DynamicError::NotAPrefix)?;
        if container.is_empty() || prefix.is_empty() {
            return Err(DynamicError::NotAPrefix);
        }
        Ok(Self {
            container: container.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// An entry of a container's listing in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListedSegment {
    /// Object.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its ETag, with parameters where no middleware took them off.
    pub hash: String,
}

/// Understands a page of a listing.
///
/// # Errors
/// [`DynamicError::Listing`].
pub fn parse_listing(json: &[u8]) -> Result<Vec<ListedSegment>, DynamicError> {
    serde_json::from_slice(json).map_err(|error| DynamicError::Listing(error.to_string()))
}

/// A segment in the manifest object at the remote.
#[derive(Serialize)]
struct Recorded<'a> {
    name: &'a str,
    bytes: u64,
    hash: &'a str,
}

/// The beginning of the manifest object at the remote.
#[derive(Serialize)]
struct Head<'a> {
    container: &'a str,
    prefix: &'a str,
}

/// The segments of one object as they are listed, page after page.
#[derive(Clone, Debug)]
pub struct Segments {
    prefix: Prefix,
    md5: Md5,
    extents: Vec<Extent>,
    count: usize,
    last: String,
    manifest: Vec<u8>,
}

/// A dynamic large object at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// md5 over the segments' ETags: the ETag that Swift gives to the object.
    pub etag: String,
    /// Its bytes, in order.
    pub extents: Vec<Extent>,
    /// What is stored beside the copy, so that it can be a dynamic large object again: container, prefix and segments,
    /// in JSON. The same segments always make the same bytes.
    pub manifest: Vec<u8>,
}

impl Segments {
    /// None yet.
    #[must_use]
    pub fn new(prefix: Prefix) -> Self {
        let head = Head {
            container: &prefix.container,
            prefix: &prefix.prefix,
        };
        let mut manifest = serde_json::to_vec(&head).unwrap_or_default();
        manifest.pop();
        manifest.extend(b",\"segments\":[");
        Self {
            prefix,
            md5: Md5::new(),
            extents: Vec::new(),
            count: 0,
            last: String::new(),
            manifest,
        }
    }

    /// Where they are.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The name after which the next page begins.
    #[must_use]
    pub fn marker(&self) -> &str {
        &self.last
    }

    /// Takes the next one.
    ///
    /// # Errors
    /// [`DynamicError`]: the object cannot be copied as it is.
    pub fn add(&mut self, listed: ListedSegment) -> Result<(), DynamicError> {
        let ListedSegment { name, bytes, hash } = listed;
        if self.count > 0 && name <= self.last {
            return Err(DynamicError::OutOfOrder);
        }
        if self.count >= MAX_SEGMENTS {
            return Err(DynamicError::TooMany);
        }
        let (etag, parameters) = hash.split_once(';').unwrap_or((&hash, ""));
        if parameters.contains("slo_etag=") {
            return Err(DynamicError::Nested(format!("{}/{name}", self.prefix.container)));
        }
        let etag = etag.trim().trim_matches('"');
        self.md5.update(etag.as_bytes());
        if self.count > 0 {
            self.manifest.push(b',');
        }
        let recorded = Recorded {
            name: &name,
            bytes,
            hash: etag,
        };
        self.manifest
            .extend(serde_json::to_vec(&recorded).unwrap_or_default());
        if bytes > 0 {
            self.extents.push(Extent::Segment(SegmentExtent {
                container: self.prefix.container.clone(),
                object: name.clone(),
                etag: Some(etag.to_owned()),
                first: 0,
                length: bytes,
                whole: true,
            }));
        }
        self.count += 1;
        self.last = name;
        Ok(())
    }

    /// That were all.
    #[must_use]
    pub fn finish(mut self) -> Resolved {
        self.manifest.extend(b"]}");
        Resolved {
            etag: hex::encode(self.md5.finalize()),
            extents: self.extents,
            manifest: self.manifest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix() -> Prefix {
        Prefix::parse("segments/big%20one/").unwrap()
    }

    fn listed(name: &str, bytes: u64, hash: &str) -> ListedSegment {
        ListedSegment {
            name: name.into(),
            bytes,
            hash: hash.into(),
        }
    }

    #[test]
    fn a_header_is_a_container_and_a_prefix_percent_encoded() {
        assert_eq!(
            prefix(),
            Prefix {
                container: "segments".into(),
                prefix: "big one/".into()
            }
        );
        for wrong in ["", "segments", "segments/", "/prefix", "c/%ff"] {
            assert_eq!(Prefix::parse(wrong), Err(DynamicError::NotAPrefix), "{wrong}");
        }
    }

    #[test]
    fn segments_are_taken_in_the_order_of_the_listing_and_recorded() {
        let mut segments = Segments::new(prefix());
        // What a listing shows without the middlewares for large objects and symlinks has parameters.
        segments.add(listed("big one/1", 3, "aa")).unwrap();
        segments
            .add(listed("big one/2", 0, "bb; symlink_target=c/o"))
            .unwrap();
        segments.add(listed("big one/3\"", 4, "cc")).unwrap();
        assert_eq!(segments.marker(), "big one/3\"");
        let resolved = segments.finish();
        assert_eq!(resolved.etag, hex::encode(Md5::digest("aabbcc")));
        let found: Vec<_> = resolved.extents.iter().map(Extent::length).collect();
        assert_eq!(found, [3, 4], "what has no bytes adds none");
        let manifest: serde_json::Value = serde_json::from_slice(&resolved.manifest).unwrap();
        assert_eq!(
            manifest,
            serde_json::json!({"container": "segments", "prefix": "big one/", "segments": [
                {"name": "big one/1", "bytes": 3, "hash": "aa"},
                {"name": "big one/2", "bytes": 0, "hash": "bb"},
                {"name": "big one/3\"", "bytes": 4, "hash": "cc"},
            ]})
        );
        let none = Segments::new(prefix()).finish();
        assert_eq!(none.etag, "d41d8cd98f00b204e9800998ecf8427e");
        assert!(none.extents.is_empty());
        assert!(serde_json::from_slice::<serde_json::Value>(&none.manifest).is_ok());
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let mut segments = Segments::new(prefix());
        let nested = segments.add(listed("big one/0", 3, "aa; slo_etag=bb"));
        assert_eq!(nested, Err(DynamicError::Nested("segments/big one/0".into())));
        segments.add(listed("big one/1", 3, "aa")).unwrap();
        for name in ["big one/1", "big one/0"] {
            assert_eq!(segments.add(listed(name, 3, "aa")), Err(DynamicError::OutOfOrder));
        }
        for number in 1..MAX_SEGMENTS {
            let name = format!("big one/1/{number:06}");
            segments.add(listed(&name, 3, "aa")).unwrap();
        }
        assert_eq!(
            segments.add(listed("big one/2", 3, "aa")),
            Err(DynamicError::TooMany)
        );
        // As many as that are joined into as many parts as S3 takes.
        let parts = crate::parts::plan(&segments.finish().extents, 0).unwrap();
        assert_eq!(parts.len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_header_panic(json in prop::collection::vec(any::<u8>(), 0..60), header in "\\PC{0,20}") {
            let _ = parse_listing(&json);
            let _ = Prefix::parse(&header);
        }

        #[test]
        fn pages_make_no_difference_and_every_change_of_a_segment_does(
            sizes in prop::collection::vec((0u64..9, "[0-9a-f]{4}"), 1..20), at in any::<prop::sample::Index>()
        ) {
            let resolve = |sizes: &[(u64, String)]| {
                let mut segments = Segments::new(prefix());
                for (number, (bytes, hash)) in sizes.iter().enumerate() {
                    segments.add(listed(&format!("big one/{number:03}"), *bytes, hash)).unwrap();
                }
                segments.finish()
            };
            let before = resolve(&sizes);
            prop_assert_eq!(&before, &resolve(&sizes));
            prop_assert_eq!(before.extents.iter().map(Extent::length).sum::<u64>(), sizes.iter().map(|(bytes, _)| bytes).sum::<u64>());
            let mut changed = sizes.clone();
            changed[at.index(sizes.len())].1.push('0');
            prop_assert_ne!(&before.etag, &resolve(&changed).etag);
            prop_assert_ne!(&before.manifest, &resolve(&changed).manifest);
        }
    }
}
