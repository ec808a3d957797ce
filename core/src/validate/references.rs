//! What a policy refers to: the Secret with its credentials and the ConfigMap with certificates.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Finding, ValidPolicy};
use crate::credentials::{AccessKeys, Credentials, Login, PasswordLogin};
use crate::mapping::{Mapping, MappingState};
use crate::reason::PolicyFault;

/// A Kubernetes Secret as far as it matters here. It cannot be printed.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretObject {
    data: BTreeMap<String, SecretString>,
    string_data: BTreeMap<String, SecretString>,
}

/// A Kubernetes ConfigMap as far as it matters here.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapObject {
    data: BTreeMap<String, String>,
}

/// What a policy becomes with what it refers to, as far as that is there.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The mapping, with its certificates.
    pub mapping: Mapping,
    /// The credentials, under the id that the mapping names.
    pub credentials: Option<Credentials>,
    /// Everything that is missing or cannot be. Values of a Secret are never quoted.
    pub findings: Vec<Finding>,
}

/// Puts together what an agent needs: the mapping with its certificates, and the credentials under the id that the
/// mapping names. `secret` and `config_map` are the objects that the policy names, where they are there.
///
/// # Errors
/// Everything that is missing or cannot be. Values of a Secret are never quoted.
pub fn resolve(
    policy: &ValidPolicy,
    secret: Option<&SecretObject>,
    config_map: Option<&ConfigMapObject>,
) -> Result<(Mapping, Credentials), Vec<Finding>> {
    let Resolved {
        mapping,
        credentials,
        findings,
    } = look_up(policy, secret, config_map);
    match credentials {
        Some(credentials) if findings.is_empty() => Ok((mapping, credentials)),
        _ => Err(findings),
    }
}

/// As [`resolve`], where what is missing may still come. A mapping without its credentials is refused by every agent,
/// yet keeps its place: nobody else takes over its keys or its container meanwhile. One without its certificates is
/// suspended, so that nothing is sent to whom they were to be asked of.
#[must_use]
pub fn look_up(
    policy: &ValidPolicy,
    secret: Option<&SecretObject>,
    config_map: Option<&ConfigMapObject>,
) -> Resolved {
    let mut mapping = policy.mapping.clone();
    let mut findings = Vec::new();

    match certificates(policy, config_map) {
        Ok(certificates) => mapping.target.ca_bundle = certificates,
        Err(finding) => {
            mapping.state = MappingState::Suspended;
            findings.push(finding);
        }
    }
    let path = "spec.target.credentials.secretRef";
    let credentials = match secret {
        Some(secret) => credentials(secret, &policy.secret)
            .map_err(|message| findings.push(Finding::new(path, PolicyFault::SecretInvalid, message)))
            .ok(),
        None => {
            let message = format!(
                "there is no Secret {:?} in the policy's namespace: create it",
                policy.secret
            );
            findings.push(Finding::new(path, PolicyFault::SecretNotFound, message));
            None
        }
    };
    Resolved {
        mapping,
        credentials,
        findings,
    }
}

fn certificates(
    policy: &ValidPolicy,
    config_map: Option<&ConfigMapObject>,
) -> Result<Option<String>, Finding> {
    let Some((name, key)) = &policy.ca_bundle else {
        return Ok(None);
    };
    let finding = |reason, message| Finding::new("spec.target.caBundle.configMapRef", reason, message);
    let Some(config_map) = config_map else {
        let message = format!("there is no ConfigMap {name:?} in the policy's namespace: create it");
        return Err(finding(PolicyFault::ConfigMapNotFound, message));
    };
    let Some(text) = config_map.data.get(key) else {
        let message = format!("ConfigMap {name:?} has no key {key:?}: put the certificates there");
        return Err(finding(PolicyFault::ConfigMapInvalid, message));
    };
    if !holds_certificate(text) {
        let message = format!("key {key:?} of ConfigMap {name:?} holds no certificate in PEM: put one there");
        return Err(finding(PolicyFault::ConfigMapInvalid, message));
    }
    Ok(Some(text.clone()))
}

/// Whether there is at least one PEM block of a certificate, and every such block is base64.
fn holds_certificate(text: &str) -> bool {
    let mut blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1).peekable();
    blocks.peek().is_some()
        && blocks.all(|block| {
            block
                .split_once("-----END CERTIFICATE-----")
                .is_some_and(|(body, _)| {
                    let body: String = body.split_whitespace().collect();
                    !body.is_empty() && STANDARD.decode(body).is_ok()
                })
        })
}

fn credentials(secret: &SecretObject, name: &str) -> Result<Credentials, String> {
    let required = |key: &str| {
        value(secret, name, key)?
            .ok_or_else(|| format!("Secret {name:?} has no key {key}: put the credential there"))
    };
    let proxy = match (
        value(secret, name, "PROXY_USERNAME")?,
        value(secret, name, "PROXY_PASSWORD")?,
    ) {
        (Some(username), Some(password)) => Some(PasswordLogin {
            username: username.expose_secret().to_owned(),
            password,
        }),
        (None, None) => None,
        _ => {
            return Err(format!(
                "Secret {name:?} has only one of PROXY_USERNAME and PROXY_PASSWORD: give both"
            ));
        }
    };
    Ok(Credentials {
        login: Login::Keys(AccessKeys {
            access_key_id: required("AWS_ACCESS_KEY_ID")?.expose_secret().to_owned(),
            secret_access_key: required("AWS_SECRET_ACCESS_KEY")?,
            session_token: value(secret, name, "AWS_SESSION_TOKEN")?,
        }),
        proxy,
    })
}

/// The value of one key; `stringData` wins over `data`, as at the API server.
fn value(secret: &SecretObject, name: &str, key: &str) -> Result<Option<SecretString>, String> {
    let value = if let Some(text) = secret.string_data.get(key) {
        text.clone()
    } else if let Some(encoded) = secret.data.get(key) {
        let bytes = STANDARD.decode(encoded.expose_secret()).map_err(|_| {
            format!("key {key} in data of Secret {name:?} is not base64: use stringData for plain text")
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| format!("key {key} of Secret {name:?} is not UTF-8: correct it"))?;
        text.into()
    } else {
        return Ok(None);
    };
    let text = value.expose_secret();
    if text.is_empty() {
        return Err(format!(
            "key {key} of Secret {name:?} is empty: fill it or remove it"
        ));
    }
    // A header or a line break smuggled in with a password, or just `echo` without -n.
    let spaces_matter = key.starts_with("AWS_");
    if text
        .chars()
        .any(|c| c.is_control() || (spaces_matter && c.is_whitespace()))
    {
        return Err(format!(
            "key {key} of Secret {name:?} holds white space or control characters (a line break at its end?): remove them"
        ));
    }
    Ok(Some(value))
}
