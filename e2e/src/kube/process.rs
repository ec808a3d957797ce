//! One server of the cluster.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::tools::tool;

/// Runs the program until it ends or standard input closes, whichever comes first. So the program ends with this
/// process, however this process ends.
const UNTIL_CLOSED: &str = r#"exec 3<&0
"$@" </dev/null 3<&- &
program=$!
{ cat <&3 >/dev/null; kill -9 $program; } 2>/dev/null &
wait $program"#;

/// A running program of `.tools/bin`. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(folder: &Path, name: &str, arguments: &[String]) -> Result<Self> {
        let program = tool(&format!("bin/{name}"))?.display().to_string();
        let command: Vec<String> = std::iter::once(program)
            .chain(arguments.iter().cloned())
            .collect();
        Self::run(folder, name, &command)
    }

    /// Starts any command, its program first. The log is `NAME.log` in the folder.
    pub fn run(folder: &Path, name: &str, command: &[String]) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = Command::new("/bin/sh")
            .args(["-c", UNTIL_CLOSED, name])
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}): {}", self.name, self.said());
        }
        Ok(())
    }

    /// The last part of its output.
    pub fn said(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail = said.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
        said[tail..].to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its shell kills the program when this closes, and then ends. Waiting fails only if it has ended already.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
