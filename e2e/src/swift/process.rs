//! One process of a cluster.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Place;
use crate::http::{Http, Method};
use crate::tools::tool;

/// How long a process may take to become ready or to finish. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(90);

/// A running program of Swift. Dropping it kills it; so does the end of this process, however that comes about
/// (it ends when its standard input closes).
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts `program` of Swift's venv (or memcached) in the cluster's folder.
    pub fn start(folder: &Path, name: &str, program: &str, arguments: &[String]) -> Result<Self> {
        Self::start_at(&Place::default(), folder, name, program, arguments)
    }

    /// The same, at another place.
    pub fn start_at(
        place: &Place,
        folder: &Path,
        name: &str,
        program: &str,
        arguments: &[String],
    ) -> Result<Self> {
        let output = folder.join("log").join(format!("{name}.out"));
        let file = File::options().create(true).append(true).open(&output)?;
        let python = tool("venv/bin/python")?;
        let mut command = match place.enter.split_first() {
            Some((enter, arguments)) => {
                let mut command = Command::new(enter);
                command.args(arguments).arg(python);
                command
            }
            None => Command::new(python),
        };
        let child = command
            .arg(folder.join("run.py"))
            .arg(folder)
            .args([name, program])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: output,
        })
    }

    /// Waits until the server on this port answers HTTP, whatever it answers.
    pub async fn ready(&mut self, http: &Http, address: &str, port: u16) -> Result<()> {
        let url = format!("http://{address}:{port}/healthcheck");
        self.poll(async || http.send::<&str>(Method::GET, &url, &[], "").await.is_ok())
            .await
    }

    /// Waits until something listens on this port.
    pub async fn listening(&mut self, port: u16) -> Result<()> {
        self.poll(async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await
    }

    async fn poll(&mut self, done: impl AsyncFn() -> bool) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !done().await {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before it was ready: {}",
                    self.name,
                    self.said()
                );
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {DEADLINE:?}: {}", self.name, self.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until the program has ended by itself.
    pub async fn finished(mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}: {}", self.name, self.said()),
                None if Instant::now() > deadline => {
                    bail!("{} still runs after {DEADLINE:?}: {}", self.name, self.said())
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn said(&self) -> String {
        let mut said = std::fs::read_to_string(&self.log).unwrap_or_default();
        said += &std::fs::read_to_string(self.log.with_extension("log")).unwrap_or_default();
        let tail = said.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
        format!(
            "(its output, last part, from {}) {}",
            self.log.display(),
            &said[tail..]
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
