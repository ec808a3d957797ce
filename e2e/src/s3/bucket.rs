//! A bucket as its owner sees it, for tests that look at what a server holds.

use anyhow::Result;
use futures::TryStreamExt;
use onespace_core::mapping::Encryption;
use onespace_core::remote::RemoteObject;
use onespace_stores::egress::DenyList;
use onespace_stores::remote::Remote;
use onespace_stores::s3::{S3Config, S3Credentials, S3Remote, Timeouts};

use super::REGION;
use crate::lab::Keys;

/// A bucket of any server.
#[derive(Debug)]
pub struct Bucket {
    remote: S3Remote,
}

/// An object as it was read back.
#[derive(Clone, Debug)]
pub struct ReadBack {
    /// ETag, headers, metadata.
    pub object: RemoteObject,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Bucket {
    /// A client of this bucket.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn new(keys: &Keys<'_>, bucket: &str) -> Result<Self> {
        let remote = S3Remote::new(S3Config {
            endpoint: Some(keys.endpoint.to_owned()),
            region: REGION.into(),
            bucket: bucket.to_owned(),
            path_style: true,
            request_checksums: false,
            encryption: Encryption::None,
            storage_class: None,
            ca_bundle: None,
            proxy: None,
            credentials: S3Credentials {
                access_key: keys.access.to_owned(),
                secret_key: keys.secret.into(),
                session_token: None,
            },
            part_concurrency: 2,
            timeouts: Timeouts::default(),
            deny: DenyList::default(),
        })?;
        Ok(Self { remote })
    }

    /// The object at this key.
    ///
    /// # Errors
    /// The server fails.
    pub async fn at(&self, key: &str) -> Result<Option<ReadBack>> {
        let Some((object, body)) = self.remote.get(key, None).await? else {
            return Ok(None);
        };
        let body = body.stream.try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        Ok(Some(ReadBack {
            object,
            body: body.await?,
        }))
    }

    /// The keys that a listing shows, at most a thousand.
    ///
    /// # Errors
    /// The server fails.
    pub async fn keys(&self) -> Result<Vec<String>> {
        let page = self.remote.list("", None, 1000).await?;
        Ok(page.objects.into_iter().map(|object| object.key).collect())
    }

    /// The client, for what a test does behind the agent's back.
    #[must_use]
    pub fn remote(&self) -> &S3Remote {
        &self.remote
    }
}
