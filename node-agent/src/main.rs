//! The `onespace-node-agent` program.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use onespace_node_agent::config::Config;
use onespace_node_agent::run::{Ended, run};

/// The system's would keep what each of many threads needed at its worst: with thousands of mappings most of the memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    onespace_stores::telemetry::start(&config.log, config.log_json);
    match run(config).await {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Held) => ExitCode::from(3),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
