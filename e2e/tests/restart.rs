//! What a restart costs, and that it costs no object: kill -9, SIGTERM, a lost state directory, another database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use onespace_core::report::RunState;
use onespace_e2e::lab::{BUCKET, Lab, unmarked};
use onespace_e2e::s3::embedded::{Fault, Rule, StoredObject};
use onespace_e2e::swift::NO_HEADERS;
use onespace_e2e::tools::tool;

/// What Swift gives an object without one.
const BINARY: &str = "application/octet-stream";

/// Longer than clocks may be apart.
const LATER: Duration = Duration::from_secs(7200);

/// What a start costs at the remote before any row is looked at: the probe's requests by operation.
async fn cost_of_a_start(lab: &Lab) -> Result<onespace_e2e::s3::embedded::Counts> {
    let before = lab.s3.counts();
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    ensure!(agent.stop().await?.success());
    Ok(lab.s3.counts().since(&before))
}

#[tokio::test]
async fn killed_and_stopped_in_the_middle_of_three_hundred_objects_it_loses_none_and_sends_none_twice()
-> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let start = cost_of_a_start(&lab).await?;
    lab.put_many("photos", "object-", 300).await?;
    // A slow remote: the middle lasts long enough to be met.
    lab.s3.faults().inject(Rule {
        operation: Some("PutObject"),
        key_contains: "photos/object-".into(),
        skip: 0,
        times: u64::MAX,
        fault: Fault::Delay(Duration::from_millis(200)),
    });
    let before = lab.s3.counts();

    let mut agent = lab.agent().await?;
    agent
        .until("some objects", async |_| {
            Ok((lab.remote().len() >= 30).then_some(()))
        })
        .await?;
    agent.kill()?;
    let after_kill = lab.remote().len();
    assert!(
        (30..300).contains(&after_kill),
        "killed in the middle: {after_kill}"
    );

    let mut agent = lab.agent().await?;
    agent
        .until("more objects", async |_| {
            Ok((lab.remote().len() >= after_kill + 30).then_some(()))
        })
        .await?;
    assert!(agent.stop().await?.success(), "SIGTERM is a graceful end");
    let after_stop = lab.remote().len();
    assert!(after_stop < 300, "stopped in the middle: {after_stop}");

    lab.s3.faults().clear();
    let mut agent = lab.agent().await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    let remote = lab.remote();
    assert_eq!(remote.len(), 300);
    for (key, copy) in &remote {
        assert_eq!(
            Some(&*copy.body),
            key.strip_prefix("photos/").map(str::as_bytes),
            "{key}"
        );
    }
    let sent = lab.s3.counts().since(&before).of("PutObject") - 3 * start.of("PutObject");
    // Whoever was cut off by the kill is sent again; nothing else is.
    assert!((300..300 + 64).contains(&sent), "{sent} objects sent");

    assert!(agent.stop().await?.success());
    a_lost_state_directory_is_learned_anew_without_sending_a_body(&lab, &start).await
}

async fn a_lost_state_directory_is_learned_anew_without_sending_a_body(
    lab: &Lab,
    start: &onespace_e2e::s3::embedded::Counts,
) -> Result<()> {
    // Copies that are younger than clocks may be apart: one HEAD each, and nothing is asked of Swift.
    std::fs::remove_dir_all(lab.state())?;
    let (before, swift_before) = (lab.s3.counts(), lab.swift.internal_requests()?.len());
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    let asked = lab.s3.counts().since(&before);
    assert_eq!(asked.of("PutObject"), start.of("PutObject"), "{asked:?}");
    assert_eq!(asked.of("HeadObject"), start.of("HeadObject") + 300, "{asked:?}");
    assert_eq!(lab.swift.internal_requests()?.len(), swift_before);
    assert!(agent.stop().await?.success());

    // Copies that are old enough: the listing alone tells.
    for (key, copy) in lab.remote() {
        let last_modified = copy.last_modified + LATER;
        lab.s3.insert(
            BUCKET,
            &key,
            StoredObject {
                last_modified,
                ..(*copy).clone()
            },
        );
    }
    std::fs::remove_dir_all(lab.state())?;
    let before = lab.s3.counts();
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    let asked = lab.s3.counts().since(&before);
    assert_eq!(asked.of("PutObject"), start.of("PutObject"), "{asked:?}");
    assert_eq!(asked.of("HeadObject"), start.of("HeadObject"), "{asked:?}");
    assert!(
        asked.of("ListObjectsV2") <= start.of("ListObjectsV2") + 2,
        "{asked:?} against {start:?}"
    );
    assert_eq!(lab.swift.internal_requests()?.len(), swift_before);
    assert_eq!(lab.remote().len(), 300);

    // And what was learned so is as good as what was copied: a delete is carried out.
    lab.user.delete("photos", "object-000").await?;
    agent
        .until("a delete", async |_| {
            Ok(lab.at("photos/object-000").is_none().then_some(()))
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn equal_objects_that_are_there_already_are_adopted_unsent_and_deleted_when_swift_deletes_them()
-> Result<()> {
    let mut lab = Lab::start().await?;
    lab.settings.slack = "2s";
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let start = cost_of_a_start(&lab).await?;
    for name in ["by-head", "by-listing"] {
        lab.user.put("photos", name, NO_HEADERS, "same").await?;
    }
    let now = SystemTime::now();
    lab.s3
        .insert(BUCKET, "photos/by-head", unmarked("same", BINARY, now));
    let later = now + Duration::from_secs(4);
    lab.s3
        .insert(BUCKET, "photos/by-listing", unmarked("same", BINARY, later));
    std::fs::remove_dir_all(lab.state())?;
    let (before, swift_before) = (lab.s3.counts(), lab.swift.internal_requests()?.len());
    let mut agent = lab.agent().await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(report.totals.objects, 2, "{report:?}");
    let asked = lab.s3.counts().since(&before);
    assert_eq!(asked.of("PutObject"), start.of("PutObject"), "{asked:?}");
    assert_eq!(asked.of("CopyObject"), 0, "{asked:?}");
    assert_eq!(asked.of("HeadObject"), start.of("HeadObject") + 1, "{asked:?}");
    let swift = lab.swift.internal_requests()?.split_off(swift_before);
    assert!(
        swift.iter().all(|access| access.method == "HEAD") && swift.len() == 1,
        "{swift:?}"
    );

    // An object that is newer than the delete would be a stranger's.
    let until_later = later.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(until_later).await;
    for name in ["by-head", "by-listing"] {
        lab.user.delete("photos", name).await?;
    }
    agent
        .until("both deletes", async |_| {
            Ok(lab.remote().is_empty().then_some(()))
        })
        .await?;
    let report = agent
        .until_policy("both counted", "photos", |report| report.totals.deletes == 2)
        .await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_replaced_container_database_is_worked_off_anew_without_sending_a_body() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.put_many("photos", "object-", 20).await?;
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    assert_eq!(lab.remote().len(), 20);
    let before = lab.s3.counts();

    replace(&database(&lab.swift.devices())?, "another-id")?;
    lab.user.put("photos", "fresh", NO_HEADERS, "fresh").await?;
    lab.user.delete("photos", "object-000").await?;
    agent
        .until("what came after it", async |_| {
            let there = lab.at("photos/fresh").is_some() && lab.at("photos/object-000").is_none();
            Ok(there.then_some(()))
        })
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(
        (report.held.rows, report.state),
        (0, RunState::Running),
        "{report:?}"
    );
    let asked = lab.s3.counts().since(&before);
    assert_eq!(asked.of("PutObject"), 1, "{asked:?}");
    assert_eq!(lab.remote().len(), 20);
    Ok(())
}

/// The one container database under these devices.
fn database(devices: &Path) -> Result<PathBuf> {
    let mut folders = vec![devices.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "db")
                && path.components().any(|part| part.as_os_str() == "containers")
            {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("no container database under {}", devices.display())
}

/// Makes it another replica's: another id, other ROWIDs, the same rows.
fn replace(database: &Path, id: &str) -> Result<()> {
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.create_function('chexor', 3, lambda *_: '0' * 32)
columns = ','.join(row[1] for row in db.execute('PRAGMA table_info(object)') if row[1] != 'ROWID')
db.execute('CREATE TEMP TABLE kept AS SELECT ' + columns + ' FROM object')
db.execute('DELETE FROM object')
db.execute(\"DELETE FROM sqlite_sequence WHERE name = 'object'\")
db.execute('INSERT INTO object (' + columns + ') SELECT ' + columns + ' FROM kept ORDER BY name DESC')
db.execute('UPDATE container_info SET id = ?', (sys.argv[2],))
db.commit()
";
    let output = Command::new(tool("venv/bin/python")?)
        .args(["-c", script])
        .arg(database)
        .arg(id)
        .output()
        .context("python")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
