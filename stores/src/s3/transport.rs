//! HTTP stacks: addresses checked, certificates trusted, proxies gone through. Remotes that do so alike share one.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

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
use crate::egress::{DenyList, DenyingResolver};
use crate::remote::RemoteError;

/// Connections that stay open per host while nothing uses them.
const IDLE_CONNECTIONS: usize = 64;
/// How long they do: less than servers keep theirs. A request that meets a connection which the server is just closing
/// looks like a remote that cannot be reached.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// The HTTP stacks in use. A stack costs a hundred kilobytes and the system's certificates are read for each, so that
/// thousands of mappings to one place share one, and its connections. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Transports {
    in_use: Arc<Mutex<Vec<InUse>>>,
}

/// A stack, gone with the last remote that uses it.
type InUse = (Way, Weak<SharedHttpClient>);

/// What an HTTP stack is made for.
#[derive(Clone, Debug)]
struct Way {
    secure: bool,
    proxy: Option<String>,
    ca_bundle: Option<String>,
    deny: DenyList,
}

impl Way {
    /// `None`: it is for this remote alone, because a proxy's login is in it.
    fn of(config: &S3Config, secure: bool) -> Option<Self> {
        let proxy = config.proxy.as_ref();
        let has_login = proxy.is_some_and(|proxy| proxy.login.is_some());
        (!has_login).then(|| Self {
            secure,
            proxy: proxy.map(|proxy| proxy.url.clone()),
            ca_bundle: config.ca_bundle.clone(),
            deny: config.deny.clone(),
        })
    }

    fn is(&self, other: &Self) -> bool {
        self.secure == other.secure
            && self.proxy == other.proxy
            && self.ca_bundle == other.ca_bundle
            && self.deny.is(&other.deny)
    }
}

impl Transports {
    /// The stack for this remote, new if no other remote uses one like it.
    ///
    /// # Errors
    /// The configuration cannot be used: an endpoint or proxy that is no URL, a denied address, a broken CA bundle.
    pub(super) fn get(&self, config: &S3Config) -> Result<Arc<SharedHttpClient>, RemoteError> {
        let endpoint = config
            .endpoint
            .as_deref()
            .map(|url| parsed("endpoint", url, config))
            .transpose()?;
        let secure = endpoint
            .as_ref()
            .is_none_or(|url| url.scheme_str() == Some("https"));
        let Some(way) = Way::of(config, secure) else {
            return build(config, secure).map(Arc::new);
        };
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|(_, stack)| stack.strong_count() > 0);
        let alike = in_use.iter().find(|(other, _)| other.is(&way));
        if let Some(stack) = alike.and_then(|(_, stack)| stack.upgrade()) {
            return Ok(stack);
        }
        let stack = Arc::new(build(config, secure)?);
        in_use.push((way, Arc::downgrade(&stack)));
        Ok(stack)
    }
}

fn build(config: &S3Config, secure: bool) -> Result<SharedHttpClient, RemoteError> {
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
