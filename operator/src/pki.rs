//! The certificates between operator and agents: one private authority, made by the operator and kept in a Secret that
//! nobody mounts; agents mount another with the authority's certificate and one of their own. The operator's own is
//! never stored.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use onespace_stores::mutual_tls::{AGENT_NAME, FILES, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::sync::watch;

use crate::api::{ApiError, FIELD_MANAGER, within};
use crate::leader::Leadership;
use crate::metrics::Metrics;

/// The Secret with the authority.
pub const AUTHORITY: &str = "onespace-status-authority";

/// The Secret that agents mount.
pub const AGENTS: &str = "onespace-status-tls";

/// The annotation that says when what stands in a Secret is to be made anew.
const RENEW: &str = "onespace.dev/renew-after";

/// Days that certificates are valid, and days after which they are made anew.
const VALID: i64 = 90;
const RENEW_AFTER: i64 = 60;

/// The same of the authority. Agents get its successor with their own next certificate.
const AUTHORITY_VALID: i64 = 3650;
const AUTHORITY_RENEW_AFTER: i64 = 3000;

/// How often it is looked whether something is old.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// No answer, or a refusal.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// Something could not be made.
    #[error("a certificate cannot be made ({0}): delete the Secret {AUTHORITY}, a new one is made")]
    Certificate(#[from] rcgen::Error),
    /// What stands in the Secret is no authority.
    #[error("Secret {AUTHORITY} has no {0}: delete it, a new one is made")]
    Incomplete(&'static str),
}

/// What is there once both Secrets are young.
pub struct Certificates {
    /// The operator's own.
    pub identity: Identity,
    /// When each Secret is to be made anew.
    pub renewals: [(&'static str, Timestamp); 2],
}

/// Keeps both Secrets young while this replica leads, and passes on the operator's own certificate.
pub async fn keep(
    client: Client,
    namespace: String,
    leadership: Leadership,
    identities: watch::Sender<Option<Identity>>,
    metrics: Metrics,
) {
    if !leadership.gained().await {
        return;
    }
    loop {
        let wait = match certificates(&client, &namespace, Timestamp::now()).await {
            Ok(Certificates { identity, renewals }) => {
                for (secret, renewal) in renewals {
                    let renewals = &metrics.renewals;
                    renewals.with_label_values(&[secret]).set(renewal.as_second());
                }
                identities.send_replace(Some(identity));
                LOOK_EVERY
            }
            Err(error) => {
                tracing::warn!("agents in pods cannot be asked without certificates: {error}");
                RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Sees to it that both Secrets are there and young, and gives the operator a certificate of its own.
///
/// # Errors
/// No answer, a refusal, or a broken Secret.
pub async fn certificates(
    client: &Client,
    namespace: &str,
    now: Timestamp,
) -> Result<Certificates, PkiError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let authority = match within(api.get_opt(AUTHORITY)).await? {
        Some(secret) if !is_old(&secret, now) => secret,
        old => {
            let (certificate, key) = new_authority(now)?;
            let texts = [certificate.clone(), certificate, key];
            put(&api, AUTHORITY, old, texts, after(now, AUTHORITY_RENEW_AFTER)).await?
        }
    };
    let field = |name: &'static str| {
        let bytes = data_of(&authority, name).ok_or(PkiError::Incomplete(name))?;
        std::str::from_utf8(bytes).map_err(|_| PkiError::Incomplete(name))
    };
    let [_, certificate, key] = FILES;
    let (certificate, key) = (field(certificate)?, field(key)?);
    let issuer = Issuer::new(authority_params(now)?, KeyPair::from_pem(key)?);
    let there = within(api.get_opt(AGENTS)).await?;
    let is_good =
        |secret: &Secret| !is_old(secret, now) && data_of(secret, FILES[0]) == Some(certificate.as_bytes());
    let agents = match there {
        Some(secret) if is_good(&secret) => secret,
        old => {
            let (own, own_key) = signed(&issuer, AGENT_NAME, ExtendedKeyUsagePurpose::ServerAuth, now)?;
            let texts = [certificate.to_owned(), own, own_key];
            put(&api, AGENTS, old, texts, after(now, RENEW_AFTER)).await?
        }
    };
    let (own, own_key) = signed(
        &issuer,
        "onespace-operator",
        ExtendedKeyUsagePurpose::ClientAuth,
        now,
    )?;
    let identity = Identity {
        authority: certificate.as_bytes().to_vec(),
        certificate: own.into_bytes(),
        key: own_key.into_bytes(),
    };
    let renewal = |secret| renewal(secret).unwrap_or(now);
    Ok(Certificates {
        identity,
        renewals: [(AUTHORITY, renewal(&authority)), (AGENTS, renewal(&agents))],
    })
}

fn data_of<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    let ByteString(bytes) = secret.data.as_ref()?.get(name)?;
    Some(bytes)
}

fn is_old(secret: &Secret, now: Timestamp) -> bool {
    renewal(secret).is_none_or(|renewal| renewal <= now)
}

/// When it is to be made anew, as its annotation says.
fn renewal(secret: &Secret) -> Option<Timestamp> {
    let annotations = secret.metadata.annotations.as_ref()?;
    annotations.get(RENEW)?.parse().ok()
}

/// Writes a Secret in the place of the one that was seen, and of no other.
async fn put(
    api: &Api<Secret>,
    name: &str,
    seen: Option<Secret>,
    texts: [String; 3],
    renew: Timestamp,
) -> Result<Secret, ApiError> {
    let names = FILES.map(str::to_owned);
    let data = texts.map(|text| ByteString(text.into_bytes()));
    let version = seen.and_then(|secret| secret.metadata.resource_version);
    let is_new = version.is_none();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some(BTreeMap::from([(RENEW.to_owned(), renew.to_string())])),
            labels: Some(BTreeMap::from([crate::published::label()])),
            resource_version: version,
            ..ObjectMeta::default()
        },
        data: Some(names.into_iter().zip(data).collect()),
        ..Secret::default()
    };
    if is_new {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        return within(api.create(&params, &secret)).await;
    }
    let manager = PatchParams::apply(FIELD_MANAGER).force();
    within(api.patch(name, &manager, &Patch::Apply(&secret))).await
}

fn after(now: Timestamp, days: i64) -> Timestamp {
    now.saturating_add((days * 24).hours()).unwrap_or(Timestamp::MAX)
}

fn new_authority(now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((
        authority_params(now)?.self_signed(&key)?.pem(),
        key.serialize_pem(),
    ))
}

/// Those of every authority: only keys and times differ.
fn authority_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(&[], "onespace status", now, AUTHORITY_VALID)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// A certificate for one purpose alone: an agent's cannot be used to ask another agent.
fn signed(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
    now: Timestamp,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = params(&[name.to_owned()], name, now, VALID)?;
    params.extended_key_usages = vec![purpose];
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn params(
    names: &[String],
    common_name: &str,
    now: Timestamp,
    days: i64,
) -> Result<CertificateParams, rcgen::Error> {
    let day = |time: Timestamp| {
        let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Clocks differ.
    params.not_before = day(after(now, -1));
    params.not_after = day(after(now, days));
    Ok(params)
}
