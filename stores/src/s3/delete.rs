//! DeleteObject.

use super::S3Remote;
use super::classify::{Failure, Operation, classify};
use super::object::quoted;
use crate::remote::RemoteError;

impl S3Remote {
    pub(super) async fn delete_object(&self, key: &str, etag: Option<&str>) -> Result<(), RemoteError> {
        // A conditional delete has one attempt: a second would not know whether the first was carried out.
        let client = if etag.is_some() {
            &self.clients().once
        } else {
            &self.clients().twice
        };
        let request = client
            .delete_object()
            .bucket(&self.config.bucket)
            .key(key)
            .set_if_match(etag.map(quoted))
            .send();
        let answer = match self.answered(request).await? {
            Ok(_) => return Ok(()),
            Err(error) => Failure::of(&error),
        };
        match (answer.status(), answer.code()) {
            (Some(404), None | Some("NoSuchKey" | "NotFound")) => Ok(()),
            _ => Err(classify(Operation::Delete, etag.is_some(), &answer)),
        }
    }
}
