//! `onespace retry`

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use onespace_core::validate::RETRY;
use onespace_crds::ConditionStatus;

use crate::agent::Agent;
use crate::args::Retry;
use crate::cluster::Cluster;
use crate::place::Usage;
use crate::policy::Policy;

/// Has held rows tried again. `plugin`: kubectl has called.
///
/// # Errors
/// Who is asked cannot be reached, refuses, or has not done so in time.
pub async fn run(args: &Retry, plugin: bool, out: &mut dyn Write) -> Result<bool> {
    match args.place.is_cluster(plugin) {
        true => in_cluster(args, out).await?,
        false => at_agent(args, out).await?,
    }
    Ok(true)
}

async fn at_agent(args: &Retry, out: &mut dyn Write) -> Result<()> {
    let agent = Agent::new(&args.place)?;
    let id = agent.find(&args.policy).await?.id;
    let said = agent
        .tell("retry", &serde_json::json!({"id": id, "object": args.object}))
        .await?;
    write!(out, "{said}")?;
    Ok(())
}

async fn in_cluster(args: &Retry, out: &mut dyn Write) -> Result<()> {
    if args.object.is_some() {
        return Err(Usage(
            "one object alone is tried again at an agent: name it with --agent URL, or leave the object out"
                .to_owned(),
        )
        .into());
    }
    let cluster = Cluster::connect(&args.place.cluster).await?;
    let key = args.place.cluster.policy(&args.policy, cluster.namespace())?;
    let name = format!("{}/{}", key.0, key.1);
    let policy = cluster.get(&key).await?;
    if policy.is("Accepted", ConditionStatus::False) {
        bail!(
            "{name} is not accepted, so no agent works on it: {}",
            policy.obstacles().join("; ")
        );
    }
    // A time that no other has.
    let token = jiff::Timestamp::now().to_string();
    cluster.annotate(&key, RETRY, &token).await?;
    writeln!(
        out,
        "{name}: agents are told to try held rows again ({RETRY}: {token})"
    )?;
    out.flush()?;
    let patience = Duration::from_secs(args.timeout.seconds());
    if patience.is_zero() {
        return Ok(());
    }
    let handled = cluster.until(&key, patience, |policy| {
        let status = policy.status.as_ref();
        status.is_some_and(|status| status.last_handled_retry.as_ref() == Some(&token))
    });
    match handled.await? {
        Ok(policy) => match without_agent(&policy) {
            None => writeln!(out, "{name}: every agent has done so")?,
            Some(missing) => bail!(
                "{name}: the agents that answer have done so, {missing} have none that does; it will do so once it is back: {}",
                policy.obstacles().join("; ")
            ),
        },
        Err(policy) => {
            let mut why = policy.obstacles();
            why.push("kubectl onespace status shows more".to_owned());
            bail!(
                "{name}: not every agent has done so within {}; they still will: {}",
                args.timeout.as_str(),
                why.join("; ")
            );
        }
    }
    Ok(())
}

/// How many container servers have a part in a policy and no agent that answers; none if each has one.
fn without_agent(policy: &Policy) -> Option<String> {
    let agents = policy.status.as_ref()?.agents.as_ref()?;
    let expected = agents.expected?;
    let missing = expected
        .checked_sub(agents.reporting)
        .filter(|missing| *missing > 0)?;
    Some(format!("{missing} of {expected} container servers"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_not_said_that_every_agent_has_done_so_while_one_does_not_answer() {
        let with = |agents: serde_json::Value| {
            let policy = json!({
                "apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
                "metadata": {"name": "photos", "namespace": "swift"},
                "status": {"agents": agents},
            });
            without_agent(&Policy::read(&serde_json::from_value(policy).unwrap()))
        };
        let two = json!({"expected": 3, "reporting": 2, "current": 2});
        assert_eq!(with(two).as_deref(), Some("1 of 3 container servers"));
        assert_eq!(with(json!({"expected": 3, "reporting": 3, "current": 3})), None);
        assert_eq!(with(json!({"reporting": 0, "current": 0})), None);
    }
}
