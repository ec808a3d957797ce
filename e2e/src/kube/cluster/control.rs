//! The control plane: etcd, API server, controller-manager, scheduler.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::network::CONTROL_PLANE;
use crate::kube::pki::Pki;
use crate::kube::process::Process;
use crate::kube::{AUDIT, AUDIT_POLICY};

/// Where the API server listens, at [`CONTROL_PLANE`] and on 127.0.0.1.
pub(super) const PORT: u16 = 6443;

/// The services' network; the API server's own is the first address, [`DNS`] is among them.
const SERVICES: &str = "10.96.0.0/16";

/// The address of the service of CoreDNS.
pub(super) const DNS: &str = "10.96.0.10";

/// The API server's URL for everything in the cluster.
pub(super) fn url() -> String {
    format!("https://{CONTROL_PLANE}:{PORT}")
}

/// Starts etcd and the API server. They are not ready yet.
pub(super) fn start(folder: &Path, pki: &Pki) -> Result<Vec<Process>> {
    let file = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("audit-policy"), AUDIT_POLICY)?;
    let etcd = Process::start(
        folder,
        "etcd",
        &[
            format!("--data-dir={}", file("etcd")),
            // What is written here need not survive this machine.
            "--unsafe-no-fsync".to_owned(),
        ],
    )?;
    let kubelet_client = pki.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
    std::fs::write(folder.join("kubelet-client.crt"), kubelet_client.certificate)?;
    std::fs::write(folder.join("kubelet-client.key"), kubelet_client.key)?;
    let api_server = Process::start(
        folder,
        "kube-apiserver",
        &[
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={CONTROL_PLANE}"),
            format!("--secure-port={PORT}"),
            format!("--cert-dir={}", file("unused")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", file("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-accounts.pub")),
            format!(
                "--service-account-signing-key-file={}",
                file("service-accounts.key")
            ),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--audit-policy-file={}", file("audit-policy")),
            format!("--audit-log-path={}", file(AUDIT)),
        ],
    )?;
    Ok(vec![api_server, etcd])
}

/// Starts controller-manager and scheduler. The API server is ready: they would not wait for it long.
pub(super) fn join(folder: &Path, pki: &Pki) -> Result<[Process; 2]> {
    let file = |name: &str| folder.join(name).display().to_string();
    let kubeconfig = |name: &str| -> Result<String> {
        let config: Value = pki.kubeconfig(&url(), &pki.client(&format!("system:{name}"), None)?);
        std::fs::write(folder.join(name), config.to_string())?;
        Ok(format!("--kubeconfig={}", file(name)))
    };
    let controllers = Process::start(
        folder,
        "kube-controller-manager",
        &[
            kubeconfig("kube-controller-manager")?,
            format!("--root-ca-file={}", file("ca.crt")),
            format!(
                "--service-account-private-key-file={}",
                file("service-accounts.key")
            ),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--cert-dir={}", file("unused")),
        ],
    )?;
    let scheduler = Process::start(
        folder,
        "kube-scheduler",
        &[
            kubeconfig("kube-scheduler")?,
            "--leader-elect=false".to_owned(),
            format!("--cert-dir={}", file("unused")),
        ],
    )?;
    Ok([scheduler, controllers])
}
