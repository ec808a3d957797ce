//! The operations on buckets and single objects.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Extensions, StatusCode};
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use super::faults::Line;
use super::store::{Bucket, Contents, Store, StoredHeaders, StoredObject};

/// The most bytes of user metadata that AWS takes.
const METADATA_LIMIT: usize = 2048;

/// s3s's trait over the store; the larger operations have files of their own.
#[derive(Clone, Debug)]
pub(super) struct Operations {
    pub store: Store,
}

/// The bucket, if it is there.
pub(super) fn bucket<'a>(contents: &'a Contents, name: &str) -> S3Result<&'a Bucket> {
    contents.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket))
}

/// The bucket, if it is there, to write to.
pub(super) fn bucket_mut<'a>(contents: &'a mut Contents, name: &str) -> S3Result<&'a mut Bucket> {
    contents
        .buckets
        .get_mut(name)
        .ok_or_else(|| s3_error!(NoSuchBucket))
}

/// The object, if it is there.
pub(super) fn object(contents: &Contents, bucket_name: &str, key: &str) -> S3Result<Arc<StoredObject>> {
    bucket(contents, bucket_name)?
        .get(key)
        .cloned()
        .ok_or_else(|| s3_error!(NoSuchKey))
}

/// An ETag as s3s sends it.
pub(super) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

fn names(condition: &ETagCondition, etag: &str) -> bool {
    condition.as_etag().is_none_or(|wanted| wanted.value() == etag)
}

/// `If-None-Match` and `If-Match` of a write.
pub(super) fn may_write(
    there: Option<&StoredObject>,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    if let Some(condition) = if_match {
        let object = there.ok_or_else(|| s3_error!(NoSuchKey))?;
        if !names(condition, &object.etag) {
            return Err(s3_error!(PreconditionFailed));
        }
    }
    match (if_none_match, there) {
        (Some(condition), Some(object)) if names(condition, &object.etag) => {
            Err(s3_error!(PreconditionFailed))
        }
        _ => Ok(()),
    }
}

/// The same of a read.
fn may_read(
    object: &StoredObject,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    if if_match.is_some_and(|condition| !names(condition, &object.etag)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(|condition| names(condition, &object.etag)) {
        let mut error = s3_error!(NotModified);
        error.set_status_code(StatusCode::NOT_MODIFIED);
        return Err(error);
    }
    Ok(())
}

/// What real S3 refuses of a key and its headers.
pub(super) fn check_form(key: &str, headers: &StoredHeaders) -> S3Result<()> {
    if key.len() > 1024 {
        return Err(s3_error!(KeyTooLongError));
    }
    let size: usize = headers
        .metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if size > METADATA_LIMIT {
        return Err(s3_error!(MetadataTooLarge));
    }
    Ok(())
}

/// `aws-chunked` is how a body travels, not what it is.
pub(super) fn without_aws_chunked(encoding: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = encoding?
        .split(',')
        .map(str::trim)
        .filter(|part| *part != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The body of an upload, whole and as announced.
pub(super) struct Received {
    pub body: Bytes,
    pub md5: [u8; 16],
    pub checksummed: bool,
}

/// What an upload says of its body.
pub(super) struct Announced {
    pub length: Option<i64>,
    pub md5: Option<String>,
    pub crc32: Option<String>,
    pub sha256: Option<String>,
}

/// Reads and checks a body.
pub(super) async fn receive(
    body: Option<StreamingBlob>,
    announced: Announced,
    trailers: Option<TrailingHeaders>,
    extensions: &Extensions,
) -> S3Result<Received> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
        }
    }
    let truncated = extensions
        .get::<Arc<Line>>()
        .is_some_and(|line| line.truncates.load(Ordering::SeqCst));
    if !truncated
        && announced
            .length
            .is_some_and(|length| u64::try_from(length) != Ok(bytes.len() as u64))
    {
        return Err(s3_error!(IncompleteBody));
    }
    let body = bytes.freeze();
    let md5: [u8; 16] = Md5::digest(&body).into();
    if truncated {
        return Ok(Received {
            body,
            md5,
            checksummed: false,
        });
    }
    if announced.md5.is_some_and(|wanted| wanted != STANDARD.encode(md5)) {
        return Err(s3_error!(BadDigest));
    }
    let trailing = |name: &str| {
        let read = trailers
            .as_ref()?
            .read(|headers| headers.get(name)?.to_str().ok().map(str::to_owned));
        read.flatten()
    };
    let mut hasher = ChecksumHasher {
        crc32: Some(s3s::crypto::Crc32::new()),
        sha256: Some(s3s::crypto::Sha256::new()),
        ..ChecksumHasher::default()
    };
    hasher.update(&body);
    let sums = hasher.finalize();
    let pairs = [
        (
            announced.crc32.or_else(|| trailing("x-amz-checksum-crc32")),
            sums.checksum_crc32,
        ),
        (
            announced.sha256.or_else(|| trailing("x-amz-checksum-sha256")),
            sums.checksum_sha256,
        ),
    ];
    let mut checksummed = false;
    for (wanted, computed) in pairs {
        if wanted.is_some() && wanted != computed {
            return Err(s3_error!(BadDigest, "the checksum is another"));
        }
        checksummed |= wanted.is_some();
    }
    Ok(Received {
        body,
        md5,
        checksummed,
    })
}

/// First byte and length of what a read asks for, and the header that says so.
struct Slice {
    start: u64,
    end: u64,
    content_range: Option<String>,
}

fn slice(object: &StoredObject, range: Option<Range>, part: Option<i32>) -> S3Result<Slice> {
    let size = object.body.len() as u64;
    let (start, end) = match (range, part) {
        (Some(_), Some(_)) => return Err(s3_error!(InvalidRequest, "either a range or a part")),
        (Some(range), None) => {
            let checked = range.check(size)?;
            (checked.start, checked.end)
        }
        (None, Some(part)) => part_range(object, part)?,
        (None, None) => {
            return Ok(Slice {
                start: 0,
                end: size,
                content_range: None,
            });
        }
    };
    Ok(Slice {
        start,
        end,
        content_range: (end > start).then(|| format!("bytes {start}-{}/{size}", end - 1)),
    })
}

fn part_range(object: &StoredObject, part: i32) -> S3Result<(u64, u64)> {
    let index = usize::try_from(part)
        .ok()
        .and_then(|part| part.checked_sub(1))
        .ok_or_else(|| s3_error!(InvalidArgument))?;
    if object.parts.is_empty() && index == 0 {
        return Ok((0, object.body.len() as u64));
    }
    let length = object.parts.get(index).ok_or_else(|| {
        let mut error = s3_error!(InvalidRange);
        error.set_status_code(StatusCode::RANGE_NOT_SATISFIABLE);
        error
    })?;
    let start: u64 = object.parts.iter().take(index).sum();
    Ok((start, start + length))
}

fn parts_count(object: &StoredObject, part: Option<i32>) -> Option<i32> {
    part.filter(|_| !object.parts.is_empty())
        .and_then(|_| i32::try_from(object.parts.len()).ok())
}

/// STANDARD is not named.
fn named_class(headers: &StoredHeaders) -> Option<StorageClass> {
    headers
        .storage_class
        .clone()
        .filter(|class| class != "STANDARD")
        .map(StorageClass::from)
}

fn metadata(headers: &StoredHeaders, altered: Option<fn(&str) -> String>) -> Option<Metadata> {
    let altered = |name: &str| altered.map_or_else(|| name.to_owned(), |alter| alter(name));
    let metadata = headers.metadata.iter();
    Some(
        metadata
            .map(|(name, value)| (altered(name), value.clone()))
            .collect(),
    )
}

fn partial_if<T>(partial: bool, output: T) -> S3Response<T> {
    if partial {
        S3Response::with_status(output, StatusCode::PARTIAL_CONTENT)
    } else {
        S3Response::new(output)
    }
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.store.lock().buckets.entry(request.input.bucket).or_default();
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        bucket(&self.store.lock(), &request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let mut contents = self.store.lock();
        if !bucket(&contents, &request.input.bucket)?.is_empty() {
            return Err(s3_error!(BucketNotEmpty));
        }
        contents.buckets.remove(&request.input.bucket);
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let names = self.store.lock().buckets.keys().cloned().collect::<Vec<_>>();
        let buckets = names.into_iter().map(|name| s3s::dto::Bucket {
            name: Some(name),
            ..Default::default()
        });
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            ..Default::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request {
            input,
            trailing_headers,
            extensions,
            ..
        } = request;
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
        bucket(&self.store.lock(), &input.bucket)?;
        let announced = Announced {
            // With trailers this is the length on the wire.
            length: input.content_length.filter(|_| trailing_headers.is_none()),
            md5: input.content_md5,
            crc32: input.checksum_crc32,
            sha256: input.checksum_sha256,
        };
        let received = receive(input.body, announced, trailing_headers, &extensions).await?;
        let etag = hex::encode(received.md5);
        let mut contents = self.store.lock();
        let objects = bucket_mut(&mut contents, &input.bucket)?;
        let there = objects.get(&input.key).map(Arc::as_ref);
        may_write(there, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        objects.insert(
            input.key,
            Arc::new(StoredObject {
                body: received.body,
                etag: etag.clone(),
                last_modified: SystemTime::now(),
                headers,
                parts: Vec::new(),
                checksummed: received.checksummed,
            }),
        );
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(strong(&etag)),
            server_side_encryption: input.server_side_encryption,
            ..Default::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = object(&self.store.lock(), &input.bucket, &input.key)?;
        if object.headers.is_archived() {
            return Err(s3_error!(InvalidObjectState));
        }
        may_read(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let Slice {
            start,
            end,
            content_range,
        } = slice(&object, input.range, input.part_number)?;
        let body = object
            .body
            .slice(usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0));
        let headers = &object.headers;
        Ok(partial_if(
            content_range.is_some(),
            GetObjectOutput {
                accept_ranges: Some("bytes".into()),
                content_length: i64::try_from(body.len()).ok(),
                body: Some(StreamingBlob::from(s3s::Body::from(body))),
                content_range,
                parts_count: parts_count(&object, input.part_number),
                e_tag: Some(strong(&object.etag)),
                last_modified: Some(object.last_modified.into()),
                content_type: headers.content_type.clone(),
                content_encoding: headers.content_encoding.clone(),
                content_disposition: headers.content_disposition.clone(),
                cache_control: headers.cache_control.clone(),
                metadata: metadata(headers, self.store.lock().altered_names),
                storage_class: named_class(headers),
                server_side_encryption: headers.encryption.clone().map(ServerSideEncryption::from),
                ..Default::default()
            },
        ))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let object = object(&self.store.lock(), &input.bucket, &input.key)?;
        may_read(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let Slice {
            start,
            end,
            content_range,
        } = slice(&object, input.range, input.part_number)?;
        let headers = &object.headers;
        Ok(partial_if(
            content_range.is_some(),
            HeadObjectOutput {
                accept_ranges: Some("bytes".into()),
                content_length: i64::try_from(end - start).ok(),
                content_range,
                parts_count: parts_count(&object, input.part_number),
                e_tag: Some(strong(&object.etag)),
                last_modified: Some(object.last_modified.into()),
                content_type: headers.content_type.clone(),
                content_encoding: headers.content_encoding.clone(),
                content_disposition: headers.content_disposition.clone(),
                cache_control: headers.cache_control.clone(),
                metadata: metadata(headers, self.store.lock().altered_names),
                storage_class: named_class(headers),
                server_side_encryption: headers.encryption.clone().map(ServerSideEncryption::from),
                ..Default::default()
            },
        ))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let mut contents = self.store.lock();
        let objects = bucket_mut(&mut contents, &input.bucket)?;
        if let (Some(condition), Some(object)) = (&input.if_match, objects.get(&input.key))
            && !names(condition, &object.etag)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        if objects.remove(&input.key).is_some() {
            contents.deleted.push(input.key);
        }
        Ok(S3Response::with_status(
            DeleteObjectOutput::default(),
            StatusCode::NO_CONTENT,
        ))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        let mut contents = self.store.lock();
        let objects = bucket_mut(&mut contents, &input.bucket)?;
        let (mut deleted, mut errors, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for named in input.delete.objects {
            let there = objects.get(&named.key);
            if let (Some(wanted), Some(object)) = (&named.e_tag, there)
                && wanted.value() != object.etag
            {
                errors.push(Error {
                    code: Some("PreconditionFailed".into()),
                    key: Some(named.key),
                    ..Default::default()
                });
                continue;
            }
            if objects.remove(&named.key).is_some() {
                removed.push(named.key.clone());
            }
            if input.delete.quiet != Some(true) {
                deleted.push(DeletedObject {
                    key: Some(named.key),
                    ..Default::default()
                });
            }
        }
        contents.deleted.append(&mut removed);
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..Default::default()
        }))
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        self.list_version_1(request.input).map(S3Response::new)
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.list_version_2(request.input).map(S3Response::new)
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        self.copy_whole(request.input).map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.begin(request.input).map(S3Response::new)
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.receive_part(request).await.map(S3Response::new)
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.copy_part(&request.input).map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete(request.input).map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let gone = self.store.lock().uploads.remove(&request.input.upload_id);
        gone.map(|_| S3Response::new(AbortMultipartUploadOutput::default()))
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

/// The error of a value that is none of those allowed.
pub(super) fn invalid(what: &'static str) -> S3Error {
    s3_error!(InvalidArgument, "{what}")
}
