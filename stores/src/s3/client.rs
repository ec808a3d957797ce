//! Builds the SDK's client: one HTTP stack, no redirects, addresses checked, waiting bounded.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use http::Uri;
use onespace_core::reason::PauseReason;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use super::config::S3Config;
use super::keys::SharedKeys;
use crate::egress::DenyingResolver;
use crate::remote::RemoteError;

/// Connections that stay open per host while nothing uses them.
const IDLE_CONNECTIONS: usize = 64;
/// How long they do: less than servers keep theirs. A request that meets a connection which the server is just closing
/// looks like a remote that cannot be reached.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// The two clients of one remote. They share their connections.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Exactly one attempt: for bodies that cannot be replayed, and for writes.
    pub once: Client,
    /// Two attempts, each bounded by `Timeouts::answer`: for small requests that change nothing.
    pub twice: Client,
}

/// Builds both clients.
///
/// # Errors
/// The configuration cannot be used: an endpoint or proxy that is no URL, a denied address, a broken CA bundle.
pub(super) fn build(config: &S3Config, keys: &SharedKeys) -> Result<Clients, RemoteError> {
    Ok(build_with(config, keys, http_client(config)?, 2))
}

/// Builds both clients over this transport; `attempts` are those of [`Clients::twice`].
pub(super) fn build_with(
    config: &S3Config,
    keys: &SharedKeys,
    http: SharedHttpClient,
    attempts: u32,
) -> Clients {
    let mut base = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(config.region.clone()))
        .credentials_provider(keys.clone())
        // They are in memory, and may be others for the next request.
        .identity_cache(IdentityCache::no_cache())
        .force_path_style(config.path_style)
        // Our own bodies watch both directions, and tell a slow source from a slow remote.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .request_checksum_calculation(if config.request_checksums {
            RequestChecksumCalculation::WhenSupported
        } else {
            RequestChecksumCalculation::WhenRequired
        });
    base.set_endpoint_url(config.endpoint.clone());
    let connect = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .build();
    let bounded = TimeoutConfig::builder()
        .connect_timeout(config.timeouts.connect)
        .operation_attempt_timeout(config.timeouts.connect + config.timeouts.answer)
        .build();
    Clients {
        once: Client::from_conf(
            base.clone()
                .retry_config(RetryConfig::disabled())
                .timeout_config(connect)
                .build(),
        ),
        twice: Client::from_conf(
            base.retry_config(RetryConfig::standard().with_max_attempts(attempts))
                .timeout_config(bounded)
                .build(),
        ),
    }
}

fn http_client(config: &S3Config) -> Result<SharedHttpClient, RemoteError> {
    let endpoint = config
        .endpoint
        .as_deref()
        .map(|url| parsed("endpoint", url, config))
        .transpose()?;
    let secure = endpoint
        .as_ref()
        .is_none_or(|url| url.scheme_str() == Some("https"));
    let proxy = config.proxy.as_ref().map(|proxy| {
        let url = parsed("httpProxy", &proxy.url, config)?;
        let with_proxy = ProxyConfig::all(url).map_err(|_| not_a_url("httpProxy"))?;
        Ok::<_, RemoteError>(match &proxy.login {
            Some((user, password)) => with_proxy.with_basic_auth(user.as_str(), password.expose_secret()),
            None => with_proxy,
        })
    });
    let proxy = proxy.transpose()?.unwrap_or_else(ProxyConfig::disabled);
    let tls = tls_context(config.ca_bundle.as_deref(), secure || config.proxy.is_some())?;
    // Some proxies close a plain connection behind an answer without a word, and the next request would break on it.
    // Inside a tunnel it is the remote's connection.
    let idle_connections = if secure || config.proxy.is_none() {
        IDLE_CONNECTIONS
    } else {
        0
    };
    let resolver = DenyingResolver::new(config.deny.clone());
    Ok(
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .tls_provider(Provider::rustls(CryptoMode::AwsLc))
                .tls_context(tls.clone())
                .proxy_config(proxy.clone())
                .pool_max_idle_per_host(idle_connections)
                .pool_idle_timeout(IDLE_TIME);
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            connector.build_with_resolver(resolver.clone())
        }),
    )
}

/// The URL, if it is one with a scheme and a host that may be dialled.
fn parsed(field: &str, url: &str, config: &S3Config) -> Result<Uri, RemoteError> {
    let uri: Uri = url.parse().map_err(|_| not_a_url(field))?;
    let host = uri.host().ok_or_else(|| not_a_url(field))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(not_a_url(field));
    }
    config
        .deny
        .check_literal(host)
        .map_err(|denied| RemoteError::Paused {
            reason: PauseReason::AddressDenied,
            code: None,
            message: format!("target.{field}: {denied}"),
            retry_after: None,
        })?;
    Ok(uri)
}

fn not_a_url(field: &str) -> RemoteError {
    RemoteError::Paused {
        reason: PauseReason::Unreachable,
        code: None,
        message: format!("target.{field} is not an http or https URL; correct the policy"),
        retry_after: None,
    }
}

/// The trusted certificates. The bundle is checked here, because the HTTP client would panic on a broken one.
fn tls_context(ca_bundle: Option<&str>, system_roots: bool) -> Result<TlsContext, RemoteError> {
    let mut store = TrustStore::empty().with_native_roots(system_roots);
    if let Some(pem) = ca_bundle {
        let mut roots = RootCertStore::empty();
        let usable = CertificateDer::pem_slice_iter(pem.as_bytes())
            .map(|certificate| certificate.is_ok_and(|der| roots.add(der).is_ok()))
            .fold(None, |all, ok| Some(all.unwrap_or(true) && ok));
        if usable != Some(true) {
            return Err(broken_ca_bundle());
        }
        store.add_pem_certificate(pem);
    }
    TlsContext::builder()
        .with_trust_store(store)
        .build()
        .map_err(|_| broken_ca_bundle())
}

fn broken_ca_bundle() -> RemoteError {
    RemoteError::Paused {
        reason: PauseReason::TlsFailed,
        code: None,
        message: "target.caBundle holds no certificate, or one that cannot be read; it must be PEM".into(),
        retry_after: None,
    }
}
