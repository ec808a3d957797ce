//! Three nodes and a remote that misbehaves: what the agents of all of them together make of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use onespace_core::report::RunState;
use onespace_e2e::lab::{Keys, policy_yaml};
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::{NO_HEADERS, Options};

static CLUSTER: Shared = Shared::new(Options::three_nodes);

const NOTHING: fn(&str) -> bool = |_| false;

fn on_puts(skip: u64, times: u64, fault: Fault) -> Rule {
    Rule {
        operation: Some("PutObject"),
        key_contains: "object-".into(),
        skip,
        times,
        fault,
    }
}

#[test]
fn uploads_that_break_off_and_are_kept_short_are_mended() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("short").await?;
        let mut agents = lab.agents().await?;
        agents.until_idle("short").await?;
        lab.s3
            .faults()
            .inject(on_puts(2, 5, Fault::KeepTruncated { after: 4 }));
        lab.put_many("short", "object-", 20).await?;
        agents.until_copies(20).await?;
        agents.until_in_step("short", NOTHING).await?;
        Ok(())
    })
}

#[test]
fn a_remote_that_hides_keys_in_its_listings_makes_no_copy_count_as_missing() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.s3.hide_from_listings(|key| key.ends_with('1'));
        lab.follow("hidden").await?;
        lab.put_many("hidden", "object-", 30).await?;
        let mut agents = lab.agents().await?;
        agents.until_copies(30).await?;
        agents.until_in_step("hidden", NOTHING).await?;
        // Everything is learned anew, by listings.
        for node in 0..3 {
            agents.kill(node)?;
            std::fs::remove_dir_all(lab.state_on(node))?;
        }
        lab.user
            .put("hidden", "object-001", NO_HEADERS, "changed")
            .await?;
        lab.user.delete("hidden", "object-011").await?;
        agents.start_all().await?;
        agents.until_copies(29).await?;
        agents
            .until_in_step("hidden", |name| name == "object-011")
            .await?;
        Ok(())
    })
}

#[test]
fn keys_that_are_revoked_and_replaced_under_load_pause_every_agent_and_lose_nothing() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("rotated").await?;
        let mut agents = lab.agents().await?;
        lab.put_many("rotated", "object-", 10).await?;
        agents.until_copies(10).await?;
        lab.s3.change_keys("rotated-key", "rotated-secret");
        lab.put_many("rotated", "later-", 20).await?;
        lab.user.delete("rotated", "object-000").await?;
        let reports = agents
            .until_reports("all paused", "rotated", |reports| {
                reports
                    .iter()
                    .all(|report| report.state == RunState::Paused && report.reason.is_some())
            })
            .await?;
        for report in reports {
            ensure!(
                report.reason.as_deref() == Some("InvalidCredentials"),
                "{report:?}"
            );
            ensure!(report.held.rows == 0, "{report:?}");
        }
        ensure!(
            lab.remote().len() == 10,
            "nothing is sent or deleted with old keys"
        );
        let keys = Keys {
            endpoint: &lab.s3.endpoint(),
            access: "rotated-key",
            secret: "rotated-secret",
        };
        let policy = policy_yaml(
            "rotated",
            (lab.user.account(), "rotated"),
            &keys,
            "prefix: rotated",
            "",
        );
        lab.policies.apply("rotated.yaml", &policy)?;
        agents.until_copies(29).await?;
        agents
            .until_in_step("rotated", |name| name == "object-000")
            .await?;
        Ok(())
    })
}

#[test]
fn a_remote_that_is_slow_resets_and_fails_in_turn_ends_in_step() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("troubled").await?;
        let mut agents = lab.agents().await?;
        agents.until_idle("troubled").await?;
        let faults = [
            Fault::Delay(Duration::from_millis(300)),
            Fault::LoseAnswer,
            Fault::answer(500, "InternalError"),
            Fault::answer(503, "SlowDown"),
            Fault::Break { after: 3 },
            Fault::KeepTruncated { after: 3 },
        ];
        for (at, fault) in (0_u64..).zip(faults) {
            lab.s3.faults().inject(on_puts(at * 4, 2, fault.clone()));
            lab.s3.faults().inject(Rule {
                skip: at,
                ..Rule::next("DeleteObject", fault)
            });
        }
        lab.put_many("troubled", "object-", 30).await?;
        for number in 0..10 {
            let name = format!("object-{number:03}");
            lab.user.put("troubled", &name, NO_HEADERS, "overwritten").await?;
        }
        for number in 10..20 {
            lab.user
                .delete("troubled", &format!("object-{number:03}"))
                .await?;
        }
        agents.until_copies(20).await?;
        agents
            .until_in_step("troubled", |name| name.starts_with("object-01"))
            .await?;
        Ok(())
    })
}

#[test]
fn a_remote_that_hangs_pauses_every_agent_and_ends_in_step_when_it_answers_again() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("hangs").await?;
        let mut agents = lab.agents().await?;
        lab.put_many("hangs", "object-", 10).await?;
        agents.until_copies(10).await?;
        agents.until_idle("hangs").await?;
        lab.s3.faults().inject(Rule::always(Fault::Hang));
        lab.put_many("hangs", "later-", 20).await?;
        lab.user.delete("hangs", "object-000").await?;
        // An answer is waited for for a minute.
        let reports = agents
            .until_reports("all paused", "hangs", |reports| {
                reports.iter().all(|report| report.state == RunState::Paused)
            })
            .await?;
        for report in &reports {
            ensure!(report.reason.as_deref() == Some("Timeout"), "{report:?}");
            let charged = report.held.latest.iter().any(|row| row.reason != "Transferring");
            ensure!(!charged && !report.remote.reachable, "{report:?}");
        }
        // One dies meanwhile.
        agents.kill(0)?;
        lab.s3.faults().clear();
        agents.until_copies(29).await?;
        agents.until_in_step("hangs", |name| name == "object-000").await?;
        Ok(())
    })
}
