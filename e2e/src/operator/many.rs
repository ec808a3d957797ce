//! Many policies at once: what they are, and what an operator needs for them, by the API server's own record.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::NAMESPACE;

/// Requests under way at the same time.
const AT_ONCE: usize = 8;

/// The policy of this number, valid and in conflict with none. They share the keys of [`secret`].
#[must_use]
pub fn policy(number: usize) -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1",
        "kind": "SyncPolicy",
        "metadata": {"name": format!("p{number:04}"), "namespace": NAMESPACE},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": format!("c{number:04}")},
            "target": {"protocol": "S3", "endpoint": "http://s3.example.com", "bucket": "backup",
                "prefix": format!("all/p{number:04}"), "credentials": {"secretRef": {"name": "keys"}}},
        },
    })
}

/// The policies of these numbers, for kubectl.
#[must_use]
pub fn list(numbers: Range<usize>) -> Value {
    let items: Vec<Value> = numbers.map(policy).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// The keys of every [`policy`].
#[must_use]
pub fn secret() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"},
    })
}

/// Creates the policies of these numbers, as fast as the API server takes them.
///
/// # Errors
/// One is refused.
pub async fn create(client: &Client, numbers: Range<usize>) -> Result<()> {
    let path = format!("/apis/onespace.dev/v1alpha1/namespaces/{NAMESPACE}/syncpolicies");
    let creations = numbers.map(|number| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            let request = Request::post(path)
                .header("content-type", "application/json")
                .body(policy(number).to_string().into_bytes())?;
            client.request::<Value>(request).await?;
            anyhow::Ok(())
        }
    });
    futures::stream::iter(creations)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// What operators wrote.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Writes of files: ConfigMaps and Secrets.
    pub files: usize,
    /// The shortest time between two writes of one file, in seconds, and which file.
    pub closest: Option<(f64, String)>,
    /// How often each policy's status was written.
    pub statuses: BTreeMap<String, usize>,
}

impl Writes {
    /// By an audit log.
    ///
    /// # Errors
    /// A line has no time.
    pub fn of(audit: &[Value]) -> Result<Self> {
        let mut writes = Self::default();
        let mut last: BTreeMap<String, f64> = BTreeMap::new();
        for line in audit.iter().filter(|line| line["verb"] == "patch") {
            let object = &line["objectRef"];
            let name = object["name"].as_str().unwrap_or_default();
            if object["resource"] == "syncpolicies" && object["subresource"] == "status" {
                *writes.statuses.entry(name.to_owned()).or_default() += 1;
            }
            let is_file = object["resource"] == "configmaps" || object["resource"] == "secrets";
            if !is_file || !name.starts_with("onespace-") {
                continue;
            }
            writes.files += 1;
            let at = line["requestReceivedTimestamp"].as_str().context("no time")?;
            let at = at.parse::<jiff::Timestamp>()?.as_duration().as_secs_f64();
            if let Some(before) = last.insert(name.to_owned(), at) {
                let since = (at - before, name.to_owned());
                let is_closest = writes.closest.as_ref().is_none_or(|closest| since.0 < closest.0);
                if is_closest {
                    writes.closest = Some(since);
                }
            }
        }
        Ok(writes)
    }

    /// Whether this is what the operator promises for so many policies that were made once.
    ///
    /// # Errors
    /// It is not; the message says how.
    pub fn check(&self, policies: usize) -> Result<()> {
        if let Some((seconds, file)) = &self.closest {
            ensure!(*seconds >= 0.5, "{file} was written twice within {seconds} s");
        }
        let more: Vec<_> = self.statuses.iter().filter(|(_, writes)| **writes > 1).collect();
        ensure!(more.is_empty(), "one status write per policy: {more:?}");
        ensure!(
            self.statuses.len() == policies,
            "{} statuses",
            self.statuses.len()
        );
        Ok(())
    }
}

/// What clients asked of the API server, in order: verb and path.
#[must_use]
pub fn requests(audit: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = audit.iter().filter(|line| {
        !text(&line["userAgent"]).contains("kube-apiserver") && !text(&line["requestURI"]).contains("readyz")
    });
    ours.map(|line| format!("{} {}", text(&line["verb"]), text(&line["requestURI"])))
        .collect()
}

/// Memory of a process that is resident, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// The most so far.
    pub peak: u64,
    /// Now.
    pub now: u64,
}

impl Resident {
    /// Of the process with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            let number = number.and_then(|number| number.parse().ok());
            number.with_context(|| format!("no {name} of process {pid}"))
        };
        Ok(Self {
            peak: value("VmHWM:")?,
            now: value("VmRSS:")?,
        })
    }
}
