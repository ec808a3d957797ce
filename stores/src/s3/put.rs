//! PutObject: one request, one attempt.

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::types::StorageClass;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onespace_core::remote::RemoteHeaders;

use super::S3Remote;
use super::classify::{Failure, Operation, Transport, classify};
use super::object::{encryption, hides_md5, is_md5, part_count, quoted, unquoted};
use super::upload::{Limits, Standstill, upload};
use crate::body::{Body, BodyError};
use crate::remote::{Condition, RemoteError, Stored};

/// The two headers that carry a condition: `If-None-Match` and `If-Match`.
pub(super) fn conditions(condition: &Condition) -> (Option<String>, Option<String>) {
    match condition {
        Condition::None => (None, None),
        Condition::Absent => (Some("*".into()), None),
        Condition::Matches(etag) => (None, Some(quoted(etag))),
    }
}

/// What a standstill means.
pub(super) fn stood_still(operation: Operation, standstill: Standstill) -> RemoteError {
    match standstill {
        Standstill::Source(idle) => RemoteError::Body(BodyError::Stalled(idle)),
        Standstill::Remote => classify(operation, false, &Failure::Transport(Transport::Timeout)),
    }
}

/// Whether the ETag that came back says that other bytes are stored than were sent. `opaque` = it need not be an md5.
/// An ETag of another form (some servers have their own) says nothing.
pub(super) fn compare(stored: &str, sent: &str, opaque: bool) -> Result<(), RemoteError> {
    let same_form =
        is_md5(stored) == is_md5(sent) && part_count(stored).is_some() == part_count(sent).is_some();
    let comparable = !opaque && same_form && (is_md5(stored) || part_count(stored).is_some());
    if comparable && !stored.eq_ignore_ascii_case(sent) {
        return Err(RemoteError::Altered {
            stored: stored.to_owned(),
            sent: sent.to_owned(),
        });
    }
    Ok(())
}

impl S3Remote {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            idle: self.config.timeouts.idle,
            answer: self.config.timeouts.answer,
        }
    }

    /// Waits for the answer to a request without a streamed body.
    pub(super) async fn answered<T>(&self, request: impl Future<Output = T>) -> Result<T, RemoteError> {
        let timeouts = &self.config.timeouts;
        // Room for the second attempt of those requests that have one.
        within(
            2 * (timeouts.connect + timeouts.answer) + Duration::from_secs(5),
            request,
        )
        .await
    }

    /// Waits for work that the remote does itself.
    pub(super) async fn worked<T>(&self, request: impl Future<Output = T>) -> Result<T, RemoteError> {
        within(
            self.config.timeouts.connect + self.config.timeouts.remote_work,
            request,
        )
        .await
    }

    pub(super) async fn put_object(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        body: Body,
        md5: Option<[u8; 16]>,
    ) -> Result<Stored, RemoteError> {
        let length = body.length;
        let (stream, sent) = upload(body, md5, self.config.timeouts.idle).await?;
        let (if_none_match, if_match) = conditions(condition);
        let (algorithm, kms_key) = encryption(&self.config.encryption);
        // With the SDK's trailers the body has a checksum of its own, and goes out encoded.
        let content_md5 = md5
            .filter(|_| !self.config.request_checksums)
            .map(|md5| STANDARD.encode(md5));
        let request = self
            .clients()
            .once
            .put_object()
            .bucket(&self.config.bucket)
            .key(key)
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .set_content_md5(content_md5)
            .set_content_type(headers.content_type.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_metadata(Some(headers.metadata.clone().into_iter().collect()))
            .set_storage_class(self.config.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(algorithm)
            .set_ssekms_key_id(kms_key)
            .set_if_none_match(if_none_match)
            .set_if_match(if_match)
            .body(stream)
            .send();
        let outcome = sent
            .watch(self.limits(), request)
            .await
            .map_err(|standstill| stood_still(Operation::Put, standstill))?;
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => {
                // What broke the body off broke the request off, too.
                if let Some(Err(cause)) = sent.outcome() {
                    return Err(cause.into());
                }
                let failure = self.why_broken(key, Failure::of(&error)).await;
                return Err(classify(Operation::Put, *condition != Condition::None, &failure));
            }
        };
        let sent_etag = match sent.outcome() {
            Some(Ok(md5)) => hex::encode(md5),
            Some(Err(cause)) => return Err(cause.into()),
            None if length == 0 => EMPTY_MD5.to_owned(),
            // Acknowledged before it was sent: whatever is stored is not this body.
            None => {
                return Err(RemoteError::Altered {
                    stored: unquoted(answer.e_tag().unwrap_or_default()),
                    sent: "not wholly".into(),
                });
            }
        };
        let opaque = hides_md5(answer.server_side_encryption());
        let mut etag = unquoted(answer.e_tag().unwrap_or_default());
        if etag.is_empty() {
            etag = self.head_object(key).await?.ok_or(RemoteError::NotFound)?.etag;
        }
        compare(&etag, &sent_etag, opaque)?;
        Ok(Stored { etag, sent_etag })
    }
}

/// md5 of no bytes.
const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

async fn within<T>(limit: Duration, request: impl Future<Output = T>) -> Result<T, RemoteError> {
    tokio::time::timeout(limit, request)
        .await
        .map_err(|_| classify(Operation::Put, false, &Failure::Transport(Transport::Timeout)))
}
