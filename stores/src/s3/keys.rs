//! The keys that requests are signed with, while they may change.

use std::sync::{Arc, PoisonError, RwLock};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, future};
use secrecy::ExposeSecret;

use super::config::S3Credentials;

/// The keys of a remote. Clones are the same keys: those that are put in their place sign every request that is begun from
/// then on, also the next part of an upload that is under way. Keys with a session token change every few hours, and an
/// upload may take longer.
#[derive(Clone, Debug)]
pub struct SharedKeys(Arc<RwLock<S3Credentials>>);

impl SharedKeys {
    /// Puts others in their place.
    pub fn replace(&self, keys: S3Credentials) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn current(&self) -> Credentials {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let token = keys.session_token.as_ref();
        Credentials::new(
            keys.access_key.clone(),
            keys.secret_key.expose_secret(),
            token.map(|token| token.expose_secret().to_owned()),
            None,
            "onespace",
        )
    }
}

impl From<S3Credentials> for SharedKeys {
    fn from(keys: S3Credentials) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }
}

impl ProvideCredentials for SharedKeys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Ok(self.current()))
    }
}
