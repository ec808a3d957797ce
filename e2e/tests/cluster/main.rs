//! Scenarios on a real Kubernetes with three nodes, one after the other on one cluster. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod agents;
mod changes;
mod install;
mod maintenance;
mod namespaces;
mod nodes;
mod operators;
mod plugin;
mod policies;
mod refusals;
mod rights;
mod secrets;
mod shared;
mod tenants;
mod uninstall;
mod unreachable;
mod upgrades;

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
            "agents_on_their_nodes_network_copy_and_an_endpoint_that_starts_as_root_serves_nothing_as_root",
            install::agents_on_their_nodes_network_copy_and_an_endpoint_that_starts_as_root_serves_nothing_as_root,
        ),
        on_site(
            "helm_test_says_what_does_not_work",
            install::helm_test_says_what_does_not_work,
        ),
        on_site(
            "people_may_do_with_policies_what_their_role_in_the_namespace_lets_them",
            rights::people_may_do_with_policies_what_their_role_in_the_namespace_lets_them,
        ),
        on_site(
            "the_operator_uses_every_right_that_it_has_and_is_denied_nothing",
            rights::the_operator_uses_every_right_that_it_has_and_is_denied_nothing,
        ),
        on_site(
            "the_operator_may_change_its_own_annotations_of_pods_and_nothing_else",
            rights::the_operator_may_change_its_own_annotations_of_pods_and_nothing_else,
        ),
        on_site(
            "policies_of_every_kind_copy_what_they_say_and_kubectl_shows_how_each_stands",
            policies::policies_of_every_kind_copy_what_they_say_and_kubectl_shows_how_each_stands,
        ),
        on_site(
            "a_bad_policy_is_refused_or_told_what_is_wrong_and_the_others_run",
            refusals::a_bad_policy_is_refused_or_told_what_is_wrong_and_the_others_run,
        ),
        on_site(
            "of_policies_in_conflict_one_runs_and_the_others_learn_why_and_take_over_when_it_goes",
            refusals::of_policies_in_conflict_one_runs_and_the_others_learn_why_and_take_over_when_it_goes,
        ),
        on_site(
            "a_typo_in_a_container_is_told_and_the_policy_is_ready_once_it_is_corrected",
            changes::a_typo_in_a_container_is_told_and_the_policy_is_ready_once_it_is_corrected,
        ),
        on_site(
            "a_policy_whose_target_changes_starts_over_and_old_copies_stay",
            changes::a_policy_whose_target_changes_starts_over_and_old_copies_stay,
        ),
        on_site(
            "a_policy_is_suspended_resumed_and_deleted_and_its_copies_stay",
            changes::a_policy_is_suspended_resumed_and_deleted_and_its_copies_stay,
        ),
        on_site(
            "a_secret_may_come_late_lack_a_key_change_and_go_and_each_is_told_without_its_values",
            secrets::a_secret_may_come_late_lack_a_key_change_and_go_and_each_is_told_without_its_values,
        ),
        on_site(
            "certificates_that_cannot_be_got_are_told_so_and_what_ran_with_them_runs_on",
            secrets::certificates_that_cannot_be_got_are_told_so_and_what_ran_with_them_runs_on,
        ),
        on_site(
            "a_tenants_policy_reaches_agents_while_a_grant_covers_it_and_not_before_or_after",
            tenants::a_tenants_policy_reaches_agents_while_a_grant_covers_it_and_not_before_or_after,
        ),
        on_site(
            "a_tenants_policy_aimed_at_what_only_agents_can_reach_is_never_dialled_and_says_so",
            tenants::a_tenants_policy_aimed_at_what_only_agents_can_reach_is_never_dialled_and_says_so,
        ),
        on_site(
            "an_agent_that_dies_or_stands_still_is_told_with_its_last_numbers_until_it_is_back",
            agents::an_agent_that_dies_or_stands_still_is_told_with_its_last_numbers_until_it_is_back,
        ),
        on_site(
            "a_drained_node_keeps_its_agent_and_the_others_do_the_part_of_one_that_lost_it_or_its_swift",
            maintenance::a_drained_node_keeps_its_agent_and_the_others_do_the_part_of_one_that_lost_it_or_its_swift,
        ),
        on_site(
            "a_deleted_namespace_takes_its_policies_along_leaves_the_copies_and_stops_no_others",
            namespaces::a_deleted_namespace_takes_its_policies_along_leaves_the_copies_and_stops_no_others,
        ),
        on_site(
            "a_namespace_restored_from_a_dump_goes_on_where_it_was_and_sends_nothing_again",
            namespaces::a_namespace_restored_from_a_dump_goes_on_where_it_was_and_sends_nothing_again,
        ),
        on_site(
            "an_agent_that_the_operator_cannot_reach_is_told_and_works_on_and_learns_of_changes",
            unreachable::an_agent_that_the_operator_cannot_reach_is_told_and_works_on_and_learns_of_changes,
        ),
        on_site(
            "an_operator_killed_or_frozen_while_it_works_is_replaced_and_its_work_is_finished_and_never_undone",
            operators::an_operator_killed_or_frozen_while_it_works_is_replaced_and_its_work_is_finished_and_never_undone,
        ),
        on_site(
            "a_chart_with_a_changed_crd_is_upgraded_to_and_rolled_back_and_policies_go_on_and_send_nothing_again",
            upgrades::a_chart_with_a_changed_crd_is_upgraded_to_and_rolled_back_and_policies_go_on_and_send_nothing_again,
        ),
        on_site(
            "agents_run_what_they_understand_of_a_later_operators_files_and_everything_after_the_way_back",
            upgrades::agents_run_what_they_understand_of_a_later_operators_files_and_everything_after_the_way_back,
        ),
        on_site(
            "uninstalling_leaves_policies_and_copies_and_nothing_that_cannot_be_deleted",
            uninstall::uninstalling_leaves_policies_and_copies_and_nothing_that_cannot_be_deleted,
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
