//! Failures of the remote as a whole: the mapping pauses, says why, charges no row, and goes on by itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use onespace_core::report::RunState;
use onespace_e2e::agent::Agent;
use onespace_e2e::lab::{BUCKET, Keys, Lab, copies, policy_yaml};
use onespace_e2e::s3::embedded::{EmbeddedS3, Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;

/// Whether the metrics show this reason by now.
async fn in_metrics(agent: &Agent, policy: &str, reason: &str) -> Result<()> {
    let (_, metrics) = agent.health("/metrics").await?;
    let line = format!(r#"onespace_mapping_paused{{name="{policy}",namespace="swift",reason="{reason}"}} 1"#);
    ensure!(metrics.contains(&line), "{line} is not in {metrics}");
    Ok(())
}

#[tokio::test]
async fn a_missing_bucket_and_wrong_keys_pause_the_mapping_until_they_are_corrected() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.user.put("photos", "a", NO_HEADERS, "a").await?;
    lab.s3.remove_bucket(BUCKET);
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    let report = agent.until_paused("photos", "NoSuchBucket").await?;
    in_metrics(&agent, "photos", "NoSuchBucket").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    assert!(!report.remote.reachable, "{report:?}");
    assert_eq!(report.remote.code.as_deref(), Some("NoSuchBucket"));
    assert!(
        report
            .message
            .is_some_and(|message| message.contains("target.bucket"))
    );
    // What waits is seen although nothing is copied.
    let report = agent
        .until_policy("the backlog", "photos", |report| {
            report.pending.rows == 1 && report.pending.exact
        })
        .await?;
    assert!(report.pending.oldest.is_some(), "{report:?}");

    lab.s3.create_bucket(BUCKET);
    agent
        .until("the object", async |_| Ok(lab.at("photos/a")))
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    let (_, metrics) = agent.health("/metrics").await?;
    assert!(!metrics.contains("onespace_mapping_paused{"), "{metrics}");

    // The keys are changed and wrong; the running agent takes them up, and then the right ones.
    let right = lab.policy("photos", "photos", "");
    let wrong = right.replace(lab.s3.secret_key(), "another-secret");
    lab.policies.apply("photos.yaml", &wrong)?;
    let report = agent.until_paused("photos", "InvalidCredentials").await?;
    in_metrics(&agent, "photos", "InvalidCredentials").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    lab.user.put("photos", "b", NO_HEADERS, "b").await?;
    agent
        .until_policy("the row that waits", "photos", |report| report.pending.rows == 1)
        .await?;
    assert!(lab.at("photos/b").is_none());
    lab.policies.apply("photos.yaml", &right)?;
    agent
        .until("the object", async |_| Ok(lab.at("photos/b")))
        .await?;
    assert!(!agent.said().contains(lab.s3.secret_key()), "no log has a secret");
    assert!(!agent.said().contains("another-secret"));
    Ok(())
}

#[tokio::test]
async fn a_remote_that_fails_for_a_while_charges_no_row_and_everything_arrives_afterwards() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    for (name, fault, reason) in [
        ("error", Fault::answer(500, "InternalError"), "ServerError"),
        ("slower", Fault::answer(503, "SlowDown"), "SlowDown"),
        ("full", Fault::answer(403, "QuotaExceeded"), "QuotaExceeded"),
        ("reset", Fault::LoseAnswer, "Unreachable"),
        ("denied", Fault::answer(403, "AccessDenied"), "AccessDenied"),
    ] {
        lab.s3.faults().inject(Rule::always(fault));
        lab.put_many("photos", name, 20).await?;
        let report = agent.until_paused("photos", reason).await?;
        in_metrics(&agent, "photos", reason).await?;
        assert_eq!(report.held.rows, 0, "{reason}: {report:?}");
        let report = agent
            .until_policy("the backlog", "photos", |report| report.pending.rows > 0)
            .await?;
        assert_eq!(report.held.rows, 0, "{reason}: {report:?}");
        lab.s3.faults().clear();
        agent
            .until("all objects", async |_| {
                let there = lab.remote().keys().filter(|key| key.contains(name)).count();
                Ok((there == 20).then_some(()))
            })
            .await?;
        let report = agent.until_done("photos").await?;
        assert_eq!(report.held.rows, 0, "{reason}: {report:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_alone_is_forbidden_is_held_and_mends_itself() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.s3.faults().inject(Rule {
        key_contains: "secret".into(),
        ..Rule::always(Fault::answer(403, "AccessDenied"))
    });
    let mut agent = lab.agent().await?;
    lab.user.put("photos", "secret", NO_HEADERS, "secret").await?;
    lab.put_many("photos", "open-", 5).await?;
    let report = agent
        .until_policy("the forbidden key held", "photos", |report| {
            report.held.rows == 1 && report.totals.objects == 5
        })
        .await?;
    let row = &report.held.latest[0];
    assert_eq!(
        (row.object.as_str(), row.reason.as_str()),
        ("photos/secret", "KeyForbidden")
    );
    assert!(row.next_try.is_some(), "{row:?}");
    assert_eq!(report.state, RunState::Running, "{report:?}");
    assert_eq!(lab.remote().len(), 5);
    lab.s3.faults().clear();
    agent
        .until("the object", async |_| Ok(lab.at("photos/secret")))
        .await?;
    agent
        .until_policy("nothing held", "photos", |report| report.held.rows == 0)
        .await?;
    Ok(())
}

#[tokio::test]
async fn dead_remotes_delay_no_other_policy_and_are_taken_up_when_they_come_back() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    let dead = EmbeddedS3::start()?;
    let endpoint = dead.endpoint();
    let port: u16 = endpoint.rsplit(':').next().unwrap_or_default().parse()?;
    drop(dead);
    let silent = EmbeddedS3::start()?;
    silent.create_bucket(BUCKET);
    silent
        .faults()
        .inject(Rule::always(Fault::Delay(Duration::from_secs(3600))));
    let account = lab.user.account();
    let keys = |endpoint| Keys {
        endpoint,
        access: lab.s3.access_key(),
        secret: lab.s3.secret_key(),
    };
    for (name, endpoint) in [("dead", &endpoint), ("silent", &silent.endpoint())] {
        let yaml = policy_yaml(
            name,
            (account, "photos"),
            &keys(endpoint),
            &format!("prefix: {name}"),
            "",
        );
        lab.policies.apply(&format!("{name}.yaml"), &yaml)?;
    }
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.put_many("photos", "early-", 20).await?;
    let mut agent = lab.agent().await?;
    let started = Instant::now();
    agent
        .until("all objects at the remote that works", async |_| {
            Ok((lab.remote().len() == 20).then_some(()))
        })
        .await?;
    let report = agent.until_paused("dead", "Unreachable").await?;
    assert_eq!((report.held.rows, report.totals.objects), (0, 0), "{report:?}");
    lab.user.put("photos", "fresh", NO_HEADERS, "fresh").await?;
    agent
        .until("a fresh object", async |_| Ok(lab.at("photos/fresh")))
        .await?;
    // Nobody waited for a time-out of the silent one: that alone takes a minute.
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    let report = agent.policy("silent").await?;
    assert!(!report.remote.reachable, "{report:?}");

    let back = EmbeddedS3::start_on(port, lab.s3.access_key(), lab.s3.secret_key())?;
    back.create_bucket(BUCKET);
    agent
        .until("all objects at the remote that came back", async |_| {
            Ok((copies(&back).len() == 21).then_some(()))
        })
        .await?;
    let report = agent.until_done("dead").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    // A request that hangs does not keep the agent from ending.
    let ending = Instant::now();
    assert!(agent.stop().await?.success());
    assert!(
        ending.elapsed() < Duration::from_secs(30),
        "{:?}",
        ending.elapsed()
    );
    Ok(())
}
