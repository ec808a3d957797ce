//! The mark: what onespace writes into the metadata of every copy, so that it knows the copy again.

use std::collections::BTreeMap;

use crate::mapping::{MappingId, Mode};
use crate::timestamp::Timestamp;

/// What every name of the mark starts with.
const PREFIX: &str = "onespace-";
const DATA_TIME: &str = "onespace-data-time";
const TIME: &str = "onespace-time";
const ETAG: &str = "onespace-etag";
const MODE: &str = "onespace-mode";
const MAPPING: &str = "onespace-mapping";
const SOURCE: &str = "onespace-source";
/// The object's expiry: shown to clients as `X-Delete-At`.
pub(crate) const DELETE_AT: &str = "onespace-delete-at";

/// Names that 1space gave to metadata of its own on large objects. We write and read them as it did.
const OF_1SPACE: [&str; 3] = ["combined-etag", "swift-slo-etag", "swift-source-dlo-etag"];

/// Whether metadata of this name (any case) are onespace's own: never shown to a client, never taken from one.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let starts_with_prefix = name
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    starts_with_prefix
        || OF_1SPACE
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// Where a copy came from, and which state of the object it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// t1 of the body that was copied.
    pub data_time: Timestamp,
    /// t3 of the object when it was read.
    pub time: Timestamp,
    /// The source's ETag: of a plain object its md5, of a large one that of the stored manifest.
    pub etag: String,
    /// The mode of the mapping that wrote it: a copy marked Archive is the only one left.
    pub mode: Mode,
    /// The mapping that wrote it.
    pub mapping: MappingId,
    /// [`crate::naming::source_hash`] of the object.
    pub source: String,
    /// `X-Delete-At` of the object, seconds since 1970.
    pub delete_at: Option<u64>,
}

/// A mark that cannot be trusted: the copy is treated as a stranger's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the metadata {name} of the remote object is missing or damaged: check who wrote to the bucket, or remove the object's onespace-* metadata"
)]
pub struct MarkError {
    /// The metadata name.
    pub name: &'static str,
}

impl Mark {
    /// Writes the mark into metadata (names in lower case, without `x-amz-meta-`).
    pub fn write(&self, metadata: &mut BTreeMap<String, String>) {
        let Self {
            data_time,
            time,
            etag,
            mode,
            mapping,
            source,
            delete_at,
        } = self;
        let mut put = |name: &str, value: String| metadata.insert(name.to_owned(), value);
        put(DATA_TIME, data_time.to_string());
        put(TIME, time.to_string());
        put(ETAG, etag.clone());
        put(MODE, mode_word(*mode).to_owned());
        put(MAPPING, mapping.0.clone());
        put(SOURCE, source.clone());
        if let Some(delete_at) = delete_at {
            put(DELETE_AT, delete_at.to_string());
        }
    }

    /// How many bytes of metadata the mark takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let mut metadata = BTreeMap::new();
        self.write(&mut metadata);
        metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// Reads the mark. `None`: there is none, this is not an object that onespace wrote.
    ///
    /// # Errors
    /// When part of a mark is missing or cannot be read.
    pub fn read(metadata: &BTreeMap<String, String>) -> Option<Result<Self, MarkError>> {
        metadata
            .keys()
            .any(|name| name.starts_with(PREFIX))
            .then(|| Self::read_fields(metadata))
    }

    fn read_fields(metadata: &BTreeMap<String, String>) -> Result<Self, MarkError> {
        fn field<T>(
            metadata: &BTreeMap<String, String>,
            name: &'static str,
            parse: impl Fn(&str) -> Option<T>,
        ) -> Result<T, MarkError> {
            let value = metadata.get(name).map(|value| value.trim());
            value.and_then(parse).ok_or(MarkError { name })
        }
        let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let time = |value: &str| Timestamp::parse(value).ok();
        Ok(Self {
            data_time: field(metadata, DATA_TIME, time)?,
            time: field(metadata, TIME, time)?,
            etag: field(metadata, ETAG, text)?,
            mode: field(metadata, MODE, mode_of_word)?,
            mapping: MappingId(field(metadata, MAPPING, text)?),
            source: field(metadata, SOURCE, text)?,
            delete_at: match metadata.contains_key(DELETE_AT) {
                true => Some(field(metadata, DELETE_AT, |value| value.parse().ok())?),
                false => None,
            },
        })
    }
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Sync => "Sync",
        Mode::Archive => "Archive",
        Mode::Migrate => "Migrate",
    }
}

fn mode_of_word(word: &str) -> Option<Mode> {
    [Mode::Sync, Mode::Archive, Mode::Migrate]
        .into_iter()
        .find(|mode| mode_word(*mode) == word)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn a_mark() -> Mark {
        Mark {
            data_time: Timestamp::parse("1795331103.54963").unwrap(),
            time: Timestamp::parse("1795331109.02225").unwrap(),
            etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
            mode: Mode::Sync,
            mapping: MappingId("0123456789abcdef0123456789abcdef".into()),
            source: crate::naming::source_hash("AUTH_test", "plain", "x"),
            delete_at: None,
        }
    }

    #[test]
    fn a_mark_is_written_under_its_documented_names() {
        let mut metadata = BTreeMap::new();
        let mark = Mark {
            delete_at: Some(1_800_000_000),
            ..a_mark()
        };
        mark.write(&mut metadata);
        let expected = [
            ("onespace-data-time", "1795331103.54963"),
            ("onespace-delete-at", "1800000000"),
            ("onespace-etag", "d41d8cd98f00b204e9800998ecf8427e"),
            ("onespace-mapping", "0123456789abcdef0123456789abcdef"),
            ("onespace-mode", "Sync"),
            ("onespace-source", mark.source.as_str()),
            ("onespace-time", "1795331109.02225"),
        ];
        let written: Vec<_> = metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn an_object_without_any_of_our_names_has_no_mark() {
        let metadata = BTreeMap::from([("swift-slo-etag".to_owned(), "x".to_owned())]);
        assert_eq!(Mark::read(&metadata), None);
    }

    #[test]
    fn a_mark_that_lacks_a_part_or_has_a_broken_one_is_an_error_not_absent() {
        for name in [DATA_TIME, TIME, ETAG, MODE, MAPPING, SOURCE] {
            let mut metadata = BTreeMap::new();
            a_mark().write(&mut metadata);
            metadata.remove(name);
            assert_eq!(Mark::read(&metadata), Some(Err(MarkError { name })));
        }
        for name in [DATA_TIME, TIME, MODE, DELETE_AT] {
            let mut metadata = BTreeMap::new();
            a_mark().write(&mut metadata);
            metadata.insert(name.to_owned(), "yesterday".to_owned());
            assert_eq!(Mark::read(&metadata), Some(Err(MarkError { name })));
        }
    }

    #[test]
    fn reserved_names_are_recognised_in_any_case() {
        for name in [
            "combined-etag",
            "Swift-Slo-Etag",
            "swift-source-dlo-etag",
            "OneSpace-Anything",
            "onespace-",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["onespace", "etag", "combined-etag-2", "öööööööö", ""] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_survives_the_metadata(
            ticks in any::<(u64, u64)>(), offset in any::<u64>(), mode in 0..3_usize,
            etag in "[0-9a-f]{32}(-[0-9]{1,4})?", delete_at in any::<Option<u64>>()
        ) {
            let mark = Mark {
                data_time: Timestamp::from_ticks(ticks.0, offset),
                time: Timestamp::from_ticks(ticks.1, 0),
                etag,
                mode: [Mode::Sync, Mode::Archive, Mode::Migrate][mode],
                delete_at,
                ..a_mark()
            };
            let mut metadata = BTreeMap::from([("foo".to_owned(), "bar".to_owned())]);
            mark.write(&mut metadata);
            prop_assert_eq!(Mark::read(&metadata), Some(Ok(mark)));
        }

        #[test]
        fn no_metadata_panic(metadata in proptest::collection::btree_map(
            r"(onespace-(data-time|time|etag|mode|mapping|source|delete-at))|\PC{0,12}", r"\PC{0,20}", 0..9
        )) {
            let _ = Mark::read(&metadata);
            for name in metadata.keys() {
                let _ = is_reserved(name);
            }
        }
    }
}
