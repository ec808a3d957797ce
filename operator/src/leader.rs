//! Which replica writes. The others watch, so that they are ready at once.

use anyhow::Context as _;
use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Name of the Lease.
const LEASE: &str = "onespace-operator";

/// The end of a leadership: the Lease is given back when the receiver is dropped.
pub type Released = JoinHandle<Result<LeaseManager, kube_lease_manager::LeaseManagerError>>;

/// Runs for leader. The receiver says whether this replica leads.
///
/// # Errors
/// The Lease cannot be read or made; the message says which right is missing.
pub async fn run_for_leader(
    client: Client,
    namespace: &str,
    identity: &str,
    seconds: u64,
) -> anyhow::Result<(watch::Receiver<bool>, Released)> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_field_manager(crate::api::FIELD_MANAGER)
        .with_duration(seconds)
        // Renewed when so much of it is left.
        .with_grace((seconds / 3).max(1))
        .build()
        .await
        .with_context(|| {
            format!(
                "the Lease {namespace}/{LEASE} cannot be used; allow get, create and patch of leases there"
            )
        })?;
    Ok(manager.watch().await)
}
