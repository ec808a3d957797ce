//! New headers for an object that stays as it is: a copy onto itself.

use std::ops::RangeInclusive;

use aws_sdk_s3::types::{MetadataDirective, StorageClass};
use futures::{StreamExt, TryStreamExt, stream};
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::classify::{Failure, Operation, classify};
use super::object::{encryption, part_count, quoted, size, unquoted};
use super::put_parts::{DonePart, part_number};
use super::{S3Remote, error_of};
use crate::remote::{Condition, RemoteError, Replaced};

/// What one CopyObject can copy.
const LARGEST_COPY: u64 = 5 * 1024 * 1024 * 1024;

/// A copy source is a path: everything but unreserved characters and slashes is encoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Classes from which nothing can be copied before it is restored.
fn is_archived(class: Option<&str>) -> bool {
    matches!(class, Some("GLACIER" | "DEEP_ARCHIVE"))
}

/// Whether the failure says that this object can be read, but not copied.
fn cannot_copy(failure: &Failure) -> bool {
    matches!(
        failure.code(),
        Some(
            "InvalidObjectState" | "NotImplemented" | "InvalidRequest" | "EntityTooLarge" | "EntityTooSmall"
        )
    ) || failure.status() == Some(501)
}

impl S3Remote {
    pub(super) async fn replace_object_headers(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> Result<Replaced, RemoteError> {
        if is_archived(current.storage_class.as_deref()) {
            return Ok(Replaced::UploadAnew);
        }
        match part_count(&current.etag) {
            Some(parts) => self.copy_parts(key, current, headers, parts).await,
            None if current.size > LARGEST_COPY => Ok(Replaced::UploadAnew),
            None => self.copy_whole(key, current, headers).await,
        }
    }

    fn copy_source(&self, key: &str) -> String {
        utf8_percent_encode(&format!("{}/{key}", self.config.bucket), PATH).to_string()
    }

    async fn copy_whole(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> Result<Replaced, RemoteError> {
        let (algorithm, kms_key) = encryption(&self.config.encryption);
        let request = self
            .clients()
            .once
            .copy_object()
            .bucket(&self.config.bucket)
            .key(key)
            .copy_source(self.copy_source(key))
            .copy_source_if_match(quoted(&current.etag))
            .metadata_directive(MetadataDirective::Replace)
            .set_content_type(headers.content_type.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_metadata(Some(headers.metadata.clone().into_iter().collect()))
            .set_storage_class(current.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(algorithm)
            .set_ssekms_key_id(kms_key)
            .send();
        let answer = match self.worked(request).await? {
            Ok(answer) => answer,
            Err(error) => {
                let failure = Failure::of(&error);
                if cannot_copy(&failure) {
                    return Ok(Replaced::UploadAnew);
                }
                return Err(classify(Operation::Copy, true, &failure));
            }
        };
        let etag = answer
            .copy_object_result()
            .and_then(|result| result.e_tag())
            .map(unquoted);
        match etag {
            Some(etag) if !etag.is_empty() => Ok(Replaced::Done(etag)),
            _ => self.etag_now(key).await,
        }
    }

    async fn etag_now(&self, key: &str) -> Result<Replaced, RemoteError> {
        let found = self.head_object(key).await?.ok_or(RemoteError::NotFound)?;
        Ok(Replaced::Done(found.etag))
    }

    /// Copies part by part along the object's own boundaries, so that the ETag stays as it is.
    async fn copy_parts(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
        parts: usize,
    ) -> Result<Replaced, RemoteError> {
        let Some(ranges) = self.boundaries(key, current, parts).await? else {
            return Ok(Replaced::UploadAnew);
        };
        let upload = self
            .open_upload(key, headers, current.storage_class.as_deref())
            .await?;
        match self
            .copy_ranges_and_complete(key, current, headers, ranges, upload.id())
            .await
        {
            Ok(Replaced::Done(etag)) => {
                upload.completed().await;
                Ok(Replaced::Done(etag))
            }
            other => {
                upload.abort().await;
                other
            }
        }
    }

    async fn copy_ranges_and_complete(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
        ranges: Vec<RangeInclusive<u64>>,
        id: &str,
    ) -> Result<Replaced, RemoteError> {
        let copies = ranges
            .into_iter()
            .enumerate()
            .map(|(index, range)| async move { self.copy_part(key, current, id, index, range).await });
        let copied: Vec<Option<DonePart>> = stream::iter(copies)
            .buffered(self.config.part_concurrency.max(1))
            .try_collect()
            .await?;
        let Some(copied) = copied.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(Replaced::UploadAnew);
        };
        // Someone may have written while the parts were copied.
        let condition = if self.can(|found| found.put_if_match, false) {
            Condition::Matches(current.etag.clone())
        } else {
            Condition::None
        };
        let completed = self.complete(key, id, headers, &condition, &copied, &current.etag);
        match completed.await {
            Ok(etag) => Ok(Replaced::Done(etag)),
            // Stored, under another ETag than expected: the caller compares.
            Err(RemoteError::Altered { stored, .. }) => Ok(Replaced::Done(stored)),
            Err(error) => Err(error),
        }
    }

    /// `None` = this object cannot be copied.
    async fn copy_part(
        &self,
        key: &str,
        current: &RemoteObject,
        id: &str,
        index: usize,
        range: RangeInclusive<u64>,
    ) -> Result<Option<DonePart>, RemoteError> {
        let request = self
            .clients()
            .once
            .upload_part_copy()
            .bucket(&self.config.bucket)
            .key(key)
            .upload_id(id)
            .part_number(part_number(index))
            .copy_source(self.copy_source(key))
            .copy_source_if_match(quoted(&current.etag))
            .copy_source_range(format!("bytes={}-{}", range.start(), range.end()))
            .send();
        match self.worked(request).await? {
            Ok(answer) => {
                let etag = answer
                    .copy_part_result()
                    .and_then(|result| result.e_tag())
                    .map(unquoted);
                Ok(Some(DonePart {
                    etag: etag.unwrap_or_default(),
                }))
            }
            Err(error) => {
                let failure = Failure::of(&error);
                if cannot_copy(&failure) {
                    Ok(None)
                } else {
                    Err(classify(Operation::Copy, true, &failure))
                }
            }
        }
    }

    /// Where the parts of an object begin and end, asked part by part. Servers that do not know `partNumber` answer
    /// with the whole object: `None`, unless the lengths add up.
    async fn boundaries(
        &self,
        key: &str,
        current: &RemoteObject,
        parts: usize,
    ) -> Result<Option<Vec<RangeInclusive<u64>>>, RemoteError> {
        if parts == 1 {
            return Ok(in_a_row(&[current.size], current.size));
        }
        let first = self.part_length(key, current, 0).await?;
        if first.is_none_or(|length| length >= current.size) {
            return Ok(None);
        }
        let asked = (0..parts).map(|index| async move { self.part_length(key, current, index).await });
        let lengths: Vec<Option<u64>> = stream::iter(asked)
            .buffered(self.config.part_concurrency.max(1))
            .try_collect()
            .await?;
        Ok(lengths
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .and_then(|lengths| in_a_row(&lengths, current.size)))
    }

    async fn part_length(
        &self,
        key: &str,
        current: &RemoteObject,
        index: usize,
    ) -> Result<Option<u64>, RemoteError> {
        let answer = self
            .clients()
            .twice
            .head_object()
            .bucket(&self.config.bucket)
            .key(key)
            .part_number(part_number(index))
            .if_match(quoted(&current.etag))
            .send()
            .await;
        match answer {
            Ok(found) => Ok(Some(size(found.content_length()))),
            Err(error) => match Failure::of(&error).status() {
                // The object has no such part, or the remote does not know parts.
                Some(400 | 416 | 501) => Ok(None),
                _ => Err(error_of(Operation::Head, true, &error)),
            },
        }
    }
}

/// The ranges of parts with these lengths, if they make up exactly `size` bytes. An empty part cannot be copied.
fn in_a_row(lengths: &[u64], size: u64) -> Option<Vec<RangeInclusive<u64>>> {
    let mut start = 0_u64;
    let mut ranges = Vec::with_capacity(lengths.len());
    for length in lengths {
        let end = start.checked_add(*length)?;
        if *length == 0 {
            return None;
        }
        ranges.push(start..=end - 1);
        start = end;
    }
    (start == size).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_do_not_add_up_to_the_object_are_no_boundaries() {
        assert_eq!(in_a_row(&[5, 5, 1], 11), Some(vec![0..=4, 5..=9, 10..=10]));
        assert_eq!(in_a_row(&[11, 11, 11], 11), None);
        assert_eq!(in_a_row(&[5, 0, 6], 11), None);
        assert_eq!(in_a_row(&[u64::MAX, 2], 1), None);
    }
}
