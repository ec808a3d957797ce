//! Rows that cannot be done: they neither block the rows behind them nor are forgotten.

use anyhow::Result;
use onespace_core::report::RunState;
use onespace_e2e::lab::Lab;
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;

/// The remote does this to every upload whose key contains the text.
fn on_keys(key_contains: &str, fault: Fault) -> Rule {
    Rule {
        operation: Some("PutObject"),
        key_contains: key_contains.into(),
        skip: 0,
        times: u64::MAX,
        fault,
    }
}

#[tokio::test]
async fn a_poison_object_is_held_with_its_reason_until_it_is_retried_and_blocks_nothing() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    let policy = lab.policy("photos", "photos", "");
    let retry = |token: &str| {
        let annotated = format!("namespace: swift, annotations: {{onespace.dev/retry: {token}}}}}");
        policy.replacen("namespace: swift}", &annotated, 1)
    };
    lab.policies.apply("photos.yaml", &policy)?;
    lab.s3
        .faults()
        .inject(on_keys("poison", Fault::answer(400, "InvalidArgument")));
    let mut agent = lab.agent().await?;
    lab.user.put("photos", "poison", NO_HEADERS, "poison").await?;
    lab.put_many("photos", "good-", 20).await?;
    agent
        .until("the rows behind it", async |_| {
            Ok((lab.remote().len() == 20).then_some(()))
        })
        .await?;

    let held = |report: &onespace_core::report::MappingReport, attempts| {
        report.held.rows == 1
            && report
                .held
                .latest
                .first()
                .is_some_and(|row| row.attempts == attempts)
    };
    let report = agent
        .until_policy("the poison object held", "photos", |report| {
            held(report, 1) && report.pending.rows == 0
        })
        .await?;
    let first = &report.held.latest[0];
    assert_eq!(
        (first.object.as_str(), first.reason.as_str()),
        ("photos/poison", "Refused")
    );
    assert!(!first.message.is_empty() && !first.since.is_empty(), "{first:?}");
    assert_eq!(first.next_try, None, "waiting alone does not mend it");
    assert_eq!(report.state, RunState::Running, "{report:?}");
    let (_, metrics) = agent.health("/metrics").await?;
    assert!(
        metrics.contains(r#"onespace_held_rows{name="photos",namespace="swift"} 1"#),
        "{metrics}"
    );

    agent.retry("photos").await?;
    agent
        .until_policy("a try on request", "photos", |report| held(report, 2))
        .await?;

    lab.policies.apply("photos.yaml", &retry("one"))?;
    let report = agent
        .until_policy("a try by annotation", "photos", |report| held(report, 3))
        .await?;
    assert_eq!(report.handled.retry.as_deref(), Some("one"));
    assert_eq!(
        report.held.latest[0].since, first.since,
        "the first failure is remembered"
    );

    // The annotation stays in Git: neither a restart nor another change of the policy makes it act again.
    assert!(agent.stop().await?.success());
    let mut agent = lab.agent().await?;
    lab.policies
        .apply("other.yaml", &lab.policy("other", "photos", ""))?;
    agent.until_done("other").await?;
    let report = agent.until_done("photos").await?;
    assert!(held(&report, 3), "{report:?}");

    // A later change of the object is a row of its own.
    lab.user
        .put("photos", "poison", NO_HEADERS, "poison again")
        .await?;
    agent
        .until_policy("the later row in its place", "photos", |report| held(report, 1))
        .await?;

    lab.s3.faults().clear();
    lab.policies.apply("photos.yaml", &retry("two"))?;
    let report = agent
        .until_policy("nothing held", "photos", |report| report.held.rows == 0)
        .await?;
    assert_eq!(report.handled.retry.as_deref(), Some("two"));
    assert_eq!(lab.at("photos/poison").unwrap().body, "poison again");
    Ok(())
}

#[tokio::test]
async fn a_full_held_set_stops_the_watermark_and_drops_nothing() -> Result<()> {
    let mut lab = Lab::start().await?;
    lab.settings.held_rows = 3;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    lab.s3
        .faults()
        .inject(on_keys("poison", Fault::answer(400, "InvalidArgument")));
    let mut agent = lab.agent().await?;
    lab.put_many("photos", "poison-", 6).await?;
    let report = agent.until_paused("photos", "HeldSetFull").await?;
    assert_eq!((report.held.rows, report.held.full), (3, true), "{report:?}");

    // Rows behind the mark wait and are counted, over a restart, too.
    lab.put_many("photos", "good-", 5).await?;
    assert!(agent.stop().await?.success());
    let mut agent = lab.agent().await?;
    agent.until_paused("photos", "HeldSetFull").await?;
    let report = agent
        .until_policy("the rows that wait", "photos", |report| report.pending.rows >= 8)
        .await?;
    assert_eq!(report.held.rows, 3, "{report:?}");
    assert!(report.pending.oldest.is_some(), "{report:?}");

    lab.s3.faults().clear();
    agent.retry("photos").await?;
    agent
        .until("everything", async |_| {
            Ok((lab.remote().len() == 11).then_some(()))
        })
        .await?;
    let report = agent.until_done("photos").await?;
    assert_eq!((report.held.rows, report.held.full), (0, false), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_key_on_which_the_remote_always_fails_is_held_after_some_pauses_and_others_go_on() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let faults = lab.s3.faults();
    faults.inject(on_keys("fails", Fault::answer(500, "InternalError")));
    faults.inject(on_keys("breaks", Fault::Break { after: 0 }));
    let mut agent = lab.agent().await?;
    lab.user.put("photos", "fails", NO_HEADERS, "fails").await?;
    lab.user.put("photos", "breaks", NO_HEADERS, "breaks").await?;
    lab.put_many("photos", "good-", 10).await?;
    let report = agent
        .until_policy("both held", "photos", |report| {
            report.held.rows == 2 && report.state == RunState::Running && report.pending.rows == 0
        })
        .await?;
    assert_eq!(lab.remote().len(), 10);
    for row in &report.held.latest {
        assert_eq!(row.reason, "RemoteFailed", "{row:?}");
        assert!(row.next_try.is_some(), "it is tried again by itself: {row:?}");
    }
    lab.user.put("photos", "later", NO_HEADERS, "later").await?;
    agent
        .until("a later object", async |_| Ok(lab.at("photos/later")))
        .await?;
    faults.clear();
    agent
        .until_policy("both done by themselves", "photos", |report| {
            report.held.rows == 0
        })
        .await?;
    assert_eq!(lab.remote().len(), 13);
    Ok(())
}
