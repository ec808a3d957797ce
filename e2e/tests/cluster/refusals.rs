//! Policies that cannot be, and what their authors are told: by the API server at once, or by the operator.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::site::{NAMESPACE, Site};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::{Value, json};

use crate::shared::{
    all_said, files, installed, list, look, policy, secret, until_event, until_let_go, until_said,
};

/// A policy with one value changed.
fn with(site: &Site, name: &str, pointer: &str, value: Value) -> Result<Value> {
    let mut policy = policy(site, (NAMESPACE, name), name);
    let (parent, field) = pointer.rsplit_once('/').context("no pointer")?;
    policy.pointer_mut(parent).context("no such field")?[field] = value;
    Ok(policy)
}

pub async fn a_bad_policy_is_refused_or_told_what_is_wrong_and_the_others_run(site: Arc<Site>) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    user.create_container("good", NO_HEADERS).await?;
    user.put("good", "object", NO_HEADERS, "fine").await?;

    // By the schema, by a rule between fields, by a field that is none: nothing is stored.
    for (pointer, value, said) in [
        ("/spec/mode", json!("Copy"), r#"Unsupported value: "Copy""#),
        ("/spec/copyAfter", json!("soon"), "spec.copyAfter"),
        (
            "/spec/source/container",
            json!("/*"),
            "an account-wide policy takes no target.prefix, its containers would overwrite each other: remove it",
        ),
        (
            "/spec/target/endpoint",
            json!("http://key:hush@s3.example.com"),
            "the login belongs into the Secret of target.credentials",
        ),
        ("/spec/sucpend", json!(true), "sucpend"),
    ] {
        let bad = with(&site, "bad", pointer, value)?;
        let error = site.cluster.apply(&bad).await.err();
        let error = format!("{:#}", error.with_context(|| format!("{pointer} was accepted"))?);
        ensure!(error.contains(said), "{pointer}: {error}");
    }
    ensure!(look(&site, (NAMESPACE, "bad")).await.is_err(), "it is stored");

    // What only the operator can tell. The policy beside them runs.
    let semantic = [
        (
            "pattern",
            "/spec/exclude",
            json!("("),
            "InvalidPattern",
            "spec.exclude: ",
        ),
        (
            "archive",
            "/spec/mode",
            json!("Archive"),
            "NotYetSupported",
            "only mode Sync is supported so far",
        ),
        (
            "acl",
            "/spec/containerAcl",
            json!(true),
            "NotYetSupported",
            "spec.containerAcl: ACLs of containers are not supported yet: remove it",
        ),
        (
            "port",
            "/spec/target/endpoint",
            json!("http://s3.example.com:70000"),
            "InvalidEndpoint",
            "at most a port (1 to 65535)",
        ),
        (
            "zone",
            "/spec/limits",
            json!({"windows": [{"start": "08:00", "end": "10:00", "timeZone": "Europe/Atlantis", "requestsPerSecond": 1}]}),
            "Invalid",
            "spec.limits.windows[0].timeZone",
        ),
    ];
    let mut objects = vec![policy(&site, (NAMESPACE, "good"), "good")];
    for (name, pointer, value, ..) in &semantic {
        objects.push(with(&site, name, pointer, value.clone())?);
    }
    site.cluster.apply(&list(&objects)).await?;
    site.until_arrived("good/object", "fine").await?;
    for (name, _, _, reason, said) in &semantic {
        let name = (NAMESPACE, *name);
        let message = until_said(&site, name, ["Accepted", "False", reason]).await?;
        ensure!(message.contains(said), "{name:?}: {message}");
        ensure!(until_said(&site, name, ["Stalled", "True", reason]).await? == message);
        ensure!(until_event(&site, name, ["Warning", reason]).await? == message);
        let ready = until_said(&site, name, ["Ready", "False", "NotAccepted"]).await?;
        ensure!(ready == "the condition Accepted says why", "{ready}");
    }
    let described = ["describe", "syncpol", "-n", NAMESPACE, "acl"];
    let described = site.cluster.kubectl(&described).await?;
    ensure!(
        described
            .matches("ACLs of containers are not supported yet")
            .count()
            >= 2,
        "{described}"
    );

    // Corrected, it runs, and that it was bad is over.
    let corrected = with(&site, "pattern", "/spec/exclude", json!("tmp/"))?;
    user.create_container("pattern", NO_HEADERS).await?;
    site.cluster.apply(&corrected).await?;
    until_said(&site, (NAMESPACE, "pattern"), ["Ready", "True", "Running"]).await?;
    let over = until_event(&site, (NAMESPACE, "pattern"), ["Normal", "Recovered"]).await?;
    ensure!(over == "InvalidPattern is over", "{over}");
    let names = semantic.iter().map(|(name, ..)| *name).chain(["good"]);
    let delete = ["delete", "syncpol", "-n", NAMESPACE].into_iter().chain(names);
    site.cluster.kubectl(&delete.collect::<Vec<_>>()).await?;
    Ok(())
}

pub async fn of_policies_in_conflict_one_runs_and_the_others_learn_why_and_take_over_when_it_goes(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    for container in ["winner", "nested", "stranger"] {
        user.create_container(container, NO_HEADERS).await?;
        user.put(container, "object", NO_HEADERS, container).await?;
    }
    site.cluster
        .apply(&list(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tenant-rival", "labels": {"tenant-rival": "yes"}}}),
            json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "AccountGrant", "metadata": {"name": "tenant-rival"},
                "spec": {"namespaceSelector": {"matchLabels": {"tenant-rival": "yes"}}, "accounts": ["AUTH_test"]}}),
        ]))
        .await?;
    let [winner, nested] = ["winner", "nested"].map(|name| (NAMESPACE, name));
    let stranger = ("tenant-rival", "stranger");
    let claiming = |name, prefix: &str| {
        let mut policy = policy(&site, name, name.1);
        policy["spec"]["target"]["prefix"] = json!(prefix);
        policy
    };
    site.cluster.apply(&claiming(winner, "claim")).await?;
    site.until_arrived("claim/object", "winner").await?;
    let losers = [
        secret(&site, "tenant-rival", site.s3.secret_key()),
        claiming(nested, "claim/nested"),
        claiming(stranger, "claim"),
    ];
    site.cluster.apply(&list(&losers)).await?;

    let message = until_said(&site, nested, ["Accepted", "False", "Conflict"]).await?;
    ensure!(
        message
            == "spec.target: policy swift/winner writes equal or nested keys in the same bucket: give this one another target.prefix or bucket",
        "{message}"
    );
    let message = until_said(&site, stranger, ["Accepted", "False", "Conflict"]).await?;
    ensure!(
        message.contains("a policy of another namespace writes equal or nested keys"),
        "{message}"
    );
    until_event(&site, stranger, ["Warning", "Conflict"]).await?;
    let said = all_said(&site, stranger).await?;
    ensure!(!said.contains("winner") && !said.contains("swift"), "{said}");
    let mappings = files(&site, "configmaps").await?;
    ensure!(
        mappings.contains("winner") && !mappings.contains("nested") && !mappings.contains("tenant-rival")
    );

    // One after the other takes over, the older first.
    let delete = async |(namespace, name): (&str, &str)| {
        let delete = ["delete", "syncpol", "-n", namespace, name];
        site.cluster.kubectl(&delete).await
    };
    delete(winner).await?;
    site.until_arrived("claim/nested/object", "nested").await?;
    until_said(&site, nested, ["Accepted", "True", "Accepted"]).await?;
    until_event(&site, nested, ["Normal", "Recovered"]).await?;
    until_said(&site, stranger, ["Accepted", "False", "Conflict"]).await?;
    // The copy of the one that went stays, and is a stranger's to whoever comes.
    until_let_go(&site, winner).await?;
    delete(nested).await?;
    until_said(&site, stranger, ["Accepted", "True", "Accepted"]).await?;
    user.put("stranger", "own", NO_HEADERS, "arrived").await?;
    site.until_arrived("claim/own", "arrived").await?;
    let there = site
        .bucket()?
        .at("claim/object")
        .await?
        .context("the copy is gone")?;
    ensure!(there.body == b"winner", "another source's copy was overwritten");
    site.cluster
        .kubectl(&["delete", "accountgrant", "tenant-rival"])
        .await?;
    site.cluster
        .kubectl(&["delete", "namespace", "tenant-rival", "--timeout=120s"])
        .await?;
    Ok(())
}
