//! Neither a large first copy nor a slow remote keeps others waiting.

use std::time::{Duration, Instant};

use anyhow::Result;
use onespace_e2e::lab::{BUCKET, Keys, Lab, copies, policy_yaml};
use onespace_e2e::s3::embedded::{EmbeddedS3, Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;

/// A fresh row's object must be there within this time while others are busy: a second for the look at the
/// databases, the rest for a busy machine.
const PROMPT: Duration = Duration::from_secs(6);

/// Every upload to these keys takes so long.
fn slow(key_contains: &str, time: Duration) -> Rule {
    Rule {
        operation: Some("PutObject"),
        key_contains: key_contains.into(),
        skip: 0,
        times: u64::MAX,
        fault: Fault::Delay(time),
    }
}

#[tokio::test]
async fn a_large_first_copy_delays_neither_another_container_nor_another_policy() -> Result<()> {
    let lab = Lab::start().await?;
    for container in ["big", "small"] {
        lab.container(container).await?;
    }
    lab.put_many("big", "object-", 600).await?;
    // As slow as a first copy of millions is long.
    lab.s3
        .faults()
        .inject(slow("big/object-", Duration::from_millis(800)));
    lab.policies
        .apply("account.yaml", &lab.policy_to("account", "/*", "", ""))?;
    let copied = |text: &str| lab.remote().keys().filter(|key| key.contains(text)).count();
    let mut agent = lab.agent().await?;
    agent
        .until("the first copy under way", async |_| {
            Ok((copied("big/object-") > 0).then_some(()))
        })
        .await?;

    // A fresh row of another container under the same policy.
    let put = Instant::now();
    lab.user.put("small", "fresh", NO_HEADERS, "fresh").await?;
    agent
        .until("the other container's object", async |_| {
            Ok((copied("small/fresh") == 1).then_some(()))
        })
        .await?;
    assert!(put.elapsed() < PROMPT, "{:?}", put.elapsed());

    // A fresh row of the container that is being copied.
    let put = Instant::now();
    lab.user.put("big", "fresh", NO_HEADERS, "fresh").await?;
    agent
        .until("the same container's object", async |_| {
            Ok((copied("big/fresh") == 1).then_some(()))
        })
        .await?;
    assert!(put.elapsed() < PROMPT, "{:?}", put.elapsed());

    // Another policy.
    lab.container("films").await?;
    let put = Instant::now();
    lab.user.put("films", "fresh", NO_HEADERS, "fresh").await?;
    lab.policies
        .apply("films.yaml", &lab.policy("films", "films", ""))?;
    agent
        .until("the other policy's object", async |_| Ok(lab.at("films/fresh")))
        .await?;
    assert!(put.elapsed() < PROMPT, "{:?}", put.elapsed());

    let meanwhile = copied("big/object-");
    assert!(meanwhile < 600, "the first copy was still under way: {meanwhile}");
    lab.s3.faults().clear();
    agent
        .until("the first copy", async |_| {
            Ok((copied("big/object-") == 600).then_some(()))
        })
        .await?;
    let report = agent.until_done("account").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_remote_that_takes_a_second_for_each_request_delays_no_other_remote() -> Result<()> {
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    let sluggish = EmbeddedS3::start()?;
    sluggish.create_bucket(BUCKET);
    sluggish
        .faults()
        .inject(Rule::always(Fault::Delay(Duration::from_secs(1))));
    let keys = Keys {
        endpoint: &sluggish.endpoint(),
        access: sluggish.access_key(),
        secret: sluggish.secret_key(),
    };
    let yaml = policy_yaml(
        "sluggish",
        (lab.user.account(), "photos"),
        &keys,
        "prefix: sluggish",
        "",
    );
    lab.policies.apply("sluggish.yaml", &yaml)?;
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", ""))?;
    let mut agent = lab.agent().await?;
    agent.until_done("photos").await?;
    let put = Instant::now();
    lab.put_many("photos", "object-", 300).await?;
    let all_put = put.elapsed();
    agent
        .until("all at the quick remote", async |_| {
            Ok((lab.remote().len() == 300).then_some(()))
        })
        .await?;
    let copied = put.elapsed() - all_put;
    assert!(copied < PROMPT, "{copied:?}");
    let behind = copies(&sluggish).len();
    assert!(behind < 300, "the other one is slow: {behind}");
    sluggish.faults().clear();
    agent
        .until("all at the slow remote", async |_| {
            Ok((copies(&sluggish).len() == 300).then_some(()))
        })
        .await?;
    assert_eq!(agent.until_done("sluggish").await?.held.rows, 0);
    Ok(())
}
