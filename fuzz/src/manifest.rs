//! Manifests of static large objects, nested ones and what becomes of them: runs of bytes, and parts of an upload.

use std::collections::BTreeMap;

use onespace_core::manifest::{Flatten, Manifest, flatten};
use onespace_core::parts::{MAX_PART, MAX_PARTS, expected_etag, plan};

/// What stands between the manifests of one input: the first is the object, the others answer its nested ones in the
/// order in which they are asked for.
const BETWEEN: &str = "\n=====\n";

/// No byte is lost or made up, whatever the manifests say.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut manifests = text.split(BETWEEN);
    let first = manifests.next().unwrap_or_default();
    let parsed = Manifest::parse("AUTH_test", first.as_bytes());
    assert_eq!(
        parsed,
        Manifest::parse("AUTH_test", first.as_bytes()),
        "the same answer twice"
    );
    let Ok(top) = parsed else {
        return;
    };
    let etag = top.etag();
    assert!(etag.is_none_or(|etag| etag.len() == 32));
    let mut nested = BTreeMap::new();
    let extents = loop {
        match flatten(&top, &nested) {
            Ok(extents) => break extents,
            Err(Flatten::Needs(container, object)) => {
                let next = manifests
                    .next()
                    .and_then(|text| Manifest::parse("AUTH_test", text.as_bytes()).ok());
                let Some(next) = next else {
                    return;
                };
                let before = nested.insert((container, object), next);
                assert_eq!(before, None, "a manifest is asked for twice");
            }
            Err(Flatten::Invalid { .. } | Flatten::TooManyPieces) => return,
        }
    };
    assert!(extents.len() <= 100_000);
    assert!(extents.iter().all(|extent| extent.length() > 0));
    let length: u128 = extents.iter().map(|extent| u128::from(extent.length())).sum();
    if top.length() < u64::MAX {
        assert_eq!(length, u128::from(top.length()), "bytes are lost or made up");
    }
    for min_part in [0, 1 << 30] {
        let Ok(parts) = plan(&extents, min_part) else {
            assert!(
                length > u128::from(MAX_PART) * 9_000,
                "refused although S3 can hold it"
            );
            continue;
        };
        assert!(parts.len() <= MAX_PARTS);
        assert!(
            parts
                .iter()
                .all(|part| part.length > 0 && part.length <= MAX_PART)
        );
        let cut: u128 = parts.iter().map(|part| u128::from(part.length)).sum();
        assert_eq!(cut, length, "bytes are lost or made up by cutting");
        assert_eq!(expected_etag(&parts), expected_etag(&parts));
    }
}
