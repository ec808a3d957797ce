//! Operators that are killed or stand still while they work.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use http::Request;
use onespace_core::load::load;
use onespace_e2e::site::{NAMESPACE, Site, signal};
use onespace_e2e::swift::NO_HEADERS;
use serde_json::Value;

use crate::shared::{Name, condition, get, list, policy, until_said};

/// Policies that are applied at once.
const MANY: usize = 60;

/// Those of them that were told that they are accepted, each with the time of it.
async fn accepted(site: &Site) -> Result<BTreeMap<String, String>> {
    let path = format!("/apis/onespace.dev/v1alpha1/namespaces/{NAMESPACE}/syncpolicies");
    let policies = get(site, &path).await?;
    let policies = policies["items"].as_array().into_iter().flatten();
    let told = policies.filter_map(|policy| {
        let name = policy["metadata"]["name"].as_str()?;
        let accepted = condition(policy, "Accepted").filter(|accepted| accepted["status"] == "True")?;
        let time = accepted["lastTransitionTime"].as_str()?;
        name.starts_with("many-")
            .then(|| (name.to_owned(), time.to_owned()))
    });
    Ok(told.collect())
}

/// Names of the policies in the operator's files.
async fn in_files(site: &Site) -> Result<Vec<String>> {
    let set = load(&site.files().await?)?;
    Ok(set
        .mappings
        .into_iter()
        .map(|mapping| mapping.policy.name.clone())
        .collect())
}

/// Waits until another pod leads. Returns its name.
async fn until_another_leads(site: &Site, former: &str) -> Result<String> {
    site.cluster
        .until("another operator leads", async || {
            let leader = site.leader().await?;
            Ok((leader != former && !leader.is_empty()).then_some(leader))
        })
        .await
}

/// Whether an operator believes that it leads.
async fn leads(site: &Site, pod: &str) -> Result<bool> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9182/proxy/metrics");
    let request = Request::get(path).body(Vec::new())?;
    let metrics = site.cluster.client().request_text(request).await?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("onespace_operator_leader "));
    let line = line.context("no metric of the leadership")?;
    Ok(line.ends_with(" 1"))
}

pub async fn an_operator_killed_or_frozen_while_it_works_is_replaced_and_its_work_is_finished_and_never_undone(
    site: Arc<Site>,
) -> Result<()> {
    site.install(&[]).await?;
    let user = site.swift.user().await?;
    user.create_container("many-00", NO_HEADERS).await?;
    user.put("many-00", "early", NO_HEADERS, "bird").await?;
    // Every policy names the Secret of this one.
    site.cluster.apply_text(&site.policy("frozen-out")).await?;
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number:02}")).collect();
    let policies: Vec<Value> = names
        .iter()
        .map(|name| policy(&site, (NAMESPACE, name), name))
        .collect();
    let killed = site.leader().await?;
    let apply = async { site.cluster.apply(&list(&policies)).await.map(drop) };
    let kill = async {
        let told = site
            .cluster
            .until("a few policies that were told", async || {
                let told = accepted(&site).await?;
                Ok((told.len() > 2).then_some(told))
            })
            .await?;
        signal(site.operator_process(&killed).context("no leader")?, "KILL")?;
        // Its pod's next process would have the same name, and lead on.
        let delete = [
            "delete",
            "pod",
            "-n",
            NAMESPACE,
            &killed,
            "--force",
            "--grace-period=0",
        ];
        site.cluster.kubectl(&delete).await?;
        Ok::<_, anyhow::Error>(told)
    };
    let (applied, told) = tokio::join!(apply, kill);
    applied?;
    let told = told?;
    ensure!(told.len() < MANY, "it was done before it was killed");

    let leader = until_another_leads(&site, &killed).await?;
    let all = site
        .cluster
        .until("every policy told", async || {
            let all = accepted(&site).await?;
            Ok((all.len() == MANY).then_some(all))
        })
        .await?;
    for (name, time) in &told {
        ensure!(
            all.get(name) == Some(time),
            "{name} was told anew: {time}, {:?}",
            all.get(name)
        );
    }
    let files = in_files(&site).await?;
    ensure!(names.iter().all(|name| files.contains(name)), "{files:?}");
    site.until_arrived("many-00/early", "bird").await?;

    // One that stands still does not know that it leads no more.
    let frozen = site.operator_process(&leader).context("no leader")?;
    signal(frozen, "STOP")?;
    let late: Name<'_> = (NAMESPACE, "late");
    user.create_container("late", NO_HEADERS).await?;
    user.put("late", "worm", NO_HEADERS, "caught").await?;
    site.cluster.apply(&policy(&site, late, "late")).await?;
    let delete = ["delete", "syncpol", "-n", NAMESPACE, "frozen-out", "--wait=false"];
    site.cluster.kubectl(&delete).await?;
    let successor = until_another_leads(&site, &leader).await?;
    until_said(&site, late, ["Ready", "True", "Running"]).await?;
    signal(frozen, "CONT")?;
    site.cluster
        .until("the former leader knows", async || {
            Ok((!leads(&site, &leader).await?).then_some(()))
        })
        .await?;
    ensure!(site.leader().await? == successor);
    let files = in_files(&site).await?;
    ensure!(
        files.iter().any(|name| name == "late") && files.iter().all(|name| name != "frozen-out"),
        "{files:?}"
    );
    site.until_arrived("late/worm", "caught").await?;
    site.cluster
        .kubectl(&["delete", "syncpol", "-n", NAMESPACE, "--all"])
        .await?;
    Ok(())
}
