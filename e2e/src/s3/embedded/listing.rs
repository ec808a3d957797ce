//! Listings: in the order of UTF-8 bytes, with prefix, delimiter and both kinds of paging.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::S3Result;
use s3s::dto::*;

use super::operations::{Operations, bucket, invalid, strong};
use super::store::StoredObject;

/// What stays as it is in `encoding-type=url`; spaces become `+` after this.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'*')
    .remove(b' ');

struct Ask<'a> {
    bucket: &'a str,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    after: Option<&'a str>,
    max_keys: Option<i32>,
}

/// One entry: an object, or everything below a common prefix.
enum Entry {
    Object(String, Arc<StoredObject>),
    Prefix(String),
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Object(name, _) | Self::Prefix(name) => name,
        }
    }
}

struct Listed {
    entries: Vec<Entry>,
    truncated: bool,
    max_keys: i32,
}

impl Operations {
    fn list(&self, ask: &Ask<'_>) -> S3Result<Listed> {
        let max_keys = ask.max_keys.unwrap_or(1000).min(1000);
        let limit = usize::try_from(max_keys).map_err(|_| invalid("max-keys is negative"))?;
        let contents = self.store.lock();
        let objects = bucket(&contents, ask.bucket)?;
        let start = match ask.after {
            Some(after) if after >= ask.prefix => Bound::Excluded(after),
            _ => Bound::Included(ask.prefix),
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut truncated = false;
        let shown = objects
            .range::<str, _>((start, Bound::Unbounded))
            .filter(|(key, _)| !contents.hidden.is_some_and(|hidden| hidden(key)));
        for (key, object) in shown {
            let Some(rest) = key.strip_prefix(ask.prefix) else {
                break;
            };
            let entry = match ask
                .delimiter
                .and_then(|delimiter| Some((rest.find(delimiter)?, delimiter)))
            {
                Some((at, delimiter)) => {
                    let common = key
                        .get(..ask.prefix.len() + at + delimiter.len())
                        .unwrap_or(key)
                        .to_owned();
                    let listed = entries.last().is_some_and(|last| last.name() == common);
                    // Everything below it came with the page before.
                    let passed = ask.after.is_some_and(|after| after.starts_with(&common));
                    if listed || passed {
                        continue;
                    }
                    Entry::Prefix(common)
                }
                None => Entry::Object(key.clone(), object.clone()),
            };
            if entries.len() == limit {
                truncated = limit > 0;
                break;
            }
            entries.push(entry);
        }
        Ok(Listed {
            entries,
            truncated,
            max_keys,
        })
    }

    pub(super) fn list_version_1(&self, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
        let listed = self.list(&Ask {
            bucket: &input.bucket,
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input
                .delimiter
                .as_deref()
                .filter(|delimiter| !delimiter.is_empty()),
            after: input.marker.as_deref(),
            max_keys: input.max_keys,
        })?;
        let encode = encoder(input.encoding_type.as_ref());
        let last = listed.entries.last().map(|entry| encode(entry.name()));
        let next_marker = last.filter(|_| listed.truncated && input.delimiter.is_some());
        let (contents, common_prefixes) = sorted_out(listed.entries, &encode);
        Ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.as_deref().map(&encode),
            marker: input.marker.as_deref().map(&encode),
            max_keys: Some(listed.max_keys),
            is_truncated: Some(listed.truncated),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.as_deref().map(&encode),
            next_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) fn list_version_2(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let token = input.continuation_token.as_deref().map(read_token).transpose()?;
        let listed = self.list(&Ask {
            bucket: &input.bucket,
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input
                .delimiter
                .as_deref()
                .filter(|delimiter| !delimiter.is_empty()),
            after: token.as_deref().or(input.start_after.as_deref()),
            max_keys: input.max_keys,
        })?;
        let encode = encoder(input.encoding_type.as_ref());
        let last = listed.entries.last().map(|entry| URL_SAFE.encode(entry.name()));
        let key_count = i32::try_from(listed.entries.len()).ok();
        let (contents, common_prefixes) = sorted_out(listed.entries, &encode);
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.as_deref().map(&encode),
            max_keys: Some(listed.max_keys),
            key_count,
            continuation_token: input.continuation_token,
            is_truncated: Some(listed.truncated),
            next_continuation_token: last.filter(|_| listed.truncated),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.as_deref().map(&encode),
            encoding_type: input.encoding_type,
            start_after: input.start_after.as_deref().map(&encode),
            ..Default::default()
        })
    }
}

fn read_token(token: &str) -> S3Result<String> {
    let bytes = URL_SAFE
        .decode(token)
        .map_err(|_| invalid("the continuation token is not one of ours"))?;
    String::from_utf8(bytes).map_err(|_| invalid("the continuation token is not one of ours"))
}

fn encoder(encoding: Option<&EncodingType>) -> impl Fn(&str) -> String + use<> {
    let encodes = encoding.is_some_and(|encoding| encoding.as_str() == "url");
    move |text| {
        if encodes {
            utf8_percent_encode(text, KEPT).to_string().replace(' ', "+")
        } else {
            text.to_owned()
        }
    }
}

fn sorted_out(entries: Vec<Entry>, encode: &impl Fn(&str) -> String) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(encode(&prefix)),
            }),
            Entry::Object(key, object) => objects.push(Object {
                key: Some(encode(&key)),
                e_tag: Some(strong(&object.etag)),
                size: i64::try_from(object.body.len()).ok(),
                last_modified: Some(object.last_modified.into()),
                storage_class: Some(ObjectStorageClass::from(
                    object
                        .headers
                        .storage_class
                        .clone()
                        .unwrap_or_else(|| "STANDARD".into()),
                )),
                ..Default::default()
            }),
        }
    }
    (objects, prefixes)
}
