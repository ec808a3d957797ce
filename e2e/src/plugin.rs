//! `kubectl onespace`: our program under the name by which the real kubectl finds it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::programs::program;
use crate::tools::tool;

/// A person's shell: kubectl with the plugin in its PATH, and a kubeconfig.
#[derive(Debug)]
pub struct Plugin {
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Plugin {
    /// Puts kubectl and the plugin into a folder of their own.
    ///
    /// # Errors
    /// One is missing.
    pub fn new(kubeconfig: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        symlink(
            tool("bin/kubectl")?.canonicalize()?,
            folder.path().join("kubectl"),
        )?;
        symlink(program("onespace")?, folder.path().join("kubectl-onespace"))?;
        Ok(Self { folder, kubeconfig })
    }

    /// The same with the rights of a service account.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(&self.kubeconfig)?)?;
        config["users"] = json!([{"name": "user", "user": {"token": token}}]);
        let mut plugin = Self::new(PathBuf::new())?;
        plugin.kubeconfig = plugin.folder.path().join("kubeconfig");
        std::fs::write(&plugin.kubeconfig, config.to_string())?;
        Ok(plugin)
    }

    /// Runs `kubectl onespace` with these words.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Ended> {
        self.run_with(&self.kubeconfig, words)
    }

    /// The same with another kubeconfig.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run_with(&self, kubeconfig: &Path, words: &[&str]) -> Result<Ended> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.path().to_owned()).chain(std::env::split_paths(&path));
        let output = Command::new(self.folder.path().join("kubectl"))
            .arg("onespace")
            .args(words)
            .env("PATH", std::env::join_paths(folders)?)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", self.folder.path())
            // Whatever the environment says: the API server is on this machine.
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .context("kubectl onespace")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        })
    }
}
