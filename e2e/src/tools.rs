//! Where `scripts/prepare` puts programs.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program below `.tools/`, for example `bin/minio` or `venv/bin/python`.
///
/// # Errors
/// It is not there; the message says how to get it.
pub fn tool(path: &str) -> Result<PathBuf> {
    let found = workspace().join(".tools").join(path);
    ensure!(
        found.exists(),
        "{} is missing: run scripts/prepare first",
        found.display()
    );
    Ok(found)
}
