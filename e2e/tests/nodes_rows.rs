//! Three nodes: what Swift's own machinery does to rows and databases, and what clocks do to their times.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use onespace_core::report::unix_seconds;
use onespace_e2e::agents::Agents;
use onespace_e2e::http::Method;
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::{Daemon, NO_HEADERS, Options, StoragePolicy, User};

static CLUSTER: Shared = Shared::new(|| Options {
    policies: vec![
        StoragePolicy::replicated("gold"),
        StoragePolicy::replicated("silver"),
        StoragePolicy::erasure_coded("coded", 2, 2),
    ],
    ..Options::three_nodes()
});

const NOTHING: fn(&str) -> bool = |_| false;

/// This many seconds from now, as Swift writes times.
fn from_now(seconds: f64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    Ok(format!("{:.5}", now + seconds))
}

/// A request at the internal endpoint that says when it was made, as a proxy with another clock does.
async fn at(internal: &User, method: Method, path: &str, time: &str, body: &'static str) -> Result<u16> {
    let headers = [("x-timestamp", time)];
    let answer = internal.request(method, path, "", &headers, body).await?;
    Ok(answer.status.as_u16())
}

#[test]
fn writes_of_proxies_whose_clocks_are_hours_apart_end_as_swift_has_them() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("clocks").await?;
        let mut agents = lab.agents().await?;
        let internal = lab.swift.internal(lab.user.account());
        for name in ["ahead", "dies", "behind", "beaten"] {
            let offset = if name == "behind" { -7200.0 } else { 7200.0 };
            let path = format!("clocks/{name}");
            let status = at(
                &internal,
                Method::PUT,
                &path,
                &from_now(offset)?,
                "from another clock",
            )
            .await?;
            ensure!(status == 201, "{name}: {status}");
        }
        agents.until_copies(4).await?;

        // Swift keeps the later time, whoever wrote last: a write and a delete by this clock come to nothing.
        lab.user.put("clocks", "beaten", NO_HEADERS, "in vain").await?;
        let deleted = lab
            .user
            .request(Method::DELETE, "clocks/ahead", "", NO_HEADERS, "")
            .await?;
        ensure!(deleted.status.as_u16() == 409, "{}", deleted.status);
        // This delete is later than what it deletes, and hours ahead of the agents.
        let status = at(&internal, Method::DELETE, "clocks/dies", &from_now(7300.0)?, "").await?;
        ensure!(status == 204, "{status}");
        lab.user
            .put("clocks", "behind", NO_HEADERS, "by this clock")
            .await?;
        agents
            .until("the delete and the write", async |_| {
                let written = lab
                    .at("clocks/behind")
                    .is_some_and(|copy| copy.body == "by this clock");
                Ok((written && lab.at("clocks/dies").is_none()).then_some(()))
            })
            .await?;
        agents.until_in_step("clocks", |name| name == "dies").await?;
        Ok(())
    })
}

#[test]
fn an_object_that_the_reconciler_moves_to_another_policy_stays_at_the_remote() -> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("moved").await?;
        let mut agents = lab.agents().await?;
        let internal = lab.swift.internal(lab.user.account());
        // Written by a proxy that took the container for one of policy silver.
        for name in ["a", "b", "c", "d", "e", "f"] {
            let headers = [("x-backend-storage-policy-index", "1")];
            let path = format!("moved/{name}");
            internal
                .request(Method::PUT, &path, "", &headers, "misplaced")
                .await?
                .success()?;
        }
        agents.until_copies(6).await?;
        ensure!(lab.user.get("moved", "a").await?.status == 404, "it is misplaced");
        // The replicator queues what is in the wrong place, the reconciler moves it.
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        lab.swift.run_once_on(Daemon::ContainerReconciler, &[0]).await?;
        ensure!(
            lab.user.get("moved", "a").await?.text() == "misplaced",
            "it was moved"
        );
        agents.until_in_step("moved", NOTHING).await?;
        ensure!(lab.remote().len() == 6, "all stay");
        lab.user.delete("moved", "a").await?;
        lab.user.put("moved", "b", NO_HEADERS, "later").await?;
        agents.until_copies(5).await?;
        agents.until_in_step("moved", |name| name == "a").await?;
        Ok(())
    })
}

#[test]
fn objects_of_an_erasure_coded_policy_are_copied_changed_and_deleted() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.user
            .create_container("coded", &[("x-storage-policy", "coded")])
            .await?;
        lab.policies
            .apply("coded.yaml", &lab.policy("coded", "coded", ""))?;
        let mut agents = lab.agents().await?;
        let large = onespace_e2e::expect::body(7, 3 << 20);
        lab.user.put("coded", "large", NO_HEADERS, large.clone()).await?;
        lab.put_many("coded", "object-", 6).await?;
        agents.until_copies(7).await?;
        // Fragments of what follows are missing where a node is down, and older there.
        lab.swift.stop_node(1);
        lab.user
            .put("coded", "object-000", NO_HEADERS, "overwritten")
            .await?;
        lab.user
            .post("coded", "object-001", &[("x-object-meta-place", "Bonn")])
            .await?;
        lab.user.delete("coded", "object-002").await?;
        lab.user.put("coded", "later", NO_HEADERS, large).await?;
        lab.swift.start_node(1).await?;
        lab.swift.run_once(Daemon::ObjectUpdater).await?;
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        agents.until_in_step("coded", |name| name == "object-002").await?;
        ensure!(lab.at("coded/object-002").is_none() && lab.remote().len() == 7);
        Ok(())
    })
}

#[test]
fn a_container_that_is_emptied_deleted_and_made_again_before_the_pass_ends_as_swift_has_it() -> Result<()> {
    CLUSTER.together(async |lab| {
        for container in ["gone", "again"] {
            lab.follow(container).await?;
            lab.put_many(container, "object-", 8).await?;
        }
        let mut agents = lab.agents().await?;
        agents.until_copies(16).await?;
        agents.stop_all().await?;
        for container in ["gone", "again"] {
            for number in 0..8 {
                lab.user.delete(container, &format!("object-{number:03}")).await?;
            }
            lab.user.delete_container(container).await?;
        }
        lab.container("again").await?;
        lab.user
            .put("again", "object-003", NO_HEADERS, "made again")
            .await?;
        lab.user.put("again", "new", NO_HEADERS, "new").await?;
        agents.start_all().await?;
        agents.until_copies(2).await?;
        let deleted = |name: &str| name.starts_with("object-");
        agents.until_in_step("gone", deleted).await?;
        agents.until_in_step("again", deleted).await?;

        // Made again while the agents run.
        lab.container("gone").await?;
        lab.user
            .put("gone", "object-000", NO_HEADERS, "made again")
            .await?;
        agents.until_copies(3).await?;
        agents.until_in_step("gone", deleted).await?;
        Ok(())
    })
}

#[test]
fn a_replica_that_is_lost_and_rebuilt_by_the_replicator_is_worked_off_anew_without_sending_a_body()
-> Result<()> {
    CLUSTER.together(async |lab| {
        lab.follow("rebuilt").await?;
        let mut agents = lab.agents().await?;
        lab.put_many("rebuilt", "object-", 20).await?;
        lab.user.delete("rebuilt", "object-019").await?;
        agents.until_copies(19).await?;
        agents.until_idle("rebuilt").await?;
        let before = lab.remote();

        lab.swift.replica_on(1, lab.user.account(), "rebuilt")?.remove()?;
        lab.user
            .put("rebuilt", "meanwhile", NO_HEADERS, "meanwhile")
            .await?;
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        lab.swift.run_once(Daemon::ObjectUpdater).await?;
        lab.swift.replica_on(1, lab.user.account(), "rebuilt")?;
        lab.user
            .put("rebuilt", "afterwards", NO_HEADERS, "afterwards")
            .await?;
        lab.user.delete("rebuilt", "object-000").await?;
        agents
            .until_in_step("rebuilt", |name| ["object-000", "object-019"].contains(&name))
            .await?;
        ensure!(lab.at("rebuilt/object-000").is_none() && lab.remote().len() == 20);
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
fn a_database_restored_from_a_backup_loses_and_deletes_nothing() -> Result<()> {
    CLUSTER.alone(async |lab| {
        lab.follow("restored").await?;
        let mut agents = lab.agents().await?;
        lab.put_many("restored", "early-", 8).await?;
        agents.until_copies(8).await?;
        agents.until_idle("restored").await?;
        let account = lab.user.account();
        let backups = (0..2)
            .map(|node| {
                let replica = lab.swift.replica_on(node, account, "restored")?;
                Ok((replica.back_up()?, replica))
            })
            .collect::<Result<Vec<_>>>()?;
        lab.put_many("restored", "late-", 8).await?;
        lab.user.delete("restored", "early-000").await?;
        lab.user
            .put("restored", "early-001", NO_HEADERS, "overwritten")
            .await?;
        agents.until_copies(15).await?;
        agents.until_idle("restored").await?;

        // Two of three replicas go back in time, under the ids that the agents know.
        for node in 0..2 {
            lab.swift.stop(onespace_e2e::swift::Server::Container(node));
        }
        for (backup, replica) in &backups {
            replica.restore(backup)?;
        }
        for node in 0..2 {
            lab.swift
                .start_again(onespace_e2e::swift::Server::Container(node))
                .await?;
        }
        // The same ROWIDs now go to other names.
        lab.put_many("restored", "again-", 4).await?;
        lab.user.delete("restored", "early-002").await?;
        agents.until_copies(18).await?;
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        agents
            .until_in_step("restored", |name| ["early-000", "early-002"].contains(&name))
            .await?;
        ensure!(lab.remote().len() == 18);
        Ok(())
    })
}

#[test]
fn agents_whose_clocks_are_minutes_apart_do_their_own_work_and_each_others() -> Result<()> {
    CLUSTER.together(async |mut lab| {
        // The slack is how far clocks may be apart.
        lab.settings.slack = "40m";
        lab.settings.clocks = vec![-600, 0, 900];
        lab.follow("apart").await?;
        lab.put_many("apart", "early-", 20).await?;
        let mut agents = lab.agents().await?;
        for (node, ahead) in lab.settings.clocks.iter().enumerate() {
            let loaded = agents.on(node)?.report().await?.config.loaded_at;
            let shown = unix_seconds(loaded.as_deref().unwrap_or_default()).context("loadedAt")?;
            let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
            let off = shown - now - ahead;
            ensure!(
                (-120..=1).contains(&off),
                "the clock of node {node} is another: {off}"
            );
        }
        lab.put_many("apart", "late-", 20).await?;
        for number in 0..6 {
            let name = |kind| format!("{kind}-{number:03}");
            lab.user
                .put("apart", &name("early"), NO_HEADERS, "overwritten")
                .await?;
            lab.user
                .post("apart", &name("late"), &[("x-object-meta-place", "Bonn")])
                .await?;
        }
        for number in 6..12 {
            lab.user.delete("apart", &format!("early-{number:03}")).await?;
            lab.user.delete("apart", &format!("late-{number:03}")).await?;
        }
        let in_step = async |_: &Agents<'_>| Ok(lab.differences("apart").await?.is_empty().then_some(()));
        agents.until("each one's own work", in_step).await?;
        for report in agents.reports("apart").await? {
            ensure!(report.totals.repaired == 0, "nobody needed help: {report:?}");
        }

        // One dies for good, and others take over what is due by their clocks.
        agents.kill(1)?;
        lab.put_many("apart", "last-", 20).await?;
        lab.user.delete("apart", "early-000").await?;
        lab.user.delete("apart", "late-000").await?;
        agents.stop_all().await?;
        drop(agents);
        ensure!(
            !lab.differences("apart").await?.is_empty(),
            "some rows were the dead one's"
        );
        lab.settings.slack = "2s";
        let mut agents = Agents::none(&lab);
        agents.start_on(0).await?;
        agents.start_on(2).await?;
        agents
            .until("the work of the dead one, too", async |_| {
                Ok(lab.differences("apart").await?.is_empty().then_some(()))
            })
            .await?;
        let deleted = |name: &str| {
            let number: usize = name
                .rsplit('-')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(99);
            !name.starts_with("last") && (number == 0 || (6..12).contains(&number))
        };
        agents.until_in_step("apart", deleted).await?;
        Ok(())
    })
}
