//! The settings of 1space's daemons, which policies do not hold.

use serde_json::{Map, Value};

/// What became of each, where there is something like it.
const KNOWN: &[(&str, &str)] = &[
    ("devices", "onespace-node-agent --devices"),
    (
        "status_dir",
        "onespace-node-agent --state, with an empty folder: progress is kept in another form",
    ),
    (
        "verification_slack",
        "onespace-node-agent --verification-slack; 1space counts minutes",
    ),
    ("log_file", "the agent logs to its standard error"),
    ("log_level", "the agent logs to its standard error"),
    ("syslog", "the agent logs to its standard error"),
    ("poll_interval", "the agent follows changes by itself"),
    ("workers", "the agent has bounds of its own"),
    ("enumerator_workers", "the agent has bounds of its own"),
    ("items_chunk", "the agent has bounds of its own"),
    ("statsd_host", "metrics are served at /metrics"),
    ("statsd_port", "metrics are served at /metrics"),
    ("statsd_prefix", "metrics are served at /metrics"),
    ("migrator_settings", "the agent has bounds of its own"),
];

/// One sentence for each setting that is dropped. Only names are told: a value might be a password.
pub(super) fn dropped(config: &Map<String, Value>) -> Vec<String> {
    let settings = config
        .keys()
        .filter(|name| !matches!(name.as_str(), "containers" | "migrations"));
    settings
        .map(|name| match KNOWN.iter().find(|(known, _)| known == name) {
            Some((_, instead)) => format!("{name} is dropped: {instead}"),
            None => format!("{} is dropped: it is unknown here", name.escape_debug()),
        })
        .collect()
}
