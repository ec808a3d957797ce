//! What the operator's account may do: all that it needs, and no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use http::Request;
use onespace_e2e::kube::cluster::has_condition;
use onespace_e2e::site::{NAMESPACE, Site};
use serde_json::{Value, json};

const ACCOUNT: &str = "system:serviceaccount:swift:onespace-operator";

/// A right: verb, API group, resource.
type Right = (String, String, String);

fn text(value: &Value, pointer: &str) -> String {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|text| text.as_str().map(str::to_owned))
}

/// What a Role or ClusterRole grants.
fn granted(role: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                rights.extend(texts(&rule["verbs"]).map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    rights
}

/// What the account did, in lines of the audit log.
fn used(audit: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for line in audit {
        let reference = &line["objectRef"];
        let resource = match text(reference, "/subresource") {
            none if none.is_empty() => text(reference, "/resource"),
            subresource => format!("{}/{subresource}", text(reference, "/resource")),
        };
        let right = |verb: &str| (verb.to_owned(), text(reference, "/apiGroup"), resource.clone());
        rights.insert(right(&text(line, "/verb")));
        // A server-side apply that creates needs both.
        if line["responseStatus"]["code"] == 201 {
            rights.insert(right("create"));
        }
    }
    rights
}

pub async fn the_operator_uses_every_right_that_it_has_and_is_denied_nothing(site: Arc<Site>) -> Result<()> {
    // An operator that ends while its rights are taken away is denied something.
    site.remove().await?;
    let before = site.cluster.audit()?.len();
    // Roles are made in it.
    site.cluster.kubectl(&["create", "namespace", "tenant"]).await?;
    site.install(&["--set", "operator.watchNamespaces={tenant}"])
        .await?;
    site.cluster.apply_text(&site.policy("rights")).await?;
    let tenant = site
        .policy("rights")
        .replace("namespace: swift", "namespace: tenant");
    site.cluster.apply_text(&tenant).await?;
    let authorities = std::fs::read_to_string(site.cluster.folder().join("ca.crt"))?;
    site.cluster
        .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authorities", "namespace": NAMESPACE},
                       "data": {"ca.crt": authorities}}))
        .await?;
    let certified = site.policy("certified").replace(
        "    endpoint: http:",
        "    caBundle: {configMapRef: {name: authorities, key: ca.crt}}\n    endpoint: https:",
    );
    site.cluster.apply_text(&certified).await?;
    site.cluster
        .until("the policy is accepted", async || {
            let policy = site.cluster.get(&["syncpol", "-n", NAMESPACE, "rights"]).await?;
            Ok(has_condition(&policy, "Accepted").then_some(()))
        })
        .await?;

    let audit = || -> Result<Vec<Value>> {
        let mut audit = site.cluster.audit()?.split_off(before);
        audit.retain(|line| line["user"]["username"] == ACCOUNT);
        Ok(audit)
    };
    let own = granted(
        &site
            .cluster
            .get(&["role", "-n", NAMESPACE, "onespace-operator"])
            .await?,
    );
    let cluster = granted(
        &site
            .cluster
            .get(&["clusterrole", "onespace-operator-swift"])
            .await?,
    );
    let mut all: BTreeSet<Right> = own.union(&cluster).cloned().collect();
    // For the finalizer of mode Archive, which is not done yet.
    let later = ("patch", "onespace.dev", "syncpolicies");
    ensure!(all.remove(&(later.0.to_owned(), later.1.to_owned(), later.2.to_owned())));
    ensure!(all.len() > 10, "{all:?}");
    site.cluster
        .until("every right used", async || {
            let used = used(&audit()?);
            let idle: Vec<_> = all.difference(&used).collect();
            ensure!(idle.is_empty(), "never used: {idle:?}");
            Ok(Some(()))
        })
        .await?;
    let denied: Vec<Value> = audit()?
        .into_iter()
        .filter(|line| line["responseStatus"]["code"] == 403)
        .map(|line| line["requestURI"].clone())
        .collect();
    ensure!(denied.is_empty(), "denied: {denied:?}");
    site.cluster.kubectl(&["delete", "namespace", "tenant"]).await?;
    Ok(())
}

pub async fn the_operator_may_change_its_own_annotations_of_pods_and_nothing_else(
    site: Arc<Site>,
) -> Result<()> {
    site.install_anew(&[]).await?;
    let agents = site.pods("node-agent").await?;
    let pod = agents.first().context("no agent's pod")?;
    let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
    let as_operator = async |change: &[&str]| {
        let all = [&["--as", ACCOUNT, "-n", NAMESPACE], change].concat();
        site.cluster.kubectl(&all).await
    };
    // kubectl would get the pod first, which is not allowed.
    let patch = async |patch: &str| -> Result<String> {
        let request = Request::patch(format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}"))
            .header("content-type", "application/merge-patch+json")
            .header("impersonate-user", ACCOUNT)
            .body(patch.as_bytes().to_vec())?;
        Ok(site.cluster.client().request_text(request).await?)
    };
    patch(r#"{"metadata": {"annotations": {"onespace.dev/mine": "1"}}}"#).await?;
    patch(r#"{"metadata": {"annotations": {"onespace.dev/mine": null}}}"#).await?;
    for (change, said) in [
        (
            r#"{"metadata": {"annotations": {"else": "1"}}}"#,
            "only annotations that begin with onespace.dev/",
        ),
        (
            r#"{"metadata": {"annotations": {"checksum/internal-endpoint": null}}}"#,
            "only annotations that begin with onespace.dev/",
        ),
        (
            r#"{"metadata": {"labels": {"else": "1"}}}"#,
            "nothing of a pod but annotations",
        ),
        (
            r#"{"metadata": {"finalizers": ["else/where"]}}"#,
            "nothing of a pod but annotations",
        ),
        (
            r#"{"spec": {"activeDeadlineSeconds": 1}}"#,
            "nothing of a pod but annotations",
        ),
    ] {
        let error = patch(change)
            .await
            .err()
            .with_context(|| format!("accepted: {change}"))?;
        ensure!(format!("{error:#}").contains(said), "{change}: {error:#}");
    }
    for more in [
        &["delete", "pod", pod][..],
        &["get", "pod", pod],
        &["exec", pod, "--", "true"],
    ] {
        let error = as_operator(more)
            .await
            .err()
            .with_context(|| format!("allowed: {more:?}"))?;
        ensure!(format!("{error:#}").contains("forbidden"), "{more:?}: {error:#}");
    }
    // What the API server thinks of its expressions.
    let policy = site
        .cluster
        .get(&[
            "validatingadmissionpolicy",
            "onespace-operator-swift.onespace.dev",
        ])
        .await?;
    ensure!(
        policy
            .pointer("/status/typeChecking/expressionWarnings")
            .is_none(),
        "{policy}"
    );
    Ok(())
}

pub async fn people_may_do_with_policies_what_their_role_in_the_namespace_lets_them(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let people = ["view", "edit", "admin"].map(|role| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("a-{role}"), "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("a-{role}")}]})
    });
    let bindings = json!({"apiVersion": "v1", "kind": "List", "items": people});
    site.cluster.apply(&bindings).await?;
    let can = async |person: &str, verb: &str, resource: &str| -> Result<bool> {
        // A slash would be taken for the name of an object. It ends with 1 when the answer is no.
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        let ask = [
            "auth",
            "can-i",
            verb,
            resource,
            &subresource,
            "-n",
            NAMESPACE,
            "--as",
            person,
        ];
        match site.cluster.kubectl(&ask).await {
            Ok(answer) => Ok(answer.trim() == "yes"),
            Err(error) if format!("{error:#}").contains(": no") => Ok(false),
            Err(error) => Err(error),
        }
    };
    // The controller adds ours to Kubernetes' own roles, a moment after they are there.
    site.cluster
        .until("the roles are aggregated", async || {
            Ok(can("a-edit", "create", "syncpolicies.onespace.dev")
                .await?
                .then_some(()))
        })
        .await?;
    for (person, verb, resource, allowed) in [
        ("a-view", "list", "syncpolicies.onespace.dev", true),
        ("a-view", "watch", "syncpolicies.onespace.dev", true),
        ("a-view", "patch", "syncpolicies.onespace.dev", false),
        ("a-edit", "list", "syncpolicies.onespace.dev", true),
        ("a-edit", "delete", "syncpolicies.onespace.dev", true),
        ("a-edit", "patch", "syncpolicies.onespace.dev/status", false),
        ("a-admin", "patch", "syncpolicies.onespace.dev", true),
        ("a-admin", "create", "accountgrants.onespace.dev", false),
        ("a-nobody", "list", "syncpolicies.onespace.dev", false),
    ] {
        let answer = can(person, verb, resource).await?;
        ensure!(answer == allowed, "{person} {verb} {resource}: {answer}");
    }
    Ok(())
}
