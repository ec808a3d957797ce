//! Three nodes, of which one is down, comes back with what it had, or loses what it had.

use anyhow::{Result, ensure};
use onespace_e2e::agents::Agents;
use onespace_e2e::lab::Lab;
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::{Daemon, NO_HEADERS, Options, Server};

static CLUSTER: Shared = Shared::new(Options::three_nodes);

const NOTHING: fn(&str) -> bool = |_| false;

/// Swift's own repair: late updates are delivered and rows are brought in step.
async fn repair_rows(lab: &Lab) -> Result<()> {
    lab.swift.run_once(Daemon::ObjectUpdater).await?;
    lab.swift.run_once(Daemon::ContainerReplicator).await
}

async fn until_body(agents: &mut Agents<'_>, lab: &Lab, key: &str, body: &str) -> Result<()> {
    let what = format!("{key} with the body {body:?}");
    agents
        .until(&what, async |_| {
            Ok(lab.at(key).filter(|copy| copy.body == body).map(drop))
        })
        .await
}

#[test]
fn rows_and_deletes_of_a_node_that_is_down_are_taken_over_by_the_others() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.follow("taken").await?;
        lab.put_many("taken", "early-", 12).await?;
        let mut agents = lab.agents().await?;
        agents
            .until("the copies", async |_| {
                Ok((lab.remote().len() == 12).then_some(()))
            })
            .await?;
        agents.kill(2)?;
        lab.swift.stop_node(2);
        // Of any dozen names, some are the dead node's.
        lab.put_many("taken", "late-", 12).await?;
        for number in 0..12 {
            let name = format!("early-{number:03}");
            if number % 2 == 0 {
                lab.user.delete("taken", &name).await?;
            } else {
                lab.user.put("taken", &name, NO_HEADERS, "overwritten").await?;
            }
        }
        agents
            .until("the work of all three by two", async |_| {
                Ok(lab.differences("taken").await?.is_empty().then_some(()))
            })
            .await?;
        ensure!(lab.remote().len() == 18);
        lab.swift.start_node(2).await?;
        repair_rows(&lab).await?;
        agents
            .until_in_step("taken", |name| name.starts_with("early-"))
            .await?;
        ensure!(lab.remote().len() == 18);
        Ok(())
    })
}

#[test]
fn a_node_that_comes_back_with_an_old_body_never_replaces_the_new_one() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.follow("back").await?;
        let mut agents = lab.agents().await?;
        let names: Vec<_> = (0..12).map(|number| format!("object-{number:02}")).collect();
        for name in &names {
            lab.user.put("back", name, NO_HEADERS, "old").await?;
        }
        for name in &names {
            until_body(&mut agents, &lab, &format!("back/{name}"), "old").await?;
        }
        lab.swift.stop_node(2);
        for name in &names {
            lab.user.put("back", name, NO_HEADERS, "new, and longer").await?;
        }
        lab.swift.start_node(2).await?;
        // Its rows are old, too, and the agent there has to look at them all once more.
        agents.stop(2).await?;
        std::fs::remove_dir_all(lab.state_on(2))?;
        agents.start_on(2).await?;
        agents.until_idle("back").await?;
        repair_rows(&lab).await?;
        for name in &names {
            until_body(&mut agents, &lab, &format!("back/{name}"), "new, and longer").await?;
        }
        agents.until_in_step("back", NOTHING).await?;
        Ok(())
    })
}

#[test]
fn a_change_of_metadata_over_an_old_body_copies_the_new_body_only() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.follow("stale").await?;
        let mut agents = lab.agents().await?;
        for number in 0..6 {
            let name = format!("object-{number}");
            lab.user.put("stale", &name, NO_HEADERS, "old").await?;
        }
        agents
            .until("the old bodies", async |_| {
                Ok((lab.remote().len() == 6).then_some(()))
            })
            .await?;
        lab.swift.stop_node(1);
        for number in 0..6 {
            let name = format!("object-{number}");
            lab.user
                .put("stale", &name, NO_HEADERS, "new, and longer")
                .await?;
        }
        lab.swift.start_node(1).await?;
        // The old body on node 1 now carries the newest time of all.
        for number in 0..6 {
            let name = format!("object-{number}");
            lab.user
                .post("stale", &name, &[("x-object-meta-place", "Bonn")])
                .await?;
        }
        repair_rows(&lab).await?;
        agents
            .until("the new bodies with the new metadata", async |_| {
                let done = lab.remote().values().all(|copy| {
                    copy.body == "new, and longer"
                        && copy.headers.metadata.get("place").map(String::as_str) == Some("Bonn")
                });
                Ok(done.then_some(()))
            })
            .await?;
        agents.until_in_step("stale", NOTHING).await?;
        Ok(())
    })
}

#[test]
fn objects_whose_only_node_is_down_are_not_taken_for_gone() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.follow("bare").await?;
        for number in 0..4 {
            lab.user
                .put("bare", &format!("copied-{number}"), NO_HEADERS, "copied")
                .await?;
        }
        let mut agents = lab.agents().await?;
        agents
            .until(
                "the copies",
                async |_| Ok((lab.remote().len() == 4).then_some(())),
            )
            .await?;
        agents.stop_all().await?;
        // All three object servers have the new objects; then two of them get new disks, and the third goes down.
        for number in 0..4 {
            lab.user
                .put("bare", &format!("unread-{number}"), NO_HEADERS, "unread")
                .await?;
        }
        for node in [1, 2] {
            lab.swift.stop(Server::Object(node));
            let node = &lab.swift.nodes()[node];
            for device in node.device_names() {
                let objects = node.devices().join(device).join("objects");
                if objects.exists() {
                    std::fs::remove_dir_all(objects)?;
                }
            }
        }
        lab.swift.stop(Server::Object(0));
        for node in [1, 2] {
            lab.swift.start_again(Server::Object(node)).await?;
        }
        let answer = lab.user.get("bare", "unread-0").await?;
        ensure!(answer.status == 404, "a bare 404: {}", answer.status);
        agents.start_all().await?;
        let waiting = |held: u64| {
            move |reports: &[onespace_core::report::MappingReport]| {
                reports.iter().map(|report| report.held.rows).sum::<u64>() >= held
            }
        };
        let reports = agents.until_reports("all four held", "bare", waiting(4)).await?;
        for row in reports.iter().flat_map(|report| &report.held.latest) {
            ensure!(row.reason == "SourceUnproven", "{row:?}");
        }
        ensure!(lab.remote().len() == 4, "nothing is deleted");
        lab.swift.start_again(Server::Object(0)).await?;
        agents
            .until("the objects", async |_| {
                Ok((lab.remote().len() == 8).then_some(()))
            })
            .await?;
        agents.until_in_step("bare", NOTHING).await?;
        Ok(())
    })
}

#[test]
fn a_delete_whose_tombstones_are_on_nodes_that_are_down_waits_for_them() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.follow("tombstones").await?;
        lab.put_many("tombstones", "object-", 6).await?;
        let mut agents = lab.agents().await?;
        agents
            .until(
                "the copies",
                async |_| Ok((lab.remote().len() == 6).then_some(())),
            )
            .await?;
        agents.stop_all().await?;
        lab.swift.stop(Server::Object(0));
        for number in 0..6 {
            lab.user
                .delete("tombstones", &format!("object-{number:03}"))
                .await?;
        }
        for node in [1, 2] {
            lab.swift.stop(Server::Object(node));
        }
        lab.swift.start_again(Server::Object(0)).await?;
        let answer = lab.user.get("tombstones", "object-000").await?;
        ensure!(answer.status == 200, "it is back for now: {}", answer.status);
        agents.start_all().await?;
        let reports = agents
            .until_reports("all six held", "tombstones", |reports| {
                reports.iter().map(|report| report.held.rows).sum::<u64>() == 6
            })
            .await?;
        for row in reports.iter().flat_map(|report| &report.held.latest) {
            ensure!(row.reason == "SourceBehind", "{row:?}");
        }
        ensure!(lab.remote().len() == 6, "nothing is deleted");
        for node in [1, 2] {
            lab.swift.start_again(Server::Object(node)).await?;
        }
        agents
            .until("the deletes", async |_| Ok(lab.remote().is_empty().then_some(())))
            .await?;
        agents.until_in_step("tombstones", |_| true).await?;
        Ok(())
    })
}
