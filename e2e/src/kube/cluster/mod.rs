//! A real Kubernetes on this machine, with nodes that run pods: etcd, API server, controller-manager and scheduler, and for each
//! node containerd, kubelet and kube-proxy in a network namespace of its own; CoreDNS as pods. Ready in seconds.
//!
//! All of it runs in namespaces of its own: see [`inside`].

mod control;
mod dns;
mod image;
mod namespace;
mod network;
mod node;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ::kube::Client;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::node::Node;
use super::pki::Pki;
use super::process::Process;
use super::{AUDIT, connect, is_ready};
use crate::tools::tool;

pub use self::image::{Image, PAUSE};
pub use self::namespace::{enter_with, inside};
pub use self::network::{CONTROL_PLANE, node_address, on_node};
pub use self::node::node_name;

/// How long anything may take that takes a second. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(420);

/// A running cluster. It ends with the program.
pub struct Cluster {
    client: Client,
    folder: PathBuf,
    nodes: Vec<Node>,
    control: Vec<Process>,
}

impl Cluster {
    /// Starts a cluster with so many nodes and waits until every node is ready and names of services are answered.
    ///
    /// # Errors
    /// This is not [`inside`]; a program is missing; something did not become ready.
    pub async fn start(nodes: usize) -> Result<Self> {
        let folder = namespace::folder()?.join("cluster");
        std::fs::create_dir(&folder).context("there is one cluster for a program")?;
        network::make(nodes)?;
        let pki = Pki::create(&folder, &[CONTROL_PLANE])?;
        let kubeconfig = pki.kubeconfig(&format!("https://127.0.0.1:{}", control::PORT), &pki.admin);
        std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string())?;
        let mut cluster = Self {
            client: connect(kubeconfig).await?,
            control: control::start(&folder, &pki)?,
            nodes: (0..nodes)
                .map(|number| Node::start(&folder, number, &pki))
                .collect::<Result<_>>()?,
            folder,
        };
        cluster.until_containers().await?;
        cluster.nodes.iter_mut().try_for_each(Node::join)?;
        cluster.import(&[image::pause()?, dns::image()?])?;
        cluster.until_served().await?;
        cluster
            .control
            .splice(0..0, control::join(&cluster.folder, &pki)?);
        cluster.until_ready().await?;
        cluster.apply(&dns::objects()).await?;
        cluster
            .kubectl(&["rollout", "status", "-n", "kube-system", "deployment/coredns"])
            .await?;
        Ok(cluster)
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The cluster's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file with which programs find this cluster, with every right.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Puts images on every node. Pods name them with `imagePullPolicy: Never`.
    ///
    /// # Errors
    /// A file of an image is missing, or a node refuses.
    pub fn import(&self, images: &[Image]) -> Result<()> {
        for (number, image) in images.iter().enumerate() {
            let archive = self.folder.join(format!("image-{number}.tar"));
            image.write(&archive)?;
            std::thread::scope(|scope| {
                let imports: Vec<_> = self
                    .nodes
                    .iter()
                    .map(|node| scope.spawn(|| node.import(&archive)))
                    .collect();
                imports.into_iter().try_for_each(|import| match import.join() {
                    Ok(result) => result,
                    Err(_) => bail!("an import broke off"),
                })
            })
            .with_context(|| image.name().to_owned())?;
            std::fs::remove_file(archive)?;
        }
        Ok(())
    }

    /// Runs kubectl and returns what it prints.
    ///
    /// # Errors
    /// It failed; the message is its own.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run("kubectl", arguments, "").await
    }

    /// `kubectl get ... -o json`.
    ///
    /// # Errors
    /// It failed.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["get", "-o", "json"], arguments].concat();
        Ok(serde_json::from_str(&self.kubectl(&all).await?)?)
    }

    /// `kubectl apply --server-side` of these objects.
    ///
    /// # Errors
    /// One was refused.
    pub async fn apply(&self, objects: &Value) -> Result<String> {
        self.apply_text(&objects.to_string()).await
    }

    /// `kubectl apply --server-side` of YAML or JSON.
    ///
    /// # Errors
    /// One was refused.
    pub async fn apply_text(&self, objects: &str) -> Result<String> {
        self.run("kubectl", &["apply", "--server-side", "-f", "-"], objects)
            .await
    }

    /// `kubectl apply` as a person calls it: of new objects, or of what `kubectl get -o yaml` printed once.
    ///
    /// # Errors
    /// One was refused.
    pub async fn apply_by_hand(&self, objects: &str) -> Result<String> {
        self.run("kubectl", &["apply", "-f", "-"], objects).await
    }

    /// Runs helm and returns what it prints.
    ///
    /// # Errors
    /// It failed; the message is its own.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.run("helm", arguments, "").await
    }

    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new("timeout")
            .arg(DEADLINE.as_secs().to_string())
            .arg(tool(&format!("bin/{program}"))?)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            // Whoever ends early does not read all of it; its status says why.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output()
        })
        .await??;
        ensure!(
            output.status.success(),
            "{program} {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The lines of the API server's audit log: one for each request that was answered.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.join(AUDIT))?;
        // The last line may be half written.
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Waits until this yields something.
    ///
    /// # Errors
    /// It never did; the message says how the pods are.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let seen = look().await;
            if let Ok(Some(found)) = seen {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let pods = self.kubectl(&["get", "pods", "-A", "-o", "wide"]).await;
                let last = seen.err().map(|error| format!("{error:#}")).unwrap_or_default();
                bail!(
                    "not within {DEADLINE:?}: {what}\n{last}\n{}",
                    pods.unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_containers(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !self.nodes.iter().all(Node::answers) {
            self.check()?;
            ensure!(Instant::now() < deadline, "containerd does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn until_served(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !is_ready(&self.client).await {
            self.check()?;
            ensure!(Instant::now() < deadline, "the API server is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.check()?;
            if self.ready_nodes().await? == self.nodes.len() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the nodes are not ready: {}",
                self.kubectl(&["describe", "nodes"]).await?
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many nodes say that they are ready.
    ///
    /// # Errors
    /// No answer.
    pub async fn ready_nodes(&self) -> Result<usize> {
        let nodes = self.get(&["nodes"]).await?;
        let nodes = nodes["items"].as_array().into_iter().flatten();
        Ok(nodes.filter(|node| has_condition(node, "Ready")).count())
    }

    fn check(&mut self) -> Result<()> {
        self.control.iter_mut().try_for_each(Process::check)?;
        self.nodes.iter_mut().try_for_each(Node::check)
    }
}

/// Whether an object has this condition, with status True.
#[must_use]
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}
