//! A bucket at AWS or at a server that speaks S3: one file per operation.

mod classify;
mod client;
mod config;
mod delete;
mod get;
mod head;
mod keys;
mod list;
mod object;
mod probe;
mod put;
mod put_parts;
mod replace_headers;
mod transport;
mod upload;

use std::error::Error;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use onespace_core::remote::{RemoteHeaders, RemoteObject};

pub use self::classify::{Failure, Operation, Transport, classify};
pub use self::config::{Proxy, S3Config, S3Credentials, Timeouts};
pub use self::keys::SharedKeys;
pub use self::transport::Transports;
use crate::body::Body;
use crate::remote::{
    Capabilities, Condition, Page, PartSource, PartSpec, Permissions, Remote, RemoteError, Replaced, Stored,
    UploadLog,
};

/// One bucket.
#[derive(Debug)]
pub struct S3Remote {
    config: S3Config,
    keys: SharedKeys,
    transport: Arc<SharedHttpClient>,
    /// See [`client::Clients::twice`].
    attempts: u32,
    /// Made when something is asked for the first time: they are large, and many remotes are never asked.
    clients: OnceLock<client::Clients>,
    /// Where uploads are noted that a crash would leave behind.
    uploads: Option<Arc<dyn UploadLog>>,
    /// What the last probe found. Before one: v2 listings, and no conditions but those that are asked for.
    capabilities: RwLock<Option<Capabilities>>,
}

impl S3Remote {
    /// A client of this bucket, with connections of its own. Nothing is sent yet.
    ///
    /// # Errors
    /// The configuration cannot be used: an endpoint or proxy that is no URL, a literal address that is denied, a CA
    /// bundle that cannot be read.
    pub fn new(config: S3Config) -> Result<Self, RemoteError> {
        Self::sharing(config, &Transports::default())
    }

    /// The same, with connections that it shares with others like it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn sharing(config: S3Config, transports: &Transports) -> Result<Self, RemoteError> {
        let transport = transports.get(&config)?;
        Ok(Self::with(config, transport, 2))
    }

    /// A client of this bucket over another transport than the network: tests give it any answer that they like.
    /// Nothing is tried twice.
    #[must_use]
    pub fn over(config: S3Config, transport: SharedHttpClient) -> Self {
        Self::with(config, Arc::new(transport), 1)
    }

    fn with(config: S3Config, transport: Arc<SharedHttpClient>, attempts: u32) -> Self {
        Self {
            keys: SharedKeys::from(config.credentials.clone()),
            config,
            transport,
            attempts,
            clients: OnceLock::new(),
            uploads: None,
            capabilities: RwLock::new(None),
        }
    }

    fn clients(&self) -> &client::Clients {
        self.clients.get_or_init(|| {
            let transport = SharedHttpClient::clone(&self.transport);
            client::build(&self.config, &self.keys, transport, self.attempts)
        })
    }

    /// Its keys, for whoever is told of new ones.
    #[must_use]
    pub fn keys(&self) -> SharedKeys {
        self.keys.clone()
    }

    /// Notes multipart uploads there while they are under way.
    #[must_use]
    pub fn with_upload_log(self, log: Arc<dyn UploadLog>) -> Self {
        Self {
            uploads: Some(log),
            ..self
        }
    }

    /// Uses what an earlier probe of the same remote found.
    pub fn set_capabilities(&self, found: Capabilities) {
        *self.capabilities.write().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    /// Whether a capability was found by a probe; `unprobed` where there was none yet.
    fn can(&self, capability: impl Fn(&Capabilities) -> bool, unprobed: bool) -> bool {
        let found = self.capabilities.read().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().map_or(unprobed, capability)
    }
}

/// What the SDK's error means.
fn error_of<E>(operation: Operation, conditional: bool, error: &SdkError<E, HttpResponse>) -> RemoteError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    classify(operation, conditional, &Failure::of(error))
}

/// Each future is boxed: the SDK's are tens of kilobytes, too much for the stacks and tasks of a caller that holds many.
impl Remote for S3Remote {
    async fn head(&self, key: &str) -> Result<Option<RemoteObject>, RemoteError> {
        Box::pin(self.head_object(key)).await
    }

    async fn get(
        &self,
        key: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Option<(RemoteObject, Body)>, RemoteError> {
        Box::pin(self.get_object(key, range)).await
    }

    async fn put(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        body: Body,
        md5: Option<[u8; 16]>,
    ) -> Result<Stored, RemoteError> {
        Box::pin(self.put_object(key, headers, condition, body, md5)).await
    }

    async fn put_parts<P: PartSource>(
        &self,
        key: &str,
        headers: &RemoteHeaders,
        condition: &Condition,
        parts: &[PartSpec],
        source: &P,
    ) -> Result<Stored, RemoteError> {
        self.put_object_parts(key, headers, condition, parts, source)
            .await
    }

    async fn replace_headers(
        &self,
        key: &str,
        current: &RemoteObject,
        headers: &RemoteHeaders,
    ) -> Result<Replaced, RemoteError> {
        Box::pin(self.replace_object_headers(key, current, headers)).await
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), RemoteError> {
        Box::pin(self.abort_old_upload(key, upload)).await
    }

    async fn delete(&self, key: &str, etag: Option<&str>) -> Result<(), RemoteError> {
        Box::pin(self.delete_object(key, etag)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, RemoteError> {
        Box::pin(self.list_objects(prefix, after, limit)).await
    }

    async fn probe(&self, scratch_prefix: &str) -> Result<(Capabilities, Permissions), RemoteError> {
        let (capabilities, permissions) = Box::pin(self.probe_bucket(scratch_prefix)).await?;
        self.set_capabilities(capabilities.clone());
        Ok((capabilities, permissions))
    }
}
