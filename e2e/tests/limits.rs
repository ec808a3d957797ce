//! Limits of a policy: the remote never sees more than they allow.

use std::time::Instant;

use anyhow::Result;
use onespace_e2e::lab::Lab;

const REQUESTS_PER_SECOND: u64 = 20;
const OBJECTS: usize = 120;

#[tokio::test]
async fn a_policy_with_a_limit_sends_no_more_requests_than_it_allows_and_gets_everything_done() -> Result<()>
{
    let lab = Lab::start().await?;
    lab.container("photos").await?;
    lab.put_many("photos", "object-", OBJECTS).await?;
    let limits = format!("limits: {{requestsPerSecond: {REQUESTS_PER_SECOND}, bytesPerSecond: 1Mi}}");
    lab.policies
        .apply("photos.yaml", &lab.policy("photos", "photos", &limits))?;
    let begin = Instant::now();
    let before = lab.s3.counts();
    let mut agent = lab.agent().await?;
    loop {
        // Counted first: a request in between makes the bound wider, never narrower.
        let sent = lab.s3.counts().since(&before).total();
        let allowed = REQUESTS_PER_SECOND as f64 * (begin.elapsed().as_secs_f64() + 1.0);
        assert!(sent as f64 <= allowed, "{sent} requests, {allowed} allowed");
        if lab.remote().len() == OBJECTS {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(
            begin.elapsed().as_secs() < 60,
            "only {} are there",
            lab.remote().len()
        );
    }
    let least = OBJECTS as u64 / REQUESTS_PER_SECOND - 1;
    assert!(
        begin.elapsed().as_secs() >= least,
        "too quick: {:?}",
        begin.elapsed()
    );
    let report = agent.until_done("photos").await?;
    assert_eq!(report.held.rows, 0, "{report:?}");
    Ok(())
}
