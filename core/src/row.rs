//! A row of a container database: what it says of an object before anyone looks at the object itself.

use percent_encoding::percent_decode_str;

use crate::timestamp::{RowTime, TimestampError};

/// A row as it stands in the table `object`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRow {
    /// `ROWID`.
    pub rowid: i64,
    /// `name`.
    pub name: String,
    /// `created_at`.
    pub created_at: String,
    /// `size`.
    pub size: i64,
    /// `content_type`.
    pub content_type: String,
    /// `etag`.
    pub etag: String,
    /// `deleted`.
    pub deleted: bool,
    /// `storage_policy_index`.
    pub policy_index: i64,
}

/// A row, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the change log of this database.
    pub rowid: i64,
    /// Object name.
    pub name: String,
    /// t1, t2 and t3.
    pub time: RowTime,
    /// What a client sees: of a large object the sum of its segments, of a static symlink the target's size. A
    /// dynamic symlink or dynamic large object has its own, that is 0. Of a tombstone 0.
    pub size: u64,
    /// md5 of the stored body, 32 hex digits: of a static large object that of the stored manifest, of a symlink
    /// that of nothing. `None` where the database holds something else, above all an encrypted one.
    pub etag: Option<String>,
    /// Content type without Swift's own parameter.
    pub content_type: String,
    /// What kind of object it is, as far as the row tells.
    pub kind: RowKind,
    /// The storage policy that the object is in.
    pub policy_index: u32,
}

/// What a row tells of an object's kind. A dynamic large object looks like a plain one here, and in an encrypted
/// container a symlink too: only the object's own headers tell those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// A DELETE.
    Tombstone,
    /// An object, as far as one can see.
    Object,
    /// A static large object: the stored body is a manifest.
    StaticLarge {
        /// md5 over the segments' ETags.
        slo_etag: Option<String>,
    },
    /// A symlink. What object versioning shows of a container are static symlinks.
    Symlink {
        /// `container/object`.
        target: String,
        /// The target's account, where it is another one.
        target_account: Option<String>,
        /// Of a static symlink: the ETag that the target must have.
        target_etag: Option<String>,
        /// Of a static symlink: the target's size.
        target_bytes: Option<u64>,
    },
}

/// Why a row cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// `created_at`.
    #[error("created_at cannot be read: {0}")]
    Time(#[from] TimestampError),
    /// A number that cannot be one.
    #[error("{column} is {value}, which no Swift writes: check the container database")]
    Number {
        /// The column.
        column: &'static str,
        /// What it holds.
        value: i64,
    },
}

impl Row {
    /// Whether what is copied may change while the row does not: a symlink that names no version of its target.
    #[must_use]
    pub fn may_change_unseen(&self) -> bool {
        matches!(
            self.kind,
            RowKind::Symlink {
                target_etag: None,
                ..
            }
        )
    }

    /// Understands a row.
    ///
    /// # Errors
    /// When its time or its numbers are not what Swift writes. Whatever `etag` and `content_type` hold is no error.
    pub fn parse(raw: RawRow) -> Result<Self, RowError> {
        let RawRow {
            rowid,
            name,
            created_at,
            size,
            content_type,
            etag,
            deleted,
            policy_index,
        } = raw;
        let number = |column, value| RowError::Number { column, value };
        let time = RowTime::parse(&created_at)?;
        let policy_index =
            u32::try_from(policy_index).map_err(|_| number("storage_policy_index", policy_index))?;
        let (content_type, swift_bytes) = split_swift_bytes(&content_type);
        if deleted {
            return Ok(Self {
                rowid,
                name,
                time,
                size: 0,
                etag: None,
                content_type,
                kind: RowKind::Tombstone,
                policy_index,
            });
        }
        let size = u64::try_from(size).map_err(|_| number("size", size))?;
        let etag = Etag::parse(&etag);
        let kind = etag.kind(swift_bytes.is_some());
        let linked = match &kind {
            RowKind::Symlink { target_bytes, .. } => *target_bytes,
            _ => None,
        };
        Ok(Self {
            rowid,
            name,
            time,
            size: linked.or(swift_bytes).unwrap_or(size),
            etag: etag.md5(),
            content_type,
            kind,
            policy_index,
        })
    }
}

/// `etag` of a row: a value and parameters, `value; key=value; ...`, values percent-encoded where needed.
struct Etag<'a> {
    value: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Etag<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';');
        let value = parts.next().unwrap_or_default().trim();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        Self { value, parameters }
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    /// The parameter's value, unless it is not UTF-8.
    fn text(&self, key: &str) -> Option<String> {
        let decoded = percent_decode_str(self.get(key)?).decode_utf8().ok()?;
        Some(decoded.into_owned())
    }

    fn is_encrypted(&self) -> bool {
        self.get("swift_meta").is_some()
    }

    fn md5(&self) -> Option<String> {
        let plain = !self.is_encrypted() && is_md5(self.value);
        plain.then(|| self.value.to_ascii_lowercase())
    }

    fn kind(&self, has_swift_bytes: bool) -> RowKind {
        if let Some(target) = self.text("symlink_target") {
            RowKind::Symlink {
                target,
                target_account: self.text("symlink_target_account"),
                target_etag: self.text("symlink_target_etag"),
                target_bytes: self
                    .get("symlink_target_bytes")
                    .and_then(|bytes| bytes.parse().ok()),
            }
        } else if has_swift_bytes || self.get("slo_etag").is_some() {
            RowKind::StaticLarge {
                slo_etag: self.text("slo_etag"),
            }
        } else {
            RowKind::Object
        }
    }
}

/// Whether this is an md5 in hex.
pub(crate) fn is_md5(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Takes the parameter `swift_bytes` out of a content type; the rest stays as it is. Semicolons within quotes
/// separate nothing. A value that is not a number is taken out, too, as Swift does.
pub(crate) fn split_swift_bytes(content_type: &str) -> (String, Option<u64>) {
    let mut kept = String::with_capacity(content_type.len());
    let mut bytes = None;
    for part in split_unquoted(content_type) {
        let parameter = part.strip_prefix(';').and_then(|part| part.split_once('='));
        match parameter {
            Some((key, value)) if key.trim() == "swift_bytes" => bytes = value.trim().parse().ok(),
            _ => kept.push_str(part),
        }
    }
    (kept, bytes)
}

/// The text cut before every semicolon that is not within quotes.
fn split_unquoted(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                parts.push(&text[start..at]);
                start = at;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn raw(size: i64, content_type: &str, etag: &str) -> RawRow {
        RawRow {
            rowid: 4,
            name: "x".into(),
            created_at: "1795331103.54963+0+223a8".into(),
            size,
            content_type: content_type.into(),
            etag: etag.into(),
            deleted: false,
            policy_index: 1,
        }
    }

    fn row(size: i64, content_type: &str, etag: &str) -> Row {
        Row::parse(raw(size, content_type, etag)).unwrap()
    }

    #[test]
    fn a_plain_object_keeps_its_content_type() {
        let row = row(7, "text/plain; charset=utf-8", EMPTY);
        assert_eq!((row.size, row.kind), (7, RowKind::Object));
        assert_eq!(row.content_type, "text/plain; charset=utf-8");
        assert_eq!(row.etag.as_deref(), Some(EMPTY));
        assert_eq!(row.time.newest().to_string(), "1795331104.95163");
        assert_eq!((row.rowid, row.policy_index), (4, 1));
    }

    #[test]
    fn a_static_large_object_shows_the_size_of_its_segments() {
        let slo = row(300, "video/x;swift_bytes=6144", &format!("{EMPTY}; slo_etag=abc"));
        assert_eq!(slo.size, 6144);
        assert_eq!(slo.content_type, "video/x");
        let slo_etag = Some("abc".to_owned());
        assert_eq!(slo.kind, RowKind::StaticLarge { slo_etag });
        assert_eq!(slo.etag.as_deref(), Some(EMPTY));
        let multipart = row(
            300,
            "video/x; charset=x;swift_bytes=6144",
            &format!("{EMPTY}; s3_etag=abc-2; slo_etag=abc"),
        );
        assert_eq!(multipart.kind, slo.kind);
        assert_eq!(multipart.content_type, "video/x; charset=x");
    }

    #[test]
    fn a_large_object_of_an_encrypted_container_is_known_by_its_size() {
        let etag = "lqMYZUBPXb4A0GcB8JyzcwvI6pc=; swift_meta=%7B%22cipher%22%3A+%22AES_CTR_256%22%7D";
        let large = row(300, "video/x;swift_bytes=6144", etag);
        assert_eq!(large.kind, RowKind::StaticLarge { slo_etag: None });
        assert_eq!(large.etag, None);
        assert_eq!(row(300, "video/x", &format!("{EMPTY}; swift_meta=x")).etag, None);
    }

    #[test]
    fn symlinks_are_read_with_their_target() {
        let dynamic = row(0, "application/symlink", &format!("{EMPTY}; symlink_target=c1/a"));
        assert_eq!(dynamic.size, 0);
        assert_eq!(
            dynamic.kind,
            RowKind::Symlink {
                target: "c1/a".into(),
                target_account: None,
                target_etag: None,
                target_bytes: None,
            }
        );
        let version = row(
            0,
            "text/plain",
            &format!(
                "{EMPTY}; symlink_target=%00versions%00v1/%00p%008204668775.00235; symlink_target_etag={EMPTY}; \
                 symlink_target_bytes=17; symlink_target_account=AUTH_%C3%A9"
            ),
        );
        assert_eq!(version.size, 17);
        assert_eq!(
            version.kind,
            RowKind::Symlink {
                target: "\0versions\0v1/\0p\08204668775.00235".into(),
                target_account: Some("AUTH_é".into()),
                target_etag: Some(EMPTY.into()),
                target_bytes: Some(17),
            }
        );
    }

    #[test]
    fn a_tombstone_has_no_body() {
        let tombstone = Row::parse(RawRow {
            deleted: true,
            ..raw(0, "application/deleted", "noetag")
        })
        .unwrap();
        assert_eq!(tombstone.kind, RowKind::Tombstone);
        assert_eq!((tombstone.size, tombstone.etag), (0, None));
    }

    #[test]
    fn quoted_semicolons_of_a_content_type_separate_nothing() {
        let text = r#"text/x; a="b;swift_bytes=1\";swift_bytes=2"; c=d"#;
        assert_eq!(split_swift_bytes(text), (text.to_owned(), None));
        let with_bytes = format!("{text};swift_bytes=3");
        assert_eq!(split_swift_bytes(&with_bytes), (text.to_owned(), Some(3)));
    }

    #[test]
    fn numbers_that_no_swift_writes_are_named() {
        let error = Row::parse(raw(-1, "", "")).unwrap_err();
        assert_eq!(
            error,
            RowError::Number {
                column: "size",
                value: -1
            }
        );
        let negative = RawRow {
            policy_index: -2,
            ..raw(0, "", "")
        };
        assert!(
            Row::parse(negative)
                .unwrap_err()
                .to_string()
                .contains("storage_policy_index is -2")
        );
        let unreadable = RawRow {
            created_at: "now".into(),
            ..raw(0, "", "")
        };
        assert!(
            Row::parse(unreadable)
                .unwrap_err()
                .to_string()
                .contains("\"now\"")
        );
    }

    proptest! {
        #[test]
        fn swift_bytes_are_taken_out_again(bytes in any::<u64>(), content_type in "[a-z]{1,5}/[a-z]{1,5}(; ?[a-z]=[a-z]{1,3}){0,2}") {
            let stored = format!("{content_type};swift_bytes={bytes}");
            prop_assert_eq!(split_swift_bytes(&stored), (content_type, Some(bytes)));
        }

        #[test]
        fn no_row_panics(
            size in any::<i64>(), policy_index in any::<i64>(), deleted in any::<bool>(),
            content_type in r#"[a-z;="\\ ]{0,20}|\PC*"#, etag in r"[a-f0-9%;= ]{0,40}|\PC*"
        ) {
            let _ = Row::parse(RawRow { policy_index, deleted, ..raw(size, &content_type, &etag) });
        }
    }
}
