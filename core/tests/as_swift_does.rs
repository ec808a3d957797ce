//! What Swift's own library made of random input (`fixtures/record.py`) is what we make of it.

use std::collections::BTreeMap;

use onespace_core::manifest::{Extent, Manifest, flatten};
use onespace_core::naming::{HashPath, partition};
use onespace_core::rfc2047;
use onespace_core::row::{RawRow, Row};
use onespace_core::timestamp::{RowTime, Timestamp};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    times: Vec<(String, [String; 3])>,
    texts_of_times: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    content_types: Vec<(String, Option<u64>)>,
    paths: Vec<(Vec<String>, String, u32)>,
    manifests: Vec<RecordedManifest>,
}

#[derive(Deserialize)]
struct RecordedManifest {
    stored: BTreeMap<String, String>,
    top: String,
    length: u64,
    etag: String,
    runs: Vec<(Option<String>, u64, u64)>,
}

fn recorded() -> serde_json::Result<Recorded> {
    serde_json::from_str(include_str!("fixtures/swift.json"))
}

#[test]
fn the_times_of_a_row_are_read_and_written_as_swift_does() {
    for (text, times) in recorded().unwrap().times {
        let row = RowTime::parse(&text).unwrap();
        assert_eq!(
            [row.data, row.content_type, row.meta].map(|time| time.to_string()),
            times
        );
        let rewritten = row.to_string();
        // Swift may write differences of zero, too.
        assert!(text == rewritten || text == format!("{rewritten}+0+0"), "{text}");
    }
}

#[test]
fn a_timestamp_with_any_number_of_decimals_is_rounded_as_in_swift() {
    for (text, internal) in recorded().unwrap().texts_of_times {
        assert_eq!(Timestamp::parse(&text).unwrap().to_string(), internal, "{text}");
    }
}

#[test]
fn encoded_words_are_those_of_python() {
    for (value, encoded) in recorded().unwrap().headers {
        assert_eq!(rfc2047::decode(&encoded), value);
        let ours = rfc2047::encode(&value);
        // Long values are cut at other places.
        if !encoded.contains(' ') && !ours.contains(' ') {
            assert!(ours.eq_ignore_ascii_case(&encoded), "{ours} {encoded}");
        }
    }
}

#[test]
fn the_size_of_a_large_object_is_found_in_its_content_type() {
    for (content_type, size) in recorded().unwrap().content_types {
        let row = Row::parse(RawRow {
            created_at: "1795331020.42037".into(),
            size: 123_456,
            content_type: content_type.clone(),
            ..RawRow::default()
        });
        assert_eq!(row.unwrap().size, size.unwrap_or(123_456), "{content_type}");
    }
}

#[test]
fn hashes_and_partitions_are_those_of_the_cluster() {
    let swift_conf = HashPath {
        prefix: b"changeme".to_vec(),
        suffix: b"x\xe9".to_vec(),
    };
    for (path, digest, part) in recorded().unwrap().paths {
        let part_of = |index: usize| path.get(index).map(String::as_str);
        let hash = swift_conf.hash(&path[0], part_of(1), part_of(2));
        assert_eq!(
            (hex::encode(hash), partition(&hash, 10)),
            (digest, part),
            "{path:?}"
        );
    }
}

#[test]
fn a_manifest_stands_for_the_bytes_that_swift_reads() {
    for RecordedManifest {
        stored,
        top,
        length,
        etag,
        runs,
    } in recorded().unwrap().manifests
    {
        let manifests: BTreeMap<_, _> = stored
            .iter()
            .map(|(name, json)| {
                let manifest = Manifest::parse("AUTH_test", json.as_bytes()).unwrap();
                (("c".to_owned(), name.clone()), manifest)
            })
            .collect();
        let top = &manifests[&("c".to_owned(), top)];
        assert_eq!(top.length(), length);
        assert_eq!(top.etag(), Some(etag));
        let extents: Vec<_> = flatten(top, &manifests)
            .unwrap()
            .iter()
            .map(|extent| match extent {
                Extent::Segment(segment) => (
                    Some(format!("/{}/{}", segment.container, segment.object)),
                    segment.first,
                    segment.length,
                ),
                Extent::Inline(inline) => (None, 0, inline.bytes().len() as u64),
            })
            .collect();
        // Where in an inline entry a run begins cannot be seen from outside.
        let runs: Vec<_> = runs
            .into_iter()
            .map(|(name, first, length)| (name.clone(), name.map_or(0, |_| first), length))
            .collect();
        assert_eq!(extents, runs);
    }
}
