//! The bytes that a manifest stands for: nested manifests and ranges resolved to runs of bytes of plain objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, Manifest, Segment};

/// How deep manifests may be nested, the outermost included. Swift's own limit.
const MAX_DEPTH: usize = 10;

/// How many runs of bytes a large object may resolve to, those of nested manifests counted each time they occur.
const MAX_EXTENTS: usize = 100_000;

/// How many entries are looked at for that.
const MAX_STEPS: usize = 10_000_000;

/// How many bytes of memory nested manifests may take together.
const MAX_NESTED_WEIGHT: usize = 64 << 20;

/// A run of bytes of a large object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Bytes of another object.
    Segment(SegmentExtent),
    /// Bytes that stand in the manifest.
    Inline(InlineExtent),
}

/// Bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentExtent {
    /// Container.
    pub container: String,
    /// Object: a plain one, never another manifest.
    pub object: String,
    /// ETag that the object must have.
    pub etag: Option<String>,
    /// First byte.
    pub first: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
    /// Whether this is the whole object, so that the ETag is the md5 of exactly these bytes.
    pub whole: bool,
}

/// Bytes of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineExtent {
    data: Arc<[u8]>,
    first: u64,
    length: u64,
}

impl InlineExtent {
    /// The bytes; at least 1.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        self.data
            .get(index(self.first)..index(self.first + self.length))
            .unwrap_or_default()
    }
}

impl Extent {
    /// Number of bytes, at least 1.
    #[must_use]
    pub const fn length(&self) -> u64 {
        match self {
            Self::Segment(segment) => segment.length,
            Self::Inline(inline) => inline.length,
        }
    }

    /// `length` bytes from `first` on, which must lie within.
    #[must_use]
    pub(crate) fn slice(&self, first: u64, length: u64) -> Self {
        match self {
            Self::Segment(segment) => Self::Segment(SegmentExtent {
                first: segment.first + first,
                length,
                whole: segment.whole && length == segment.length,
                ..segment.clone()
            }),
            Self::Inline(inline) => Self::Inline(InlineExtent {
                first: inline.first + first,
                length,
                data: Arc::clone(&inline.data),
            }),
        }
    }
}

/// Why a manifest is not resolved (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flatten {
    /// This nested manifest is needed (container, object): fetch it, and ask again.
    #[error("the nested manifest {0}/{1} is needed")]
    Needs(String, String),
    /// The large object is one that Swift could not serve either.
    #[error("{container}/{object}, which the manifest names, {what}: upload the large object again")]
    Invalid {
        /// Container of the entry.
        container: String,
        /// Object of the entry.
        object: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More than can be held in memory.
    #[error(
        "the manifest resolves to more than {MAX_EXTENTS} pieces: upload the large object again with fewer, larger segments"
    )]
    TooManyPieces,
}

/// The bytes that a manifest stands for, nested manifests and ranges resolved. `nested` holds the manifests that
/// were asked for, by container and object. Adds up to [`Manifest::length`]; entries without bytes are left out.
///
/// As in Swift, a nested object counts with as many bytes as the entry says, whatever it has become since; if it has
/// become too short, that is an error.
///
/// # Errors
/// [`Flatten::Needs`] for the first nested manifest that is not there; otherwise the large object is not one that
/// can be copied.
pub fn flatten(
    top: &Manifest,
    nested: &BTreeMap<(String, String), Manifest>,
) -> Result<Vec<Extent>, Flatten> {
    let mut flattening = Flattening {
        nested,
        steps: 0,
        extents: Vec::new(),
    };
    flattening.add(top, 0, top.length(), 1)?;
    Ok(flattening.extents)
}

struct Flattening<'a> {
    nested: &'a BTreeMap<(String, String), Manifest>,
    steps: usize,
    extents: Vec<Extent>,
}

impl Flattening<'_> {
    /// Adds `length` bytes from `first` on of what `manifest` stands for; returns how many of them it has.
    fn add(&mut self, manifest: &Manifest, first: u64, length: u64, depth: usize) -> Result<u64, Flatten> {
        let (mut skip, mut wanted) = (first, length);
        for entry in &manifest.entries {
            if wanted == 0 {
                break;
            }
            self.steps += 1;
            if self.steps > MAX_STEPS || self.extents.len() >= MAX_EXTENTS {
                return Err(Flatten::TooManyPieces);
            }
            let available = entry.length();
            if skip >= available {
                skip -= available;
                continue;
            }
            let taken = wanted.min(available - skip);
            match entry {
                Entry::Inline(data) => self.extents.push(Extent::Inline(InlineExtent {
                    data: Arc::clone(data),
                    first: skip,
                    length: taken,
                })),
                Entry::Segment(segment) => self.add_segment(segment, skip, taken, depth)?,
            }
            skip = 0;
            wanted -= taken;
        }
        Ok(length - wanted)
    }

    /// Adds `length` bytes of the entry's span, from `skip` on.
    fn add_segment(
        &mut self,
        segment: &Segment,
        skip: u64,
        length: u64,
        depth: usize,
    ) -> Result<(), Flatten> {
        let invalid = |what| Flatten::Invalid {
            container: segment.container.clone(),
            object: segment.object.clone(),
            what,
        };
        let first = segment.span().0 + skip;
        if !segment.nested {
            self.extents.push(Extent::Segment(SegmentExtent {
                container: segment.container.clone(),
                object: segment.object.clone(),
                etag: segment.etag.clone(),
                first,
                length,
                whole: (first, length) == (0, segment.bytes),
            }));
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(invalid("is nested more than ten manifests deep"));
        }
        let path = (segment.container.clone(), segment.object.clone());
        let nested = self.nested;
        let Some(manifest) = nested.get(&path) else {
            let held: usize = nested.values().map(Manifest::weight).sum();
            return Err(if held > MAX_NESTED_WEIGHT {
                Flatten::TooManyPieces
            } else {
                Flatten::Needs(path.0, path.1)
            });
        };
        if self.add(manifest, first, length, depth + 1)? < length {
            return Err(invalid("has become shorter than the manifest says"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";

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

    fn manifest(entries: Vec<Entry>) -> Manifest {
        Manifest {
            account: "AUTH_test".into(),
            entries,
        }
    }

    fn extent(object: &str, first: u64, length: u64, whole: bool) -> Extent {
        Extent::Segment(SegmentExtent {
            container: "c".into(),
            object: object.into(),
            etag: Some(MD5.into()),
            first,
            length,
            whole,
        })
    }

    fn nested(object: &str, manifest: Manifest) -> BTreeMap<(String, String), Manifest> {
        BTreeMap::from([(("c".to_owned(), object.to_owned()), manifest)])
    }

    #[test]
    fn a_range_over_a_nested_object_becomes_ranges_of_its_segments() {
        let inner = manifest(vec![
            Entry::Segment(segment("a", 10)),
            Entry::Segment(Segment {
                range: Some((5, 9)),
                ..segment("b", 20)
            }),
            Entry::Inline(b"hello"[..].into()),
            Entry::Segment(segment("d", 10)),
        ]);
        let outer = |range, bytes| {
            manifest(vec![Entry::Segment(Segment {
                range,
                nested: true,
                ..segment("inner", bytes)
            })])
        };
        let inner = nested("inner", inner);
        let all = flatten(&outer(None, 30), &inner).unwrap();
        assert_eq!(all[0], extent("a", 0, 10, true));
        assert_eq!(all[1], extent("b", 5, 5, false));
        assert_eq!(all[3], extent("d", 0, 10, true));
        let some = flatten(&outer(Some((12, 21)), 30), &inner).unwrap();
        assert_eq!(some[0], extent("b", 7, 3, false));
        let Extent::Inline(inline) = &some[1] else {
            panic!()
        };
        assert_eq!(inline.bytes(), b"hello");
        assert_eq!(some[2], extent("d", 0, 2, false));
        assert_eq!(some.len(), 3);
        // Longer than the entry says: Swift serves what the entry says. Shorter: it fails.
        assert_eq!(
            flatten(&outer(None, 3), &inner),
            Ok(vec![extent("a", 0, 3, false)])
        );
        let error = flatten(&outer(None, 31), &inner).unwrap_err();
        assert!(error.to_string().contains("c/inner"), "{error}");
    }

    #[test]
    fn a_nested_manifest_is_asked_for_when_it_is_needed() {
        let outer = manifest(vec![Entry::Segment(Segment {
            nested: true,
            ..segment("inner", 10)
        })]);
        let needs = Flatten::Needs("c".into(), "inner".into());
        assert_eq!(flatten(&outer, &BTreeMap::new()), Err(needs));
    }

    #[test]
    fn a_manifest_that_contains_itself_ends_as_in_swift() {
        let itself = manifest(vec![Entry::Segment(Segment {
            nested: true,
            ..segment("loop", 10)
        })]);
        let error = flatten(&itself, &nested("loop", itself.clone())).unwrap_err();
        assert!(error.to_string().contains("ten"), "{error}");
    }

    #[test]
    fn ten_manifests_deep_is_read_and_eleven_is_not() {
        let level = |n: usize| format!("level{n}");
        let chain = |depth: usize| {
            let nested: BTreeMap<_, _> = (2..=depth)
                .map(|n| {
                    let entry = Segment {
                        nested: n < depth,
                        ..segment(&level(n + 1), 1)
                    };
                    (("c".to_owned(), level(n)), manifest(vec![Entry::Segment(entry)]))
                })
                .collect();
            let top = Segment {
                nested: true,
                ..segment(&level(2), 1)
            };
            flatten(&manifest(vec![Entry::Segment(top)]), &nested)
        };
        assert_eq!(chain(10).unwrap(), [extent("level11", 0, 1, true)]);
        assert!(matches!(chain(11), Err(Flatten::Invalid { .. })));
    }

    #[test]
    fn a_tree_of_manifests_that_explodes_is_refused() {
        let wide = |object: &str, bytes| {
            let entry = Entry::Segment(Segment {
                nested: object != "leaf",
                ..segment(object, bytes)
            });
            manifest(vec![entry; 1000])
        };
        let mut all = nested("b", wide("leaf", 1));
        all.extend(nested("a", wide("b", 1000)));
        assert_eq!(flatten(&wide("a", 1_000_000), &all), Err(Flatten::TooManyPieces));
    }

    #[test]
    fn nested_manifests_are_held_in_bounded_memory() {
        let entry = |object: &str| {
            Entry::Segment(Segment {
                nested: true,
                ..segment(object, 1)
            })
        };
        let top = manifest(vec![entry("a"), entry("b")]);
        let mut large = manifest(vec![Entry::Inline(vec![0; MAX_NESTED_WEIGHT / 2].into()); 2]);
        assert_eq!(
            flatten(&top, &nested("a", large.clone())),
            Err(Flatten::TooManyPieces)
        );
        large.entries.truncate(1);
        let needs = Flatten::Needs("c".into(), "b".into());
        assert_eq!(flatten(&top, &nested("a", large)), Err(needs));
    }

    /// The bytes that objects have in the property tests: plain ones derived from their name.
    fn body(object: &str) -> Vec<u8> {
        object.bytes().cycle().take(object.len() * 3).collect()
    }

    fn read(extents: &[Extent]) -> Vec<u8> {
        let mut read = Vec::new();
        for extent in extents {
            let before = read.len();
            match extent {
                Extent::Inline(inline) => read.extend(inline.bytes()),
                Extent::Segment(segment) => {
                    let body = body(&segment.object);
                    let first = usize::try_from(segment.first).unwrap();
                    let length = usize::try_from(segment.length).unwrap();
                    assert_eq!(segment.whole, length == body.len());
                    read.extend(&body[first..first + length]);
                }
            }
            assert_eq!((read.len() - before) as u64, extent.length());
            assert!(extent.length() > 0);
        }
        read
    }

    /// An entry over one of the objects made so far, chosen and cut by numbers.
    fn entry(choice: usize, cut: (usize, usize), made: &[(String, Vec<u8>, bool)]) -> (Entry, Vec<u8>) {
        if choice.is_multiple_of(5) {
            let data = vec![b'!'; cut.0 % 4];
            return (Entry::Inline(data.clone().into()), data);
        }
        let (object, body, nested) = &made[choice % made.len()];
        let mut entry = Segment {
            nested: *nested,
            ..segment(object, body.len() as u64)
        };
        if choice.is_multiple_of(2) && !body.is_empty() {
            let first = cut.0 % body.len();
            let last = first + cut.1 % (body.len() - first);
            entry.range = Some((first as u64, last as u64));
            return (Entry::Segment(entry), body[first..=last].to_vec());
        }
        (Entry::Segment(entry), body.clone())
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_that_swift_would_serve(
            trees in proptest::collection::vec(
                proptest::collection::vec((any::<usize>(), any::<(usize, usize)>()), 0..6), 1..6)
        ) {
            let mut made: Vec<_> = ["", "xy", "plain", "segment-3"]
                .map(|object| (object.to_owned(), body(object), false))
                .into();
            let mut manifests = BTreeMap::new();
            let mut last = None;
            for (number, choices) in trees.iter().enumerate() {
                let (entries, bodies): (Vec<_>, Vec<_>) =
                    choices.iter().map(|(choice, cut)| entry(*choice, *cut, &made)).unzip();
                let manifest = manifest(entries);
                let body = bodies.concat();
                prop_assert_eq!(manifest.length(), body.len() as u64);
                manifests.insert(("c".to_owned(), format!("slo{number}")), manifest.clone());
                made.push((format!("slo{number}"), body.clone(), true));
                last = Some((manifest, body));
            }
            let (manifest, body) = last.unwrap();
            prop_assert_eq!(read(&flatten(&manifest, &manifests).unwrap()), body);
        }
    }
}
