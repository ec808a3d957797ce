//! The recorded fixtures are what a real Swift says today.
#![allow(clippy::unwrap_used, missing_docs)]

use onespace_e2e::fixtures::{folder, normalised, record};
use serde_json::Value;

#[tokio::test]
async fn swift_still_says_what_was_recorded() {
    let fresh = tempfile::tempdir().unwrap();
    record(fresh.path()).await.unwrap();
    for name in ["rows.json", "listings.json", "objects.json", "encrypted.json"] {
        let (recorded, now) = (
            normalised(&folder(), name).unwrap(),
            normalised(fresh.path(), name).unwrap(),
        );
        let mut different = Vec::new();
        compare("", &recorded, &now, &mut different);
        assert!(
            different.is_empty(),
            "{name}: run `make fixtures` and look at the difference: {different:#?}"
        );
    }
    for entry in std::fs::read_dir(fresh.path().join("rings")).unwrap() {
        let path = entry.unwrap().path();
        let recorded = folder().join("rings").join(path.file_name().unwrap());
        assert!(
            std::fs::read(&path).unwrap() == std::fs::read(&recorded).unwrap(),
            "{} differs",
            recorded.display()
        );
    }
}

/// Names each place where two values differ.
fn compare(place: &str, recorded: &Value, now: &Value, different: &mut Vec<String>) {
    let nothing = Value::Null;
    match (recorded, now) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left
                .keys()
                .chain(right.keys().filter(|key| !left.contains_key(*key)))
            {
                let at = format!("{place}/{key}");
                compare(
                    &at,
                    left.get(key).unwrap_or(&nothing),
                    right.get(key).unwrap_or(&nothing),
                    different,
                );
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{place}/{at}"), left, right, different);
            }
        }
        _ if recorded == now => {}
        _ => different.push(format!("{place}: recorded {recorded}, now {now}")),
    }
}
