//! Putting the operator together, and taking it apart in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use onespace_stores::{admin, shutdown};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::ask::Asking;
use crate::config::Config;
use crate::controller::{Controller, Made};
use crate::desk::Desk;
use crate::finalize;
use crate::health::{self, Ready};
use crate::leader::{self, run_for_leader};
use crate::lease::Terms;
use crate::metrics::Metrics;
use crate::pki;
use crate::published::Names;
use crate::seen::{Scopes, Seen};
use crate::status::write_all;
use crate::watch;

/// Events that may wait; then the watches wait, too.
const EVENTS: usize = 256;

/// Answers of agents that may wait.
const UPDATES: usize = 64;

/// How long giving back the Lease may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the operator until a signal ends it.
///
/// # Errors
/// What keeps it from starting; each says what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config {
        command: _,
        namespace,
        watch_namespace,
        listen,
        agent_selector,
        agent,
        identity,
        lease_seconds,
        remove_finalizers,
        log: _,
        log_json: _,
    } = config;
    let cluster = kube::Config::infer()
        .await
        .context("no cluster is known: set KUBECONFIG, or run in a pod with a service account")?;
    let namespace = namespace.unwrap_or_else(|| cluster.default_namespace.clone());
    let terms = Terms::new(lease_seconds);
    let unusable = "the cluster's configuration cannot be used";
    let for_lease = leader::client(cluster.clone(), terms).context(unusable)?;
    let client = Client::try_from(cluster).context(unusable)?;
    let boot = boot_name();
    let identity = identity.unwrap_or_else(|| format!("onespace-operator-{boot}"));
    let scopes = Scopes::new(&namespace, &watch_namespace);
    if remove_finalizers {
        return finalize::remove_all(&client, &scopes.policies).await;
    }
    let names = Names {
        namespace: namespace.clone(),
    };
    let metrics = Metrics::new()?;
    let leader = metrics.leader.clone();
    let ready = Ready::default();
    let cancel = CancellationToken::new();

    let listener = admin::bind(listen, "--listen").await?;
    tracing::info!(%listen, namespace, identity, "listening");
    let mut servers = tokio::task::JoinSet::new();
    servers.spawn(health::serve(
        listener,
        ready.clone(),
        metrics.clone(),
        cancel.clone(),
    ));

    let (events_in, events) = mpsc::channel(EVENTS);
    let (updates_in, updates) = mpsc::channel(UPDATES);
    let mut background = watch::start(&client, &scopes, &agent_selector, &events_in, &metrics);
    let nothing_writes = CancellationToken::new();
    let (leadership, released) =
        run_for_leader(for_lease, &namespace, &identity, terms, nothing_writes.clone());
    // Whatever writes does so as leader alone.
    let client = leadership.gate(client);
    let (identities_in, identities) = tokio::sync::watch::channel(None);
    background.spawn(pki::keep(
        client.clone(),
        namespace.clone(),
        leadership.clone(),
        identities_in,
        metrics.clone(),
    ));
    let desk = Arc::new(Desk::default());
    let writer = tokio::spawn(write_all(
        client.clone(),
        desk.clone(),
        metrics.clone(),
        identity,
        cancel.clone(),
    ));
    let controller = Controller {
        client,
        seen: Seen::new(&scopes, names.clone()),
        names,
        events,
        updates,
        agents: Agents::default(),
        asking: Asking::new(updates_in)?,
        fixed: agent,
        identities,
        leadership,
        desk,
        metrics,
        ready,
        boot,
        unreadable: Vec::new(),
        made: Made::default(),
    };
    let mut controller = tokio::spawn(controller.run(cancel.clone()));
    let result = tokio::select! {
        result = &mut controller => match result {
            Ok(ended) => ended.map_err(Into::into),
            Err(error) => Err(error).context("the operator's loop ended"),
        },
        () = shutdown::signalled() => {
            tracing::info!("ending: what is being written is finished");
            Ok(())
        }
    };
    cancel.cancel();
    if !controller.is_finished() {
        let _ = controller.await;
    }
    leader.set(0);
    let _ = writer.await;
    background.shutdown().await;
    nothing_writes.cancel();
    let _ = tokio::time::timeout(FAREWELL, released).await;
    servers.shutdown().await;
    result
}

/// A name that no other start of an operator has.
fn boot_name() -> String {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}{:x}", since_1970.as_nanos(), std::process::id())
}
