//! A whole site: Kubernetes with three nodes, each of which is a Swift node, too; an S3 server; our images on every node.

mod pods;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::kube::cluster::{CONTROL_PLANE, Cluster, Image, node_address, node_name, on_node};
use crate::lab::Keys;
use crate::s3::{Bucket, Minio};
use crate::swift::{Options, Place, Swift};
use crate::tools::{tool, workspace};

pub use self::pods::signal;

/// Nodes of a site.
pub const NODES: usize = 3;

/// The namespace that the chart is installed into.
pub const NAMESPACE: &str = "swift";

/// The bucket of every scenario.
pub const BUCKET: &str = "backup";

/// The number of Swift's user in its image.
const SWIFT_USER: u32 = 160;

/// Where the image has Swift's venv, and how its proxy is started there: its own first line names the Python of another
/// place.
const VENV: &str = "/opt/swift";
const PROXY_SERVER: [&str; 2] = ["/opt/swift/bin/python", "/opt/swift/bin/swift-proxy-server"];

/// A running site.
pub struct Site {
    /// Kubernetes.
    pub cluster: Arc<Cluster>,
    /// Its servers run on Kubernetes' nodes; the proxies beside the control plane.
    pub swift: Swift,
    /// The remote.
    pub s3: Minio,
}

impl Site {
    /// Starts everything but onespace itself, on a cluster of [`NODES`] nodes.
    ///
    /// # Errors
    /// Something did not start.
    pub async fn start(cluster: Arc<Cluster>) -> Result<Self> {
        let places = (0..NODES).map(|node| Place {
            address: node_address(node),
            enter: on_node(node),
        });
        let swift = Swift::start(Options {
            places: places.collect(),
            ..Options::three_nodes()
        })
        .await?;
        for node in 0..NODES {
            copy_configuration(&swift, node, &host_folder(&cluster, node))?;
        }
        cluster.import(&images()?)?;
        let s3 = Minio::start().await?;
        s3.create_bucket(BUCKET)?;
        Ok(Self { cluster, swift, s3 })
    }

    /// The S3 server's URL for pods.
    #[must_use]
    pub fn s3_endpoint(&self) -> String {
        for_pods(&self.s3.endpoint())
    }

    /// The bucket as its owner sees it.
    ///
    /// # Errors
    /// None is known.
    pub fn bucket(&self) -> Result<Bucket> {
        self.bucket_of(BUCKET)
    }

    /// Another bucket of the S3 server.
    ///
    /// # Errors
    /// None is known.
    pub fn bucket_of(&self, name: &str) -> Result<Bucket> {
        let endpoint = self.s3.endpoint();
        let keys = Keys {
            endpoint: &endpoint,
            access: self.s3.access_key(),
            secret: self.s3.secret_key(),
        };
        Bucket::new(&keys, name)
    }

    /// A policy for a container of AUTH_test, and its Secret, as a person writes them.
    #[must_use]
    pub fn policy(&self, container: &str) -> String {
        format!(
            "apiVersion: onespace.dev/v1alpha1
kind: SyncPolicy
metadata: {{name: {container}, namespace: {NAMESPACE}}}
spec:
  mode: Sync
  source: {{account: AUTH_test, container: {container}}}
  target:
    protocol: S3
    endpoint: {endpoint}
    bucket: {BUCKET}
    prefix: {container}
    credentials: {{secretRef: {{name: backup-keys}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: backup-keys, namespace: {NAMESPACE}}}
stringData: {{AWS_ACCESS_KEY_ID: {access}, AWS_SECRET_ACCESS_KEY: {secret}}}
",
            endpoint = self.s3_endpoint(),
            access = self.s3.access_key(),
            secret = self.s3.secret_key(),
        )
    }

    /// Waits until an object is in the bucket.
    ///
    /// # Errors
    /// It never was.
    pub async fn until_arrived(&self, key: &str, body: &str) -> Result<()> {
        self.until_arrived_in(BUCKET, key, body).await
    }

    /// Waits until an object is in another bucket.
    ///
    /// # Errors
    /// It never was.
    pub async fn until_arrived_in(&self, bucket: &str, key: &str, body: &str) -> Result<()> {
        let what = format!("{key} in the bucket {bucket}");
        let bucket = self.bucket_of(bucket)?;
        self.cluster
            .until(&what, async || {
                let found = bucket.at(key).await?;
                Ok(found.filter(|found| found.body == body.as_bytes()).map(drop))
            })
            .await
    }

    /// What all agents logged so far.
    ///
    /// # Errors
    /// kubectl's.
    pub async fn agents_logs(&self) -> Result<String> {
        let agents = format!("{}=node-agent", pods::COMPONENT);
        let logs = ["logs", "-n", NAMESPACE, "-c", "agent", "--tail=-1", "-l", &agents];
        self.cluster.kubectl(&logs).await
    }

    /// The chart's values for this site. Nodes share one file system here, so each has a pool with folders of its own.
    #[must_use]
    pub fn values(&self) -> Value {
        let pools = self.swift.nodes().iter().map(|node| {
            let host = host_folder(&self.cluster, node.number);
            let port = node.container_server();
            let port = port.rsplit(':').next().unwrap_or_default();
            let pool = json!({
                "nodeSelector": {"kubernetes.io/hostname": node_name(node.number)},
                "swiftDir": host.join("swift"),
                "devicesDir": node.devices(),
                "stateDir": host.join("state"),
                "containerServerPort": port.parse::<u16>().unwrap_or_default(),
            });
            (node_name(node.number), pool)
        });
        json!({
            "image": {"registry": "onespace.dev", "tag": "test", "pullPolicy": "Never"},
            "helmTest": {"patienceSeconds": 240},
            "agents": {
                "pools": pools.collect::<serde_json::Map<_, _>>(),
                "verificationSlack": "5s",
            },
            "internalEndpoint": {
                "image": "onespace.dev/swift:test",
                "pullPolicy": "Never",
                "command": PROXY_SERVER,
                "runAsUser": SWIFT_USER,
                "memcacheServers": for_pods(&self.swift.memcached()),
            },
        })
    }

    /// Removes what an earlier scenario installed, and its namespace with every policy.
    ///
    /// # Errors
    /// Helm's.
    pub async fn remove(&self) -> Result<()> {
        let uninstall = [
            "uninstall",
            "onespace",
            "--namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--wait",
        ];
        self.cluster.helm(&uninstall).await?;
        let delete = ["delete", "namespace", NAMESPACE, "--ignore-not-found"];
        self.cluster.kubectl(&delete).await?;
        Ok(())
    }

    /// Removes what an earlier scenario installed, and installs anew.
    ///
    /// # Errors
    /// Helm's.
    pub async fn install_anew(&self, more: &[&str]) -> Result<String> {
        self.remove().await?;
        self.install(more).await
    }

    /// `helm install`, or `upgrade` if it is there; waits until every pod is ready. `more` are further arguments.
    ///
    /// # Errors
    /// Helm's.
    pub async fn install(&self, more: &[&str]) -> Result<String> {
        self.install_chart(&workspace().join("charts/onespace"), more)
            .await
    }

    /// The same with another chart than ours.
    ///
    /// # Errors
    /// Helm's.
    pub async fn install_chart(&self, chart: &Path, more: &[&str]) -> Result<String> {
        let values = self.cluster.folder().join("values.json");
        std::fs::write(&values, self.values().to_string())?;
        let (chart, values) = (chart.display().to_string(), values.display().to_string());
        let words = installation(&chart, &values);
        self.cluster.helm(&[&words[..], more].concat()).await
    }
}

/// What helm is told to install a chart with a file of values, or to upgrade what is there.
#[must_use]
pub fn installation<'a>(chart: &'a str, values: &'a str) -> [&'a str; 12] {
    [
        "upgrade",
        "--install",
        "onespace",
        chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "360s",
        "-f",
        values,
    ]
}

/// What listens on 127.0.0.1 of this program is at the control plane's address for pods.
#[must_use]
pub fn for_pods(address: &str) -> String {
    address.replace("127.0.0.1", CONTROL_PLANE)
}

/// What a pod sees of a node.
fn host_folder(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.folder().join(node_name(node)).join("host")
}

/// A copy without links: in a pod they would lead nowhere.
fn copy_configuration(swift: &Swift, node: usize, host: &Path) -> Result<()> {
    let folder = host.join("swift");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(swift.nodes()[node].swift_dir())? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        std::fs::copy(&path, folder.join(name)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Our images, and one with Swift.
fn images() -> Result<Vec<Image>> {
    Ok(vec![
        Image::of_program(
            "onespace.dev/onespace-operator:test",
            "onespace-operator",
            "65532:65532",
        )?,
        Image::of_program(
            "onespace.dev/onespace-node-agent:test",
            "onespace-node-agent",
            "0:0",
        )?,
        swift_image()?,
    ])
}

fn venv() -> PathBuf {
    let venv = workspace().join(".tools/venv");
    venv.canonicalize().unwrap_or(venv)
}

/// The venv, with the Python that it was made from. Its own place may lie below a folder that pods mount over, like /tmp;
/// a venv works from any.
fn swift_image() -> Result<Image> {
    let python = tool("venv/bin/python")?.canonicalize()?;
    let ask = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let library = Command::new(&python).args(["-c", ask]).output()?;
    let library = PathBuf::from(String::from_utf8(library.stdout)?.trim());
    let users = tempfile::NamedTempFile::new()?;
    std::fs::write(
        users.path(),
        format!("root:x:0:0::/:/\nswift:x:{SWIFT_USER}:{SWIFT_USER}::/:/\n"),
    )?;
    std::fs::set_permissions(users.path(), std::fs::Permissions::from_mode(0o644))?;
    let (_, users) = users.keep()?;
    let unused = [
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "lib2to3",
        "ensurepip",
        "site-packages",
        "dist-packages",
    ];
    let interpreter = python.display().to_string();
    Image::new("onespace.dev/swift:test", &PROXY_SERVER)
        .user(&format!("{SWIFT_USER}:{SWIFT_USER}"))
        .program(&python, &interpreter)?
        .file(&users, "/etc/passwd")
        .tree(&library, &library, &unused)?
        .tree(
            &venv(),
            Path::new(VENV),
            &["__pycache__", "pip", "tests", "locale"],
        )
}
