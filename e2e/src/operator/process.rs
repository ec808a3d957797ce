//! The operator as a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;

use super::{Cluster, DEADLINE, NAMESPACE};
use crate::http::Http;
use crate::ports::free_port;
use crate::programs::program;

/// An operator that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    log: PathBuf,
    health: u16,
    http: Http,
}

impl Operator {
    pub(super) fn start(cluster: &Cluster, kubeconfig: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let log = cluster.folder().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let health = free_port()?;
        let child = Command::new(program("onespace-operator")?)
            .env("KUBECONFIG", kubeconfig)
            // Whatever the environment says: the API server is on this machine.
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .args(["--namespace", NAMESPACE])
            .args(["--listen", &format!("127.0.0.1:{health}")])
            .args(["--identity", name])
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("onespace-operator")?;
        Ok(Self {
            child,
            log,
            health,
            http: Http::default(),
        })
    }

    /// What it logged so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET` on its health server.
    ///
    /// # Errors
    /// No answer.
    pub async fn health(&self, path: &str) -> Result<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.health);
        let answer = self.http.send::<&str>(Method::GET, &url, &[], "").await?;
        Ok((answer.status.as_u16(), answer.text()))
    }

    /// The value of a metric, by its whole name with labels; zero if it is not there.
    ///
    /// # Errors
    /// No answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = self.health("/metrics").await?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let value = lines.find_map(|rest| rest.strip_prefix(' '));
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0.0))
    }

    /// Waits until it leads.
    ///
    /// # Errors
    /// It never did, or ended.
    pub async fn until_leader(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.metric("onespace_operator_leader").await.unwrap_or(0.0) > 0.0 {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended ({status}): {}", self.said());
            }
            if Instant::now() > deadline {
                bail!("no leader within {DEADLINE:?}: {}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it has ended by itself. Returns whether it ended well.
    ///
    /// # Errors
    /// It goes on.
    pub async fn until_ended(&mut self) -> Result<bool> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() > deadline {
                bail!("the operator goes on after {DEADLINE:?}: {}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It did not end well.
    pub async fn stop(mut self) -> Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the operator ended with {status}: {}", self.said()),
                None if Instant::now() > deadline => bail!("the operator did not end: {}", self.said()),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
