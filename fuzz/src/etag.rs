//! Rows: the parameters of `etag` and `content_type`.

use onespace_core::row::{RawRow, Row, RowKind};

/// The first line is a content type, the second a size, the rest an etag.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let content_type = lines.next().unwrap_or_default();
    let size = lines.next().and_then(|size| size.parse().ok()).unwrap_or(7);
    let etag = lines.next().unwrap_or_default();
    let raw = RawRow {
        rowid: 1,
        name: "a".to_owned(),
        created_at: "1795331020.42037".to_owned(),
        size,
        content_type: content_type.to_owned(),
        etag: etag.to_owned(),
        deleted: false,
        policy_index: 0,
    };
    let row = Row::parse(raw.clone());
    assert_eq!(row, Row::parse(raw.clone()), "the same answer twice");
    let Ok(row) = row else {
        assert!(size < 0, "nothing but a negative size is refused");
        return;
    };
    if let Some(md5) = &row.etag {
        let digits = md5.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        assert!(md5.len() == 32 && digits, "{md5:?}");
        let encrypted = etag
            .split(';')
            .skip(1)
            .any(|part| part.trim().starts_with("swift_meta="));
        assert!(!encrypted, "an encrypted row's etag is used");
    }
    assert!(row.content_type.len() <= content_type.len());
    // What was taken out is out: a second look finds no size of a large object any more.
    let again = Row::parse(RawRow {
        content_type: row.content_type.clone(),
        ..raw.clone()
    });
    assert_eq!(
        again.map(|again| again.content_type),
        Ok(row.content_type.clone())
    );
    if row.kind == RowKind::Object {
        assert_eq!(
            i64::try_from(row.size),
            Ok(size),
            "a plain object has its own size"
        );
    }
    let tombstone = Row::parse(RawRow { deleted: true, ..raw });
    assert!(tombstone.is_ok_and(|row| row.kind == RowKind::Tombstone && row.size == 0 && row.etag.is_none()));
}
