//! Headers: from an object of Swift to what is stored with its copy, and back.
//!
//! `X-Object-Meta-Foo: bar` becomes `x-amz-meta-foo: bar`; a value that is not printable ASCII becomes RFC 2047
//! encoded words. What makes an object a large one is kept under Swift's own names. What S3 cannot hold is refused,
//! never dropped or changed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::local::{MetaValue, SwiftObject};
use crate::mark::{self, Mark};
use crate::reason::HoldReason;
use crate::remote::RemoteHeaders;
use crate::rfc2047;

/// How much user metadata AWS holds: the bytes of all names (without `x-amz-meta-`) and values.
pub const MAX_METADATA_BYTES: usize = 2048;

const OBJECT_MANIFEST: &str = "x-object-manifest";
const STATIC_LARGE_OBJECT: &str = "x-static-large-object";

/// What 1space left as it is in the value of `x-object-manifest`.
const UNQUOTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'_')
    .remove(b'.')
    .remove(b'-');

/// Why an object's headers cannot be stored at the remote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: change the object's metadata in Swift, or exclude the object")]
pub struct MetadataError {
    /// Why the row is held.
    pub reason: HoldReason,
    /// Which header, and what about it. Never its value.
    pub what: String,
}

impl MetadataError {
    const fn new(what: String) -> Self {
        Self {
            reason: HoldReason::MetadataNotRepresentable,
            what,
        }
    }
}

/// The headers to store with a copy of this object: its own and the mark. `X-Delete-At` is the object's, whatever
/// the mark says.
///
/// # Errors
/// When a name or a value is one that S3 cannot hold or that is onespace's own, or there is too much of them.
pub fn to_remote(object: &SwiftObject, mark: &Mark) -> Result<RemoteHeaders, MetadataError> {
    let mut metadata = BTreeMap::new();
    for (name, value) in &object.metadata {
        let header = || format!("X-Object-Meta-{name}");
        if !is_token(name) {
            return Err(MetadataError::new(format!(
                "the name {:?} has characters that S3 cannot hold",
                header()
            )));
        }
        let name = name.to_ascii_lowercase();
        if mark::is_reserved(&name) || name == OBJECT_MANIFEST || name == STATIC_LARGE_OBJECT {
            return Err(MetadataError::new(format!("the name {} is reserved", header())));
        }
        if metadata.insert(name, to_wire(&header(), value)?).is_some() {
            return Err(MetadataError::new(format!("{} is there twice", header())));
        }
    }
    if let Some(manifest) = &object.object_manifest {
        let quoted = utf8_percent_encode(manifest, UNQUOTED).to_string();
        metadata.insert(OBJECT_MANIFEST.to_owned(), quoted);
    }
    if object.static_large_object {
        metadata.insert(STATIC_LARGE_OBJECT.to_owned(), "True".to_owned());
    }
    let mark = Mark {
        delete_at: object.delete_at,
        ..mark.clone()
    };
    mark.write(&mut metadata);
    let bytes: usize = metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_METADATA_BYTES {
        return Err(MetadataError::new(format!(
            "names and values of the metadata, with the {} bytes that onespace adds, are {bytes} bytes long, and S3 \
             holds {MAX_METADATA_BYTES}",
            mark.bytes()
        )));
    }
    let optional =
        |header, value: &Option<MetaValue>| value.as_ref().map(|value| to_wire(header, value)).transpose();
    // Without one S3 would make up its own, and the copy would never be in step.
    let content_type = match object.content_type.as_str() {
        "" => "application/octet-stream",
        text => text,
    };
    Ok(RemoteHeaders {
        content_type: Some(to_wire(
            "Content-Type",
            &MetaValue::Text(content_type.to_owned()),
        )?),
        content_encoding: optional("Content-Encoding", &object.content_encoding)?,
        content_disposition: optional("Content-Disposition", &object.content_disposition)?,
        cache_control: optional("Cache-Control", &object.cache_control)?,
        metadata,
    })
}

/// The headers that a client of Swift sees of a remote object, in Swift's spelling; what is onespace's own is hidden.
#[must_use]
pub fn to_swift(headers: &RemoteHeaders) -> Vec<(String, String)> {
    let RemoteHeaders {
        content_type,
        content_encoding,
        content_disposition,
        cache_control,
        metadata,
    } = headers;
    let content_encoding = content_encoding.as_deref().and_then(without_chunking);
    let system = [
        ("Content-Type", content_type.as_deref()),
        ("Content-Encoding", content_encoding.as_deref()),
        ("Content-Disposition", content_disposition.as_deref()),
        ("Cache-Control", cache_control.as_deref()),
    ];
    let mut swift: Vec<(String, String)> = system
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), rfc2047::decode(value?).into_owned())))
        .collect();
    for (name, value) in metadata {
        let value = decoded(name, value).into_owned();
        match name.as_str() {
            OBJECT_MANIFEST => swift.push(("X-Object-Manifest".to_owned(), value)),
            STATIC_LARGE_OBJECT => swift.push(("X-Static-Large-Object".to_owned(), value)),
            mark::DELETE_AT => swift.push(("X-Delete-At".to_owned(), value)),
            name if mark::is_reserved(name) => {}
            name => swift.push((format!("X-Object-Meta-{}", title_case(name)), value)),
        }
    }
    swift
}

/// Whether what a HEAD found says the same as what was (or would be) sent: the same names, and values and content
/// type that mean the same, encoded or not. Of what is onespace's own only the object's expiry counts: a copy that
/// 1space wrote has no mark, and is in step all the same.
#[must_use]
pub fn in_step(sent: &RemoteHeaders, found: &RemoteHeaders) -> bool {
    meaning(sent) == meaning(found)
}

/// The four system headers, and user metadata by name.
type Meaning<'a> = ([Option<Cow<'a, str>>; 4], BTreeMap<&'a str, Cow<'a, str>>);

/// Headers in a form in which equal means the same.
fn meaning(headers: &RemoteHeaders) -> Meaning<'_> {
    let RemoteHeaders {
        content_type,
        content_encoding,
        content_disposition,
        cache_control,
        metadata,
    } = headers;
    let content_encoding = text(content_encoding).and_then(|value| without_chunking(&value));
    let system = [
        text(content_type),
        content_encoding.map(Cow::Owned),
        text(content_disposition),
        text(cache_control),
    ];
    let metadata = metadata
        .iter()
        .filter(|(name, _)| name.as_str() == mark::DELETE_AT || !mark::is_reserved(name))
        .map(|(name, value)| (name.as_str(), decoded(name, value)))
        .collect();
    (system, metadata)
}

/// What a stored header stands for; an empty one is none.
fn text(value: &Option<String>) -> Option<Cow<'_, str>> {
    value
        .as_deref()
        .filter(|value| !value.is_empty())
        .map(rfc2047::decode)
}

/// What a stored metadata value stands for.
fn decoded<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if name != OBJECT_MANIFEST {
        return rfc2047::decode(value);
    }
    match percent_decode_str(value).decode_utf8() {
        Ok(text) if !text.chars().any(rfc2047::is_forbidden) => text,
        _ => Cow::Borrowed(value),
    }
}

/// `Content-Encoding` without `aws-chunked`, which belongs to the transfer; some servers keep it.
fn without_chunking(value: &str) -> Option<String> {
    if !value.contains("aws-chunked") {
        return Some(value.to_owned());
    }
    let rest: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && *coding != "aws-chunked")
        .collect();
    (!rest.is_empty()).then(|| rest.join(","))
}

fn to_wire(header: &str, value: &MetaValue) -> Result<String, MetadataError> {
    match value {
        MetaValue::Text(text) if !text.chars().any(rfc2047::is_forbidden) => {
            Ok(rfc2047::encode(text).into_owned())
        }
        MetaValue::Text(_) => Err(MetadataError::new(format!(
            "the value of {header} has control characters"
        ))),
        MetaValue::Bytes(_) => Err(MetadataError::new(format!("the value of {header} is not UTF-8"))),
    }
}

/// Whether this can be (the end of) the name of an HTTP header.
fn is_token(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}

/// Every word's first letter in upper case, as Swift spells header names.
fn title_case(name: &str) -> String {
    let mut after_letter = false;
    name.chars()
        .map(|c| {
            let cased = if after_letter {
                c.to_ascii_lowercase()
            } else {
                c.to_ascii_uppercase()
            };
            after_letter = c.is_ascii_alphabetic();
            cased
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mark::tests::a_mark;

    fn object(metadata: &[(&str, &str)]) -> SwiftObject {
        SwiftObject {
            content_type: "text/plain".into(),
            metadata: metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), MetaValue::Text((*value).to_owned())))
                .collect(),
            ..SwiftObject::default()
        }
    }

    fn sent(object: &SwiftObject) -> RemoteHeaders {
        to_remote(object, &a_mark()).unwrap()
    }

    fn pairs(swift: &[(String, String)]) -> Vec<(&str, &str)> {
        swift
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    #[test]
    fn user_metadata_and_the_mark_are_stored() {
        let headers = sent(&object(&[("foo", "bar"), ("who", "Grüße")]));
        assert_eq!(headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(headers.metadata["foo"], "bar");
        assert_eq!(headers.metadata["who"], "=?UTF-8?B?R3LDvMOfZQ==?=");
        assert_eq!(Mark::read(&headers.metadata), Some(Ok(a_mark())));
    }

    #[test]
    fn everything_that_a_client_set_comes_back() {
        let object = SwiftObject {
            object_manifest: Some("segs/a%20b/ü".into()),
            delete_at: Some(1_800_000_000),
            content_encoding: Some(MetaValue::Text("gzip".into())),
            content_disposition: Some(MetaValue::Text("attachment; filename=\"ü\"".into())),
            cache_control: Some(MetaValue::Text("no-cache".into())),
            ..object(&[("x-y", " spaces "), ("word", "=?UTF-8?Q?x?=")])
        };
        let headers = sent(&object);
        assert_eq!(headers.metadata["x-object-manifest"], "segs/a%2520b/%C3%BC");
        let expected = [
            ("Content-Type", "text/plain"),
            ("Content-Encoding", "gzip"),
            ("Content-Disposition", "attachment; filename=\"ü\""),
            ("Cache-Control", "no-cache"),
            ("X-Delete-At", "1800000000"),
            ("X-Object-Meta-Word", "=?UTF-8?Q?x?="),
            ("X-Object-Manifest", "segs/a%20b/ü"),
            ("X-Object-Meta-X-Y", " spaces "),
        ];
        assert_eq!(pairs(&to_swift(&headers)), expected);
    }

    #[test]
    fn a_static_large_object_is_recognised_at_the_remote() {
        let object = SwiftObject {
            static_large_object: true,
            ..object(&[])
        };
        let headers = sent(&object);
        assert_eq!(headers.metadata["x-static-large-object"], "True");
        assert!(pairs(&to_swift(&headers)).contains(&("X-Static-Large-Object", "True")));
    }

    #[test]
    fn reserved_names_are_never_shown_and_never_taken_from_a_user() {
        let mut headers = sent(&object(&[]));
        headers.metadata.insert("swift-slo-etag".into(), "x".into());
        assert_eq!(pairs(&to_swift(&headers)), [("Content-Type", "text/plain")]);
        for name in [
            "onespace-time",
            "onespace-x",
            "combined-etag",
            "swift-slo-etag",
            "swift-source-dlo-etag",
            "x-object-manifest",
            "x-static-large-object",
        ] {
            let error = to_remote(&object(&[(name, "x")]), &a_mark()).unwrap_err();
            assert_eq!(error.reason, HoldReason::MetadataNotRepresentable);
            assert!(error.what.contains(name), "{error}");
        }
    }

    #[test]
    fn what_s3_cannot_hold_is_refused_with_the_headers_name() {
        let raw = |value: &[u8]| {
            let mut object = object(&[]);
            object.metadata.insert("foo".into(), MetaValue::from_bytes(value));
            object
        };
        let long = "x".repeat(2000);
        for (object, part) in [
            (object(&[("grüße", "x")]), "grüße"),
            (object(&[("a b", "x")]), "a b"),
            (object(&[("", "x")]), "X-Object-Meta-"),
            (raw(b"\xff"), "foo is not UTF-8"),
            (raw(b"a\nb"), "foo has control"),
            (raw(b"\x7f"), "foo has control"),
            (object(&[("foo", &long)]), "S3 holds 2048"),
        ] {
            let error = to_remote(&object, &a_mark()).unwrap_err();
            assert!(error.what.contains(part), "{error}");
        }
        let bad_type = SwiftObject {
            content_type: "text/\u{1}".into(),
            ..object(&[])
        };
        assert!(
            to_remote(&bad_type, &a_mark())
                .unwrap_err()
                .what
                .contains("Content-Type")
        );
    }

    #[test]
    fn exactly_as_much_as_s3_holds_is_accepted() {
        let value = "x".repeat(MAX_METADATA_BYTES - a_mark().bytes() - 3);
        assert!(to_remote(&object(&[("foo", &value)]), &a_mark()).is_ok());
        let error = to_remote(&object(&[("fooo", &value)]), &a_mark()).unwrap_err();
        assert!(error.what.contains("2049"), "{error}");
    }

    #[test]
    fn a_copy_is_in_step_however_its_values_are_written() {
        let sent = sent(&object(&[("who", "Grüße"), ("foo", "bar")]));
        let mut found = sent.clone();
        found.metadata.insert("who".into(), "Grüße".into());
        assert!(in_step(&sent, &found));
        found
            .metadata
            .insert("who".into(), "=?utf-8?q?Gr=C3=BC=C3=9Fe?=".into());
        found.content_encoding = Some("aws-chunked".into());
        found.cache_control = Some(String::new());
        assert!(in_step(&sent, &found));
    }

    #[test]
    fn an_unmarked_copy_of_1space_is_in_step() {
        let sent = sent(&object(&[("foo", "bar")]));
        let mut found = sent.clone();
        found.metadata.retain(|name, _| name == "foo");
        found.metadata.insert("swift-slo-etag".into(), "x".into());
        assert!(in_step(&sent, &found));
    }

    #[test]
    fn a_difference_that_a_client_could_see_is_not_in_step() {
        let object = SwiftObject {
            delete_at: Some(1),
            object_manifest: Some("a/b".into()),
            ..object(&[("foo", "bar")])
        };
        let sent = sent(&object);
        let changes: [fn(&mut RemoteHeaders); 8] = [
            |found| found.content_type = None,
            |found| found.content_encoding = Some("gzip, aws-chunked".into()),
            |found| found.cache_control = Some("x".into()),
            |found| drop(found.metadata.insert("foo".into(), "Bar".into())),
            |found| drop(found.metadata.insert("baz".into(), String::new())),
            |found| drop(found.metadata.remove("foo")),
            |found| drop(found.metadata.remove("onespace-delete-at")),
            |found| drop(found.metadata.insert("x-object-manifest".into(), "a/c".into())),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut found = sent.clone();
            change(&mut found);
            assert!(!in_step(&sent, &found), "change {index}");
        }
    }

    proptest! {
        #[test]
        fn metadata_survive_the_remote(
            metadata in proptest::collection::btree_map("[a-z0-9!_.-]{1,9}", r"[ -~]{0,20}|\PC{0,20}", 0..5),
            manifest in proptest::option::of(r"\PC{1,10}/\PC{0,10}"),
            delete_at in proptest::option::of(any::<u64>()),
        ) {
            let object = SwiftObject {
                metadata: metadata.iter().map(|(name, value)| (name.clone(), MetaValue::Text(value.clone()))).collect(),
                object_manifest: manifest.clone(),
                delete_at,
                ..object(&[])
            };
            let headers = to_remote(&object, &a_mark()).unwrap();
            prop_assert!(in_step(&headers, &headers));
            // A server that answers with the text itself is in step, too.
            let mut raw = headers.clone();
            for (name, value) in raw.metadata.iter_mut().filter(|(name, _)| *name != OBJECT_MANIFEST) {
                *value = decoded(name, value).into_owned();
            }
            prop_assert!(in_step(&headers, &raw));
            let swift: BTreeMap<String, String> = to_swift(&headers)
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            for (name, value) in &metadata {
                prop_assert_eq!(&swift[&format!("x-object-meta-{name}")], value);
            }
            prop_assert_eq!(swift.get("x-object-manifest"), manifest.as_ref());
            prop_assert_eq!(swift.get("x-delete-at").cloned(), delete_at.map(|at| at.to_string()));
            prop_assert_eq!(
                swift.len(),
                1 + metadata.len() + usize::from(manifest.is_some()) + usize::from(delete_at.is_some())
            );
        }

        #[test]
        fn what_is_found_never_panics(
            metadata in proptest::collection::btree_map(r"[a-z-]{0,9}|x-object-manifest", r"[%0-9a-f]{0,9}|\PC*", 0..5),
            content_encoding in proptest::option::of(r"(aws-chunked|gzip|[, ]){0,4}")
        ) {
            let found = RemoteHeaders { metadata, content_encoding, ..RemoteHeaders::default() };
            let _ = (to_swift(&found), in_step(&RemoteHeaders::default(), &found));
        }
    }
}
