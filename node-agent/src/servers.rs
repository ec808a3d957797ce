//! Whether this node's container servers answer. While one does not, no row comes into its databases: to an agent that
//! only reads them all would look as if nothing happened, and what is its own to copy would wait for the others' slack.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How often a server is asked, for all mappings together.
const EVERY: Duration = Duration::from_secs(4);

/// It must take a connection by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// So often, one after the other, and it counts as silent: one that is started anew is not.
const TRIES: u32 = 2;

/// What is known of the container servers.
#[derive(Debug, Default)]
pub struct Servers(Mutex<BTreeMap<String, Known>>);

#[derive(Debug)]
struct Known {
    asked: Instant,
    failures: u32,
}

impl Servers {
    /// Those of these, each `ip:port`, that take no connection.
    pub async fn silent(&self, servers: BTreeSet<&str>) -> Vec<String> {
        let mut all = self.0.lock().await;
        let mut silent = Vec::new();
        for server in servers {
            let known = all.get(server);
            let is_due = known.is_none_or(|known| known.asked.elapsed() >= EVERY);
            let mut failures = known.map_or(0, |known| known.failures);
            if is_due {
                let connected = timeout(PATIENCE, TcpStream::connect(server)).await;
                failures = match connected {
                    Ok(Ok(_)) => 0,
                    _ => failures.saturating_add(1),
                };
                let asked = Instant::now();
                all.insert(server.to_owned(), Known { asked, failures });
            }
            if failures >= TRIES {
                silent.push(server.to_owned());
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if the last question was long ago.
    async fn later(servers: &Servers) {
        for known in servers.0.lock().await.values_mut() {
            known.asked = Instant::now().checked_sub(EVERY).unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_is_silent_after_two_questions_and_no_more_once_it_answers() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (servers, name) = (Servers::default(), address.to_string());
        let ask = async || servers.silent(BTreeSet::from([name.as_str()])).await;
        assert_eq!(ask().await, [] as [&str; 0]);
        drop(listener);
        later(&servers).await;
        assert_eq!(ask().await, [] as [&str; 0], "it may be starting anew");
        assert_eq!(ask().await, [] as [&str; 0], "it is not asked all the time");
        later(&servers).await;
        assert_eq!(ask().await, [name.as_str()]);
        let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
        later(&servers).await;
        assert_eq!(ask().await, [] as [&str; 0]);
    }
}
