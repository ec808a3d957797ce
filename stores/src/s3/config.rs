//! What a client of one bucket needs to know.

use std::time::Duration;

use onespace_core::credentials::{AccessKeys, PasswordLogin};
use onespace_core::mapping::{Encryption, Target};
use secrecy::SecretString;

use crate::egress::DenyList;

/// The keys that requests are signed with.
#[derive(Clone, Debug)]
pub struct S3Credentials {
    /// `AWS_ACCESS_KEY_ID`. An identifier, not a secret.
    pub access_key: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: SecretString,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<SecretString>,
}

impl From<&AccessKeys> for S3Credentials {
    fn from(keys: &AccessKeys) -> Self {
        let AccessKeys {
            access_key_id,
            secret_access_key,
            session_token,
        } = keys;
        Self {
            access_key: access_key_id.clone(),
            secret_key: secret_access_key.clone(),
            session_token: session_token.clone(),
        }
    }
}

/// A forward proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http://host:port`, without user information.
    pub url: String,
    /// The proxy's own login.
    pub login: Option<(String, SecretString)>,
}

/// How long each kind of waiting may last. None of them limits a transfer that makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolve, connect and TLS handshake together.
    pub connect: Duration,
    /// From the end of a request to the head of its answer.
    pub answer: Duration,
    /// Between two chunks of a body, in either direction.
    pub idle: Duration,
    /// Work that the remote does itself before it answers: copies, and joining the parts of an upload.
    pub remote_work: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            remote_work: Duration::from_secs(900),
        }
    }
}

/// One bucket at one remote.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Base URL; absent = AWS.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Bucket in the path rather than in the host name.
    pub path_style: bool,
    /// Send the SDK's own checksums (trailers) with every upload; off, only where S3 requires one.
    pub request_checksums: bool,
    /// Encryption that uploads ask for.
    pub encryption: Encryption,
    /// Storage class that uploads ask for.
    pub storage_class: Option<String>,
    /// Certificates that are trusted beside the system's, PEM.
    pub ca_bundle: Option<String>,
    /// Forward proxy.
    pub proxy: Option<Proxy>,
    /// Keys.
    pub credentials: S3Credentials,
    /// Parts of one upload that are under way at the same time, at least 1.
    pub part_concurrency: usize,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Addresses that must not be dialled.
    pub deny: DenyList,
}

impl S3Config {
    /// The client's configuration for the target of a mapping, with `Auto` resolved: path style where an endpoint is
    /// set, the SDK's checksums at AWS only.
    #[must_use]
    pub fn from_target(target: &Target, credentials: S3Credentials, deny: DenyList) -> Self {
        let at_aws = target.endpoint.is_none();
        Self {
            endpoint: target.endpoint.clone(),
            region: target.region.clone(),
            bucket: target.bucket.clone(),
            path_style: target.path_style.unwrap_or(!at_aws),
            request_checksums: target.request_checksums.unwrap_or(at_aws),
            encryption: target.encryption.clone(),
            storage_class: target.storage_class.clone(),
            ca_bundle: target.ca_bundle.clone(),
            proxy: target.http_proxy.clone().map(|url| Proxy { url, login: None }),
            credentials,
            part_concurrency: 4,
            timeouts: Timeouts::default(),
            deny,
        }
    }

    /// The same with a login at the proxy, where the target has one.
    #[must_use]
    pub fn with_proxy_login(mut self, login: Option<&PasswordLogin>) -> Self {
        if let (Some(proxy), Some(login)) = (&mut self.proxy, login) {
            proxy.login = Some((login.username.clone(), login.password.clone()));
        }
        self
    }
}
