//! One process of a server that others wrote.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take until it accepts connections.
const DEADLINE: Duration = Duration::from_secs(60);

/// Becomes the server; beside it waits a shell that kills it when our end of the pipe is closed.
const LEASH: &str = "exec 3<&0; (cat <&3 >/dev/null; kill -9 $$) & exec \"$@\" 3<&- </dev/null";

/// A running server. Dropping it kills it; so does the end of this process, however that comes about.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in a file.
    pub fn start(command: &Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        let mut leashed = Command::new("sh");
        leashed
            .args(["-c", LEASH, "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                leashed.env(name, value);
            }
        }
        let child = leashed
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Waits until `ready` says so.
    pub async fn until(&mut self, ready: impl AsyncFn() -> bool) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended ({status}): {}", self.said());
            }
            if Instant::now() > deadline {
                bail!("the server is not ready after {DEADLINE:?}: {}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before it is reaped: its number may be another's afterwards.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
