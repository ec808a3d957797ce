//! Three nodes, and deletes that a person is to look at: those beyond the budget, and those that Swift forgot.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use onespace_core::naming::primary_index;
use onespace_core::report::MappingReport;
use onespace_e2e::agents::Agents;
use onespace_e2e::lab::{BUCKET, unmarked};
use onespace_e2e::programs::program;
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::{Daemon, Options};

/// Tombstones live for so many seconds.
const RECLAIM_AGE: u32 = 5;

static CLUSTER: Shared = Shared::new(|| Options {
    reclaim_age: Some(RECLAIM_AGE),
    ..Options::three_nodes()
});

/// So many objects, `000` and on.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:03}")).collect()
}

/// Whose agent's part of the names this one is in: the place of its node's replica in the ring.
fn part(name: &str) -> usize {
    primary_index(name, 3) as usize
}

/// How many of these names are in each agent's part.
fn parts(names: &[String]) -> [usize; 3] {
    let mut parts = [0; 3];
    for name in names {
        parts[part(name)] += 1;
    }
    parts
}

/// Deletes that wait for a person at each agent, as it shows them.
fn waiting(reports: &[MappingReport]) -> Vec<usize> {
    let batches = reports.iter().map(|report| report.held_deletes.as_ref());
    batches
        .map(|batch| batch.map_or(0, |batch| usize::try_from(batch.rows).unwrap_or_default()))
        .collect()
}

/// Releases the batch that this node's agent shows.
async fn release(agents: &mut Agents<'_>, node: usize, policy: &str) -> Result<()> {
    let agent = agents.on(node)?;
    let report = agent.policy(policy).await?;
    let batch = report.held_deletes.context("no batch waits")?.id;
    let mut onespace = Command::new(program("onespace")?);
    onespace.args([
        "release-deletes",
        "--agent",
        &agent.status_url(),
        &report.id,
        &batch,
    ]);
    ensure!(onespace.status()?.success(), "it is not released");
    Ok(())
}

#[test]
fn deletes_that_wait_at_one_agent_wait_at_all_and_go_with_their_release() -> Result<()> {
    CLUSTER.alone(async |mut lab| {
        // A budget of today's would be full again when the others verify.
        lab.settings.slack = "3s";
        lab.container("budget").await?;
        let policy = lab.policy("budget", "budget", "deleteBudget: {max: 2, window: 1s}");
        lab.policies.apply("budget.yaml", &policy)?;
        let mut agents = lab.agents().await?;
        lab.put_many("budget", "", 50).await?;
        agents.until_copies(50).await?;
        agents.until_idle("budget").await?;
        agents.stop_all().await?;
        let gone = names(40);
        for name in &gone {
            lab.user.delete("budget", name).await?;
        }
        agents.start_all().await?;
        // Each reads them at once, and carries two out.
        let sum = 40 - 6;
        let reports = agents
            .until_reports(
                "all that is left waits, at its agent and at the others",
                "budget",
                |reports| {
                    let others = reports.iter().zip(waiting(reports)).all(|(report, own)| {
                        let seen = report
                            .held
                            .latest
                            .iter()
                            .any(|row| row.reason == "DeleteWaits" && row.attempts > 2);
                        seen && usize::try_from(report.verify.rows).is_ok_and(|rows| rows == sum - own)
                    });
                    others && waiting(reports).iter().sum::<usize>() == sum
                },
            )
            .await?;
        for report in &reports {
            ensure!(report.reason.as_deref() == Some("DeletesHeld"), "{report:?}");
        }
        let mut own: Vec<_> = parts(&gone).iter().map(|part| part - 2).collect();
        let mut shown = waiting(&reports);
        ensure!(
            lab.remote().len() == 50 - 6,
            "{} copies are left",
            lab.remote().len()
        );

        // One dies; what two people release of theirs goes, and nothing of the dead one's.
        agents.kill(2)?;
        for node in 0..2 {
            release(&mut agents, node, "budget").await?;
        }
        let dead = shown[2];
        agents.until_copies(10 + dead).await?;
        own.sort_unstable();
        shown.sort_unstable();
        ensure!(own == shown, "{own:?} {shown:?}");
        // That is left to the others in the end, and waits there for a person, too.
        agents
            .until_reports("the dead agent's alone", "budget", |reports| {
                waiting(reports) == [dead, dead]
            })
            .await?;
        ensure!(lab.remote().len() == 10 + dead);
        release(&mut agents, 1, "budget").await?;
        agents.until_copies(10).await?;
        // Back again, it learns from the release of its own batch that there is nothing left to do.
        agents.start_on(2).await?;
        agents
            .until_reports("its batch", "budget", |reports| waiting(reports) == [0, 0, dead])
            .await?;
        release(&mut agents, 2, "budget").await?;
        agents
            .until_reports("nothing waits", "budget", |reports| waiting(reports) == [0, 0, 0])
            .await?;
        agents
            .until_in_step("budget", |name| gone.iter().any(|gone| gone == name))
            .await?;
        Ok(())
    })
}

/// Waits until each agent has completed a reconciling pass that is another than the last.
async fn next_passes(
    agents: &mut Agents<'_>,
    policy: &str,
    last: &[Option<String>],
) -> Result<Vec<Option<String>>> {
    let completed = |reports: &[MappingReport]| -> Vec<_> {
        let passes = reports.iter().map(|report| report.reconcile.as_ref());
        passes
            .map(|pass| pass.and_then(|pass| pass.completed.clone()))
            .collect()
    };
    let reports = agents
        .until_reports("a reconciling pass of each", policy, |reports| {
            let now = completed(reports);
            now.iter().all(Option::is_some) && now.iter().zip(last).all(|(now, last)| now != last)
        })
        .await?;
    Ok(completed(&reports))
}

#[test]
fn deletes_that_swift_forgot_while_all_agents_were_away_are_found_and_many_wait_for_a_person() -> Result<()> {
    CLUSTER.alone(async |lab| {
        let all = names(90);
        for container in ["few", "many"] {
            lab.follow(container).await?;
            lab.put_many(container, "", all.len()).await?;
        }
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        let mut agents = lab.agents().await?;
        agents.until_copies(2 * all.len()).await?;
        // Only what an earlier pass saw is deleted. Passes are a reclaim age apart, so the third that shows from now on
        // began later than the copies by more than the slack.
        for container in ["few", "many"] {
            let mut passes = vec![None; 3];
            for _ in 0..3 {
                passes = next_passes(&mut agents, container, &passes).await?;
            }
        }
        agents.stop_all().await?;
        let stranger = unmarked("x", "text/plain", SystemTime::now());
        lab.s3.insert(BUCKET, "few/stranger", stranger);
        // Of the few each agent has one; of the many two have far too many, and one has a few.
        let few: BTreeSet<String> = (0..3)
            .filter_map(|wanted| all.iter().find(|name| part(name) == wanted).cloned())
            .collect();
        let kept_by_the_last = all.iter().filter(|name| part(name) == 2).skip(5).cloned();
        let kept: BTreeSet<String> = kept_by_the_last.collect();
        let many: Vec<String> = all.iter().filter(|name| !kept.contains(*name)).cloned().collect();
        for name in &few {
            lab.user.delete("few", name).await?;
        }
        for name in &many {
            lab.user.delete("many", name).await?;
        }
        let deleted = Instant::now();
        while deleted.elapsed() < Duration::from_secs(u64::from(RECLAIM_AGE) + 2) {
            lab.swift.run_once(Daemon::ContainerReplicator).await?;
        }
        agents.start_all().await?;
        let copies = |container: &str| {
            let prefix = format!("{container}/");
            lab.remote().keys().filter(|key| key.starts_with(&prefix)).count()
        };
        agents
            .until("the few deletes", async |_| {
                Ok((copies("few") == all.len() - few.len() + 1).then_some(()))
            })
            .await?;
        ensure!(lab.at("few/stranger").is_some() && lab.deleted("few") == few);

        let mut parts = parts(&many);
        ensure!(parts[0] >= 10 && parts[1] >= 10 && parts[2] == 5, "{parts:?}");
        parts[2] = 0;
        let mut expected = parts.to_vec();
        expected.sort_unstable();
        let reports = agents
            .until_reports("two batches", "many", |reports| {
                let mut shown = waiting(reports);
                shown.sort_unstable();
                shown == expected
            })
            .await?;
        agents
            .until("the deletes of the third", async |_| {
                Ok((copies("many") == all.len() - 5).then_some(()))
            })
            .await?;
        let batches = waiting(&reports);
        let mut left = all.len() - 5;
        for (node, report) in reports.iter().enumerate().filter(|(node, _)| batches[*node] > 0) {
            ensure!(report.reason.as_deref() == Some("MassDelete"), "{report:?}");
            ensure!(copies("many") == left, "a release is of one agent's own");
            release(&mut agents, node, "many").await?;
            left -= batches[node];
            agents
                .until("the released deletes", async |_| {
                    Ok((copies("many") == left).then_some(()))
                })
                .await?;
        }
        ensure!(lab.deleted("many") == many.into_iter().collect());
        agents
            .until_reports("nothing waits", "many", |reports| waiting(reports) == [0, 0, 0])
            .await?;
        ensure!(copies("few") == all.len() - few.len() + 1);
        Ok(())
    })
}
