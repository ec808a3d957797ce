//! Credentials of remotes, and the file that carries them to agents.
//!
//! Nothing here can be printed: the secrets are [`SecretString`]s, and errors of this file never quote its content.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// What one credential of the files holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credentials {
    /// The login at the remote.
    #[serde(flatten)]
    pub login: Login,
    /// The login at the forward proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<PasswordLogin>,
}

/// The login at a remote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Login {
    /// Keys of S3.
    Keys(AccessKeys),
    /// Name and password of Swift.
    Password(PasswordLogin),
}

/// Keys of S3.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeys {
    /// `AWS_ACCESS_KEY_ID`: an identifier, no secret.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    #[serde(serialize_with = "exposed")]
    pub secret_access_key: SecretString,
    /// `AWS_SESSION_TOKEN`.
    #[serde(
        default,
        serialize_with = "exposed_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub session_token: Option<SecretString>,
}

/// A name and its password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasswordLogin {
    /// The name.
    pub username: String,
    /// The password.
    #[serde(serialize_with = "exposed")]
    pub password: SecretString,
}

/// The content of `credentials/NN.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialShard {
    /// The revision that the index names. It tells nothing about the content.
    pub revision: String,
    /// By the id that mappings name.
    pub credentials: BTreeMap<String, Credentials>,
}

impl Credentials {
    /// The S3 keys, if that is what this holds.
    #[must_use]
    pub const fn keys(&self) -> Option<&AccessKeys> {
        match &self.login {
            Login::Keys(keys) => Some(keys),
            Login::Password(_) => None,
        }
    }

    /// Whether the other differs in its S3 keys at most: the same login at the proxy.
    #[must_use]
    pub fn is_same_but_for_keys(&self, other: &Self) -> bool {
        self.keys().is_some() && other.keys().is_some() && self.has_same_proxy(other)
    }

    fn has_same_proxy(&self, other: &Self) -> bool {
        same_option(self.proxy.as_ref(), other.proxy.as_ref(), PasswordLogin::is_same)
    }

    /// Whether the other holds the same: a comparison in memory that shows nothing.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let logins = match (&self.login, &other.login) {
            (Login::Keys(one), Login::Keys(other)) => {
                one.access_key_id == other.access_key_id
                    && same(&one.secret_access_key, &other.secret_access_key)
                    && same_option(one.session_token.as_ref(), other.session_token.as_ref(), same)
            }
            (Login::Password(one), Login::Password(other)) => one.is_same(other),
            _ => false,
        };
        logins && self.has_same_proxy(other)
    }
}

impl PasswordLogin {
    fn is_same(&self, other: &Self) -> bool {
        self.username == other.username && same(&self.password, &other.password)
    }
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn same_option<T>(one: Option<&T>, other: Option<&T>, same: impl Fn(&T, &T) -> bool) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other),
        (None, None) => true,
        _ => false,
    }
}

// The files are where secrets are written on purpose; secrecy asks to say so.

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

#[allow(clippy::ref_option, reason = "serde calls it with the field")]
fn exposed_option<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => exposed(secret, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = r#"{"revision":"7","credentials":{
        "k":{"accessKeyId":"AKIA","secretAccessKey":"verysecret","sessionToken":"verytoken","proxy":{"username":"p","password":"veryproxy"}},
        "s":{"username":"u","password":"verypassword"}}}"#;

    #[test]
    fn both_kinds_of_logins_are_read_and_written_alike() {
        let shard: CredentialShard = serde_json::from_str(BOTH).unwrap();
        assert_eq!(shard.credentials["k"].keys().unwrap().access_key_id, "AKIA");
        assert!(shard.credentials["s"].keys().is_none());
        let written: serde_json::Value = serde_json::to_value(&shard).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(BOTH).unwrap());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shard: CredentialShard = serde_json::from_str(BOTH).unwrap();
        assert!(!format!("{shard:?}").contains("very"));
    }
}
