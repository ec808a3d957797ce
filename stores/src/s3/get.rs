//! GetObject: a stream that is whole or an error.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::BodyExt;
use onespace_core::reason::PauseReason;
use onespace_core::remote::RemoteObject;

use super::S3Remote;
use super::classify::{Failure, Operation, classify};
use super::object::{Seen, size};
use crate::body::{Body, BodyError};
use crate::remote::RemoteError;

impl S3Remote {
    pub(super) async fn get_object(
        &self,
        key: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Option<(RemoteObject, Body)>, RemoteError> {
        let answer = self
            .clients()
            .twice
            .get_object()
            .bucket(&self.config.bucket)
            .key(key)
            .set_range(range.map(|(first, last)| format!("bytes={first}-{last}")))
            .send()
            .await;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                let failure = Failure::of(&error);
                return match (failure.status(), failure.code()) {
                    (Some(404), None | Some("NoSuchKey" | "NotFound")) => Ok(None),
                    _ => Err(classify(Operation::Get, false, &failure)),
                };
            }
        };
        let length = size(found.content_length());
        let whole = match (range, found.content_range().and_then(ContentRange::parse)) {
            (None, _) => length,
            (Some((first, last)), Some(given)) if given.first == first && given.last <= last => given.total,
            // The range was ignored; that is right where it covers the whole.
            (Some((0, last)), None) if length <= last.saturating_add(1) => length,
            (Some(_), _) => return Err(range_ignored()),
        };
        let object = RemoteObject::from(Seen {
            etag: found.e_tag(),
            size: whole,
            last_modified: found.last_modified(),
            content_type: found.content_type(),
            content_encoding: found.content_encoding(),
            content_disposition: found.content_disposition(),
            cache_control: found.cache_control(),
            metadata: found.metadata(),
            storage_class: found.storage_class(),
            encryption: found.server_side_encryption(),
        });
        let body = Body {
            length,
            stream: download(found.body, length, self.config.timeouts.idle),
        };
        Ok(Some((object, body)))
    }
}

fn range_ignored() -> RemoteError {
    RemoteError::Paused {
        reason: PauseReason::UnexpectedAnswer,
        code: None,
        message: "the remote answered another range than was asked for; check that target.endpoint is S3"
            .into(),
        retry_after: None,
    }
}

/// `bytes FIRST-LAST/TOTAL`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: u64,
}

impl ContentRange {
    fn parse(header: &str) -> Option<Self> {
        let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            total: total.parse().ok()?,
        })
    }
}

/// The body's chunks: exactly `length` bytes, or an error at the end.
fn download(body: ByteStream, length: u64, idle: Duration) -> BoxStream<'static, Result<Bytes, BodyError>> {
    let broken = move |received: u64, cause: &str| BodyError::BrokenOff {
        received,
        length,
        cause: cause.to_owned(),
    };
    stream::unfold(Some((body.into_inner(), 0_u64)), move |reading| async move {
        let (mut body, mut received) = reading?;
        loop {
            let chunk = match tokio::time::timeout(idle, body.frame()).await {
                Err(_) => return Some((Err(BodyError::Stalled(idle)), None)),
                Ok(None) if received == length => return None,
                Ok(None) => return Some((Err(broken(received, "it ended early")), None)),
                Ok(Some(Err(_))) => return Some((Err(broken(received, "the connection broke")), None)),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            if chunk.is_empty() {
                continue;
            }
            received += chunk.len() as u64;
            if received > length {
                return Some((Err(BodyError::TooLong { length }), None));
            }
            return Some((Ok(chunk), Some((body, received))));
        }
    })
    .fuse()
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_exactly() {
        let range = ContentRange {
            first: 2,
            last: 9,
            total: 10,
        };
        assert_eq!(ContentRange::parse("bytes 2-9/10"), Some(range));
        assert_eq!(ContentRange::parse("bytes */10"), None);
        assert_eq!(ContentRange::parse("2-9/10"), None);
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error_at_its_end() {
        let stream = download(ByteStream::from_static(b"12345"), 6, Duration::from_secs(1));
        let chunks: Vec<_> = stream.collect().await;
        assert_eq!(chunks.first(), Some(&Ok(Bytes::from_static(b"12345"))));
        assert!(matches!(
            chunks.get(1),
            Some(Err(BodyError::BrokenOff {
                received: 5,
                length: 6,
                ..
            }))
        ));
    }
}
