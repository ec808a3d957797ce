//! Secrets that come late, change and go, and certificates that cannot be got: what runs meanwhile, and what is told.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::lab::copies;
use onespace_e2e::s3::embedded::EmbeddedS3;
use onespace_e2e::site::{BUCKET, NAMESPACE, Site, for_pods};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::{Value, json};

use crate::shared::{
    agents_metrics, all_said, files, installed, list, look, policy, secret, until_event, until_let_go,
    until_said,
};

/// Waits until an object is at an S3 server of the scenario's own.
async fn until_at(site: &Site, s3: &EmbeddedS3, key: &str) -> Result<()> {
    let there = async || Ok(copies(s3).contains_key(key).then_some(()));
    site.cluster.until(key, there).await
}

pub async fn a_secret_may_come_late_lack_a_key_change_and_go_and_each_is_told_without_its_values(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    user.create_container("locked", NO_HEADERS).await?;
    user.put("locked", "one", NO_HEADERS, "1").await?;
    // One whose keys can change while it runs.
    let s3 = EmbeddedS3::start_on(0, "first-key", "hush-first")?;
    s3.create_bucket(BUCKET);
    let locked = (NAMESPACE, "locked");
    let mut wanted = policy(&site, locked, "locked");
    wanted["spec"]["target"]["endpoint"] = json!(for_pods(&s3.endpoint()));
    wanted["spec"]["target"]["credentials"]["secretRef"]["name"] = json!("locked-keys");
    let keys = |values: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "locked-keys", "namespace": NAMESPACE}, "stringData": values});
    let pair =
        |access: &str, key: &str| keys(json!({"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": key}));

    // Late.
    site.cluster.apply(&wanted).await?;
    let absent = "there is no Secret \"locked-keys\" in the policy's namespace: create it";
    for condition in [
        ["CredentialsReady", "False", "SecretNotFound"],
        ["Ready", "False", "SecretNotFound"],
        ["Stalled", "True", "SecretNotFound"],
    ] {
        let message = until_said(&site, locked, condition).await?;
        ensure!(message.contains(absent), "{message}");
    }
    until_event(&site, locked, ["Warning", "SecretNotFound"]).await?;
    until_said(&site, locked, ["Accepted", "True", "Accepted"]).await?;

    // Lacking a key.
    site.cluster
        .apply(&keys(json!({"AWS_ACCESS_KEY_ID": "first-key"})))
        .await?;
    let message = until_said(&site, locked, ["CredentialsReady", "False", "SecretInvalid"]).await?;
    ensure!(
        message.contains("has no key AWS_SECRET_ACCESS_KEY: put the credential there"),
        "{message}"
    );
    until_event(&site, locked, ["Warning", "SecretInvalid"]).await?;

    // Right: nobody touches the policy.
    site.cluster.apply(&pair("first-key", "hush-first")).await?;
    until_said(&site, locked, ["CredentialsReady", "True", "Working"]).await?;
    until_at(&site, &s3, "locked/one").await?;
    until_said(&site, locked, ["Ready", "True", "Running"]).await?;

    // Rotated at the remote, then in the Secret.
    s3.change_keys("second-key", "hush-second");
    user.put("locked", "two", NO_HEADERS, "2").await?;
    let message = until_said(&site, locked, ["CredentialsReady", "False", "InvalidCredentials"]).await?;
    ensure!(message == "check the access key and the secret key", "{message}");
    until_said(&site, locked, ["Stalled", "True", "InvalidCredentials"]).await?;
    until_event(&site, locked, ["Warning", "InvalidCredentials"]).await?;
    site.cluster.apply(&pair("second-key", "hush-second")).await?;
    until_at(&site, &s3, "locked/two").await?;
    until_said(&site, locked, ["CredentialsReady", "True", "Working"]).await?;
    until_said(&site, locked, ["Ready", "True", "Running"]).await?;

    // Gone: nothing more goes out, and nothing of it is left in the agents' files.
    site.cluster
        .kubectl(&["delete", "secret", "-n", NAMESPACE, "locked-keys"])
        .await?;
    until_said(&site, locked, ["CredentialsReady", "False", "SecretNotFound"]).await?;
    let refused = r#"onespace_config_refused{reason="CredentialsMissing"} 1"#;
    site.cluster
        .until("agents have no keys any more", async || {
            Ok((agents_metrics(&site).await?.matches(refused).count() == 3).then_some(()))
        })
        .await?;
    let progress = look(&site, locked).await?["status"]["progress"].clone();
    ensure!(
        progress["objects"].as_u64() > Some(0),
        "what was done is forgotten: {progress}"
    );
    let requests = s3.counts();
    user.put("locked", "three", NO_HEADERS, "3").await?;
    user.create_container("unlocked", NO_HEADERS).await?;
    user.put("unlocked", "passer-by", NO_HEADERS, "meanwhile").await?;
    let unlocked = (NAMESPACE, "unlocked");
    site.cluster.apply(&policy(&site, unlocked, "unlocked")).await?;
    site.until_arrived("unlocked/passer-by", "meanwhile").await?;
    ensure!(s3.counts() == requests, "the remote was asked without keys");
    site.cluster.apply(&pair("second-key", "hush-second")).await?;
    until_at(&site, &s3, "locked/three").await?;
    until_said(&site, locked, ["Ready", "True", "Running"]).await?;

    // Its values are where they must be, and nowhere else.
    let said = all_said(&site, locked).await?;
    let log = [
        "logs",
        "-n",
        NAMESPACE,
        "--tail=-1",
        "--prefix",
        "--all-containers",
        "-l",
        "app.kubernetes.io/part-of=onespace",
    ];
    let log = site.cluster.kubectl(&log).await?;
    ensure!(log.contains("onespace"), "{log}");
    for text in [
        said,
        log,
        files(&site, "configmaps").await?,
        agents_metrics(&site).await?,
    ] {
        ensure!(!text.contains("hush-"), "{text}");
    }
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "locked", "unlocked"])
        .await?;
    until_let_go(&site, locked).await
}

pub async fn certificates_that_cannot_be_got_are_told_so_and_what_ran_with_them_runs_on(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let authorities = std::fs::read_to_string(site.cluster.folder().join("ca.crt"))?;
    let config_map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "tenant-tls"}, "data": {"ca.crt": authorities}});
    let [known, new] = ["known", "new"].map(|name| ("tenant-tls", name));
    let [with_known, with_new] = [known, new].map(|name| {
        let mut policy = policy(&site, name, name.1);
        policy["spec"]["target"]["caBundle"] = json!({"configMapRef": {"name": name.1, "key": "ca.crt"}});
        policy
    });
    site.cluster
        .apply(&list(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tenant-tls", "labels": {"tls": "yes"}}}),
            json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "AccountGrant", "metadata": {"name": "tls"},
                "spec": {"namespaceSelector": {"matchLabels": {"tls": "yes"}}, "accounts": ["AUTH_test"]}}),
            secret(&site, "tenant-tls", site.s3.secret_key()),
            with_known,
        ]))
        .await?;
    let user = site.swift.user().await?;
    user.create_container("known", NO_HEADERS).await?;
    let message = until_said(&site, known, ["Ready", "False", "ConfigMapNotFound"]).await?;
    ensure!(
        message.contains("there is no ConfigMap \"known\" in the policy's namespace: create it"),
        "{message}"
    );
    site.cluster.apply(&config_map("known")).await?;
    until_said(&site, known, ["Ready", "True", "Running"]).await?;

    let rules = get_rules(&site).await?;
    let without = without_getting_config_maps(&rules)?;
    set_rules(&site, &without).await?;
    let told = cannot_be_got(&site, known, new, &[config_map("new"), with_new]).await;
    set_rules(&site, &rules).await?;
    told?;
    for name in [known, new] {
        until_said(&site, name, ["Degraded", "False", "Healthy"]).await?;
    }
    until_event(&site, known, ["Normal", "Recovered"]).await?;
    site.cluster.kubectl(&["delete", "accountgrant", "tls"]).await?;
    site.cluster
        .kubectl(&["delete", "namespace", "tenant-tls", "--timeout=120s"])
        .await?;
    Ok(())
}

/// While the operator may not get ConfigMaps, and starts anew.
async fn cannot_be_got(site: &Site, known: (&str, &str), new: (&str, &str), objects: &[Value]) -> Result<()> {
    let restart = [
        "rollout",
        "restart",
        "-n",
        NAMESPACE,
        "deployment/onespace-operator",
    ];
    site.cluster.kubectl(&restart).await?;
    let status = [
        "rollout",
        "status",
        "-n",
        NAMESPACE,
        "deployment/onespace-operator",
    ];
    site.cluster.kubectl(&status).await?;
    site.cluster.apply(&list(objects)).await?;
    let message = until_said(site, known, ["Degraded", "True", "ConfigMapUnavailable"]).await?;
    ensure!(
        message.contains("ConfigMap \"known\" in the policy's namespace could not be got")
            && message.contains("agents go on with what they have"),
        "{message}"
    );
    until_event(site, known, ["Warning", "ConfigMapUnavailable"]).await?;
    until_said(site, known, ["Ready", "True", "Running"]).await?;
    let user = site.swift.user().await?;
    user.put("known", "meanwhile", NO_HEADERS, "still trusted")
        .await?;
    site.until_arrived("known/meanwhile", "still trusted").await?;

    // One that no agent had before does not run without.
    let message = until_said(site, new, ["Ready", "False", "ConfigMapUnavailable"]).await?;
    ensure!(
        !message.contains("create it") && message.contains("tried again"),
        "{message}"
    );
    until_said(site, new, ["Reconciling", "True", "ConfigMapUnavailable"]).await?;
    until_said(site, new, ["Stalled", "False", "Progressing"]).await?;
    Ok(())
}

const ROLE: &str = "onespace-operator-swift";

async fn get_rules(site: &Site) -> Result<Value> {
    Ok(site.cluster.get(&["clusterrole", ROLE]).await?["rules"].take())
}

async fn set_rules(site: &Site, rules: &Value) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
    site.cluster
        .kubectl(&["patch", "clusterrole", ROLE, "--type=json", "-p", &patch])
        .await?;
    Ok(())
}

/// The rules with one for ConfigMaps that shows which there are, and no content.
fn without_getting_config_maps(rules: &Value) -> Result<Value> {
    let mut rules = rules.clone();
    let all = rules.as_array_mut().context("no rules")?;
    let both = json!(["configmaps", "secrets"]);
    let rule = all.iter_mut().find(|rule| rule["resources"] == both);
    rule.context("no rule for both")?["resources"] = json!(["secrets"]);
    all.push(json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}));
    Ok(rules)
}
