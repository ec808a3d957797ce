//! What becomes of a policy: mistyped, moved, suspended, deleted.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use onespace_e2e::site::{BUCKET, NAMESPACE, Site};
use onespace_e2e::swift::{NO_HEADERS, User};
use serde_json::json;

use crate::shared::{agents_metrics, installed, list, look, policy, until_event, until_let_go, until_said};

/// Puts a fresh object below another policy, and waits for its copy: agents have looked at their rows since.
async fn pass_by(site: &Site, user: &User, (container, object): (&str, &str)) -> Result<()> {
    user.put(container, object, NO_HEADERS, object.to_owned()).await?;
    site.until_arrived(&format!("{container}/{object}"), object).await
}

pub async fn a_typo_in_a_container_is_told_and_the_policy_is_ready_once_it_is_corrected(
    site: Arc<Site>,
) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    user.create_container("album", NO_HEADERS).await?;
    user.put("album", "page", NO_HEADERS, "one").await?;
    let (album, early) = ((NAMESPACE, "album"), (NAMESPACE, "early"));
    let typo = policy(&site, album, "albumm");
    site.cluster
        .apply(&list(&[typo.clone(), policy(&site, early, "early")]))
        .await?;
    for name in [album, early] {
        let message = until_said(&site, name, ["Ready", "False", "SourceNotFound"]).await?;
        ensure!(
            message.contains("check the names of account and container"),
            "{message}"
        );
    }
    let row = ["get", "syncpol", "-n", NAMESPACE, "album"];
    let row = site.cluster.kubectl(&row).await?;
    ensure!(row.contains("AUTH_test/albumm") && row.contains("False"), "{row}");

    // The container comes, or the policy is made anew: its source is what it is about, and cannot be changed.
    user.create_container("early", NO_HEADERS).await?;
    user.put("early", "bird", NO_HEADERS, "worm").await?;
    let corrected = policy(&site, album, "album");
    let error = site
        .cluster
        .apply(&corrected)
        .await
        .err()
        .context("the source was changed")?;
    let error = format!("{error:#}");
    ensure!(
        error.contains("source cannot be changed: make a new policy"),
        "{error}"
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "album"])
        .await?;
    site.cluster.apply(&corrected).await?;
    for (name, key, body) in [(album, "album/page", "one"), (early, "early/bird", "worm")] {
        until_said(&site, name, ["Ready", "True", "Running"]).await?;
        site.until_arrived(key, body).await?;
    }
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "album", "early"])
        .await?;
    Ok(())
}

pub async fn a_policy_whose_target_changes_starts_over_and_old_copies_stay(site: Arc<Site>) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    user.create_container("moving", NO_HEADERS).await?;
    user.put("moving", "van", NO_HEADERS, "boxes").await?;
    let moving = (NAMESPACE, "moving");
    let mut there = policy(&site, moving, "moving");
    site.cluster.apply(&there).await?;
    site.until_arrived("moving/van", "boxes").await?;
    let complete = ["InitialSyncComplete", "True", "FirstPassComplete"];
    until_said(&site, moving, complete).await?;
    until_event(&site, moving, ["Normal", "FirstPassComplete"]).await?;

    // To where nothing can go yet: what was complete is so no more, and the user is told what is wrong.
    there["spec"]["target"]["bucket"] = json!("new-home");
    site.cluster.apply(&there).await?;
    let message = until_said(&site, moving, ["Ready", "False", "NoSuchBucket"]).await?;
    ensure!(message.contains("bucket"), "{message}");
    until_said(&site, moving, ["Stalled", "True", "NoSuchBucket"]).await?;
    until_said(&site, moving, ["InitialSyncComplete", "False", "FirstPass"]).await?;
    until_event(&site, moving, ["Warning", "NoSuchBucket"]).await?;
    let target = look(&site, moving).await?["status"]["target"].clone();
    ensure!(
        target == format!("{}/new-home/moving", site.s3_endpoint()),
        "{target}"
    );

    site.s3.create_bucket("new-home")?;
    until_said(&site, moving, complete).await?;
    until_said(&site, moving, ["Ready", "True", "Running"]).await?;
    until_event(&site, moving, ["Normal", "Recovered"]).await?;
    let new = site
        .bucket_of("new-home")?
        .at("moving/van")
        .await?
        .context("it did not start over")?;
    ensure!(new.body == b"boxes");
    site.until_arrived("moving/van", "boxes").await?;
    // What comes from now on goes to the new place alone.
    user.put("moving", "cat", NO_HEADERS, "at last").await?;
    site.until_arrived_in("new-home", "moving/cat", "at last").await?;
    ensure!(
        site.bucket()?.at("moving/cat").await?.is_none(),
        "in {BUCKET}, too"
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "moving"])
        .await?;
    Ok(())
}

pub async fn a_policy_is_suspended_resumed_and_deleted_and_its_copies_stay(site: Arc<Site>) -> Result<()> {
    installed(&site).await?;
    let user = site.swift.user().await?;
    for container in ["paused", "busy"] {
        user.create_container(container, NO_HEADERS).await?;
    }
    user.put("paused", "first", NO_HEADERS, "1").await?;
    let (paused, busy) = ((NAMESPACE, "paused"), (NAMESPACE, "busy"));
    let policies = [paused, busy].map(|name| policy(&site, name, name.1));
    site.cluster.apply(&list(&policies)).await?;
    site.until_arrived("paused/first", "1").await?;
    let suspend = async |suspend: &str| {
        let patch = format!(r#"{{"spec": {{"suspend": {suspend}}}}}"#);
        let patch = [
            "patch",
            "syncpol",
            "-n",
            NAMESPACE,
            "paused",
            "--type=merge",
            "-p",
            &patch,
        ];
        site.cluster.kubectl(&patch).await
    };
    let arrived = async |key: &str| Ok::<_, anyhow::Error>(site.bucket()?.at(key).await?.is_some());

    suspend("true").await?;
    let message = until_said(&site, paused, ["Ready", "True", "Suspended"]).await?;
    ensure!(message == "spec.suspend is true", "{message}");
    user.put("paused", "second", NO_HEADERS, "2").await?;
    user.delete("paused", "first").await?;
    pass_by(&site, &user, ("busy", "while-suspended")).await?;
    ensure!(!arrived("paused/second").await?, "copied while suspended");
    ensure!(arrived("paused/first").await?, "deleted while suspended");
    suspend("false").await?;
    until_said(&site, paused, ["Ready", "True", "Running"]).await?;
    site.until_arrived("paused/second", "2").await?;
    site.cluster
        .until("the delete is carried out", async || {
            Ok((!arrived("paused/first").await?).then_some(()))
        })
        .await?;

    ensure!(
        agents_metrics(&site)
            .await?
            .contains(r#"name="paused",namespace="swift""#)
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "paused", "--timeout=60s"])
        .await?;
    until_let_go(&site, paused).await?;
    user.put("paused", "third", NO_HEADERS, "3").await?;
    user.delete("paused", "second").await?;
    pass_by(&site, &user, ("busy", "after-the-delete")).await?;
    ensure!(
        arrived("paused/second").await?,
        "a copy went with its policy, or after it"
    );
    ensure!(
        !arrived("paused/third").await?,
        "copied for a policy that is gone"
    );
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "busy"])
        .await?;
    Ok(())
}
