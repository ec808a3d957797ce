//! The command line, and the environment behind it. Nothing else reads either.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use crate::check::Check;

/// Turns SyncPolicies into the files that agents read, and the agents' reports into status.
///
/// It finds the cluster as kubectl does: `KUBECONFIG`, else `~/.kube/config`, else the pod's service account.
#[derive(Clone, Debug, Parser)]
#[command(name = "onespace-operator", version, args_conflicts_with_subcommands = true)]
pub struct Config {
    /// Something else than to run the operator.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Namespace of the operator, its files and its agents. Default: that of the kubeconfig or pod. Policies there need
    /// no AccountGrant.
    #[arg(long, env = "ONESPACE_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Namespace whose policies count; may repeat; `*` for all. Default: the operator's own.
    #[arg(
        long,
        env = "ONESPACE_WATCH_NAMESPACE",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub watch_namespace: Vec<String>,
    /// Where /metrics, /livez and /readyz are served.
    #[arg(
        long,
        env = "ONESPACE_LISTEN",
        default_value = "127.0.0.1:9182",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// Labels of the agents' pods.
    #[arg(
        long,
        env = "ONESPACE_AGENT_SELECTOR",
        default_value = "app.kubernetes.io/part-of=onespace,app.kubernetes.io/component=node-agent",
        value_name = "SELECTOR"
    )]
    pub agent_selector: String,
    /// URL of an agent's status server; may repeat. For agents that are not pods.
    #[arg(long, env = "ONESPACE_AGENT", value_delimiter = ',', value_name = "URL")]
    pub agent: Vec<String>,
    /// The name under which this replica becomes leader. Default: one that no other start has.
    #[arg(long, env = "ONESPACE_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,
    /// How long the leader may be silent before another replica takes over, in seconds. It stops itself after two thirds.
    #[arg(long, env = "ONESPACE_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=600), value_name = "N")]
    pub lease_seconds: u64,
    /// Takes the operator's finalizer off every policy of the watched namespaces, and ends. For when no operator is to run
    /// there any more: nobody else would, and policies that have it could never be deleted.
    #[arg(long)]
    pub remove_finalizers: bool,
    /// Logs as JSON.
    #[arg(long, env = "ONESPACE_LOG_JSON")]
    pub log_json: bool,
    /// What is logged, as tracing's directives.
    #[arg(long, env = "ONESPACE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// What else the program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask every pod of an installation whether it works.
    Check(Check),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }
}
