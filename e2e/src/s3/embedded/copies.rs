//! Copies within the server.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::operations::{Operations, bucket_mut, check_form, invalid, object, strong};
use super::store::{StoredHeaders, StoredObject};

impl Operations {
    fn source(
        &self,
        source: &CopySource,
        if_match: Option<&ETagCondition>,
    ) -> S3Result<(String, String, Arc<StoredObject>)> {
        let CopySource::Bucket { bucket, key, .. } = source else {
            return Err(s3_error!(NotImplemented, "only bucket and key"));
        };
        let found = object(&self.store.lock(), bucket, key)?;
        if found.headers.is_archived() {
            return Err(s3_error!(InvalidObjectState));
        }
        let wanted = if_match.and_then(ETagCondition::as_etag);
        if wanted.is_some_and(|etag| etag.value() != found.etag) {
            return Err(s3_error!(PreconditionFailed));
        }
        Ok((bucket.to_string(), key.to_string(), found))
    }

    pub(super) fn copy_whole(&self, input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
        let (bucket, key, found) = self.source(&input.copy_source, input.copy_source_if_match.as_ref())?;
        let replaces = input
            .metadata_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == "REPLACE");
        if !replaces && bucket == input.bucket && key == input.key {
            return Err(s3_error!(
                InvalidRequest,
                "a copy onto itself must change something"
            ));
        }
        let storage_class = input.storage_class.map(|class| class.as_str().to_owned());
        let encryption = input
            .server_side_encryption
            .as_ref()
            .map(|used| used.as_str().to_owned());
        let headers = if replaces {
            StoredHeaders {
                content_type: input.content_type,
                content_encoding: input.content_encoding,
                content_disposition: input.content_disposition,
                cache_control: input.cache_control,
                metadata: input.metadata.into_iter().flatten().collect(),
                storage_class,
                encryption,
            }
        } else {
            StoredHeaders {
                storage_class,
                encryption,
                ..found.headers.clone()
            }
        };
        check_form(&input.key, &headers)?;
        // A copy is one body: an object of several parts gets a plain ETag by it.
        let etag = hex::encode(Md5::digest(&found.body));
        let last_modified = SystemTime::now();
        let mut contents = self.store.lock();
        bucket_mut(&mut contents, &input.bucket)?.insert(
            input.key,
            Arc::new(StoredObject {
                body: found.body.clone(),
                etag: etag.clone(),
                last_modified,
                headers,
                parts: Vec::new(),
                checksummed: false,
            }),
        );
        Ok(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(strong(&etag)),
                last_modified: Some(last_modified.into()),
                ..Default::default()
            }),
            server_side_encryption: input.server_side_encryption,
            ..Default::default()
        })
    }

    pub(super) fn copy_part(&self, input: &UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
        let (_, _, found) = self.source(&input.copy_source, input.copy_source_if_match.as_ref())?;
        let body = match &input.copy_source_range {
            None => found.body.clone(),
            Some(range) => sliced(&found.body, range)?,
        };
        let md5: [u8; 16] = Md5::digest(&body).into();
        self.keep_part(&input.upload_id, input.part_number, body, md5)?;
        Ok(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(strong(&hex::encode(md5))),
                last_modified: Some(SystemTime::now().into()),
                ..Default::default()
            }),
            ..Default::default()
        })
    }
}

/// `bytes=FIRST-LAST`, both within the body.
fn sliced(body: &Bytes, range: &str) -> S3Result<Bytes> {
    let wrong = || invalid("x-amz-copy-source-range is bytes=FIRST-LAST within the source");
    let (first, last) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .ok_or_else(wrong)?;
    let first: usize = first.parse().map_err(|_| wrong())?;
    let last: usize = last.parse().map_err(|_| wrong())?;
    if first > last || last >= body.len() {
        return Err(wrong());
    }
    Ok(body.slice(first..=last))
}
