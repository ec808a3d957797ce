//! Timestamps as rows and headers hold them.

use onespace_core::timestamp::{RowTime, Timestamp};

/// Each line is a timestamp and a row's `created_at`. What is read is written so that it is read the same, and texts
/// of the internal form sort as the times do.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut before: Option<Timestamp> = None;
    for line in text.lines().take(16) {
        if let Ok(time) = Timestamp::parse(line) {
            let written = time.to_string();
            assert_eq!(Timestamp::parse(&written), Ok(time), "{line}");
            let whole = Timestamp::from_ticks(time.ticks(), time.offset());
            assert_eq!(whole, time, "{line}");
            if let Some(before) = before {
                let texts = before.to_string().cmp(&written);
                assert_eq!(texts, before.cmp(&time), "{before} and {line}");
            }
            before = Some(time);
        }
        if let Ok(row) = RowTime::parse(line) {
            let written = row.to_string();
            assert_eq!(
                RowTime::parse(&written),
                Ok(row),
                "{line} is written as {written}"
            );
            assert!(row.newest() >= row.data, "{line}");
        }
    }
}
