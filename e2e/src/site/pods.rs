//! The programs in a site's pods, for scenarios that break them off; what agents and policies then say.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onespace_core::load::Files;
use onespace_core::timestamp::Timestamp;
use onespace_stores::remote::Remote as _;
use serde_json::Value;

use super::{NAMESPACE, Site};
use crate::http::{Http, Method};
use crate::kube::cluster::{node_address, node_name};

/// The label of a pod that says what it is.
pub(super) const COMPONENT: &str = "app.kubernetes.io/component";

impl Site {
    /// A policy of the release's namespace.
    ///
    /// # Errors
    /// It is not there.
    pub async fn policy_of(&self, name: &str) -> Result<Value> {
        self.cluster.get(&["syncpol", "-n", NAMESPACE, name]).await
    }

    /// Waits until a condition of a policy has this status and reason for its newest generation. Returns the policy.
    ///
    /// # Errors
    /// It never had.
    pub async fn until_condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<Value> {
        self.until_said(name, kind, status, reason, "").await
    }

    /// The same, with this among the condition's words.
    ///
    /// # Errors
    /// It never was.
    pub async fn until_said(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
        words: &str,
    ) -> Result<Value> {
        let what = format!("{name}: {kind}={status}, reason {reason} {words}");
        self.cluster
            .until(&what, async || {
                let policy = self.policy_of(name).await?;
                let conditions = policy.pointer("/status/conditions").and_then(Value::as_array);
                let found = conditions.into_iter().flatten().any(|condition| {
                    condition["type"] == kind
                        && condition["status"] == status
                        && condition["reason"] == reason
                        && condition["observedGeneration"] == policy["metadata"]["generation"]
                        && condition["message"]
                            .as_str()
                            .is_some_and(|said| said.contains(words))
                });
                ensure!(found, "{}", policy["status"]);
                Ok(Some(policy))
            })
            .await
    }

    /// Has every agent act on a trigger of the policy, so that the status is written with the numbers of now. `token` is
    /// one that was never used for it.
    ///
    /// # Errors
    /// It was never acted on.
    pub async fn numbers(&self, name: &str, token: &str) -> Result<Value> {
        let trigger = format!("onespace.dev/retry={token}");
        self.cluster
            .kubectl(&[
                "annotate",
                "--overwrite",
                "syncpol",
                "-n",
                NAMESPACE,
                name,
                &trigger,
            ])
            .await?;
        self.cluster
            .until("a trigger that is acted on", async || {
                let policy = self.policy_of(name).await?;
                Ok((policy["status"]["lastHandledRetry"] == token).then_some(policy))
            })
            .await
    }

    /// The agent's pod on a node, if it runs.
    ///
    /// # Errors
    /// No answer.
    pub async fn agent_pod(&self, node: usize) -> Result<Option<Value>> {
        let agents = self.pods("node-agent").await?;
        let mut on_node = agents
            .into_iter()
            .filter(|pod| pod["spec"]["nodeName"] == node_name(node));
        Ok(on_node.next())
    }

    /// The pods of a component that are not about to go.
    ///
    /// # Errors
    /// No answer.
    pub async fn pods(&self, component: &str) -> Result<Vec<Value>> {
        let label = format!("{COMPONENT}={component}");
        let mut pods = self.cluster.get(&["pods", "-n", NAMESPACE, "-l", &label]).await?;
        let pods = pods["items"].as_array_mut().map(std::mem::take);
        let mut pods = pods.unwrap_or_default();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// The pod of the operator that leads.
    ///
    /// # Errors
    /// None does.
    pub async fn leader(&self) -> Result<String> {
        let lease = self
            .cluster
            .get(&["lease", "-n", NAMESPACE, "onespace-operator"])
            .await?;
        let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
        Ok(holder.context("no operator leads")?.to_owned())
    }

    /// The process of a node's agent, while there is one.
    #[must_use]
    pub fn agent_process(&self, node: usize) -> Option<u32> {
        process("onespace-node-agent", &format!("HOST_IP={}", node_address(node)))
    }

    /// The process of an operator's pod, while there is one.
    #[must_use]
    pub fn operator_process(&self, pod: &str) -> Option<u32> {
        process("onespace-operator", &format!("ONESPACE_IDENTITY={pod}"))
    }

    /// What an agent's metric says, summed over its labels as far as they contain `labels`; none if there is no such one.
    ///
    /// # Errors
    /// There is no agent on this node, or it does not answer.
    pub async fn agent_metric(&self, node: usize, name: &str, labels: &str) -> Result<Option<f64>> {
        let pod = self.agent_pod(node).await?.context("no agent")?;
        let address = pod.pointer("/status/podIP").and_then(Value::as_str);
        let url = format!("http://{}:9180/metrics", address.context("no address")?);
        let answer = Http::default()
            .send::<&str>(Method::GET, &url, &[], "")
            .await?
            .success()?;
        let text = answer.text();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
        let values = lines
            .filter(|line| line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.reduce(|sum, value| sum + value))
    }

    /// The operator's files as a pod would see them.
    ///
    /// # Errors
    /// No answer.
    pub async fn files(&self) -> Result<Files> {
        let mut files = Files::default();
        let ours = [
            "-n",
            NAMESPACE,
            "-l",
            "app.kubernetes.io/managed-by=onespace-operator",
        ];
        let objects = self
            .cluster
            .get(&[&["configmaps,secrets"], &ours[..]].concat())
            .await?;
        for object in objects["items"].as_array().into_iter().flatten() {
            let name = object.pointer("/metadata/name").and_then(Value::as_str);
            let name = name.unwrap_or_default();
            let values = object["data"].as_object().into_iter().flatten();
            for value in values.filter_map(|(_, value)| value.as_str()) {
                if name == "onespace-index" {
                    files.index = value.as_bytes().to_vec();
                } else if let Some(shard) = name.strip_prefix("onespace-mappings-") {
                    files.mappings.insert(shard.to_owned(), value.as_bytes().into());
                } else if let Some(shard) = name.strip_prefix("onespace-credentials-") {
                    files
                        .credentials
                        .insert(shard.to_owned(), STANDARD.decode(value)?.into());
                }
            }
        }
        Ok(files)
    }

    /// The copies below a prefix, each with its ETag and the time of its last write.
    ///
    /// # Errors
    /// The S3 server fails.
    pub async fn copies(&self, prefix: &str) -> Result<BTreeMap<String, (String, Timestamp)>> {
        let page = self
            .bucket()?
            .remote()
            .list(&format!("{prefix}/"), None, 1000)
            .await?;
        let copies = page.objects.into_iter();
        Ok(copies
            .map(|copy| (copy.key, (copy.etag, copy.last_modified)))
            .collect())
    }
}

/// Sends a signal to a process, if it is still there.
///
/// # Errors
/// There is no program to send signals with.
pub fn signal(process: u32, signal: &str) -> Result<()> {
    Command::new("kill")
        .args([&format!("-{signal}"), &process.to_string()])
        .output()?;
    Ok(())
}

/// The process of a container: its program, and what its environment has.
fn process(program: &str, variable: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let is_meant = |process: &std::fs::DirEntry| {
        let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
        let command = read("cmdline");
        let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
        first.ends_with(format!("/{program}").as_bytes())
            && read("environ")
                .split(|byte| *byte == 0)
                .any(|entry| entry == variable.as_bytes())
    };
    let mut found = processes.filter(is_meant);
    found.next()?.file_name().to_str()?.parse().ok()
}
