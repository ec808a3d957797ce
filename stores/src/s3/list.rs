//! ListObjectsV2, or version 1 where the probe found that version 2 misbehaves.

use aws_sdk_s3::types::{EncodingType, Object};
use onespace_core::reason::PauseReason;
use onespace_core::remote::ListedObject;
use percent_encoding::percent_decode_str;

use super::object::{moment, size, unquoted};
use super::{Operation, S3Remote, error_of};
use crate::remote::{Page, RemoteError};

/// The two listings of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `marker`.
    One,
    /// `start-after`.
    Two,
}

/// What both versions answer.
struct Answer {
    objects: Vec<Object>,
    truncated: bool,
    encoded: bool,
}

impl S3Remote {
    pub(super) async fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, RemoteError> {
        let version = if self.can(|found| found.list_v2, true) {
            Version::Two
        } else {
            Version::One
        };
        self.list_with(version, prefix, after, limit).await
    }

    /// One page. Each is asked for by the last key of the one before, never by a token: that is the same in both
    /// versions, survives a restart, and cannot expire.
    pub(super) async fn list_with(
        &self,
        version: Version,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, RemoteError> {
        let limit = limit.clamp(1, 1000);
        let max_keys = i32::try_from(limit).unwrap_or(1000);
        let client = &self.clients().twice;
        let answer = match version {
            Version::Two => {
                let answer = client
                    .list_objects_v2()
                    .bucket(&self.config.bucket)
                    .prefix(prefix)
                    .set_start_after(after.map(str::to_owned))
                    .max_keys(max_keys)
                    .encoding_type(EncodingType::Url)
                    .send()
                    .await
                    .map_err(|error| error_of(Operation::List, false, &error))?;
                Answer {
                    truncated: answer.is_truncated().unwrap_or_default(),
                    encoded: answer.encoding_type() == Some(&EncodingType::Url),
                    objects: answer.contents.unwrap_or_default(),
                }
            }
            Version::One => {
                let answer = client
                    .list_objects()
                    .bucket(&self.config.bucket)
                    .prefix(prefix)
                    .set_marker(after.map(str::to_owned))
                    .max_keys(max_keys)
                    .encoding_type(EncodingType::Url)
                    .send()
                    .await
                    .map_err(|error| error_of(Operation::List, false, &error))?;
                Answer {
                    truncated: answer.is_truncated().unwrap_or_default(),
                    encoded: answer.encoding_type() == Some(&EncodingType::Url),
                    objects: answer.contents.unwrap_or_default(),
                }
            }
        };
        page(answer, prefix, after, limit)
    }
}

/// Reads and checks a page. A listing that is out of order, or that ends without saying so, would make objects look
/// absent: it is refused.
fn page(answer: Answer, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, RemoteError> {
    let Answer {
        objects,
        truncated,
        encoded,
    } = answer;
    let mut listed: Vec<ListedObject> = Vec::with_capacity(objects.len());
    for object in objects {
        let key = object.key().unwrap_or_default();
        let key = if encoded {
            decoded(key).ok_or_else(|| unusable("a key is not UTF-8"))?
        } else {
            key.to_owned()
        };
        let before = listed.last().map(|last| last.key.as_str()).or(after);
        if before.is_some_and(|before| before >= key.as_str()) {
            return Err(unusable("the keys are not in order"));
        }
        if !key.starts_with(prefix) {
            return Err(unusable("there are keys with another prefix"));
        }
        listed.push(ListedObject {
            etag: unquoted(object.e_tag().unwrap_or_default()),
            size: size(object.size()),
            last_modified: moment(object.last_modified()),
            key,
        });
    }
    if truncated && listed.is_empty() {
        return Err(unusable("it has no keys and does not end"));
    }
    // MinIO says of a full page that it is the last, when `start-after` is the last key below a "directory". Only a
    // page with room left is believed; the price is one empty page now and then.
    let more = truncated || listed.len() >= limit;
    listed.truncate(limit);
    Ok(Page {
        objects: listed,
        more,
    })
}

fn unusable(what: &str) -> RemoteError {
    RemoteError::Paused {
        reason: PauseReason::UnexpectedAnswer,
        code: None,
        message: format!(
            "the remote's listing cannot be used: {what}; use a server whose listings are as S3's"
        ),
        retry_after: None,
    }
}

/// A key of a listing with `encoding-type=url`: as in a form, a space may be `+`.
fn decoded(key: &str) -> Option<String> {
    let spaced = key.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(keys: &[&str], truncated: bool) -> Answer {
        Answer {
            objects: keys
                .iter()
                .map(|key| Object::builder().key(*key).build())
                .collect(),
            truncated,
            encoded: true,
        }
    }

    fn keys(page: &Page) -> Vec<&str> {
        page.objects.iter().map(|object| object.key.as_str()).collect()
    }

    #[test]
    fn encoded_keys_are_decoded_once() {
        let page = page(
            answer(&["p/%2520", "p/a+b", "p/a%2Bb", "p/%C3%A9//"], false),
            "p/",
            None,
            10,
        )
        .unwrap();
        assert_eq!(keys(&page), ["p/%20", "p/a b", "p/a+b", "p/é//"]);
    }

    #[test]
    fn a_listing_out_of_order_is_refused_rather_than_believed() {
        for (listed, after) in [
            (vec!["b", "a"], None),
            (vec!["a", "a"], None),
            (vec!["a"], Some("a")),
        ] {
            let error = page(answer(&listed, false), "", after, 10).unwrap_err();
            assert!(
                matches!(
                    error,
                    RemoteError::Paused {
                        reason: PauseReason::UnexpectedAnswer,
                        ..
                    }
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn a_page_without_keys_that_does_not_end_is_refused() {
        assert!(page(answer(&[], true), "", None, 10).is_err());
        assert_eq!(page(answer(&[], false), "", None, 10), Ok(Page::default()));
    }

    #[test]
    fn a_full_page_is_never_believed_to_be_the_last() {
        assert!(page(answer(&["a", "b"], false), "", None, 2).unwrap().more);
        assert!(!page(answer(&["a", "b"], false), "", None, 3).unwrap().more);
    }

    #[test]
    fn a_server_that_ignores_the_limit_is_cut_to_it() {
        let page = page(answer(&["a", "b", "c"], false), "", None, 2).unwrap();
        assert_eq!(keys(&page), ["a", "b"]);
        assert!(page.more);
    }
}
