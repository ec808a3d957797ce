//! The `onespace` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = onespace_cli::args::Args::of(std::env::args_os());
    onespace_cli::run::run(args, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
}
