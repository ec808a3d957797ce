//! What a policy refers to: the Secret with its credentials and the ConfigMap with certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// An object that a policy names, as far as anybody knows.
#[derive(Clone, Copy, Debug)]
pub enum Reference<'a, T> {
    /// It is there.
    There(&'a T),
    /// It was like this, and what it is now could not be got.
    Outdated(&'a T),
    /// It is not there.
    Absent,
    /// It could not be got, and never was.
    Unknown,
}

impl<'a, T> From<Option<&'a T>> for Reference<'a, T> {
    fn from(found: Option<&'a T>) -> Self {
        found.map_or(Self::Absent, Self::There)
    }
}

impl<'a, T> Reference<'a, T> {
    /// The object, and what is to be said if it cannot be used as it is: reasons for one that is absent, and for one
    /// that could not be got.
    fn look(
        self,
        path: &'static str,
        what: &str,
        absent: PolicyFault,
        unavailable: PolicyFault,
    ) -> (Option<&'a T>, Option<Finding>) {
        let not_got = || {
            let message = format!(
                "{what} in the policy's namespace could not be got: it is tried again every few seconds; if that lasts, the operator's log says why (has its account the right to get it?)"
            );
            Some(Finding::new(path, unavailable, message))
        };
        match self {
            Self::There(object) => (Some(object), None),
            Self::Outdated(object) => (Some(object), not_got()),
            Self::Unknown => (None, not_got()),
            Self::Absent => {
                let message = format!("there is no {what} in the policy's namespace: create it");
                (None, Some(Finding::new(path, absent, message)))
            }
        }
    }
}

/// What a policy becomes with what it refers to, as far as that is there.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The mapping, with its certificates.
    pub mapping: Arc<Mapping>,
    /// The credentials, under the id that the mapping names.
    pub credentials: Option<Credentials>,
    /// Everything that is missing or cannot be, so that the mapping cannot run. Values of a Secret are never quoted.
    pub findings: Vec<Finding>,
    /// What may have changed and could not be got: the mapping runs with what was there before.
    pub outdated: Vec<Finding>,
}

impl Resolved {
    /// Goes on with the credentials that agents have, if the Secret could not be got.
    pub fn keep_credentials(&mut self, credentials: Option<&Credentials>) {
        if self.credentials.is_none()
            && credentials.is_some()
            && self.runs_on_with_what_was(PolicyFault::SecretUnavailable)
        {
            self.credentials = credentials.cloned();
        }
    }

    /// Goes on with the certificates that agents have, if the ConfigMap could not be got. `policy` is what this was made
    /// of.
    pub fn keep_certificates(&mut self, policy: &ValidPolicy, certificates: Option<&String>) {
        if self.mapping.target.ca_bundle.is_none()
            && certificates.is_some()
            && self.runs_on_with_what_was(PolicyFault::ConfigMapUnavailable)
        {
            let mapping = Arc::make_mut(&mut self.mapping);
            mapping.target.ca_bundle = certificates.cloned();
            mapping.state = policy.mapping.state;
        }
    }

    /// Whether this is what keeps the mapping from running; from now on it does not.
    fn runs_on_with_what_was(&mut self, fault: PolicyFault) -> bool {
        let kept = self.findings.extract_if(.., |finding| finding.reason == fault);
        let before = self.outdated.len();
        self.outdated.extend(kept);
        self.outdated.len() > before
    }

    /// What one object gave, if it is there, and what is to be said of the object itself.
    fn take<T>(&mut self, found: Option<Result<T, Finding>>, said: Option<Finding>) -> Option<T> {
        match found {
            Some(Ok(found)) => {
                self.outdated.extend(said);
                Some(found)
            }
            // What cannot be used may be good by now: that it could not be got is what is to be said.
            Some(Err(finding)) => {
                self.findings.push(said.unwrap_or(finding));
                None
            }
            None => {
                self.findings.extend(said);
                None
            }
        }
    }
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
) -> Result<(Arc<Mapping>, Credentials), Vec<Finding>> {
    let Resolved {
        mapping,
        credentials,
        findings,
        outdated: _,
    } = look_up(policy, secret.into(), config_map.into());
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
    secret: Reference<'_, SecretObject>,
    config_map: Reference<'_, ConfigMapObject>,
) -> Resolved {
    let mut resolved = Resolved {
        mapping: policy.mapping.clone(),
        credentials: None,
        findings: Vec::new(),
        outdated: Vec::new(),
    };
    if let Some((name, key)) = &policy.ca_bundle {
        let path = "spec.target.caBundle.configMapRef";
        let (config_map, said) = config_map.look(
            path,
            &format!("ConfigMap {name:?}"),
            PolicyFault::ConfigMapNotFound,
            PolicyFault::ConfigMapUnavailable,
        );
        let certificates = config_map.map(|config_map| certificates(config_map, name, key));
        let found = certificates.map(|certificates| {
            certificates.map_err(|message| Finding::new(path, PolicyFault::ConfigMapInvalid, message))
        });
        let ca_bundle = resolved.take(found, said);
        let mapping = Arc::make_mut(&mut resolved.mapping);
        if ca_bundle.is_none() {
            mapping.state = MappingState::Suspended;
        }
        mapping.target.ca_bundle = ca_bundle;
    }
    let path = "spec.target.credentials.secretRef";
    let (secret, said) = secret.look(
        path,
        &format!("Secret {:?}", policy.secret),
        PolicyFault::SecretNotFound,
        PolicyFault::SecretUnavailable,
    );
    let credentials = secret.map(|secret| credentials(secret, &policy.secret));
    let found = credentials.map(|credentials| {
        credentials.map_err(|message| Finding::new(path, PolicyFault::SecretInvalid, message))
    });
    resolved.credentials = resolved.take(found, said);
    resolved
}

fn certificates(config_map: &ConfigMapObject, name: &str, key: &str) -> Result<String, String> {
    let text = config_map
        .data
        .get(key)
        .ok_or_else(|| format!("ConfigMap {name:?} has no key {key:?}: put the certificates there"))?;
    if !holds_certificate(text) {
        return Err(format!(
            "key {key:?} of ConfigMap {name:?} holds no certificate in PEM: put one there"
        ));
    }
    Ok(text.clone())
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

#[cfg(test)]
#[path = "references_tests.rs"]
mod tests;
