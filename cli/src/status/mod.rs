//! `onespace status`: what an agent does, or how the policies of a cluster stand, as a table that is renewed while there
//! is a backlog.

mod agent;
mod columns;
mod policies;

use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::agent::Agent;
use crate::args::Status;
use crate::cluster::Cluster;
use crate::policy::Policy;
use agent::Sample;

/// How often an agent's table is renewed.
const RENEW: Duration = Duration::from_secs(1);

/// How often the cluster's is: the operator writes numbers once a minute, conditions at once.
const RENEW_POLICIES: Duration = Duration::from_secs(5);

/// Shows how things are. `plugin`: kubectl has called.
///
/// # Errors
/// Who is asked cannot be reached, or its answer not understood.
pub async fn run(args: &Status, plugin: bool, out: &mut dyn Write) -> Result<bool> {
    let live = std::io::stdout().is_terminal();
    match args.all_namespaces || args.place.is_cluster(plugin) {
        true => of_cluster(args, out, live).await?,
        false => of_agent(args, out, live).await?,
    }
    Ok(true)
}

async fn of_agent(args: &Status, out: &mut dyn Write, live: bool) -> Result<()> {
    let agent = Agent::new(&args.place)?;
    if args.json {
        for page in agent.pages().await? {
            out.write_all(&page.body)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    let mut last: Option<Sample> = None;
    renewed(out, live, RENEW, async || {
        let reports: Vec<_> = agent.pages().await?.into_iter().map(|page| page.report).collect();
        let sample = Sample {
            at: Instant::now(),
            reports,
        };
        let text = agent::table(&sample, last.as_ref(), jiff::Timestamp::now());
        let more = sample.has_backlog();
        last = Some(sample);
        Ok((text, more))
    })
    .await
}

async fn of_cluster(args: &Status, out: &mut dyn Write, live: bool) -> Result<()> {
    let cluster = Cluster::connect(&args.place.cluster).await?;
    let namespace = (!args.all_namespaces).then(|| cluster.namespace());
    if args.json {
        let items = cluster.list(namespace).await?;
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
        serde_json::to_writer_pretty(&mut *out, &list)?;
        writeln!(out)?;
        return Ok(());
    }
    renewed(out, live, RENEW_POLICIES, async || {
        let policies = cluster.list(namespace).await?;
        let policies: Vec<Policy> = policies.iter().map(Policy::read).collect();
        if policies.is_empty() {
            let place = namespace.map_or_else(
                || "the cluster".to_owned(),
                |name| format!("namespace {name} (-A shows those of all)"),
            );
            return Ok((format!("There is no policy in {place}.\n"), false));
        }
        let text = policies::table(&policies, jiff::Timestamp::now());
        Ok((text, policies.iter().any(policies::has_backlog)))
    })
    .await
}

/// Draws a text, and on a terminal in its place the next, as long as there is more to come.
async fn renewed(
    out: &mut dyn Write,
    live: bool,
    every: Duration,
    mut next: impl AsyncFnMut() -> Result<(String, bool)>,
) -> Result<()> {
    let mut drawn = 0;
    loop {
        let (text, more) = next().await?;
        if drawn > 0 {
            // Back to where the last one began, and clear what is left of it.
            write!(out, "\x1b[{drawn}A\x1b[J")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !live || !more {
            return Ok(());
        }
        drawn = text.lines().count();
        tokio::time::sleep(every).await;
    }
}
