//! Policies of a scenario, as YAML, made into the agent's files by `onespace render`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::programs::program;

/// A folder with policies, and the mapping and credential files that were rendered from it.
#[derive(Debug)]
pub struct Policies {
    folder: PathBuf,
}

impl Policies {
    /// Policies in this folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("policies"))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Writes a file of policies and Secrets, and renders all files anew.
    ///
    /// # Errors
    /// `onespace render` refuses them; its message is the error's.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        std::fs::write(self.folder.join("policies").join(file), yaml)?;
        self.render()
    }

    /// Removes a file of policies, and renders the others anew.
    ///
    /// # Errors
    /// As [`Policies::apply`].
    pub fn remove(&self, file: &str) -> Result<()> {
        std::fs::remove_file(self.folder.join("policies").join(file))?;
        self.render()
    }

    /// What the agent gets as `--mappings`.
    #[must_use]
    pub fn mappings(&self) -> PathBuf {
        self.folder.join("mappings")
    }

    /// What the agent gets as `--credentials`.
    #[must_use]
    pub fn credentials(&self) -> PathBuf {
        self.folder.join("credentials")
    }

    fn render(&self) -> Result<()> {
        let output = Command::new(program("onespace")?)
            .arg("render")
            .arg("-f")
            .arg(self.folder.join("policies"))
            .arg("--mappings")
            .arg(self.mappings())
            .arg("--credentials")
            .arg(self.credentials())
            .output()
            .context("onespace render")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
