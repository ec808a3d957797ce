//! `onespace status`: what an agent does, as a table that is renewed while there is a backlog.

mod fetch;
mod table;

use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Status;
use fetch::Agent;
use table::{Sample, table};

/// How often the table is renewed.
const RENEW: Duration = Duration::from_secs(1);

/// Shows an agent's status.
///
/// # Errors
/// The agent cannot be reached, or its answer not understood.
pub fn run(args: &Status, out: &mut dyn Write) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(show(args, out, std::io::stdout().is_terminal()))?;
    Ok(true)
}

async fn show(args: &Status, out: &mut dyn Write, live: bool) -> Result<()> {
    let agent = Agent::new(&args.agent.url)?;
    if args.json {
        for page in agent.pages().await? {
            out.write_all(&page.body)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    let mut last: Option<Sample> = None;
    let mut drawn = 0;
    loop {
        let reports: Vec<_> = agent.pages().await?.into_iter().map(|page| page.report).collect();
        let sample = Sample {
            at: Instant::now(),
            reports,
        };
        let text = table(&sample, last.as_ref(), jiff::Timestamp::now());
        if drawn > 0 {
            // Back to where the last table began, and clear what is left of it.
            write!(out, "\x1b[{drawn}A\x1b[J")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !live || !sample.has_backlog() {
            return Ok(());
        }
        drawn = text.lines().count();
        last = Some(sample);
        tokio::time::sleep(RENEW).await;
    }
}
