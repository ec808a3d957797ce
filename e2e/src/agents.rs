//! The agents of a cluster, one on each node.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use onespace_core::report::{MappingReport, RunState};

use crate::agent::{Agent, DEADLINE};
use crate::lab::Lab;

/// The agents of a lab's nodes. Each runs until it is stopped or killed; dropping this kills them all.
pub struct Agents<'a> {
    lab: &'a Lab,
    running: Vec<Option<Agent>>,
}

impl<'a> Agents<'a> {
    /// Starts one on each node.
    ///
    /// # Errors
    /// One did not become ready.
    pub async fn start(lab: &'a Lab) -> Result<Self> {
        let nodes = 0..lab.swift.nodes().len();
        let started = futures::future::join_all(nodes.map(|node| lab.agent_on(node))).await;
        let running = started.into_iter().map(|agent| agent.map(Some));
        Ok(Self {
            lab,
            running: running.collect::<Result<_>>()?,
        })
    }

    /// None of them runs yet.
    #[must_use]
    pub fn none(lab: &'a Lab) -> Self {
        let running = lab.swift.nodes().iter().map(|_| None).collect();
        Self { lab, running }
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// It does not run.
    pub fn on(&mut self, node: usize) -> Result<&mut Agent> {
        self.running[node]
            .as_mut()
            .with_context(|| format!("no agent runs on node {node}"))
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = &Agent> {
        self.running.iter().flatten()
    }

    /// Ends the agent of a node as a power cut would. Not running: nothing happens.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.running[node].take().map_or(Ok(()), Agent::kill)
    }

    /// Ends the agent of a node gracefully. Not running: nothing happens.
    ///
    /// # Errors
    /// It did not end, or not well.
    pub async fn stop(&mut self, node: usize) -> Result<()> {
        if let Some(agent) = self.running[node].take() {
            ensure!(agent.stop().await?.success(), "the agent of node {node} failed");
        }
        Ok(())
    }

    /// Ends all of them gracefully.
    ///
    /// # Errors
    /// As [`Agents::stop`].
    pub async fn stop_all(&mut self) -> Result<()> {
        for node in 0..self.running.len() {
            self.stop(node).await?;
        }
        Ok(())
    }

    /// Starts the agent of a node, on the state that it left, unless it runs.
    ///
    /// # Errors
    /// It did not become ready.
    pub async fn start_on(&mut self, node: usize) -> Result<()> {
        if self.running[node].is_none() {
            self.running[node] = Some(self.lab.agent_on(node).await?);
        }
        Ok(())
    }

    /// Starts the agent of a node and waits for nothing; not if it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_unready_on(&mut self, node: usize) -> Result<()> {
        if self.running[node].is_none() {
            self.running[node] = Some(self.lab.fresh_agent_on(node)?);
        }
        Ok(())
    }

    /// Starts those that do not run.
    ///
    /// # Errors
    /// As [`Agents::start_on`].
    pub async fn start_all(&mut self) -> Result<()> {
        for node in 0..self.running.len() {
            self.start_on(node).await?;
        }
        Ok(())
    }

    /// What each that runs reports of a policy.
    ///
    /// # Errors
    /// One does not answer, or does not run the policy.
    pub async fn reports(&self, policy: &str) -> Result<Vec<MappingReport>> {
        futures::future::try_join_all(self.running().map(|agent| agent.policy(policy))).await
    }

    /// Waits until this yields something.
    ///
    /// # Errors
    /// It never did, or an agent ended; the message has the ends of their logs.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self).await? {
                return Ok(found);
            }
            for agent in self.running.iter_mut().flatten() {
                agent.still_runs(what)?;
            }
            if Instant::now() > deadline {
                let mut said = String::new();
                for agent in self.running() {
                    said += &format!("{:?}\n{}\n", agent.report().await, agent.said_last());
                }
                bail!("not within {DEADLINE:?}: {what}\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until their reports of a policy are as wanted.
    ///
    /// # Errors
    /// They never were.
    pub async fn until_reports(
        &mut self,
        what: &str,
        policy: &str,
        wanted: impl Fn(&[MappingReport]) -> bool,
    ) -> Result<Vec<MappingReport>> {
        self.until(what, async |agents| {
            Ok(agents
                .reports(policy)
                .await
                .ok()
                .filter(|reports| wanted(reports)))
        })
        .await
    }

    /// Waits until the remote holds so many copies.
    ///
    /// # Errors
    /// It never did.
    pub async fn until_copies(&mut self, count: usize) -> Result<()> {
        let lab = self.lab;
        self.until(&format!("{count} copies"), async |_| {
            Ok((lab.remote().len() == count).then_some(()))
        })
        .await
    }

    /// Waits until those that run have nothing left to do for a policy, verification included.
    ///
    /// # Errors
    /// They never were idle.
    pub async fn until_idle(&mut self, policy: &str) -> Result<Vec<MappingReport>> {
        self.until_reports("nothing left to do", policy, |reports| reports.iter().all(idle))
            .await
    }

    /// The end of a scenario: waits until all run, are idle, and the remote holds what the container of the policy's
    /// name holds; then checks that nothing was deleted at the remote but names that `deleted` says a user deleted.
    ///
    /// # Errors
    /// It never was so, and how it differs; or what was deleted.
    pub async fn until_in_step(
        &mut self,
        container: &str,
        deleted: impl Fn(&str) -> bool,
    ) -> Result<Vec<MappingReport>> {
        self.start_all().await?;
        let mut last = Vec::new();
        let seen = self
            .until("the remote holds what Swift holds", async |agents| {
                let before = agents.reports(container).await?;
                if !before.iter().all(idle) {
                    last = vec![format!("not idle: {before:?}")];
                    return Ok(None);
                }
                last = agents.lab.differences(container).await?;
                Ok(last.is_empty().then_some(before))
            })
            .await;
        let reports = seen.with_context(|| format!("differences: {last:?}"))?;
        let wrong: Vec<_> = self
            .lab
            .deleted(container)
            .into_iter()
            .filter(|name| !deleted(name))
            .collect();
        ensure!(
            wrong.is_empty(),
            "deleted at the remote, but by no user: {wrong:?}"
        );
        Ok(reports)
    }
}

/// Whether nothing is left to do: every row done or held, and verified.
#[must_use]
pub fn idle(report: &MappingReport) -> bool {
    report.state == RunState::Running
        && report.initial_pass_complete
        && report.pending.rows == 0
        && report.pending.exact
        && report.verify.rows == 0
        && (report.remote.probed_at.is_some() || report.databases.open == 0)
}
