//! The certificates of one cluster: a CA, the API server's, the administrator's, and whatever else the CA is asked to sign.

use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};

/// A certificate and its key, as PEM.
pub(super) struct Signed {
    pub certificate: String,
    pub key: String,
}

/// A cluster's CA, and who may do everything.
pub(super) struct Pki {
    pub ca: String,
    pub admin: Signed,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes a CA and writes into `folder` what an API server reads. It has `names` beside those that every API server has.
    pub fn create(folder: &Path, names: &[&str]) -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut params = params(&[], "onespace tests", None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = params.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(params, ca_key);
        let admin = sign(&issuer, "admin", Some("system:masters"), &[])?;
        let pki = Self { ca, admin, issuer };

        let every = [
            "localhost",
            "kubernetes.default",
            "kubernetes.default.svc",
            "127.0.0.1",
            "10.96.0.1",
        ];
        let server = pki.server("kube-apiserver", &[&every, names].concat())?;
        std::fs::write(folder.join("ca.crt"), &pki.ca)?;
        std::fs::write(folder.join("server.crt"), server.certificate)?;
        std::fs::write(folder.join("server.key"), server.key)?;
        let tokens = KeyPair::generate()?;
        std::fs::write(folder.join("service-accounts.key"), tokens.serialize_pem())?;
        std::fs::write(folder.join("service-accounts.pub"), tokens.public_key_pem())?;
        Ok(pki)
    }

    /// A server's, for these names and addresses.
    pub fn server(&self, common_name: &str, names: &[&str]) -> Result<Signed> {
        sign(&self.issuer, common_name, None, names)
    }

    /// A client's: a user's name, and a group.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Signed> {
        sign(&self.issuer, user, group, &[])
    }

    /// A kubeconfig for the API server at this URL. JSON is YAML.
    pub fn kubeconfig(&self, server: &str, user: &Signed) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(&self.ca),
            }}],
            "users": [{"name": "user", "user": {
                "client-certificate-data": STANDARD.encode(&user.certificate),
                "client-key-data": STANDARD.encode(&user.key),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        })
    }
}

/// Signs for a server if there are names, else for a client.
fn sign(
    issuer: &Issuer<'static, KeyPair>,
    common_name: &str,
    organization: Option<&str>,
    names: &[&str],
) -> Result<Signed> {
    let mut params = params(names, common_name, organization)?;
    params.extended_key_usages = vec![if names.is_empty() {
        ExtendedKeyUsagePurpose::ClientAuth
    } else {
        ExtendedKeyUsagePurpose::ServerAuth
    }];
    let key = KeyPair::generate()?;
    Ok(Signed {
        certificate: params.signed_by(&key, issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn params(names: &[&str], common_name: &str, organization: Option<&str>) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    Ok(params)
}
