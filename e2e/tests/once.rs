//! `--once`: complete passes until nothing that is due is left, and what the exit code then says.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use onespace_e2e::lab::{BUCKET, Lab};
use onespace_e2e::programs::program;
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;

#[tokio::test]
async fn it_ends_with_0_when_all_is_done_and_with_3_when_rows_are_held() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 50).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let (code, log) = lab.once().await?;
    assert_eq!((code, lab.remote().len()), (0, 50), "{log}");

    // What changed since then, deletes included, is one more pass; nothing else is sent.
    lab.user.put("photos", "new", NO_HEADERS, "new").await?;
    lab.user.delete("photos", "object-000").await?;
    let (code, log) = lab.once().await?;
    assert_eq!((code, lab.remote().len()), (0, 50), "{log}");
    assert!(lab.at("photos/new").is_some() && lab.at("photos/object-000").is_none());

    // A row that is not due does not count.
    let later = lab.policy("later", "photos", "copyAfter: 1h");
    lab.policies.apply("later.yaml", &later)?;
    let (code, log) = lab.once().await?;
    assert_eq!(code, 0, "{log}");
    assert!(lab.at("later/new").is_none());
    lab.policies.remove("later.yaml")?;

    // One that the remote refuses for good is tried once and held; one that time may mend gets three tries.
    for (key, fault) in [
        ("refused", Fault::answer(400, "InvalidArgument")),
        ("altered", Fault::answer(403, "AccessDenied")),
    ] {
        lab.s3.faults().inject(Rule {
            operation: Some("PutObject"),
            key_contains: key.into(),
            skip: 0,
            times: u64::MAX,
            fault,
        });
        lab.user.put("photos", key, NO_HEADERS, key).await?;
    }
    lab.user.put("photos", "behind", NO_HEADERS, "behind").await?;
    let (code, log) = lab.once().await?;
    assert_eq!(code, 3, "{log}");
    assert!(lab.at("photos/behind").is_some(), "rows behind them are done");
    let tries = |name: &str| log.matches(&format!("object=photos/{name}")).count();
    assert_eq!((tries("refused"), tries("altered")), (1, 3), "{log}");

    lab.s3.faults().clear();
    let (code, log) = lab.once().await?;
    assert_eq!(code, 3, "what only a person can mend stays held: {log}");
    assert!(lab.at("photos/refused").is_none());
    Ok(())
}

#[tokio::test]
async fn it_ends_with_1_when_a_container_is_not_there_and_does_the_others_all_the_same() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 3).await?;
    for name in ["photos", "phtoos"] {
        lab.policies
            .apply(&format!("{name}.yaml"), &lab.policy(name, name, ""))?;
    }
    let (code, log) = lab.once().await?;
    assert_eq!((code, lab.remote().len()), (1, 3), "{log}");
    assert!(
        log.contains("AUTH_test/phtoos") && log.contains("source.container"),
        "{log}"
    );

    // It is shown as long as it is so.
    let mut agent = lab.agent().await?;
    agent
        .until_policy("its source is missing", "phtoos", |report| {
            report.reason.as_deref() == Some("SourceNotFound") && report.databases.open == 0
        })
        .await?;
    lab.container("phtoos").await?;
    lab.put_many("phtoos", "object-", 2).await?;
    let report = agent.until_done("phtoos").await?;
    assert_eq!((report.reason, lab.remote().len()), (None, 5));
    assert!(agent.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn it_ends_with_1_when_a_signal_ends_it_before_all_is_done() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 3).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.s3
        .faults()
        .inject(Rule::always(Fault::answer(503, "SlowDown")));
    let (code, log) = lab.once_until("mappings loaded").await?;
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("a signal ended it"), "{log}");
    lab.s3.faults().clear();
    let (code, log) = lab.once().await?;
    assert_eq!((code, lab.remote().len()), (0, 3), "{log}");
    Ok(())
}

#[tokio::test]
async fn it_ends_with_1_when_a_mapping_stays_paused_for_a_minute_and_with_2_when_it_is_called_wrongly()
-> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", 3).await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.s3.remove_bucket(BUCKET);
    let started = Instant::now();
    let (code, log) = lab.once().await?;
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("NoSuchBucket") && log.contains("target.bucket"),
        "{log}"
    );
    let patience = Duration::from_secs(60);
    assert!(
        (patience..patience * 3 / 2).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );

    // No set of mappings at all.
    std::fs::remove_file(lab.policies.mappings().join("index.json"))?;
    let (code, log) = lab.once().await?;
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("index.json"), "{log}");

    for wrong in [
        vec!["--no-such-option"],
        vec!["--once"],
        vec![
            "--internal-endpoint",
            "http://127.0.0.1:1",
            "--verification-slack",
            "soon",
        ],
        vec![
            "--internal-endpoint",
            "http://127.0.0.1:1",
            "--deny-remote",
            "everything",
        ],
    ] {
        let output = Command::new(program("onespace-node-agent")?)
            .args(&wrong)
            .output()?;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
    Ok(())
}
