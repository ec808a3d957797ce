//! The headers of Swift's answers, and what becomes of them at the remote.

use std::collections::BTreeSet;

use onespace_core::local::SwiftObject;
use onespace_core::mapping::{MappingId, Mode};
use onespace_core::mark::Mark;
use onespace_core::metadata::{in_step, to_remote, to_swift};
use onespace_core::timestamp::Timestamp;

/// Each line is a header. An object that is understood is either refused for its metadata, or sent so that what comes
/// back is the same metadata, marked as ours.
pub fn run(input: &[u8]) {
    let headers: Vec<(&str, &[u8])> = input
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            let name = std::str::from_utf8(&line[..at]).ok()?;
            Some((name, line[at + 1..].trim_ascii()))
        })
        .collect();
    let parsed = SwiftObject::from_headers(headers.iter().copied());
    assert_eq!(
        parsed,
        SwiftObject::from_headers(headers.iter().copied()),
        "the same answer twice"
    );
    let Ok(object) = parsed else {
        return;
    };
    let time = Timestamp::from_unix_seconds(1_795_331_020);
    let mark = Mark {
        data_time: object.data_time.unwrap_or(time),
        time: object.time.unwrap_or(time),
        etag: object.etag.clone(),
        mode: Mode::Sync,
        mapping: MappingId("0".repeat(32)),
        source: "0".repeat(64),
        delete_at: object.delete_at,
    };
    let Ok(sent) = to_remote(&object, &mark) else {
        return;
    };
    assert!(in_step(&sent, &sent));
    assert_eq!(
        Mark::read(&sent.metadata),
        Some(Ok(mark)),
        "the mark is not read as it was written"
    );
    let names: BTreeSet<String> = to_swift(&sent)
        .into_iter()
        .map(|(name, _)| name.to_lowercase())
        .collect();
    for name in object.metadata.keys() {
        let name = format!("x-object-meta-{name}");
        assert!(names.contains(&name), "{name} is lost");
    }
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("x-object-meta-onespace-")),
        "the mark is shown: {names:?}"
    );
}
