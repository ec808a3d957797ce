//! Running the command in-process.

use std::path::Path;

use clap::Parser as _;
use onespace_cli::args::Args;

/// What a command left.
pub struct Ran {
    /// Whether the exit code was 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `onespace ARGS...`.
pub fn onespace(args: &[&str]) -> Ran {
    let args = Args::try_parse_from([&["onespace"], args].concat()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = onespace_cli::run::run(args, &mut out, &mut err);
    Ran {
        ok: code == std::process::ExitCode::SUCCESS,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
