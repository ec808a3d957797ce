//! The `onespace-operator` program.

use std::process::ExitCode;

use clap::Parser;
use onespace_operator::check::check;
use onespace_operator::config::{Command, Config};

// One thread: there is little to do, and every further one costs memory of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::parse();
    onespace_stores::telemetry::start(&config.log, config.log_json);
    let ended = match &config.command {
        Some(Command::Check(options)) => check(options).await.map(|found| tracing::info!("{found}")),
        None => onespace_operator::run::run(config).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
