//! The operator at a real API server, and the files that it makes there.

mod files;
pub mod many;
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Value, json};

pub use self::process::Operator;
use crate::kube::Kubernetes;

/// How long anything may take that the operator should do by itself. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(120);

/// The operator's own namespace.
pub const NAMESPACE: &str = "swift";

/// An API server that knows our resources.
pub struct Cluster {
    /// The API server.
    pub kubernetes: Kubernetes,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts an API server, installs the CRDs and makes the operator's namespace.
    ///
    /// # Errors
    /// It does not start, or takes something not.
    pub async fn start() -> Result<Self> {
        let kubernetes = Kubernetes::start().await?;
        for crd in [
            serde_json::to_value(onespace_crds::sync_policy_crd()?)?,
            serde_json::to_value(onespace_crds::account_grant_crd()?)?,
        ] {
            kubernetes.install_crd(&crd).await?;
        }
        let cluster = Self {
            kubernetes,
            folder: tempfile::tempdir()?,
        };
        cluster.namespace(NAMESPACE, &json!({})).await?;
        Ok(cluster)
    }

    /// Makes a namespace with labels.
    ///
    /// # Errors
    /// It is refused.
    pub async fn namespace(&self, name: &str, labels: &Value) -> Result<()> {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        self.kubernetes.create("/api/v1/namespaces", &namespace).await?;
        Ok(())
    }

    /// A folder of this cluster's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts an operator. `more` are further arguments.
    ///
    /// # Errors
    /// The program is missing.
    pub fn operator(&self, name: &str, more: &[&str]) -> Result<Operator> {
        self.operator_with(&self.kubernetes.kubeconfig(), name, more)
    }

    /// Starts an operator that finds the cluster by this file.
    ///
    /// # Errors
    /// The program is missing.
    pub fn operator_with(&self, kubeconfig: &Path, name: &str, more: &[&str]) -> Result<Operator> {
        Operator::start(self, kubeconfig, name, more)
    }

    /// Creates or replaces an object.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply(&self, object: &Value) -> Result<Value> {
        let path = path_of(object)?;
        let name = text(object, "/metadata/name")?;
        let one = format!("{path}/{name}");
        match self.kubernetes.send(Method::GET, &one, None).await? {
            Err(_) => self.kubernetes.create(&path, object).await,
            Ok(there) => {
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
                match self.kubernetes.send(Method::PUT, &one, Some(&object)).await? {
                    Ok(written) => Ok(written),
                    Err(status) => bail!("{one}: refused: {}", status.message),
                }
            }
        }
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// It is not there.
    pub async fn delete(&self, object: &Value) -> Result<()> {
        let one = format!("{}/{}", path_of(object)?, text(object, "/metadata/name")?);
        match self.kubernetes.send(Method::DELETE, &one, None).await? {
            Ok(_) => Ok(()),
            Err(status) => bail!("{one}: {}", status.message),
        }
    }

    /// A policy as it is.
    ///
    /// # Errors
    /// It is not there.
    pub async fn policy(&self, namespace: &str, name: &str) -> Result<Value> {
        self.get(&format!(
            "/apis/onespace.dev/v1alpha1/namespaces/{namespace}/syncpolicies/{name}"
        ))
        .await
    }

    async fn get(&self, path: &str) -> Result<Value> {
        match self.kubernetes.send(Method::GET, path, None).await? {
            Ok(object) => Ok(object),
            Err(status) => bail!("{path}: {}", status.message),
        }
    }

    /// An object of the core group in the operator's namespace, if it is there.
    ///
    /// # Errors
    /// No answer.
    pub async fn object(&self, resource: &str, name: &str) -> Result<Option<Value>> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/{resource}/{name}");
        Ok(self.kubernetes.send(Method::GET, &path, None).await?.ok())
    }

    /// All objects of a kind in the operator's namespace.
    ///
    /// # Errors
    /// No answer.
    pub async fn list(&self, group: &str, resource: &str) -> Result<Vec<Value>> {
        let list = self
            .get(&format!("{group}/namespaces/{NAMESPACE}/{resource}"))
            .await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a condition of a policy has this status and reason. Returns its message.
    ///
    /// # Errors
    /// It never had.
    pub async fn until_condition(
        &self,
        (namespace, name): (&str, &str),
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Result<String> {
        let what = format!("{namespace}/{name}: {kind}={status}, reason {reason}");
        self.until(&what, async || {
            let policy = self.policy(namespace, name).await?;
            let conditions = policy.pointer("/status/conditions").and_then(Value::as_array);
            let mut conditions = conditions.into_iter().flatten();
            let found = conditions.find(|condition| {
                condition["type"] == kind
                    && condition["status"] == status
                    && condition["reason"] == reason
                    && condition["observedGeneration"] == policy["metadata"]["generation"]
            });
            Ok(found.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned()))
        })
        .await
        .map_err(|error| error.context(format!("{what} never came")))
    }

    /// Waits until this yields something.
    ///
    /// # Errors
    /// It never did.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("not within {DEADLINE:?}: {what}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All policies, Secrets and ConfigMaps, as `kubectl get -o json` prints them.
    ///
    /// # Errors
    /// No answer.
    pub async fn dump(&self) -> Result<Value> {
        let mut items = Vec::new();
        for (path, version, kind) in [
            (
                "/apis/onespace.dev/v1alpha1/syncpolicies",
                "onespace.dev/v1alpha1",
                "SyncPolicy",
            ),
            ("/api/v1/secrets", "v1", "Secret"),
            ("/api/v1/configmaps", "v1", "ConfigMap"),
        ] {
            let list = self.get(path).await?;
            for item in list["items"].as_array().into_iter().flatten() {
                let mut item = item.clone();
                item["apiVersion"] = json!(version);
                item["kind"] = json!(kind);
                items.push(item);
            }
        }
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.with_context(|| format!("no {pointer} in {object}"))
}

fn path_of(object: &Value) -> Result<String> {
    let namespace = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or(NAMESPACE);
    Ok(match text(object, "/kind")? {
        "SyncPolicy" => format!("/apis/onespace.dev/v1alpha1/namespaces/{namespace}/syncpolicies"),
        "AccountGrant" => "/apis/onespace.dev/v1alpha1/accountgrants".to_owned(),
        "Secret" => format!("/api/v1/namespaces/{namespace}/secrets"),
        "ConfigMap" => format!("/api/v1/namespaces/{namespace}/configmaps"),
        "Pod" => format!("/api/v1/namespaces/{namespace}/pods"),
        kind => bail!("where {kind} is, is not known here"),
    })
}
