//! A chart of another version, and agents that are older than the operator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::site::{NAMESPACE, NODES, Site};
use onespace_e2e::swift::NO_HEADERS;
use onespace_e2e::tools::workspace;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::agents::{put_dozen, until_dozen};

/// What a later chart's policies may have.
const FIELD: &str = "remark";

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let new = to.join(path.file_name().context("a file without a name")?);
        match path.is_dir() {
            true => copy_folder(&path, &new)?,
            false => drop(std::fs::copy(&path, new)?),
        }
    }
    Ok(())
}

/// Our chart as it may be one day: another version, whose CRD has one more field.
fn later_chart(folder: &Path) -> Result<PathBuf> {
    let chart = folder.join("later-onespace");
    copy_folder(&workspace().join("charts/onespace"), &chart)?;
    let edit = |file: &str, edit: &dyn Fn(&mut Value) -> Option<()>| -> Result<()> {
        let path = chart.join(file);
        let mut value: Value = serde_yaml::from_str(&std::fs::read_to_string(&path)?)?;
        edit(&mut value).with_context(|| format!("{file} is not as it was"))?;
        Ok(std::fs::write(&path, value.to_string())?)
    };
    edit("Chart.yaml", &|chart| {
        *chart.get_mut("version")? = json!("99.0.0");
        Some(())
    })?;
    edit("files/crds/syncpolicies.onespace.dev.yaml", &|crd| {
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let fields = crd.pointer_mut(spec)?.as_object_mut()?;
        fields.insert(FIELD.into(), json!({"type": "string"}));
        Some(())
    })?;
    Ok(chart)
}

pub async fn a_chart_with_a_changed_crd_is_upgraded_to_and_rolled_back_and_policies_go_on_and_send_nothing_again(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("upgraded", NO_HEADERS).await?;
    put_dozen(&user, "upgraded", "early").await?;
    site.cluster.apply_text(&site.policy("upgraded")).await?;
    until_dozen(&site, "upgraded", "early").await?;
    site.until_condition("upgraded", "InitialSyncComplete", "True", "FirstPassComplete")
        .await?;
    let copies = site.copies("upgraded").await?;
    let remarked = site
        .policy("upgraded")
        .replace("  mode: Sync", &format!("  {FIELD}: kept by Ann\n  mode: Sync"));
    let refused = site.cluster.apply_text(&remarked).await.err();
    let refused = format!("{:#}", refused.context("a field that nobody knows was taken")?);
    ensure!(refused.contains(FIELD), "{refused}");

    let stays = async |what: &str| {
        let now = site.copies("upgraded").await?;
        for (key, copy) in &copies {
            ensure!(now.get(key) == Some(copy), "{key} did not stay as it was: {what}");
        }
        Ok(())
    };

    site.install_chart(&later_chart(site.cluster.folder())?, &[])
        .await?;
    put_dozen(&user, "upgraded", "later").await?;
    until_dozen(&site, "upgraded", "later").await?;
    site.until_condition("upgraded", "Ready", "True", "Running")
        .await?;
    stays("the upgrade").await?;
    // This operator is older than the CRD: what it cannot honour it does not pass over.
    site.cluster.apply_text(&remarked).await?;
    let policy = site
        .until_said("upgraded", "Accepted", "False", "Invalid", "update the operator")
        .await?;
    ensure!(policy["spec"][FIELD] == "kept by Ann", "{policy}");
    stays("a field that the operator does not know").await?;

    let rollback = ["rollback", "onespace", "--namespace", NAMESPACE, "--wait"];
    site.cluster
        .helm(&[&rollback[..], &["--timeout", "360s"]].concat())
        .await?;
    let policy = site
        .until_condition("upgraded", "Ready", "True", "Running")
        .await?;
    ensure!(policy["spec"][FIELD].is_null(), "{policy}");
    put_dozen(&user, "upgraded", "back").await?;
    until_dozen(&site, "upgraded", "back").await?;
    stays("the rollback").await?;
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "upgraded"])
        .await?;
    Ok(())
}

async fn scale(site: &Site, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let scale = [
        "scale",
        "-n",
        NAMESPACE,
        "deployment/onespace-operator",
        &replicas,
    ];
    site.cluster.kubectl(&scale).await.map(drop)
}

/// Replaces a file of the operator, and returns the digest of what is there now.
async fn replace(site: &Site, config_map: &str, file: &str, content: &Value) -> Result<String> {
    let text = content.to_string();
    let patch = json!({"data": {file: text}}).to_string();
    let patch = [
        "patch",
        "configmap",
        "-n",
        NAMESPACE,
        config_map,
        "--type=merge",
        "-p",
        &patch,
    ];
    site.cluster.kubectl(&patch).await?;
    Ok(hex::encode(Sha256::digest(text)))
}

/// Has agents look at their files, as an operator does.
async fn poke(site: &Site, revision: &str) -> Result<()> {
    let revision = format!("onespace.dev/revision={revision}");
    let agents = "app.kubernetes.io/component=node-agent";
    let annotate = [
        "annotate",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        agents,
        "--overwrite",
        &revision,
    ];
    site.cluster.kubectl(&annotate).await.map(drop)
}

/// Writes the files as an operator of a later version might: fields that agents do not know, and one policy that asks for
/// more than they can do.
async fn write_as_a_later_operator(site: &Site, beyond: &str) -> Result<()> {
    let files = site.files().await?;
    let mut index: Value = serde_json::from_slice(&files.index)?;
    for (shard, bytes) in &files.mappings {
        let mut content: Value = serde_json::from_slice(bytes)?;
        content["revision"] = json!("later");
        content["ofALaterVersion"] = json!({"is": "ignored"});
        for mapping in content["mappings"].as_array_mut().into_iter().flatten() {
            mapping["ofALaterVersion"] = json!(["is", "ignored"]);
            if mapping["policy"]["name"] == beyond {
                mapping["requires"] = json!(["time-travel"]);
            }
        }
        let name = format!("onespace-mappings-{shard}");
        let digest = replace(site, &name, &format!("{shard}.json"), &content).await?;
        index["mappings"][shard] = json!({"revision": "later", "sha256": digest});
    }
    index["revision"] = json!("later");
    replace(site, "onespace-index", "index.json", &index).await?;
    poke(site, "later").await
}

/// Waits until every agent's metric says this of itself.
async fn until_agents(site: &Site, metric: &str, labels: &str, number: f64) -> Result<()> {
    let what = format!("{metric}{{{labels}}} = {number} of every agent");
    site.cluster
        .until(&what, async || {
            for node in 0..NODES {
                let said = site.agent_metric(node, metric, labels).await?.unwrap_or_default();
                ensure!((said - number).abs() < 0.5, "node {node}: {said}");
            }
            Ok(Some(()))
        })
        .await
}

pub async fn agents_run_what_they_understand_of_a_later_operators_files_and_everything_after_the_way_back(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    for container in ["plain", "beyond"] {
        user.create_container(container, NO_HEADERS).await?;
        user.put(container, "first", NO_HEADERS, "1").await?;
        site.cluster.apply_text(&site.policy(container)).await?;
        site.until_arrived(&format!("{container}/first"), "1").await?;
    }
    scale(&site, 0).await?;
    site.cluster
        .until("no operator is left", async || {
            let left = site.cluster.get(&[
                "pods",
                "-n",
                NAMESPACE,
                "-l",
                "app.kubernetes.io/component=operator",
            ]);
            Ok(left.await?["items"]
                .as_array()
                .filter(|pods| pods.is_empty())
                .map(drop))
        })
        .await?;
    write_as_a_later_operator(&site, "beyond").await?;
    let unknown = r#"reason="FeatureUnknown""#;
    until_agents(&site, "onespace_config_refused", unknown, 1.0).await?;
    user.put("beyond", "second", NO_HEADERS, "2").await?;
    user.put("plain", "second", NO_HEADERS, "2").await?;
    site.until_arrived("plain/second", "2").await?;
    let broken = "onespace_config_broken";
    until_agents(&site, broken, "", 0.0).await?;

    // Of a form that they do not know at all they take nothing, and run on with what they have.
    let mut index: Value = serde_json::from_slice(&site.files().await?.index)?;
    index["formatVersion"] = json!(99);
    replace(&site, "onespace-index", "index.json", &index).await?;
    poke(&site, "much-later").await?;
    until_agents(&site, broken, "", 1.0).await?;
    user.put("plain", "third", NO_HEADERS, "3").await?;
    site.until_arrived("plain/third", "3").await?;
    ensure!(
        site.bucket()?.at("beyond/second").await?.is_none(),
        "agents ran a policy that they do not understand"
    );

    scale(&site, 2).await?;
    until_agents(&site, broken, "", 0.0).await?;
    until_agents(&site, "onespace_config_refused", unknown, 0.0).await?;
    site.until_arrived("beyond/second", "2").await?;
    for policy in ["plain", "beyond"] {
        site.until_condition(policy, "Ready", "True", "Running").await?;
        let delete = ["delete", "syncpol", "-n", NAMESPACE, policy];
        site.cluster.kubectl(&delete).await?;
    }
    site.install(&[]).await?;
    Ok(())
}
