//! The `onespace-operator` program.

use std::process::ExitCode;

use clap::Parser;
use onespace_operator::config::Config;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    onespace_stores::telemetry::start(&config.log, config.log_json);
    match onespace_operator::run::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
