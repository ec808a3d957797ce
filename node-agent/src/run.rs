//! Putting the agent together, and taking it apart in order.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use onespace_core::reason::Notice;
use onespace_core::report::{MappingReport, RunState};
use onespace_stores::egress::DenyList;
use onespace_stores::mutual_tls::Reloading;
use onespace_stores::s3::Transports;
use onespace_stores::swift::client::{SwiftSource, Timeouts};
use onespace_stores::{admin, shutdown};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::endpoint;
use crate::files::Folders;
use crate::http::{self, Server};
use crate::local_databases::{LocalDatabases, Place};
use crate::reporter::Reporter;
use crate::state::State;
use crate::supervisor::{Running, Supervisor};
use crate::swift_nodes::SwiftNodes;
use crate::turnstile::Turnstile;
use crate::work::Limits;

/// With `--once`: how long the internal endpoint, a paused mapping, or a database that cannot be read, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left.
    Done,
    /// Rows are held.
    Held,
}

/// Runs the agent until a signal ends it, or until nothing is left.
///
/// # Errors
/// What keeps it from starting, or with `--once` from finishing; each says what to do.
pub async fn run(config: Config) -> anyhow::Result<Ended> {
    let Config {
        swift_dir,
        devices,
        container_server,
        internal_endpoint,
        mappings,
        credentials,
        state,
        listen,
        status_listen,
        status_tls,
        deny_remote,
        deny_swift_nodes,
        verification_slack,
        workers,
        held_rows,
        once,
        log: _,
        log_json: _,
    } = config;
    if !is_loopback(status_listen.ip()) && status_tls.is_none() {
        bail!(
            "--status-listen {status_listen} is not a loopback address; what is served there acts without a login: give a loopback address, or certificates with --status-tls"
        );
    }
    let status_tls = status_tls.map(|folder| Arc::new(Reloading::new(folder)));
    let source = Arc::new(SwiftSource::new(
        &internal_endpoint,
        &swift_dir,
        Timeouts::default(),
    )?);
    let deny = DenyList::new(deny_remote);
    let nodes = deny_swift_nodes
        .then(|| SwiftNodes::denied_in(deny.clone(), &swift_dir))
        .transpose()
        .with_context(|| {
            format!(
                "--deny-swift-nodes: the rings in {} cannot be read; give the folder of swift.conf and the rings with --swift-dir",
                swift_dir.display()
            )
        })?;
    let place = Place {
        swift_dir,
        devices,
        container_servers: container_server,
    };
    let databases = Arc::new(LocalDatabases::open(place, source.clone())?);
    let state = State::open(&state)?;
    let (running, shown) = watch::channel(Running::default());
    let named = databases.clone();
    let name = move || named.name();
    let reporter = Arc::new(Reporter::new(name, boot_name(), shown.clone()));
    let cancel = CancellationToken::new();
    let mut servers = tokio::task::JoinSet::new();
    for (address, option, tls, server) in [
        (listen, "--listen", None, Server::Health),
        (status_listen, "--status-listen", status_tls, Server::Status),
    ] {
        let listener = admin::bind(address, option).await?;
        tracing::info!(%address, ?server, "listening");
        servers.spawn(http::serve(
            listener,
            tls,
            server,
            reporter.clone(),
            cancel.clone(),
        ));
    }
    if let Some(nodes) = nodes {
        servers.spawn(nodes.keep(cancel.clone()));
    }
    let supervisor = Supervisor {
        folders: Folders {
            mappings,
            credentials,
        },
        databases,
        source: source.clone(),
        state,
        turnstile: Turnstile::new(workers),
        clock: SystemClock,
        limits: Limits {
            slack: verification_slack,
            held: held_rows,
            ..Limits::default()
        },
        deny,
        transports: Transports::default(),
        running,
    };
    let patience = if once { PATIENCE } else { endpoint::PATIENCE };
    let mut supervisor = tokio::spawn(start(supervisor, source, patience, cancel.clone()));
    let result = tokio::select! {
        result = &mut supervisor => result.context("the agent's supervisor ended").map(|()| Ended::Done),
        () = shutdown::signalled() => {
            tracing::info!("ending: rows under way are finished");
            match once {
                false => Ok(Ended::Done),
                true => Err(anyhow!("a signal ended it before everything that is due was done: run it again")),
            }
        }
        result = finished(shown), if once => result,
    };
    cancel.cancel();
    if !supervisor.is_finished() {
        let _ = supervisor.await;
    }
    servers.shutdown().await;
    result
}

/// Runs the supervisor once the internal endpoint is up.
async fn start(
    supervisor: Supervisor<LocalDatabases, SwiftSource, SystemClock>,
    source: Arc<SwiftSource>,
    patience: Duration,
    cancel: CancellationToken,
) {
    if !source.takes_connections().await {
        let wait = |waits| {
            supervisor
                .running
                .send_modify(|running| running.waits_for_endpoint = waits);
        };
        tracing::info!(
            endpoint = source.endpoint(),
            "the internal endpoint takes no connections yet: waiting for it"
        );
        wait(true);
        let is_up = tokio::select! {
            is_up = endpoint::until_up(patience, || source.takes_connections()) => is_up,
            () = cancel.cancelled() => return,
        };
        wait(false);
        if !is_up {
            tracing::warn!(
                endpoint = source.endpoint(),
                "the internal endpoint takes no connections: start it"
            );
        }
    }
    supervisor.run(cancel).await;
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A name that no other start of this agent has.
fn boot_name() -> String {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}{:x}", since_1970.as_nanos(), std::process::id())
}

/// Waits until nothing that is due is left in any mapping.
async fn finished(running: watch::Receiver<Running>) -> anyhow::Result<Ended> {
    let mut look = tokio::time::interval(Duration::from_millis(200));
    let started = tokio::time::Instant::now();
    let mut stuck_since = None;
    loop {
        look.tick().await;
        let now = tokio::time::Instant::now();
        let (loaded, error, refused, reports) = {
            let running = running.borrow();
            let reports: Vec<MappingReport> = running
                .mappings
                .values()
                .map(|entry| entry.reports.borrow().clone())
                .collect();
            let refused = running
                .config
                .refused
                .first()
                .map(|refused| (refused.id.clone(), refused.message.clone()));
            (running.loaded, running.config.error.clone(), refused, reports)
        };
        if !loaded {
            match error {
                Some(error) if now - started > Duration::from_secs(2) => bail!(error),
                _ => continue,
            }
        }
        let stuck = reports
            .iter()
            .find(|report| report.state == RunState::Paused || report.databases.unreadable > 0);
        match stuck {
            None => stuck_since = None,
            Some(report) => {
                let since = *stuck_since.get_or_insert(now);
                if now - since >= PATIENCE || (report.state == RunState::Paused && report.held.full) {
                    bail!(why_stuck(report));
                }
            }
        }
        if stuck.is_some() || !reports.iter().all(|report| report.idle) {
            continue;
        }
        if let Some((id, message)) = refused {
            bail!("mapping {id} is refused: {message}");
        }
        if let Some(report) = reports.iter().find(|report| report.state == RunState::Refused) {
            bail!(
                "mapping {} is refused: {}",
                report.id,
                report.message.as_deref().unwrap_or_default()
            );
        }
        if let Some(report) = reports.iter().find(|report| is_missing(report)) {
            bail!(
                "mapping {}: {}",
                report.id,
                report.message.as_deref().unwrap_or_default()
            );
        }
        let waiting = |report: &MappingReport| report.held_deletes.as_ref().map_or(0, |batch| batch.rows);
        let held: u64 = reports
            .iter()
            .map(|report| report.held.rows + report.held.of_others + waiting(report))
            .sum();
        return Ok(if held > 0 { Ended::Held } else { Ended::Done });
    }
}

/// Whether this node should have a database of the mapping's source, and has none: nothing was done.
fn is_missing(report: &MappingReport) -> bool {
    report.reason.as_deref() == Some(Notice::SourceNotFound.as_str())
}

fn why_stuck(report: &MappingReport) -> String {
    let MappingReport {
        id,
        state,
        reason,
        message,
        databases,
        ..
    } = report;
    match state {
        RunState::Paused => format!(
            "mapping {id} is paused ({}): {}",
            reason.as_deref().unwrap_or_default(),
            message.as_deref().unwrap_or_default()
        ),
        _ => format!(
            "mapping {id}: {} of its container databases or devices cannot be read; the log says why",
            databases.unreadable
        ),
    }
}
