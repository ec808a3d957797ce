//! Structured logs on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. A filter that cannot be read is replaced by `info`, with a warning.
pub fn start(filter: &str, json: bool) {
    let (parsed, wrong) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error.to_string())),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        // A log that cannot be written, on a full disk for one, must stop no work; its default is to panic then.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
    if let Some(wrong) = wrong {
        tracing::warn!("--log {filter:?} cannot be read ({wrong}); info is logged");
    }
}
