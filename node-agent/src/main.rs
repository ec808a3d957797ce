//! The `onespace-node-agent` program.

use std::process::ExitCode;

use clap::Parser;
use onespace_node_agent::config::Config;
use onespace_node_agent::run::{Ended, run};

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
