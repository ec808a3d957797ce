//! Mutual TLS between our own programs: both sides show a certificate of one private authority, and nobody else is
//! heard. Certificates are files, as Kubernetes mounts them, and may be replaced at any time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name in the certificate that agents share: they are asked by address, which no certificate can name beforehand.
pub const AGENT_NAME: &str = "onespace-node-agent";

/// The authority's certificate, and one's own with its key.
pub const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// How often replaced files are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read ({source}): give a folder with ca.crt, tls.crt and tls.key in PEM")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in the files does not do.
    #[error("{what} cannot be used ({cause}): have the certificates made anew")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// Why.
        cause: String,
    },
}

/// PEM texts. The key cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Certificates of the authority.
    pub authority: Vec<u8>,
    /// One's own certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

impl Identity {
    /// Reads `ca.crt`, `tls.crt` and `tls.key` of a folder.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn read(folder: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| TlsError::Unreadable { path, source })
        };
        let [authority, certificate, key] = FILES;
        Ok(Self {
            authority: read(authority)?,
            certificate: read(certificate)?,
            key: read(key)?,
        })
    }

    /// For a server that hears only clients with a certificate of the authority.
    ///
    /// # Errors
    /// Something is no PEM, or does not belong together.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(default_provider());
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(unusable("ca.crt"))?;
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable("TLS"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain()?, self.key()?)
            .map_err(unusable("tls.crt with tls.key"))
    }

    /// For a client of such a server.
    ///
    /// # Errors
    /// Something is no PEM, or does not belong together.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable("TLS"))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain()?, self.key()?)
            .map_err(unusable("tls.crt with tls.key"))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority, "ca.crt")? {
            roots.add(certificate).map_err(unusable("ca.crt"))?;
        }
        Ok(roots)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.certificate, "tls.crt")
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        // The parser's message quotes nothing of the key.
        PrivateKeyDer::from_pem_slice(&self.key).map_err(unusable("tls.key"))
    }
}

/// How agents are reached: at `https` their certificate must bear [`AGENT_NAME`], whatever their address.
pub type AgentConnector = HttpsConnector<HttpConnector>;

/// Reaches agents with this configuration, waiting so long for a connection.
///
/// # Errors
/// TLS cannot be used at all.
pub fn agent_connector(config: ClientConfig, patience: Duration) -> Result<AgentConnector, TlsError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(patience));
    tcp.set_nodelay(true);
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .with_server_name_resolver(FixedServerNameResolver::new(agent_name()?))
        .enable_http1()
        .wrap_connector(tcp))
}

fn agent_name() -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(AGENT_NAME).map_err(unusable("the name of agents"))
}

/// For a client that has no certificate yet: it trusts nobody.
///
/// # Errors
/// The cryptography cannot be used at all.
pub fn unknown_client() -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable("TLS"))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(unusable(what))
}

fn unusable<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TlsError {
    move |error| TlsError::Unusable {
        what,
        cause: error.to_string(),
    }
}

/// A server's configuration that follows its files. While there are none nobody is heard; while new ones cannot be used
/// the old ones stay.
pub struct Reloading {
    folder: PathBuf,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    used: Option<(Identity, Arc<ServerConfig>)>,
    looked: Option<Instant>,
    /// Why there is nothing new, as it was last said.
    said: Option<String>,
}

impl Reloading {
    /// Follows the files of a folder, which may come later.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            current: Mutex::default(),
        }
    }

    /// The configuration for the next connection; none while there are no files.
    #[must_use]
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            current.looked = Some(Instant::now());
            current.follow(&self.folder);
        }
        current.used.as_ref().map(|(_, config)| config.clone())
    }
}

impl Current {
    fn follow(&mut self, folder: &Path) {
        match Identity::read(folder).and_then(|identity| self.replace(identity)) {
            Ok(()) => self.said = None,
            Err(error) => {
                let words = error.to_string();
                if self.said.as_ref() != Some(&words) {
                    tracing::warn!(old_stay = self.used.is_some(), "certificates: {words}");
                    self.said = Some(words);
                }
            }
        }
    }

    fn replace(&mut self, identity: Identity) -> Result<(), TlsError> {
        if self.used.as_ref().is_none_or(|(used, _)| *used != identity) {
            let config = Arc::new(identity.server()?);
            self.used = Some((identity, config));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    struct Authority(String, Issuer<'static, KeyPair>);

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority(pem, Issuer::new(params, key))
    }

    fn identity(authority: &Authority, trusted: &Authority, purpose: ExtendedKeyUsagePurpose) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![AGENT_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        Identity {
            authority: trusted.0.clone().into_bytes(),
            certificate: params.signed_by(&key, &authority.1).unwrap().pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// Whether both sides end their handshake.
    fn agree(server: &Identity, client: &Identity) -> bool {
        let client = Arc::new(client.client().unwrap());
        let mut client = ClientConnection::new(client, agent_name().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server.server().unwrap())).unwrap();
        for _ in 0..8 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        !client.is_handshaking() && !server.is_handshaking()
    }

    #[test]
    fn only_certificates_of_the_same_authority_for_their_own_purpose_are_heard() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (ours, other) = (authority(), authority());
        let agent = identity(&ours, &ours, ServerAuth);
        assert!(agree(&agent, &identity(&ours, &ours, ClientAuth)));
        assert!(!agree(&agent, &identity(&other, &ours, ClientAuth)), "a stranger");
        assert!(
            !agree(&agent, &identity(&ours, &ours, ServerAuth)),
            "one agent asks another"
        );
        assert!(
            !agree(
                &identity(&other, &ours, ServerAuth),
                &identity(&ours, &ours, ClientAuth)
            ),
            "an agent of someone else"
        );
    }

    #[test]
    fn nobody_is_heard_before_there_are_certificates_and_broken_ones_replace_none() {
        let folder = tempfile::tempdir().unwrap();
        let write = |identity: &Identity| {
            let texts = [&identity.authority, &identity.certificate, &identity.key];
            for (name, text) in FILES.iter().zip(texts) {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
        };
        let mut current = Current::default();
        current.follow(folder.path());
        assert!(current.used.is_none());

        let ours = authority();
        let first = identity(&ours, &ours, ExtendedKeyUsagePurpose::ServerAuth);
        write(&first);
        current.follow(folder.path());
        let config = current.used.clone().unwrap().1;

        write(&Identity {
            key: b"nonsense".to_vec(),
            ..first.clone()
        });
        current.follow(folder.path());
        assert!(Arc::ptr_eq(&config, &current.used.clone().unwrap().1));
        assert!(!current.said.clone().unwrap().contains("nonsense"));

        write(&identity(&ours, &ours, ExtendedKeyUsagePurpose::ServerAuth));
        current.follow(folder.path());
        assert!(!Arc::ptr_eq(&config, &current.used.clone().unwrap().1), "rotated");
    }
}
