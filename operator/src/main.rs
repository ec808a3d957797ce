//! The `onespace-operator` program.

use std::process::ExitCode;

use clap::Parser;
use onespace_operator::config::Config;

// One thread: there is little to do, and every further one costs memory of its own.
#[tokio::main(flavor = "current_thread")]
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
