//! Deletes: what is removed at the remote, and above all what is not.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use onespace_core::report::MappingReport;
use onespace_e2e::lab::{BUCKET, Lab, unmarked};
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::swift::{NO_HEADERS, Options, Server};

const BINARY: &str = "application/octet-stream";

/// Longer than clocks may be apart.
const LATER: Duration = Duration::from_secs(7200);

/// The reason for which an object is held, if it is.
fn reason<'a>(report: &'a MappingReport, object: &str) -> Option<&'a str> {
    let mut held = report.held.latest.iter();
    held.find(|row| row.object == object)
        .map(|row| row.reason.as_str())
}

#[tokio::test]
async fn what_onespace_did_not_write_is_neither_overwritten_nor_deleted() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.container("films").await?;
    let now = SystemTime::now();
    // A stranger's objects at keys of ours: one newer than Swift's, one older.
    for (name, time) in [("newer", now + LATER), ("older", now - LATER), ("deleted", now)] {
        let key = format!("photos/{name}");
        lab.s3.insert(BUCKET, &key, unmarked("stranger", BINARY, time));
    }
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.policies
        .apply("films.yaml", &lab.policy("films", "films", ""))?;
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;

    lab.user.put("photos", "newer", NO_HEADERS, "ours").await?;
    lab.user.put("photos", "older", NO_HEADERS, "ours").await?;
    agent
        .until("the older one overwritten", async |_| {
            Ok(lab.at("photos/older").filter(|copy| copy.body == "ours"))
        })
        .await?;
    agent
        .until_policy("the newer one held", "photos", |report| {
            reason(report, "photos/newer") == Some("RemoteNewer")
        })
        .await?;
    assert_eq!(lab.at("photos/newer").unwrap().body, "stranger");
    // The delete of what was never copied has nothing to remove there.
    lab.user.delete("photos", "newer").await?;
    agent
        .until_policy("the delete held", "photos", |report| {
            reason(report, "photos/newer") == Some("NotOurs")
        })
        .await?;
    assert_eq!(lab.at("photos/newer").unwrap().body, "stranger");

    // A copy with the mark of another source: a bucket that was copied by hand, prefixes that met.
    lab.user.put("films", "a", NO_HEADERS, "a film").await?;
    let foreign = agent
        .until("a copy of another container", async |_| Ok(lab.at("films/a")))
        .await?;
    lab.s3.insert(BUCKET, "photos/foreign", (*foreign).clone());
    lab.user.put("photos", "foreign", NO_HEADERS, "ours").await?;
    agent
        .until_policy("the foreign copy held", "photos", |report| {
            reason(report, "photos/foreign") == Some("ForeignCopy")
        })
        .await?;
    let since = agent.policy("photos").await?.held.rows;
    lab.user.delete("photos", "foreign").await?;
    lab.user.put("photos", "after", NO_HEADERS, "after").await?;
    agent
        .until("what came after the delete", async |_| Ok(lab.at("photos/after")))
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(
        reason(&report, "photos/foreign"),
        Some("ForeignCopy"),
        "{report:?}"
    );
    assert_eq!(report.held.rows, since);
    assert_eq!(lab.at("photos/foreign").unwrap().body, "a film");

    // The stranger's objects moved away: what is held goes on by request.
    for name in ["newer", "foreign"] {
        lab.s3.remove(BUCKET, &format!("photos/{name}"));
    }
    agent.retry("photos").await?;
    agent
        .until_policy("nothing held", "photos", |report| report.held.rows == 0)
        .await?;
    assert_eq!(
        lab.at("photos/deleted").unwrap().body,
        "stranger",
        "not even looked at"
    );
    Ok(())
}

#[tokio::test]
async fn deletes_beside_a_first_pass_and_new_writes_leave_what_swift_has() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 200).await?;
    let slow = |times| Rule {
        operation: Some("PutObject"),
        key_contains: "object-".into(),
        skip: 0,
        times,
        fault: Fault::Delay(Duration::from_millis(300)),
    };
    lab.s3.faults().inject(slow(u64::MAX));
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent
        .until("the first pass under way", async |_| {
            Ok((lab.remote().len() >= 5).then_some(()))
        })
        .await?;
    // Some that are copied, some that are not yet, some that come again.
    for name in [
        "object-000",
        "object-100",
        "object-199",
        "object-001",
        "object-198",
    ] {
        lab.user.delete("photos", name).await?;
    }
    for name in ["object-001", "object-198"] {
        lab.user.put("photos", name, NO_HEADERS, "again").await?;
    }
    assert!(lab.remote().len() < 195, "the first pass was still under way");
    lab.s3.faults().clear();
    agent
        .until("what Swift has", async |_| {
            let again = ["object-001", "object-198"].map(|name| lab.at(&format!("photos/{name}")));
            let again = again.iter().flatten().filter(|copy| copy.body == "again").count();
            Ok((lab.remote().len() == 197 && again == 2).then_some(()))
        })
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    for gone in ["object-000", "object-100", "object-199"] {
        assert!(lab.at(&format!("photos/{gone}")).is_none(), "{gone}");
    }
    assert_eq!(lab.remote().len(), 197);

    // Written again between the delete at the remote and the second look: it is there in the end.
    lab.s3.faults().inject(Rule {
        operation: Some("DeleteObject"),
        key_contains: "object-002".into(),
        skip: 0,
        times: 1,
        fault: Fault::Delay(Duration::from_secs(2)),
    });
    let before = lab.s3.counts();
    lab.user.delete("photos", "object-002").await?;
    agent
        .until("the delete under way", async |_| {
            Ok((lab.s3.counts().since(&before).of("DeleteObject") == 1).then_some(()))
        })
        .await?;
    lab.user.put("photos", "object-002", NO_HEADERS, "again").await?;
    agent
        .until("the object again", async |_| {
            Ok(lab.at("photos/object-002").filter(|copy| copy.body == "again"))
        })
        .await?;
    agent.until_done("photos").await?;
    assert_eq!(lab.at("photos/object-002").unwrap().body, "again");
    assert_eq!(lab.s3.counts().since(&before).of("DeleteObject"), 1);

    // Killed between the delete at the remote and its record; written again before the next start.
    lab.s3.faults().inject(Rule {
        operation: Some("DeleteObject"),
        key_contains: "object-003".into(),
        skip: 0,
        times: 1,
        fault: Fault::LoseAnswer,
    });
    lab.user.delete("photos", "object-003").await?;
    agent
        .until("the delete", async |_| {
            Ok(lab.at("photos/object-003").is_none().then_some(()))
        })
        .await?;
    agent.kill()?;
    lab.user.put("photos", "object-003", NO_HEADERS, "again").await?;
    let mut agent = lab.agent().await?;
    agent
        .until("the object again", async |_| Ok(lab.at("photos/object-003")))
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!((report.held.rows, lab.remote().len()), (0, 197), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_policy_that_does_not_propagate_deletes_keeps_every_copy() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies.apply(
        "photos.yaml",
        &lab.policy("photos", "photos", "propagateDelete: false"),
    )?;
    let mut agent = lab.agent().await?;
    lab.put_many("photos", "object-", 3).await?;
    agent
        .until(
            "the copies",
            async |_| Ok((lab.remote().len() == 3).then_some(())),
        )
        .await?;
    lab.user.delete("photos", "object-000").await?;
    lab.user.put("photos", "after", NO_HEADERS, "after").await?;
    agent
        .until("what came after", async |_| Ok(lab.at("photos/after")))
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(lab.remote().len(), 4);
    assert_eq!((report.held.rows, report.totals.deletes), (0, 0), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_404_without_proof_deletes_nothing_while_an_object_server_is_down() -> Result<()> {
    let lab = Lab::with(Options {
        replicas: 3.0,
        object_servers: 3,
        ..Options::default()
    })
    .await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.put_many("photos", "deleted-", 2).await?;
    let mut agent = lab.agent().await?;
    agent
        .until(
            "the copies",
            async |_| Ok((lab.remote().len() == 2).then_some(())),
        )
        .await?;
    assert!(agent.stop().await?.success());

    // The tombstones, and a new object, are on one server that is down; the disks of the others are new and empty.
    lab.user.delete("photos", "deleted-000").await?;
    lab.user.delete("photos", "deleted-001").await?;
    lab.user.put("photos", "unread", NO_HEADERS, "unread").await?;
    for device in ["d1", "d2"] {
        std::fs::remove_dir_all(lab.swift.devices().join(device).join("objects"))?;
    }
    lab.swift.stop(Server::Object(0));
    let mut agent = lab.agent().await?;
    let report = agent
        .until_policy("all three held", "photos", |report| report.held.rows == 3)
        .await?;
    for object in ["deleted-000", "deleted-001", "unread"] {
        let object = format!("photos/{object}");
        assert_eq!(reason(&report, &object), Some("SourceUnproven"), "{report:?}");
    }
    assert_eq!(report.totals.deletes, 0, "{report:?}");
    assert_eq!(lab.remote().len(), 2, "nothing is deleted");

    lab.swift.start_again(Server::Object(0)).await?;
    let report = agent
        .until_policy("all three done", "photos", |report| report.held.rows == 0)
        .await?;
    assert_eq!(report.totals.deletes, 2, "{report:?}");
    let keys: Vec<_> = lab.remote().into_keys().collect();
    assert_eq!(keys, ["photos/unread"]);
    Ok(())
}
