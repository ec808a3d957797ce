//! From a command line to an exit code.

use std::io::Write;
use std::process::ExitCode;

use crate::args::{Args, Command};

/// Runs one command. Results go to `out`, errors and notes to `err`.
pub fn run(args: Args, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let result = match args.command {
        Command::Validate(inputs) => crate::validate::run(&inputs, out, err),
        Command::Render(render) => crate::render::run(&render, out, err),
        Command::Import(import) => crate::import::run(&import, out, err),
        Command::Verify(verify) => crate::verify::run(&verify, out, err),
        Command::Status(status) => crate::status::run(&status, out),
        Command::Retry(retry) => crate::tell::retry(&retry, out),
        Command::ReleaseDeletes(release) => crate::tell::release_deletes(&release, out),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if even this cannot be written.
            let _ = writeln!(err, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
