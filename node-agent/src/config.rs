//! The command line, and the environment behind it. Nothing else reads either.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use onespace_stores::swift::locate::ContainerServer;

/// Follows the container databases of this Swift node and keeps remote stores in step, as the mapping files say.
///
/// Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but rows are held.
#[derive(Clone, Debug, Parser)]
#[command(name = "onespace-node-agent", version)]
pub struct Config {
    /// Folder with swift.conf, container-server.conf and the rings.
    #[arg(
        long,
        env = "ONESPACE_SWIFT_DIR",
        default_value = "/etc/swift",
        value_name = "DIR"
    )]
    pub swift_dir: PathBuf,
    /// Folder with Swift's devices.
    #[arg(
        long,
        env = "ONESPACE_DEVICES",
        default_value = "/srv/node",
        value_name = "DIR"
    )]
    pub devices: PathBuf,
    /// This node's container server as the ring names it, or :PORT for all local addresses; may repeat. Default: local
    /// addresses and the port of container-server.conf.
    #[arg(
        long,
        env = "ONESPACE_CONTAINER_SERVER",
        value_delimiter = ',',
        value_name = "IP:PORT"
    )]
    pub container_server: Vec<ContainerServer>,
    /// A Swift proxy without auth and gatekeeper that only agents can reach.
    #[arg(long, env = "ONESPACE_INTERNAL_ENDPOINT", value_name = "URL")]
    pub internal_endpoint: String,
    /// Folder with index.json and the mapping shards.
    #[arg(long, env = "ONESPACE_MAPPINGS", value_name = "DIR")]
    pub mappings: PathBuf,
    /// Folder with the credential shards.
    #[arg(long, env = "ONESPACE_CREDENTIALS", value_name = "DIR")]
    pub credentials: PathBuf,
    /// Folder for the agent's own durable state; on a disk that survives a restart.
    #[arg(long, env = "ONESPACE_STATE", value_name = "DIR")]
    pub state: PathBuf,
    /// Where /metrics, /livez and /readyz are served.
    #[arg(
        long,
        env = "ONESPACE_LISTEN",
        default_value = "127.0.0.1:9180",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// Where /status and everything that acts is served: a loopback address, unless there is --status-tls.
    #[arg(
        long,
        env = "ONESPACE_STATUS_LISTEN",
        default_value = "127.0.0.1:9181",
        value_name = "ADDR"
    )]
    pub status_listen: SocketAddr,
    /// Folder with ca.crt, tls.crt and tls.key (PEM; they may come later and be replaced): /status is served with TLS, to
    /// clients with a certificate of that authority alone. The operator makes them in the Secret onespace-status-tls.
    #[arg(long, env = "ONESPACE_STATUS_TLS", value_name = "DIR")]
    pub status_tls: Option<PathBuf>,
    /// Network that no remote may be in; may repeat. Checked on the address that is dialled.
    #[arg(
        long,
        env = "ONESPACE_DENY_REMOTE",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub deny_remote: Vec<IpNet>,
    /// No remote may be at an address that a ring in --swift-dir names: Swift's servers do what they are asked without a
    /// login.
    #[arg(long, env = "ONESPACE_DENY_SWIFT_NODES")]
    pub deny_swift_nodes: bool,
    /// How far clocks may be apart, how long a row counts as fresh, and after which time the rows of other nodes are
    /// verified (like 60m or 90s).
    #[arg(long, env = "ONESPACE_VERIFICATION_SLACK", default_value = "60m", value_parser = duration, value_name = "DURATION")]
    pub verification_slack: Duration,
    /// Rows that are worked on at the same time, over all mappings.
    #[arg(long, env = "ONESPACE_WORKERS", default_value_t = 64, value_name = "N")]
    pub workers: usize,
    /// Rows of one mapping that may wait before its watermark stops.
    #[arg(long, env = "ONESPACE_HELD_ROWS", default_value_t = 10_000, value_name = "N")]
    pub held_rows: u64,
    /// Make complete passes until nothing that is due is left, then exit. A failing row gets three tries, a paused
    /// mapping a minute.
    #[arg(long, env = "ONESPACE_ONCE")]
    pub once: bool,
    /// Logs as JSON.
    #[arg(long, env = "ONESPACE_LOG_JSON")]
    pub log_json: bool,
    /// What is logged, as tracing's directives.
    #[arg(long, env = "ONESPACE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Reads `90s`, `60m`, `1h30m`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write it like 90s, 60m or 1h30m");
    let mut total = 0_u64;
    let mut digits = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        digits.clear();
        total = number
            .checked_mul(unit)
            .and_then(|more| total.checked_add(more))
            .ok_or_else(wrong)?;
    }
    if text.is_empty() || !digits.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_secs(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_policies() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "m", "1w", "5m3", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }
}
