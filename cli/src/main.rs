//! The `onespace` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = onespace_cli::args::Args::parse();
    onespace_cli::run::run(args, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
}
