//! A real Kubernetes API on this machine: etcd and kube-apiserver, ready in a few seconds, in a folder of its own, gone
//! without a trace when dropped. No nodes: what is created is stored and checked, nothing runs.

pub mod cluster;
mod pki;
mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::core::Status;
use ::kube::{Client, Config, Error};
use anyhow::{Context as _, Result, bail};
use http::{Method, Request};
use serde_json::Value;

use self::pki::{Pki, Signed};
use self::process::Process;
use crate::ports::free_port;

/// How long the servers may take to become ready. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(120);

/// Names of files in the cluster's folder.
const KUBECONFIG: &str = "kubeconfig";
const AUDIT: &str = "audit.log";

/// Which requests are told of, and how much of each.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// A running API server with its etcd. Fields are dropped in this order.
pub struct Kubernetes {
    client: Client,
    _api_server: Process,
    _etcd: Process,
    folder: tempfile::TempDir,
    pki: Pki,
    port: u16,
}

impl Kubernetes {
    /// Starts both and waits until requests are served.
    ///
    /// # Errors
    /// A program is missing, or does not become ready.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let pki = Pki::create(folder.path(), &[])?;

        let (etcd_port, peer_port) = (free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let data = folder.path().join("etcd");
        let mut etcd = Process::start(
            folder.path(),
            "etcd",
            &[
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster=default={peer_url}"),
                // What is written here need not survive this machine.
                "--unsafe-no-fsync".to_owned(),
            ],
        )?;

        let port = free_port()?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(folder.path().join("audit-policy"), AUDIT_POLICY)?;
        let mut api_server = Process::start(
            folder.path(),
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd_url}"),
                "--bind-address=127.0.0.1".to_owned(),
                // The machine may have no other address.
                "--advertise-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--secure-port={port}"),
                format!("--cert-dir={}", file("unused")),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--tls-cert-file={}", file("server.crt")),
                format!("--tls-private-key-file={}", file("server.key")),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--anonymous-auth=false".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", file("service-accounts.pub")),
                format!(
                    "--service-account-signing-key-file={}",
                    file("service-accounts.key")
                ),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                format!("--audit-policy-file={}", file("audit-policy")),
                format!("--audit-log-path={}", file(AUDIT)),
            ],
        )?;

        let kubeconfig = pki.kubeconfig(&format!("https://127.0.0.1:{port}"), &pki.admin);
        std::fs::write(folder.path().join(KUBECONFIG), kubeconfig.to_string())?;
        let client = connect(kubeconfig).await?;
        let deadline = Instant::now() + DEADLINE;
        while !is_ready(&client).await {
            etcd.check()?;
            api_server.check()?;
            if Instant::now() > deadline {
                bail!(
                    "kube-apiserver is not ready after {DEADLINE:?}: {}",
                    api_server.said()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self {
            client,
            _api_server: api_server,
            _etcd: etcd,
            folder,
            pki,
            port,
        })
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A file with which programs find this cluster, with every right.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join(KUBECONFIG)
    }

    /// The port that it serves on, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same at another port, from where requests come here.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_at(&self, port: u16) -> Result<PathBuf> {
        self.write_kubeconfig(&format!("kubeconfig-{port}"), port, &self.pki.admin)
    }

    /// The same for a user who has no right yet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_of(&self, user: &str) -> Result<PathBuf> {
        let signed = self.pki.client(user, None)?;
        self.write_kubeconfig(&format!("kubeconfig-{user}"), self.port, &signed)
    }

    fn write_kubeconfig(&self, name: &str, port: u16, user: &Signed) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        let kubeconfig = self.pki.kubeconfig(&format!("https://127.0.0.1:{port}"), user);
        std::fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// The lines of the API server's audit log: one for each request that was answered.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.path().join(AUDIT))?;
        // The last line may be half written.
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Sends one object (or nothing) with strict validation of its fields, as kubectl does. The inner result is the
    /// API server's verdict.
    ///
    /// # Errors
    /// No answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Value, Box<Status>>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?fieldValidation=Strict"))
            .header("content-type", "application/json")
            .body(match body {
                Some(body) => serde_json::to_vec(body)?,
                None => Vec::new(),
            })?;
        match self.client.request(request).await {
            Ok(object) => Ok(Ok(object)),
            Err(Error::Api(status)) => Ok(Err(status)),
            Err(error) => Err(error).with_context(|| format!("no answer for {path}")),
        }
    }

    /// Creates an object and expects that it is accepted.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        match self.send(Method::POST, path, Some(object)).await? {
            Ok(created) => Ok(created),
            Err(status) => bail!("{path}: refused: {}", status.message),
        }
    }

    /// Installs a CustomResourceDefinition and waits until its objects can be created.
    ///
    /// # Errors
    /// It is refused, or never established.
    pub async fn install_crd(&self, crd: &Value) -> Result<()> {
        let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let created = self.create(all, crd).await?;
        let name = created
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .context("a CRD without a name")?;
        let text = |pointer: &str| {
            crd.pointer(pointer)
                .and_then(Value::as_str)
                .context("a CRD without names")
        };
        let objects = format!(
            "/apis/{}/{}/{}",
            text("/spec/group")?,
            text("/spec/versions/0/name")?,
            text("/spec/names/plural")?
        );
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Established is not enough: the path itself appears a moment later.
            if self.send(Method::GET, &objects, None).await?.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let state = self.send(Method::GET, &format!("{all}/{name}"), None).await?;
                bail!("the CRD {name} is not established after {DEADLINE:?}: {state:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn connect(kubeconfig: Value) -> Result<Client> {
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Whatever the environment says: this server is here.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = Request::get("/readyz").body(Vec::new()) else {
        return false;
    };
    client.request_text(request).await.is_ok()
}
