//! One installation for many scenarios, and what people are told there. Each scenario has containers, policies and
//! namespaces of its own.

use anyhow::{Context as _, Result, ensure};
use http::Request;
use onespace_e2e::site::{BUCKET, NAMESPACE, Site};
use serde_json::{Value, json};

/// Namespace and name of a policy.
pub type Name<'a> = (&'a str, &'a str);

/// The Secret with the right keys of the site's S3 server.
pub const KEYS: &str = "backup-keys";

/// Installs the chart for policies of every namespace, unless it is.
pub async fn installed(site: &Site) -> Result<()> {
    let values = [
        "get",
        "values",
        "onespace",
        "--namespace",
        NAMESPACE,
        "-o",
        "json",
    ];
    let values = site.cluster.helm(&values).await;
    let values: Value = serde_json::from_str(&values.unwrap_or_default()).unwrap_or_default();
    if values.pointer("/operator/watchNamespaces") == Some(&json!(["*"])) {
        return Ok(());
    }
    site.install_anew(&["--set", "operator.watchNamespaces={*}"])
        .await?;
    site.cluster
        .apply(&secret(site, NAMESPACE, site.s3.secret_key()))
        .await?;
    Ok(())
}

/// A Secret for the site's S3 server.
pub fn secret(site: &Site, namespace: &str, key: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS, "namespace": namespace},
           "stringData": {"AWS_ACCESS_KEY_ID": site.s3.access_key(), "AWS_SECRET_ACCESS_KEY": key}})
}

/// A policy for a container of AUTH_test, to the prefix of the policy's name.
pub fn policy(site: &Site, (namespace, name): Name<'_>, container: &str) -> Value {
    json!({
        "apiVersion": "onespace.dev/v1alpha1",
        "kind": "SyncPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "mode": "Sync",
            "source": {"account": "AUTH_test", "container": container},
            "target": {"protocol": "S3", "endpoint": site.s3_endpoint(), "bucket": BUCKET, "prefix": name,
                "credentials": {"secretRef": {"name": KEYS}}},
        },
    })
}

/// Several objects as one.
pub fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// What the API server has at a path.
pub async fn get(site: &Site, path: &str) -> Result<Value> {
    let request = Request::get(path).body(Vec::new())?;
    Ok(site.cluster.client().request(request).await?)
}

/// A policy as it is.
pub async fn look(site: &Site, (namespace, name): Name<'_>) -> Result<Value> {
    let path = format!("/apis/onespace.dev/v1alpha1/namespaces/{namespace}/syncpolicies/{name}");
    get(site, &path).await
}

/// A condition of a policy.
pub fn condition<'a>(policy: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = policy.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind)
}

/// Waits until a condition of a policy's newest generation has this status and reason. Returns its message.
pub async fn until_said(site: &Site, name: Name<'_>, [kind, status, reason]: [&str; 3]) -> Result<String> {
    let what = format!("{name:?}: {kind}={status}, reason {reason}");
    site.cluster
        .until(&what, async || {
            let policy = look(site, name).await?;
            let said = condition(&policy, kind).filter(|said| {
                said["status"] == status
                    && said["reason"] == reason
                    && said["observedGeneration"] == policy["metadata"]["generation"]
            });
            let said = said.with_context(|| format!("{:#}", policy["status"]))?;
            Ok(said["message"].as_str().map(str::to_owned))
        })
        .await
}

/// The Events about a policy.
pub async fn events(site: &Site, (namespace, name): Name<'_>) -> Result<Vec<Value>> {
    let events = get(
        site,
        &format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"),
    )
    .await?;
    let mut events = events["items"].as_array().cloned().unwrap_or_default();
    events.retain(|event| event["regarding"]["name"] == name && event["regarding"]["kind"] == "SyncPolicy");
    Ok(events)
}

/// Waits until an Event of this type and reason was told of a policy. Returns its message.
pub async fn until_event(site: &Site, name: Name<'_>, [kind, reason]: [&str; 2]) -> Result<String> {
    let what = format!("{name:?}: an Event {kind} {reason}");
    site.cluster
        .until(&what, async || {
            let events = events(site, name).await?;
            let event = events
                .iter()
                .find(|event| event["type"] == kind && event["reason"] == reason);
            let event = event.with_context(|| format!("{events:?}"))?;
            Ok(event["note"].as_str().map(str::to_owned))
        })
        .await
}

/// All that the author of a policy can see of its fate, as text: what must not be in it is nowhere.
pub async fn all_said(site: &Site, name: Name<'_>) -> Result<String> {
    let policy = look(site, name).await?;
    Ok(format!("{}{:?}", policy["status"], events(site, name).await?))
}

/// What the operator wrote into this kind of objects for the agents, as text.
pub async fn files(site: &Site, kind: &str) -> Result<String> {
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/{kind}?labelSelector=app.kubernetes.io/managed-by%3Donespace-operator"
    );
    let files = get(site, &path).await?;
    ensure!(files["items"].is_array(), "{files}");
    Ok(files["items"].to_string())
}

/// The metrics of every agent, as text.
pub async fn agents_metrics(site: &Site) -> Result<String> {
    let pods =
        format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3Dnode-agent");
    let pods = get(site, &pods).await?;
    let mut all = String::new();
    for pod in pods["items"].as_array().context("no pods")? {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:9180/proxy/metrics");
        let request = Request::get(path).body(Vec::new())?;
        all += &site.cluster.client().request_text(request).await?;
    }
    Ok(all)
}

/// Waits until no agent knows a policy any more.
pub async fn until_let_go(site: &Site, (namespace, name): Name<'_>) -> Result<()> {
    let label = format!(r#"name="{name}",namespace="{namespace}""#);
    let what = format!("agents let {namespace}/{name} go");
    site.cluster
        .until(&what, async || {
            Ok((!agents_metrics(site).await?.contains(&label)).then_some(()))
        })
        .await
}
