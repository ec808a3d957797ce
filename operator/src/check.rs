//! `onespace-operator check`: asks every pod of an installation whether it works. The chart's `helm test` runs it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use onespace_stores::causes::causes;
use tokio::time::Instant;

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer that is read, bytes.
const LARGEST: usize = 4 << 20;

/// The wait before everything is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Whether an installation works as a whole: one replica of the operator leads, every agent is ready, and the leader hears of
/// each that it runs the newest files. Says what is missing, and ends with 1, if that does not come true.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// A name that has the addresses of all of the operator's pods, and their port for metrics.
    #[arg(long, value_name = "HOST:PORT")]
    pub operator: String,
    /// The same of the agents.
    #[arg(long, value_name = "HOST:PORT")]
    pub agents: String,
    /// How long it waits for what is not well yet, in seconds.
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub patience: u64,
}

/// What was seen of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    address: String,
    /// What it says of itself unless it is ready.
    not_ready: Option<String>,
    /// Its metrics: lines of name and value.
    metrics: BTreeMap<String, String>,
}

impl Pod {
    fn metric(&self, name: &str) -> u64 {
        let value = self.metrics.get(name).and_then(|value| value.parse().ok());
        value.unwrap_or(0)
    }
}

/// Asks until everything is well. Returns what was found, in words.
///
/// # Errors
/// Something is not, and did not become so in time.
pub async fn check(options: &Check) -> anyhow::Result<String> {
    let deadline = Instant::now() + Duration::from_secs(options.patience);
    loop {
        let (operators, agents) = (pods(&options.operator).await, pods(&options.agents).await);
        let missing = missing(&operators, &agents);
        if missing.is_empty() {
            let (operators, agents) = (operators.len(), agents.len());
            return Ok(format!(
                "well: {operators} replicas of the operator, of which one leads; {agents} agents, all ready and with the newest files"
            ));
        }
        if Instant::now() > deadline {
            bail!(
                "not well within {} s:\n- {}",
                options.patience,
                missing.join("\n- ")
            );
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What is not as it should be.
fn missing(operators: &[Pod], agents: &[Pod]) -> Vec<String> {
    let mut missing = Vec::new();
    for (pods, what) in [
        (operators, "the operator has no pod: see its Deployment"),
        (
            agents,
            "no agent runs: see the DaemonSets, and whether a node matches a pool's nodeSelector",
        ),
    ] {
        if pods.is_empty() {
            missing.push(what.to_owned());
        }
    }
    for (pods, kind) in [(operators, "operator"), (agents, "agent")] {
        for Pod {
            address, not_ready, ..
        } in pods
        {
            if let Some(why) = not_ready {
                missing.push(format!("the {kind} at {address} is not ready: {}", why.trim()));
            }
        }
    }
    let leaders: Vec<&Pod> = operators
        .iter()
        .filter(|pod| pod.metric("onespace_operator_leader") == 1)
        .collect();
    match leaders[..] {
        [leader] => {
            let current = leader.metric(r#"onespace_operator_agents{state="current"}"#);
            if current < agents.len() as u64 {
                let agents = agents.len();
                missing.push(format!(
                    "of {agents} agents the operator hears of {current} that they run the newest files: its log, and theirs, say why"
                ));
            }
        }
        [] if operators.is_empty() => {}
        [] => missing.push("no replica of the operator leads: their logs say why".to_owned()),
        _ => missing.push(format!("{} replicas of the operator lead", leaders.len())),
    }
    missing
}

/// Everything that this name has an address of. A name without any is an empty answer: names of no pods are unknown.
async fn pods(name: &str) -> Vec<Pod> {
    let mut pods = Vec::new();
    for address in addresses(name).await {
        pods.push(pod(&address.to_string()).await);
    }
    pods
}

async fn addresses(name: &str) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = match tokio::net::lookup_host(name).await {
        Ok(addresses) => addresses.collect(),
        Err(_) => Vec::new(),
    };
    addresses.sort();
    addresses.dedup();
    addresses
}

async fn pod(address: &str) -> Pod {
    let not_ready = match get(address, "/readyz").await {
        Ok((200, _)) => None,
        Ok((status, said)) => Some(format!("{status}, {said}")),
        Err(why) => Some(why),
    };
    let metrics = match get(address, "/metrics").await {
        Ok((200, text)) => values(&text),
        _ => BTreeMap::new(),
    };
    Pod {
        address: address.to_owned(),
        not_ready,
        metrics,
    }
}

/// Metrics with their labels, and their values.
fn values(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

async fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("http://{address}{path}")
        .parse()
        .map_err(|error| format!("{error}"))?;
    let asking = async {
        let answer = client.get(uri).await.map_err(|error| causes(&error))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(address: &str, metrics: &str) -> Pod {
        Pod {
            address: address.to_owned(),
            not_ready: None,
            metrics: values(metrics),
        }
    }

    fn leader(current: u64) -> Pod {
        let text = format!(
            "# HELP onespace_operator_leader 1\nonespace_operator_leader 1\nonespace_operator_agents{{state=\"current\"}} {current}\n\
             onespace_operator_agents{{state=\"silent\"}} 7\n"
        );
        pod("10.0.0.1:9182", &text)
    }

    fn standby() -> Pod {
        pod("10.0.0.2:9182", "onespace_operator_leader 0\n")
    }

    #[test]
    fn an_installation_is_well_when_one_leads_and_hears_of_every_agent() {
        let agents = [pod("10.0.0.3:9180", ""), pod("10.0.0.4:9180", "")];
        assert_eq!(missing(&[leader(2), standby()], &agents), [""; 0]);

        let said = |operators: &[Pod], agents: &[Pod]| missing(operators, agents).join("; ");
        assert!(said(&[standby(), standby()], &agents).contains("no replica of the operator leads"));
        assert!(said(&[leader(2), leader(2)], &agents).contains("2 replicas of the operator lead"));
        assert!(said(&[leader(1), standby()], &agents).contains("of 2 agents the operator hears of 1"));
        assert!(said(&[], &agents).contains("the operator has no pod"));
        assert!(said(&[leader(0)], &[]).contains("no agent runs"));
        let broken = Pod {
            not_ready: Some("503, nothing is loaded\n".to_owned()),
            ..pod("10.0.0.4:9180", "")
        };
        assert_eq!(
            said(&[leader(2)], &[pod("10.0.0.3:9180", ""), broken]),
            "the agent at 10.0.0.4:9180 is not ready: 503, nothing is loaded"
        );
    }
}
