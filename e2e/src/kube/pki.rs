//! The certificates of one cluster: a CA, the API server's, and the administrator's.

use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

/// What a client needs, as PEM.
pub(super) struct Pki {
    pub ca: String,
    pub admin_certificate: String,
    pub admin_key: String,
}

impl Pki {
    /// Makes all certificates and keys and writes into `folder` those that the servers read.
    pub fn create(folder: &Path) -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut params = params(&[], "onespace tests", None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = params.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(params, ca_key);

        let sign = |mut params: CertificateParams, usage| -> Result<(String, String)> {
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        let names = [
            "localhost",
            "kubernetes.default",
            "kubernetes.default.svc",
            "127.0.0.1",
            "10.96.0.1",
        ];
        let server = sign(
            self::params(&names, "kube-apiserver", None)?,
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        let admin = sign(
            self::params(&[], "admin", Some("system:masters"))?,
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;

        std::fs::write(folder.join("ca.crt"), &ca)?;
        std::fs::write(folder.join("server.crt"), server.0)?;
        std::fs::write(folder.join("server.key"), server.1)?;
        let tokens = KeyPair::generate()?;
        std::fs::write(folder.join("service-accounts.key"), tokens.serialize_pem())?;
        std::fs::write(folder.join("service-accounts.pub"), tokens.public_key_pem())?;
        Ok(Self {
            ca,
            admin_certificate: admin.0,
            admin_key: admin.1,
        })
    }
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
