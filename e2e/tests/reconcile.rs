//! Deletes whose tombstones Swift has forgotten while nobody looked: found by a reconciling pass.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use onespace_core::report::MappingReport;
use onespace_e2e::agent::Agent;
use onespace_e2e::lab::{BUCKET, Lab, unmarked};
use onespace_e2e::programs::program;
use onespace_e2e::swift::{Daemon, Options};

/// Tombstones live for so many seconds.
const RECLAIM_AGE: u32 = 5;

/// Waits until a reconciling pass is over that is another than the last, and returns when it began.
async fn next_pass(agent: &mut Agent, last: Option<String>) -> Result<Option<String>> {
    let completed =
        |report: &MappingReport| report.reconcile.as_ref().and_then(|pass| pass.completed.clone());
    let report = agent
        .until_policy("a reconciling pass", "photos", |report| {
            completed(report).is_some_and(|now| Some(now) != last)
        })
        .await?;
    Ok(completed(&report))
}

/// A container of these objects, copied by an agent; while it was away some were deleted, and Swift forgot it.
async fn with_forgotten(objects: usize, gone: usize) -> Result<(Lab, Agent)> {
    let mut lab = Lab::with(Options {
        reclaim_age: Some(RECLAIM_AGE),
        ..Options::default()
    })
    .await?;
    lab.settings.slack = "2s";
    lab.container("photos").await?;
    lab.put_many("photos", "", objects).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("the copies", async |_| {
            Ok((lab.remote().len() == objects).then_some(()))
        })
        .await?;
    // Only what an earlier pass saw is deleted. Passes are a reclaim age apart, so the third that shows from now on began
    // later than the copies by more than the slack.
    let mut pass = None;
    for _ in 0..3 {
        pass = next_pass(&mut agent, pass).await?;
    }
    agent.stop().await?;
    let stranger = unmarked("x", "text/plain", SystemTime::now());
    lab.s3.insert(BUCKET, "photos/stranger", stranger);
    for number in 0..gone {
        lab.user.delete("photos", &format!("{number:03}")).await?;
    }
    let deleted = Instant::now();
    while deleted.elapsed() < Duration::from_secs(u64::from(RECLAIM_AGE) + 2) {
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
    }
    let agent = lab.agent().await?;
    Ok((lab, agent))
}

#[tokio::test]
async fn a_delete_that_swift_forgot_while_no_agent_ran_is_carried_out_and_nothing_else_goes() -> Result<()> {
    let (lab, mut agent) = with_forgotten(4, 1).await?;
    agent
        .until("the delete", async |_| {
            Ok(lab.at("photos/000").is_none().then_some(()))
        })
        .await?;
    let report = agent
        .until_policy(
            "the delete counted, the stranger's object reported",
            "photos",
            |report| {
                report.totals.deletes > 0 && report.reconcile.as_ref().is_some_and(|pass| pass.unmarked == 1)
            },
        )
        .await?;
    assert_eq!((report.totals.deletes, report.held.rows), (1, 0), "{report:?}");
    let keys: Vec<_> = lab.remote().into_keys().collect();
    assert_eq!(
        keys,
        ["photos/001", "photos/002", "photos/003", "photos/stranger"]
    );
    Ok(())
}

#[tokio::test]
async fn forgotten_deletes_of_most_of_a_container_wait_until_a_person_releases_them() -> Result<()> {
    let (lab, mut agent) = with_forgotten(15, 12).await?;
    let report = agent
        .until_policy("the batch", "photos", |report| {
            report.held_deletes.as_ref().is_some_and(|batch| batch.rows == 12)
        })
        .await?;
    assert_eq!(report.reason.as_deref(), Some("MassDelete"), "{report:?}");
    assert_eq!((lab.remote().len(), report.totals.deletes), (16, 0), "{report:?}");
    let batch = report.held_deletes.unwrap_or_default().id;
    let url = agent.status_url();
    let release = |batch: &str| -> Result<bool> {
        let mut onespace = Command::new(program("onespace")?);
        onespace.args(["release-deletes", "--agent", &url, &report.id, batch]);
        Ok(onespace.status()?.success())
    };
    assert!(!release("another")?, "only a batch that is there can be released");
    assert_eq!(lab.remote().len(), 16);
    assert!(release(&batch)?);
    agent
        .until("the deletes", async |_| {
            Ok((lab.remote().len() == 4).then_some(()))
        })
        .await?;
    agent
        .until_policy("all counted, none waiting", "photos", |report| {
            report.totals.deletes == 12 && report.held_deletes.is_none()
        })
        .await?;
    Ok(())
}
