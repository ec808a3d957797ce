//! HeadObject.

use onespace_core::remote::RemoteObject;

use super::classify::{Failure, Operation, Transport, classify};
use super::object::{Seen, size};
use super::{S3Remote, error_of};
use crate::remote::RemoteError;

impl S3Remote {
    pub(super) async fn head_object(&self, key: &str) -> Result<Option<RemoteObject>, RemoteError> {
        let answer = self
            .clients()
            .twice
            .head_object()
            .bucket(&self.config.bucket)
            .key(key)
            .send()
            .await;
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                let failure = Failure::of(&error);
                return match failure.status() {
                    Some(404) => Ok(None),
                    Some(300..=499) => Err(self.say_why(key, &failure).await),
                    _ => Err(classify(Operation::Head, false, &failure)),
                };
            }
        };
        Ok(Some(RemoteObject::from(Seen {
            etag: found.e_tag(),
            size: size(found.content_length()),
            last_modified: found.last_modified(),
            content_type: found.content_type(),
            content_encoding: found.content_encoding(),
            content_disposition: found.content_disposition(),
            cache_control: found.cache_control(),
            metadata: found.metadata(),
            storage_class: found.storage_class(),
            encryption: found.server_side_encryption(),
        })))
    }

    /// The connection broke while a body was sent. Servers that refuse a request before its body often close the
    /// connection, and their answer is lost with it: a request without a body is told what is wrong, if anything is.
    pub(super) async fn why_broken(&self, key: &str, failure: Failure) -> Failure {
        if failure != Failure::Transport(Transport::Broken) {
            return failure;
        }
        let asked = self
            .clients()
            .twice
            .get_object()
            .bucket(&self.config.bucket)
            .key(key)
            .range("bytes=0-0");
        match asked.send().await.map_err(|error| Failure::of(&error)) {
            Err(
                told @ Failure::Answer {
                    status: 400..=403, ..
                },
            ) => told,
            Err(told) if told.code() == Some("NoSuchBucket") => told,
            _ => failure,
        }
    }

    /// The answer to a HEAD has no body, hence no code: the same question as a GET of one byte has.
    async fn say_why(&self, key: &str, of_head: &Failure) -> RemoteError {
        let again = self
            .clients()
            .twice
            .get_object()
            .bucket(&self.config.bucket)
            .key(key)
            .range("bytes=0-0")
            .send()
            .await;
        match again {
            Err(error) if Failure::of(&error).code().is_some() => error_of(Operation::Head, false, &error),
            _ => classify(Operation::Head, false, of_head),
        }
    }
}
