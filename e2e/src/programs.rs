//! Our own programs, as cargo built them beside the tests.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// Names a folder with other builds of our programs.
const FOLDER: &str = "ONESPACE_PROGRAMS";

/// The path of one of the workspace's programs.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().context("a test lies in a folder")?;
    // Tests lie in `deps`, programs one above.
    let folder = if folder.ends_with("deps") {
        folder.parent().context("deps lies in a folder")?
    } else {
        folder
    };
    let found = match std::env::var_os(FOLDER) {
        Some(other) => PathBuf::from(other).join(name),
        None => folder.join(name),
    };
    ensure!(
        found.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        found.display()
    );
    Ok(found)
}
