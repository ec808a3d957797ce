//! Three nodes, whose agents verify each other's work.

use anyhow::{Result, ensure};
use onespace_e2e::shared::Shared;
use onespace_e2e::swift::Options;

static CLUSTER: Shared = Shared::new(Options::three_nodes);

const OBJECTS: usize = 40;

#[test]
fn rows_of_a_node_that_is_dead_for_good_arrive_through_the_others() -> Result<()> {
    CLUSTER.alone(async |mut lab| {
        lab.settings.slack = "3s";
        lab.follow("dead").await?;
        let mut agents = lab.agents().await?;
        agents.kill(2)?;
        lab.put_many("dead", "object", OBJECTS).await?;
        agents
            .until("all copies, those of the dead node's rows, too", async |_| {
                Ok((lab.remote().len() == OBJECTS).then_some(()))
            })
            .await?;
        let reports = agents.until_idle("dead").await?;
        let own: u64 = reports.iter().map(|report| report.totals.objects).sum();
        let repaired: u64 = reports.iter().map(|report| report.totals.repaired).sum();
        ensure!(own < OBJECTS as u64, "some rows were the dead node's");
        ensure!(
            own + repaired >= OBJECTS as u64,
            "{own} copied, {repaired} repaired"
        );
        Ok(())
    })
}

#[test]
fn a_fresh_object_costs_each_verifier_one_head() -> Result<()> {
    CLUSTER.alone(async |mut lab| {
        lab.settings.slack = "30s";
        lab.follow("fresh").await?;
        let mut agents = lab.agents().await?;
        agents.until_idle("fresh").await?;
        let before = lab.s3.counts();
        lab.put_many("fresh", "object", OBJECTS).await?;
        agents
            .until("all copies", async |_| {
                Ok((lab.remote().len() == OBJECTS).then_some(()))
            })
            .await?;
        agents
            .until_reports("all verified", "fresh", |reports| {
                reports.iter().map(|report| report.totals.verified).sum::<u64>() == 2 * OBJECTS as u64
            })
            .await?;
        let spent = lab.s3.counts().since(&before);
        ensure!(spent.of("PutObject") == OBJECTS as u64, "{spent:?}");
        ensure!(spent.of("HeadObject") == 2 * OBJECTS as u64, "{spent:?}");
        ensure!(spent.total() == 3 * OBJECTS as u64, "nothing else: {spent:?}");
        Ok(())
    })
}
