//! A multipart upload: create, parts (a bounded number at a time), complete, or abort.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, StorageClass};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use onespace_core::mapping::Encryption;
use onespace_core::mark::Mark;
use onespace_core::reason::PauseReason;
use onespace_core::remote::RemoteHeaders;

use super::classify::{Failure, Operation, classify};
use super::object::{encryption, hides_md5, joined_etag, unquoted};
use super::put::{compare, conditions, stood_still};
use super::upload::upload;
use super::{S3Remote, error_of};
use crate::body::BodyError;
use crate::remote::{Condition, PartSource, PartSpec, RemoteError, Stored, UploadLog};
use crate::source::SourceError;

/// How often a part, or the completion, is tried again.
const RETRIES: u32 = 3;
/// Wait before the first retry; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait before a retry, whatever the remote asks for: beyond it the mapping backs off instead.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A part that the remote has.
#[derive(Clone, Debug)]
pub(super) struct DonePart {
    /// ETag as the remote answered it.
    pub etag: String,
}

/// An upload that is under way. Dropping it unfinished (the caller was cancelled) aborts it in the background.
pub(super) struct OpenUpload {
    remote: UploadTarget,
    armed: bool,
}

#[derive(Clone)]
struct UploadTarget {
    client: aws_sdk_s3::Client,
    bucket: String,
    key: String,
    id: String,
    log: Option<Arc<dyn UploadLog>>,
}

impl UploadTarget {
    async fn try_abort(&self) -> Result<(), RemoteError> {
        let request = self.client.abort_multipart_upload();
        let aborted = request
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .send()
            .await;
        match aborted {
            Ok(_) => Ok(()),
            Err(error) if Failure::of(&error).status() == Some(404) => Ok(()),
            Err(error) => Err(error_of(Operation::Multipart, false, &error)),
        }
    }

    /// What cannot be aborted now stays in the log.
    async fn abort(&self) {
        match self.try_abort().await {
            Ok(()) => self.ended().await,
            Err(error) => tracing::warn!("an upload could not be aborted, it is tried later: {error}"),
        }
    }

    async fn ended(&self) {
        if let Some(log) = &self.log {
            log.ended(&self.key, &self.id).await;
        }
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if self.armed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let remote = self.remote.clone();
            runtime.spawn(async move { remote.abort().await });
        }
    }
}

impl OpenUpload {
    pub fn id(&self) -> &str {
        &self.remote.id
    }

    /// The remote has the object: nothing is left to abort.
    pub async fn completed(mut self) {
        self.armed = false;
        self.remote.ended().await;
    }

    /// Aborts now.
    pub async fn abort(mut self) {
        self.armed = false;
        self.remote.abort().await;
    }
}

/// Whether the same request may succeed in a moment.
fn passes(error: &RemoteError) -> bool {
    match error {
        RemoteError::Body(_)
        | RemoteError::Altered { .. }
        | RemoteError::Source(SourceError::Failed { .. }) => true,
        RemoteError::Paused { reason, .. } => matches!(
            reason,
            PauseReason::Unreachable
                | PauseReason::Timeout
                | PauseReason::ServerError
                | PauseReason::SlowDown
        ),
        _ => false,
    }
}

/// The wait before retry number `retry`, counted from 0.
fn wait(retry: u32, error: &RemoteError) -> Duration {
    let asked = match error {
        RemoteError::Paused {
            retry_after: Some(asked),
            ..
        } => *asked,
        _ => Duration::ZERO,
    };
    (FIRST_WAIT * 2_u32.saturating_pow(retry))
        .max(asked)
        .min(LONGEST_WAIT)
}

impl S3Remote {
    pub(super) async fn put_object_parts<P: PartSource>(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[PartSpec],
        source: &P,
    ) -> Result<Stored, RemoteError> {
        let upload = self
            .open_upload(key, headers, self.config.storage_class.as_deref())
            .await?;
        match self
            .fill_and_complete(key, headers, condition, parts, source, upload.id())
            .await
        {
            Ok(stored) => {
                upload.completed().await;
                Ok(stored)
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    async fn fill_and_complete<P: PartSource>(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[PartSpec],
        source: &P,
        id: &str,
    ) -> Result<Stored, RemoteError> {
        let uploads = parts
            .iter()
            .cloned()
            .enumerate()
            .map(|(index, spec)| async move { self.put_part(key, id, index, &spec, source).await });
        let done: Vec<(DonePart, [u8; 16])> = stream::iter(uploads)
            .buffered(self.config.part_concurrency.max(1))
            .try_collect()
            .await?;
        let (done, md5s): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        let sent_etag = joined_etag(&md5s);
        let etag = self
            .complete(key, id, headers, condition, &done, &sent_etag)
            .await?;
        Ok(Stored { etag, sent_etag })
    }

    /// Starts an upload with these headers.
    pub(super) async fn open_upload(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        storage_class: Option<&str>,
    ) -> Result<OpenUpload, RemoteError> {
        let (algorithm, kms_key) = encryption(&self.config.encryption);
        let request = self
            .clients()
            .once
            .create_multipart_upload()
            .bucket(&self.config.bucket)
            .key(key)
            .set_content_type(headers.content_type.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_metadata(Some(headers.metadata.clone().into_iter().collect()))
            .set_storage_class(storage_class.map(StorageClass::from))
            .set_server_side_encryption(algorithm)
            .set_ssekms_key_id(kms_key)
            .send();
        let created = self
            .answered(request)
            .await?
            .map_err(|error| error_of(Operation::Put, false, &error))?;
        let id = created.upload_id().unwrap_or_default();
        if id.is_empty() {
            return Err(RemoteError::Paused {
                reason: PauseReason::UnexpectedAnswer,
                code: None,
                message: "the remote started an upload without an id; check that target.endpoint is S3"
                    .into(),
                retry_after: None,
            });
        }
        let upload = OpenUpload {
            remote: self.upload_target(key, id),
            armed: true,
        };
        if let Some(log) = &self.uploads
            && let Err(error) = log.begun(key, id).await
        {
            upload.abort().await;
            return Err(error);
        }
        Ok(upload)
    }

    fn upload_target(&self, key: &str, id: &str) -> UploadTarget {
        UploadTarget {
            client: self.clients().twice.clone(),
            bucket: self.config.bucket.clone(),
            key: key.to_owned(),
            id: id.to_owned(),
            log: self.uploads.clone(),
        }
    }

    pub(super) async fn abort_old_upload(&self, key: &str, id: &str) -> Result<(), RemoteError> {
        let upload = self.upload_target(key, id);
        upload.try_abort().await?;
        upload.ended().await;
        Ok(())
    }

    /// One part, opened anew for each try.
    async fn put_part<P: PartSource>(
        &self,
        key: &str,
        id: &str,
        index: usize,
        spec: &PartSpec,
        source: &P,
    ) -> Result<(DonePart, [u8; 16]), RemoteError> {
        let mut retry = 0;
        loop {
            match self.try_part(key, id, index, spec, source).await {
                Err(error) if retry < RETRIES && passes(&error) => {
                    tokio::time::sleep(wait(retry, &error)).await;
                    retry += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_part<P: PartSource>(
        &self,
        key: &str,
        id: &str,
        index: usize,
        spec: &PartSpec,
        source: &P,
    ) -> Result<(DonePart, [u8; 16]), RemoteError> {
        let body = source.open(index).await?;
        if body.length != spec.length {
            return Err(BodyError::BrokenOff {
                received: body.length,
                length: spec.length,
                cause: "the part has another length than planned".into(),
            }
            .into());
        }
        let (stream, sent) = upload(body, spec.md5, self.config.timeouts.idle).await?;
        let content_md5 = spec
            .md5
            .filter(|_| !self.config.request_checksums)
            .map(|md5| STANDARD.encode(md5));
        let request = self
            .clients()
            .once
            .upload_part()
            .bucket(&self.config.bucket)
            .key(key)
            .upload_id(id)
            .part_number(part_number(index))
            .content_length(i64::try_from(spec.length).unwrap_or(i64::MAX))
            .set_content_md5(content_md5)
            .body(stream)
            .send();
        let outcome = sent
            .watch(self.limits(), request)
            .await
            .map_err(|standstill| stood_still(Operation::Multipart, standstill))?;
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(Err(cause)) = sent.outcome() {
                    return Err(cause.into());
                }
                let failure = self.why_broken(key, Failure::of(&error)).await;
                return Err(classify(Operation::Multipart, false, &failure));
            }
        };
        let md5 = match sent.outcome() {
            Some(Ok(md5)) => md5,
            Some(Err(cause)) => return Err(cause.into()),
            None if spec.length == 0 => {
                use md5::{Digest, Md5};
                Md5::digest([]).into()
            }
            None => {
                return Err(RemoteError::Altered {
                    stored: unquoted(answer.e_tag().unwrap_or_default()),
                    sent: "not wholly".into(),
                });
            }
        };
        let etag = unquoted(answer.e_tag().unwrap_or_default());
        compare(
            &etag,
            &hex::encode(md5),
            hides_md5(answer.server_side_encryption()),
        )?;
        Ok((DonePart { etag }, md5))
    }

    /// Joins the parts. An answer that was lost is looked up: the upload may be complete. What lay there before may have
    /// the same bytes, and so the same ETag; its mark tells it from the upload with these headers.
    pub(super) async fn complete(
        &self,
        key: &str,
        id: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[DonePart],
        expected: &str,
    ) -> Result<String, RemoteError> {
        let mut retry = 0;
        loop {
            let error = match self.try_complete(key, id, condition, parts, expected).await {
                Ok(etag) => return Ok(etag),
                Err(error) => error,
            };
            // After a lost answer the upload is unknown, because it is complete.
            let ambiguous = passes(&error) || (retry > 0 && error == RemoteError::NotFound);
            if !ambiguous || matches!(error, RemoteError::Altered { .. }) {
                return Err(error);
            }
            if let Ok(Some(found)) = self.head_object(key).await
                && found.etag == expected
                && Mark::read(&found.headers.metadata) == Mark::read(&headers.metadata)
            {
                return Ok(found.etag);
            }
            if retry == RETRIES {
                return Err(error);
            }
            tokio::time::sleep(wait(retry, &error)).await;
            retry += 1;
        }
    }

    async fn try_complete(
        &self,
        key: &str,
        id: &str,
        condition: &Condition,
        parts: &[DonePart],
        expected: &str,
    ) -> Result<String, RemoteError> {
        let (if_none_match, if_match) = conditions(condition);
        let listed = parts.iter().enumerate().map(|(index, part)| {
            CompletedPart::builder()
                .part_number(part_number(index))
                .e_tag(&part.etag)
                .build()
        });
        let request = self
            .clients()
            .once
            .complete_multipart_upload()
            .bucket(&self.config.bucket)
            .key(key)
            .upload_id(id)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(listed.collect()))
                    .build(),
            )
            .set_if_none_match(if_none_match)
            .set_if_match(if_match)
            .send();
        let answer = self.worked(request).await?.map_err(|error| {
            let failure = Failure::of(&error);
            // The condition, not the upload, is what a conditional completion does not find.
            match failure.code() {
                Some("NoSuchKey") if *condition != Condition::None => RemoteError::ConditionFailed,
                _ => classify(Operation::Multipart, *condition != Condition::None, &failure),
            }
        })?;
        let opaque = hides_md5(answer.server_side_encryption())
            || matches!(self.config.encryption, Encryption::KMS { .. });
        let mut etag = unquoted(answer.e_tag().unwrap_or_default());
        if etag.is_empty() {
            etag = self.head_object(key).await?.ok_or(RemoteError::NotFound)?.etag;
        }
        compare(&etag, expected, opaque)?;
        Ok(etag)
    }
}

/// Parts count from 1 at the remote.
pub(super) fn part_number(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_between_tries_doubles_and_heeds_the_remote_within_reason() {
        let broken = RemoteError::Body(BodyError::TooLong { length: 1 });
        assert_eq!(wait(0, &broken), Duration::from_millis(200));
        assert_eq!(wait(2, &broken), Duration::from_millis(800));
        let slow = |seconds| RemoteError::Paused {
            reason: PauseReason::SlowDown,
            code: None,
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(wait(0, &slow(2)), Duration::from_secs(2));
        assert_eq!(wait(0, &slow(3600)), LONGEST_WAIT);
    }
}
