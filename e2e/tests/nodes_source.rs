//! Three nodes of a cluster that does more with objects than keep them: encryption at rest, object versioning.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use onespace_core::report::{MappingReport, RunState};
use onespace_e2e::http::Method;
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::{Daemon, Encryption, NO_HEADERS, Options};

/// Objects are encrypted, and the internal endpoint does not decrypt them until a test mends it.
static ENCRYPTED: Shared = Shared::new(|| Options {
    encryption: Encryption::EndpointCannotDecrypt,
    ..Options::three_nodes()
});

#[test]
fn ciphertext_is_copied_by_no_agent_and_all_is_copied_in_clear_once_the_endpoint_decrypts() -> Result<()> {
    ENCRYPTED.alone(async |lab| {
        lab.follow("secret").await?;
        lab.put_many("secret", "early-", 20).await?;
        let mut agents = lab.agents().await?;
        let paused = |report: &MappingReport| {
            report.state == RunState::Paused && report.reason.as_deref() == Some("EndpointCannotDecrypt")
        };
        agents
            .until_reports("all paused", "secret", |reports| reports.iter().all(paused))
            .await?;
        lab.put_many("secret", "late-", 20).await?;
        lab.user.delete("secret", "early-000").await?;
        // A slack later the others would take over what is left to do.
        agents
            .until_reports("all see what waits, and are paused", "secret", |reports| {
                let pending: u64 = reports.iter().map(|report| report.pending.rows).sum();
                pending >= 39 && reports.iter().all(paused)
            })
            .await?;
        for report in agents.reports("secret").await? {
            ensure!((report.held.rows, report.totals.objects) == (0, 0), "{report:?}");
        }
        ensure!(lab.remote().is_empty());

        lab.swift.decrypt_at_the_endpoint().await?;
        agents.until_copies(39).await?;
        lab.user.put("secret", "early-001", NO_HEADERS, "other").await?;
        lab.user
            .post("secret", "early-002", &[("x-object-meta-place", "Bonn")])
            .await?;
        lab.user.delete("secret", "early-003").await?;
        agents
            .until_in_step("secret", |name| ["early-000", "early-003"].contains(&name))
            .await?;
        // Learned anew: rows carry ETags of what is encrypted, and still no body is sent again.
        let before = lab.remote();
        for node in 0..3 {
            agents.kill(node)?;
            std::fs::remove_dir_all(lab.state_on(node))?;
        }
        agents
            .until_in_step("secret", |name| ["early-000", "early-003"].contains(&name))
            .await?;
        for (key, copy) in lab.remote() {
            ensure!(
                before[&key].last_modified == copy.last_modified,
                "{key} was sent again"
            );
        }
        Ok(())
    })
}

#[test]
fn of_a_container_with_object_versioning_the_current_versions_are_copied_whichever_node_is_down() -> Result<()>
{
    static CLUSTER: Shared = Shared::new(Options::three_nodes);
    CLUSTER.alone(async |lab| {
        lab.follow("versions").await?;
        lab.user
            .post_container("versions", &[("x-versions-enabled", "true")])
            .await?;
        let mut agents = lab.agents().await?;
        for round in ["one", "two"] {
            for number in 0..12 {
                let name = format!("object-{number:02}");
                lab.user
                    .put("versions", &name, NO_HEADERS, format!("{name} {round}"))
                    .await?;
            }
        }
        agents.until_copies(12).await?;
        // What follows is not known on one node, whose agent is down, too.
        agents.kill(1)?;
        lab.swift.stop_node(1);
        for number in 0..6 {
            let name = format!("object-{number:02}");
            lab.user
                .put("versions", &name, NO_HEADERS, format!("{name} three"))
                .await?;
        }
        for number in 4..8 {
            lab.user
                .delete("versions", &format!("object-{number:02}"))
                .await?;
        }
        // A version that is not the current one goes: nothing changes at the remote.
        let listed = lab
            .user
            .request(
                Method::GET,
                "versions",
                "versions&prefix=object-08",
                NO_HEADERS,
                "",
            )
            .await?;
        let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.body)?;
        ensure!(listed.len() == 2, "{listed:?}");
        let old = listed
            .iter()
            .find(|version| version["is_latest"] == false)
            .and_then(|version| version["version_id"].as_str())
            .unwrap_or_default();
        let query = format!("version-id={old}");
        let answer = lab
            .user
            .request(Method::DELETE, "versions/object-08", &query, NO_HEADERS, "")
            .await?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        agents
            .until("the work of all three by two", async |_| {
                Ok(lab.differences("versions").await?.is_empty().then_some(()))
            })
            .await?;
        lab.swift.start_node(1).await?;
        lab.swift.run_once(Daemon::ObjectUpdater).await?;
        lab.swift.run_once(Daemon::ContainerReplicator).await?;
        let deleted = ["object-04", "object-05", "object-06", "object-07"];
        agents
            .until_in_step("versions", |name| deleted.contains(&name))
            .await?;
        let bodies: BTreeMap<String, String> = lab
            .remote()
            .into_iter()
            .map(|(key, copy)| (key, String::from_utf8_lossy(&copy.body).into_owned()))
            .collect();
        ensure!(
            bodies.len() == 8,
            "versions themselves are not copied: {bodies:?}"
        );
        ensure!(bodies["versions/object-00"] == "object-00 three");
        ensure!(bodies["versions/object-08"] == "object-08 two");
        // A deleted name comes back with the version that its user restores.
        lab.user
            .put("versions", "object-04", NO_HEADERS, "object-04 restored")
            .await?;
        agents.until_copies(9).await?;
        agents
            .until_in_step("versions", |name| deleted.contains(&name))
            .await?;
        Ok(())
    })
}
