//! `onespace release-deletes`

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use onespace_core::validate::RELEASE_DELETES;

use crate::agent::Agent;
use crate::args::ReleaseDeletes;
use crate::cluster::Cluster;
use crate::place::Usage;

/// Has a batch of held deletes carried out: the one that is named, and no other. `plugin`: kubectl has called.
///
/// # Errors
/// Who is asked cannot be reached or refuses; no batch or another one waits; none was named.
pub async fn run(args: &ReleaseDeletes, plugin: bool, out: &mut dyn Write) -> Result<bool> {
    match args.place.is_cluster(plugin) {
        true => in_cluster(args, out).await?,
        false => at_agent(args, out).await?,
    }
    Ok(true)
}

async fn at_agent(args: &ReleaseDeletes, out: &mut dyn Write) -> Result<()> {
    let agent = Agent::new(&args.place)?;
    let mapping = agent.find(&args.policy).await?;
    let held = mapping.held_deletes.map(|held| (held.id, held.rows));
    let batch = chosen(args, &args.policy, held, out)?;
    let body = serde_json::json!({"id": mapping.id, "batch": batch});
    let said = agent.tell("release-deletes", &body).await?;
    write!(out, "{said}")?;
    Ok(())
}

async fn in_cluster(args: &ReleaseDeletes, out: &mut dyn Write) -> Result<()> {
    let cluster = Cluster::connect(&args.place.cluster).await?;
    let key = args.place.cluster.policy(&args.policy, cluster.namespace())?;
    let name = format!("{}/{}", key.0, key.1);
    let held = cluster
        .get(&key)
        .await?
        .status
        .and_then(|status| status.held_deletes);
    let batch = chosen(args, &name, held.map(|held| (held.id, held.count)), out)?;
    cluster.annotate(&key, RELEASE_DELETES, &batch).await?;
    writeln!(
        out,
        "{name}: agents are told to carry them out ({RELEASE_DELETES}: {batch})"
    )?;
    out.flush()?;
    let patience = Duration::from_secs(args.timeout.seconds());
    if patience.is_zero() {
        return Ok(());
    }
    let released = cluster.until(&key, patience, |policy| {
        let held = policy
            .status
            .as_ref()
            .and_then(|status| status.held_deletes.as_ref());
        held.is_none_or(|held| held.id != batch)
    });
    match released.await? {
        Ok(policy) => match policy.status.and_then(|status| status.held_deletes) {
            None => writeln!(out, "{name}: no deletes wait any more")?,
            Some(next) => writeln!(
                out,
                "{name}: the next batch waits: {}, {} deletes",
                next.id, next.count
            )?,
        },
        Err(policy) => {
            let mut why = policy.obstacles();
            why.push("kubectl onespace status shows more".to_owned());
            bail!(
                "{name}: the batch still waits after {}: {}",
                args.timeout.as_str(),
                why.join("; ")
            );
        }
    }
    Ok(())
}

/// The batch that is meant: what waits is shown, and only what was named goes.
fn chosen(
    args: &ReleaseDeletes,
    name: &str,
    held: Option<(String, u64)>,
    out: &mut dyn Write,
) -> Result<String> {
    let (id, count) = held.with_context(|| format!("no deletes of {name} wait for a person"))?;
    match &args.batch {
        Some(batch) if *batch != id => {
            bail!("another batch of {name} waits now: {id}, {count} deletes; look at it before you release it")
        }
        None if !args.yes => Err(Usage(format!(
            "{count} deletes of {name} wait, in batch {id}: if they are meant, name the batch too: release-deletes {name} {id} (or --yes)"
        ))
        .into()),
        _ => {
            writeln!(out, "{name}: {count} deletes are released, batch {id}")?;
            Ok(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;

    fn choice(batch: Option<&str>, yes: bool, held: Option<(&str, u64)>) -> (Result<String>, String) {
        let args = ReleaseDeletes {
            place: Place::default(),
            policy: "swift/photos".to_owned(),
            batch: batch.map(str::to_owned),
            yes,
            timeout: onespace_crds::Duration::try_from("0s".to_owned()).unwrap(),
        };
        let held = held.map(|(id, count)| (id.to_owned(), count));
        let mut out = Vec::new();
        let chosen = chosen(&args, "swift/photos", held, &mut out);
        (chosen, String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_the_batch_that_was_named_or_agreed_to_is_released() {
        let waits = Some(("b1", 300));
        let (chosen, said) = choice(Some("b1"), false, waits);
        assert_eq!(chosen.unwrap(), "b1");
        assert!(said.contains("300 deletes"), "{said}");
        assert_eq!(choice(None, true, waits).0.unwrap(), "b1");

        let (refused, said) = choice(Some("b0"), false, waits);
        assert!(refused.unwrap_err().to_string().contains("another batch"));
        assert_eq!(said, "");
        let unnamed = choice(None, false, waits).0.unwrap_err();
        assert!(
            unnamed.is::<Usage>() && unnamed.to_string().contains("b1"),
            "{unnamed}"
        );
        assert!(choice(None, true, None).0.is_err());
    }
}
