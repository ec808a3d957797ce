//! `onespace validate`

use std::io::Write;

use onespace_crds::ConditionStatus;

use crate::args::Validate;
use crate::check::check;
use crate::cluster::Cluster;
use crate::input::{self, Objects};
use crate::place::Usage;
use crate::policy::Policy;

/// Says of every policy whether it is valid, and else everything that is wrong with it. `false` = not all are valid.
/// `plugin`: kubectl has called.
///
/// # Errors
/// When the input cannot be read.
pub async fn run(
    args: &Validate,
    plugin: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<bool> {
    let Validate {
        files,
        cluster,
        all_namespaces,
    } = args;
    if !files.is_empty() {
        return of_files(&input::read(files)?, out, err);
    }
    if !plugin && !all_namespaces && !cluster.is_named() {
        return Err(Usage(
            "what is to be checked? Files: -f FILE_OR_DIR; the policies of a cluster: -n NAMESPACE or -A"
                .to_owned(),
        )
        .into());
    }
    let cluster = Cluster::connect(cluster).await?;
    let there = cluster
        .list((!all_namespaces).then(|| cluster.namespace()))
        .await?;
    let policies: Vec<Policy> = there.iter().map(Policy::read).collect();
    let mut objects = Objects::default();
    for object in &there {
        objects.add_policy(serde_json::to_value(object)?);
    }
    let good = of_files(&objects, out, err)?;
    Ok(operators_word(&policies, err)? && good)
}

fn of_files(objects: &Objects, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<bool> {
    for note in &objects.notes {
        writeln!(err, "note: {note}")?;
    }
    if objects.policies.is_empty() {
        writeln!(err, "note: there is no SyncPolicy in the input")?;
    }
    let mut good = true;
    for verdict in check(objects)? {
        match &verdict.result {
            Ok(_) => writeln!(out, "{}: valid", verdict.subject())?,
            Err(findings) => {
                good = false;
                for line in verdict.lines(findings) {
                    writeln!(err, "{line}")?;
                }
            }
        }
    }
    Ok(good)
}

/// What only the operator knows: grants, and what it cannot read. `false` = it does not accept all.
fn operators_word(policies: &[Policy], err: &mut dyn Write) -> anyhow::Result<bool> {
    let mut good = true;
    for policy in policies {
        if let Some(accepted) = policy.condition("Accepted")
            && accepted.status == ConditionStatus::False
        {
            good = false;
            writeln!(
                err,
                "{}/{}: the operator does not accept it ({}): {}",
                policy.namespace, policy.name, accepted.reason, accepted.message
            )?;
        }
    }
    Ok(good)
}
