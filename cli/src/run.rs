//! From a command line to an exit code.

use std::io::Write;
use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::place::Usage;

/// The exit code of a command line that cannot be meant, which is also clap's.
const WRONG_USAGE: u8 = 2;

/// Runs one command. Results go to `out`, errors and notes to `err`.
pub fn run(args: Args, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    match carry_out(args, out, err) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if even this cannot be written.
            let _ = writeln!(err, "error: {error:#}");
            match error.is::<Usage>() {
                true => ExitCode::from(WRONG_USAGE),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn carry_out(args: Args, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<bool> {
    let Args { plugin, command } = args;
    // What asks nobody needs none.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match command {
        Command::Validate(validate) => runtime()?.block_on(crate::validate::run(&validate, plugin, out, err)),
        Command::Render(render) => crate::render::run(&render, out, err),
        Command::Import(import) => crate::import::run(&import, out, err),
        Command::Verify(verify) => crate::verify::run(&verify, out, err),
        Command::Status(status) => runtime()?.block_on(crate::status::run(&status, plugin, out)),
        Command::Retry(retry) => runtime()?.block_on(crate::retry::run(&retry, plugin, out)),
        Command::ReleaseDeletes(release) => {
            runtime()?.block_on(crate::release_deletes::run(&release, plugin, out))
        }
    }
}
