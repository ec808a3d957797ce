//! Scenarios on a real Kubernetes with three nodes, one after the other on one cluster. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod install;
mod nodes;
mod plugin;
mod rights;

use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use onespace_e2e::kube::cluster::{Cluster, inside};
use onespace_e2e::site::{NODES, Site};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static CLUSTER: OnceCell<Arc<Cluster>> = OnceCell::const_new();
static SITE: OnceCell<Arc<Site>> = OnceCell::const_new();

fn trials() -> Vec<Trial> {
    vec![
        on_cluster(
            "pods_run_on_three_nodes_and_leave_one_that_is_drained",
            nodes::pods_run_on_three_nodes_and_leave_one_that_is_drained,
        ),
        on_site(
            "an_installed_chart_copies_what_a_policy_says_and_leaves_policies_and_data_when_it_goes",
            install::an_installed_chart_copies_what_a_policy_says_and_leaves_policies_and_data_when_it_goes,
        ),
        on_site(
            "who_may_view_sees_how_policies_stand_and_who_may_edit_has_all_agents_retry",
            plugin::who_may_view_sees_how_policies_stand_and_who_may_edit_has_all_agents_retry,
        ),
        on_site(
            "the_operator_uses_every_right_that_it_has_and_is_denied_nothing",
            rights::the_operator_uses_every_right_that_it_has_and_is_denied_nothing,
        ),
        on_site(
            "the_operator_may_change_its_own_annotations_of_pods_and_nothing_else",
            rights::the_operator_may_change_its_own_annotations_of_pods_and_nothing_else,
        ),
    ]
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials()).exit_code();
    }
    inside(|| {
        // They share the nodes.
        arguments.test_threads = Some(1);
        libtest_mimic::run(&arguments, trials()).exit_code()
    })
}

async fn cluster() -> Result<Arc<Cluster>> {
    let started = CLUSTER.get_or_try_init(async || Cluster::start(NODES).await.map(Arc::new));
    started.await.cloned()
}

async fn site() -> Result<Arc<Site>> {
    let started = SITE.get_or_try_init(async || Site::start(cluster().await?).await.map(Arc::new));
    started.await.cloned()
}

fn on_cluster<F>(name: &str, scenario: fn(Arc<Cluster>) -> F) -> Trial
where
    F: Future<Output = Result<()>> + 'static,
{
    trial(name, async move || scenario(cluster().await?).await)
}

fn on_site<F>(name: &str, scenario: fn(Arc<Site>) -> F) -> Trial
where
    F: Future<Output = Result<()>> + 'static,
{
    trial(name, async move || scenario(site().await?).await)
}

fn trial(name: &str, scenario: impl AsyncFnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        RUNTIME
            .block_on(scenario())
            .map_err(|error| format!("{error:#}").into())
    })
}
