//! `kubectl onespace`, by people with the roles that the chart makes.

use std::sync::Arc;

use anyhow::{Result, ensure};
use onespace_e2e::plugin::Plugin;
use onespace_e2e::site::{NAMESPACE, Site};
use onespace_e2e::swift::NO_HEADERS;

/// A person with one of Kubernetes' own roles in the namespace.
async fn person(site: &Site, role: &str) -> Result<Plugin> {
    let kubectl = async |words: &[&str]| site.cluster.kubectl(&[&["-n", NAMESPACE], words].concat()).await;
    kubectl(&["create", "serviceaccount", role]).await?;
    let account = format!("--serviceaccount={NAMESPACE}:{role}");
    kubectl(&[
        "create",
        "rolebinding",
        role,
        &format!("--clusterrole={role}"),
        &account,
    ])
    .await?;
    let token = kubectl(&["create", "token", role]).await?;
    Plugin::new(site.cluster.kubeconfig())?.with_token(token.trim())
}

pub async fn who_may_view_sees_how_policies_stand_and_who_may_edit_has_all_agents_retry(
    site: Arc<Site>,
) -> Result<()> {
    let user = site.swift.user().await?;
    user.create_container("plugin", NO_HEADERS).await?;
    user.put("plugin", "a.jpg", NO_HEADERS, "one").await?;
    let notes = site.install_anew(&[]).await?;
    ensure!(notes.contains("kubectl onespace status"), "{notes}");
    site.cluster.apply_text(&site.policy("plugin")).await?;
    // Ready is it as soon as one agent works: every one is to be heard.
    site.until_condition("plugin", "Ready", "True", "Running").await?;
    site.until_condition("plugin", "Degraded", "False", "Healthy")
        .await?;

    let (viewer, editor) = (person(&site, "view").await?, person(&site, "edit").await?);
    let shown = viewer.run(&["status", "-n", NAMESPACE])?;
    ensure!(
        shown.code == 0 && shown.out.contains("swift/plugin") && shown.out.contains("True"),
        "{shown:?}"
    );
    let refused = viewer.run(&["retry", "swift/plugin"])?;
    ensure!(
        refused.code == 1 && refused.err.contains("ClusterRole edit"),
        "{refused:?}"
    );
    // Kubelets bring the trigger to three agents, and their words come back.
    let retried = editor.run(&["retry", "swift/plugin", "--timeout", "3m"])?;
    ensure!(
        retried.code == 0 && retried.out.contains("every agent has done so"),
        "{retried:?}"
    );
    Ok(())
}
