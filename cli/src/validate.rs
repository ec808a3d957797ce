//! `onespace validate`

use std::io::Write;

use crate::args::Inputs;
use crate::check::check;
use crate::input;

/// Says of every policy whether it is valid, and else everything that is wrong with it. `false` = not all are valid.
///
/// # Errors
/// When the input cannot be read.
pub fn run(inputs: &Inputs, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<bool> {
    let Inputs { files } = inputs;
    let objects = input::read(files)?;
    for note in &objects.notes {
        writeln!(err, "note: {note}")?;
    }
    if objects.policies.is_empty() {
        writeln!(err, "note: there is no SyncPolicy in the input")?;
    }
    let mut good = true;
    for verdict in check(&objects)? {
        match &verdict.result {
            Ok(_) => writeln!(
                out,
                "{}: {}/{}: valid",
                verdict.path.display(),
                verdict.key.0,
                verdict.key.1
            )?,
            Err(findings) => {
                good = false;
                for line in verdict.lines(findings) {
                    writeln!(err, "{line}")?;
                }
            }
        }
    }
    Ok(good)
}
