//! Containers that are split into shards while they are copied.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use onespace_e2e::agents::Agents;
use onespace_e2e::lab::Lab;
use onespace_e2e::swift::{Daemon, NO_HEADERS, Options};

const CONTAINER: &str = "big";

/// What users did.
#[derive(Default)]
struct Users {
    alive: BTreeMap<String, String>,
    ever_deleted: BTreeSet<String>,
    rounds: usize,
}

impl Users {
    async fn put(&mut self, lab: &Lab, name: &str) -> Result<()> {
        let body = format!("{name} of round {}", self.rounds);
        lab.user.put(CONTAINER, name, NO_HEADERS, body.clone()).await?;
        self.alive.insert(name.to_owned(), body);
        Ok(())
    }

    async fn delete(&mut self, lab: &Lab, name: &str) -> Result<()> {
        lab.user.delete(CONTAINER, name).await?;
        self.alive.remove(name);
        self.ever_deleted.insert(name.to_owned());
        Ok(())
    }

    /// Over the whole range of names: new ones, overwritten ones, deleted ones, and some that were deleted before.
    async fn work(&mut self, lab: &Lab) -> Result<()> {
        self.rounds += 1;
        let round = self.rounds;
        for tens in 0..6 {
            self.put(lab, &format!("{tens}{}-new-{round}", round % 10))
                .await?;
            self.put(lab, &format!("{tens}9-first")).await?;
            self.delete(lab, &format!("{tens}{}-first", round % 9)).await?;
            if round > 1 {
                let last = round - 1;
                self.delete(lab, &format!("{tens}{}-new-{last}", last % 10))
                    .await?;
            }
            if round > 2 {
                self.put(lab, &format!("{tens}{}-first", (round - 2) % 9)).await?;
            }
        }
        Ok(())
    }

    /// Waits until the remote has what they left, and nothing was deleted that no user deleted.
    async fn see(&self, agents: &mut Agents<'_>, lab: &Lab) -> Result<()> {
        agents
            .until_in_step(CONTAINER, |name| self.ever_deleted.contains(name))
            .await?;
        let remote: BTreeMap<String, String> = lab
            .remote()
            .into_iter()
            .map(|(key, copy)| {
                let name = key.trim_start_matches("big/").to_owned();
                (name, String::from_utf8_lossy(&copy.body).into_owned())
            })
            .collect();
        ensure!(remote == self.alive, "{remote:?}\nis not\n{:?}", self.alive);
        Ok(())
    }
}

/// Whether every replica has left its old file behind.
fn is_sharded(lab: &Lab) -> Result<bool> {
    for replica in lab.swift.replicas(lab.user.account(), CONTAINER)? {
        for entry in std::fs::read_dir(&replica.folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".db") && !name.contains('_') {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

async fn sharding(options: Options) -> Result<()> {
    let mut lab = Lab::with(options).await?;
    // Agents of several nodes verify each other's work within the scenario.
    lab.settings.slack = "2s";
    lab.container(CONTAINER).await?;
    lab.policies
        .apply("big.yaml", &lab.policy(CONTAINER, CONTAINER, ""))?;
    let mut users = Users::default();
    for number in 0..60 {
        users.put(&lab, &format!("{number:02}-first")).await?;
    }
    let mut agents = lab.agents().await?;
    users.work(&lab).await?;
    users.see(&mut agents, &lab).await?;

    // Asked for, on one replica; replication tells the others.
    lab.swift.run_once(Daemon::ContainerReplicator).await?;
    let replicas = lab.swift.replicas(lab.user.account(), CONTAINER)?;
    let database = replicas[0].database()?.display().to_string();
    let arguments = [&database, "find_and_replace", "15", "--enable", "--force"];
    lab.swift
        .run_program("swift-manage-shard-ranges", &arguments.map(str::to_owned))
        .await?;
    users.work(&lab).await?;
    let mut passes = 0;
    while !is_sharded(&lab)? {
        passes += 1;
        ensure!(passes <= 10, "sharding does not end");
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        lab.swift.run_once(Daemon::ContainerSharder).await?;
        users.work(&lab).await?;
        // Half of the times the agents see each step, half of the times several at once.
        if passes % 2 == 0 {
            users.see(&mut agents, &lab).await?;
        }
    }
    ensure!(
        passes > 1,
        "it should take several passes, so that there is something to see"
    );
    users.work(&lab).await?;
    lab.swift.run_once(Daemon::ContainerSharder).await?;
    lab.swift.run_once(Daemon::ContainerReplicator).await?;
    users.see(&mut agents, &lab).await?;
    let open: u64 = agents
        .reports(CONTAINER)
        .await?
        .iter()
        .map(|report| report.databases.open)
        .sum();
    ensure!(open >= 4, "the root and its shards are followed: {open}");

    // Agents that know nothing find everything done already.
    agents.stop_all().await?;
    for node in 0..lab.swift.nodes().len() {
        std::fs::remove_dir_all(lab.state_on(node))?;
    }
    let before = lab.remote();
    agents.start_all().await?;
    users.see(&mut agents, &lab).await?;
    for (key, copy) in lab.remote() {
        ensure!(
            before[&key].last_modified == copy.last_modified,
            "{key} was sent anew"
        );
    }
    agents.stop_all().await
}

#[tokio::test]
async fn sharding_on_one_node_loses_nothing_and_deletes_nothing() -> Result<()> {
    sharding(Options::default()).await
}

#[tokio::test]
async fn sharding_on_three_nodes_loses_nothing_and_deletes_nothing() -> Result<()> {
    sharding(Options::three_nodes()).await
}

#[tokio::test]
async fn shards_on_nodes_that_have_nothing_of_the_root_are_followed_there() -> Result<()> {
    let options = Options {
        replicas: 2.0,
        ..Options::three_nodes()
    };
    sharding(options).await
}
