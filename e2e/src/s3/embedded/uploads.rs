//! Multipart uploads.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::operations::{
    Announced, Operations, bucket, bucket_mut, check_form, invalid, may_write, receive, strong,
    without_aws_chunked,
};
use super::store::{Part, StoredHeaders, StoredObject, Upload};

/// Least size of a part but the last.
const LEAST_PART: usize = 5 * 1024 * 1024;

impl Operations {
    pub(super) fn begin(&self, input: CreateMultipartUploadInput) -> S3Result<CreateMultipartUploadOutput> {
        let headers = StoredHeaders {
            content_type: input.content_type,
            content_encoding: without_aws_chunked(input.content_encoding.as_deref()),
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            metadata: input.metadata.into_iter().flatten().collect(),
            storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
            encryption: input
                .server_side_encryption
                .as_ref()
                .map(|used| used.as_str().to_owned()),
        };
        check_form(&input.key, &headers)?;
        let mut contents = self.store.lock();
        bucket(&contents, &input.bucket)?;
        contents.uploads_made += 1;
        let id = format!("upload-{}", contents.uploads_made);
        contents.uploads.insert(
            id.clone(),
            Upload {
                bucket: input.bucket.clone(),
                key: input.key.clone(),
                headers,
                parts: Default::default(),
            },
        );
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            server_side_encryption: input.server_side_encryption,
            ..Default::default()
        })
    }

    pub(super) async fn receive_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<UploadPartOutput> {
        let S3Request {
            input,
            trailing_headers,
            extensions,
            ..
        } = request;
        self.check_upload(&input.upload_id, &input.bucket, &input.key)?;
        let announced = Announced {
            length: input.content_length.filter(|_| trailing_headers.is_none()),
            md5: input.content_md5,
            crc32: input.checksum_crc32,
            sha256: input.checksum_sha256,
        };
        let received = receive(input.body, announced, trailing_headers, &extensions).await?;
        let etag = hex::encode(received.md5);
        self.keep_part(&input.upload_id, input.part_number, received.body, received.md5)?;
        Ok(UploadPartOutput {
            e_tag: Some(strong(&etag)),
            ..Default::default()
        })
    }

    fn check_upload(&self, id: &str, bucket: &str, key: &str) -> S3Result<()> {
        let contents = self.store.lock();
        let upload = contents.uploads.get(id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        if upload.bucket != bucket || upload.key != key {
            return Err(s3_error!(NoSuchUpload));
        }
        Ok(())
    }

    pub(super) fn keep_part(&self, id: &str, number: i32, body: Bytes, md5: [u8; 16]) -> S3Result<()> {
        if !(1..=10_000).contains(&number) {
            return Err(invalid("parts are numbered from 1 to 10000"));
        }
        let mut contents = self.store.lock();
        let upload = contents
            .uploads
            .get_mut(id)
            .ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(number, Part { body, md5 });
        Ok(())
    }

    pub(super) fn complete(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        self.check_upload(&input.upload_id, &input.bucket, &input.key)?;
        let mut contents = self.store.lock();
        let upload = contents
            .uploads
            .get(&input.upload_id)
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchUpload))?;
        let named = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        let chosen = chosen(&upload, &named)?;
        let mut body = BytesMut::with_capacity(chosen.iter().map(|part| part.body.len()).sum());
        let mut digests = Md5::new();
        for part in &chosen {
            body.extend_from_slice(&part.body);
            digests.update(part.md5);
        }
        let etag = format!("{}-{}", hex::encode(digests.finalize()), chosen.len());
        let objects = bucket_mut(&mut contents, &input.bucket)?;
        let there = objects.get(&input.key).map(Arc::as_ref);
        may_write(there, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        objects.insert(
            input.key.clone(),
            Arc::new(StoredObject {
                body: body.freeze(),
                etag: etag.clone(),
                last_modified: SystemTime::now(),
                headers: upload.headers.clone(),
                parts: chosen.iter().map(|part| part.body.len() as u64).collect(),
                checksummed: false,
            }),
        );
        contents.uploads.remove(&input.upload_id);
        Ok(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(strong(&etag)),
            server_side_encryption: upload.headers.encryption.map(ServerSideEncryption::from),
            ..Default::default()
        })
    }
}

/// The parts that a completion names: there, unaltered, in order and large enough.
fn chosen<'a>(upload: &'a Upload, named: &[CompletedPart]) -> S3Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "no parts"));
    }
    let mut chosen = Vec::with_capacity(named.len());
    let mut before = 0;
    for (index, name) in named.iter().enumerate() {
        let number = name.part_number.unwrap_or_default();
        if number <= before {
            return Err(s3_error!(InvalidPartOrder));
        }
        before = number;
        let part = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
        if name
            .e_tag
            .as_ref()
            .is_none_or(|etag| etag.value() != hex::encode(part.md5))
        {
            return Err(s3_error!(InvalidPart));
        }
        if index + 1 < named.len() && part.body.len() < LEAST_PART {
            return Err(s3_error!(EntityTooSmall));
        }
        chosen.push(part);
    }
    Ok(chosen)
}
