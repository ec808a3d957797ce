//! Three nodes whose agents die: at any instant, with or without their state, or with a disk that is full.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt as _;
use onespace_core::report::RunState;
use onespace_e2e::http::Method;
use onespace_e2e::lab::Lab;
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::{Daemon, NO_HEADERS, Options};

static CLUSTER: Shared = Shared::new(Options::three_nodes);

/// How often agents are killed at least, and at most while there is too little load.
const KILLS: usize = 100;
const MOST_KILLS: usize = 1000;

/// How many writes the agents have to meet meanwhile.
const WRITES: usize = 100;

/// Numbers that a seed gives again (splitmix64).
struct Dice(u64);

impl Dice {
    /// Below `limit`.
    fn roll(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn node(&mut self) -> usize {
        usize::try_from(self.roll(3)).unwrap_or_default()
    }
}

/// Another one each time, or the one that is to be run again: `ONESPACE_SEED=N cargo test ...`.
fn seed() -> Result<u64> {
    match std::env::var_os("ONESPACE_SEED") {
        Some(text) => text.to_string_lossy().parse().context("ONESPACE_SEED"),
        None => Ok(RandomState::new().build_hasher().finish()),
    }
}

/// Writes, overwrites, changes and deletes until it is told to end. Only names that begin with `mixed-` are deleted.
async fn load(lab: &Lab, mut dice: Dice, written: &AtomicUsize, ends: &AtomicBool) -> Result<()> {
    while !ends.load(Ordering::Relaxed) {
        let kind = if dice.roll(3) == 0 { "kept" } else { "mixed" };
        let name = format!("{kind}-{:02}", dice.roll(40));
        let answer = match dice.roll(10) {
            0..6 => {
                let body = format!("{name} {}", dice.roll(u64::MAX));
                lab.user.put("killed", &name, NO_HEADERS, body).await?;
                written.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            6..8 => {
                let place = [("x-object-meta-number", dice.roll(1000).to_string())];
                lab.user
                    .request(Method::POST, &format!("killed/{name}"), "", &place, "")
                    .await?
            }
            _ if kind == "kept" => continue,
            _ => {
                lab.user
                    .request(Method::DELETE, &format!("killed/{name}"), "", NO_HEADERS, "")
                    .await?
            }
        };
        let status = answer.status.as_u16();
        ensure!(answer.status.is_success() || status == 404, "{name}: {status}");
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn a_hundred_kills_at_random_moments_under_load_lose_nothing_and_delete_nothing_wrongly() -> Result<()> {
    let seed = seed()?;
    let outcome = CLUSTER.alone(async |lab| {
        lab.follow("killed").await?;
        let mut dice = Dice(seed);
        let more = Dice(dice.roll(u64::MAX));
        let mut agents = lab.agents().await?;
        let (written, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
        let killer = async {
            for kill in 0..MOST_KILLS {
                if kill >= KILLS && written.load(Ordering::Relaxed) >= WRITES {
                    break;
                }
                let node = dice.node();
                // Which moment it is matters, and nothing can be waited for: any may be the wrong one.
                tokio::time::sleep(Duration::from_millis(dice.roll(250))).await;
                agents.kill(node)?;
                agents.start_unready_on(node)?;
            }
            anyhow::Ok(())
        };
        let killer = killer.inspect(|_| ends.store(true, Ordering::Relaxed));
        let (killed, loaded) = tokio::join!(killer, load(&lab, more, &written, &ends));
        killed?;
        loaded?;
        let written = written.into_inner();
        ensure!(written >= WRITES, "only {written} writes in {MOST_KILLS} kills");
        // Late updates of rows are delivered, so that every replica has all.
        lab.swift.run_once(Daemon::ObjectUpdater).await?;
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        agents
            .until_in_step("killed", |name| name.starts_with("mixed-"))
            .await?;
        ensure!(lab.s3.unfinished_uploads() == 0, "uploads are left");
        Ok(())
    });
    outcome.with_context(|| format!("again with: ONESPACE_SEED={seed}"))
}

#[test]
fn a_node_that_lost_its_agents_state_learns_it_anew_without_sending_or_deleting_anything() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("forgotten").await?;
        let mut agents = lab.agents().await?;
        lab.put_many("forgotten", "object-", 30).await?;
        lab.user.delete("forgotten", "object-000").await?;
        agents
            .until("the copies", async |_| {
                Ok((lab.remote().len() == 29).then_some(()))
            })
            .await?;
        agents.until_idle("forgotten").await?;
        for node in 0..3 {
            agents.kill(node)?;
            std::fs::remove_dir_all(lab.state_on(node))?;
        }
        lab.user.delete("forgotten", "object-001").await?;
        lab.user.put("forgotten", "fresh", NO_HEADERS, "fresh").await?;
        let before = lab.remote();
        agents.start_all().await?;
        agents
            .until_in_step("forgotten", |name| ["object-000", "object-001"].contains(&name))
            .await?;
        for (key, copy) in lab.remote() {
            let unsent = before
                .get(&key)
                .is_none_or(|before| before.last_modified == copy.last_modified);
            ensure!(unsent, "{key} was sent again");
        }
        Ok(())
    })
}

#[test]
fn a_full_disk_under_the_state_pauses_the_agent_until_there_is_room_and_loses_nothing() -> Result<()> {
    CLUSTER.together(async |mut lab| {
        lab.settings.files_can_be_limited = true;
        lab.follow("full").await?;
        let mut agents = lab.agents().await?;
        lab.put_many("full", "early-", 10).await?;
        agents
            .until("the copies", async |_| {
                Ok((lab.remote().len() == 10).then_some(()))
            })
            .await?;
        for node in 0..3 {
            agents.on(node)?.limit_files(Some(0))?;
        }
        lab.put_many("full", "late-", 30).await?;
        lab.user.delete("full", "early-000").await?;
        let reports = agents
            .until_reports("all paused", "full", |reports| {
                reports.iter().all(|report| report.state == RunState::Paused)
            })
            .await?;
        for report in &reports {
            ensure!(report.reason.as_deref() == Some("StateUnavailable"), "{report:?}");
        }
        // One dies of it, and cannot start until there is room.
        agents.kill(0)?;
        for node in 1..3 {
            agents.on(node)?.limit_files(None)?;
        }
        agents.until_in_step("full", |name| name == "early-000").await?;
        ensure!(lab.remote().len() == 39);
        Ok(())
    })
}
