//! The budget of deletes with several agents: what waits for a person at one is not carried out by another.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::budget::{BudgetMax, DeleteBudget};
use onespace_core::mapping::Mapping;
use onespace_core::naming::primary_index;
use onespace_core::report::{HeldDeletes, MappingReport};
use onespace_node_agent::mapping_task::{Command, Handle};
use onespace_node_agent::work::Limits;
use world::{CONTAINER, World, mapping, pass, settle};

/// Ten of the budget's windows: by the time that rows are verified, a budget of today's would be full again.
const SLACK: Duration = Duration::from_secs(150);

const WINDOW: u64 = 15;

/// Enough for what is due.
const SOON: Duration = Duration::from_secs(20);

/// After so long, what was passed just now has been verified, and tried again.
const LONG: Duration = Duration::from_secs(600);

/// So many deletes of each agent's in a window.
const BUDGET: usize = 5;

fn budgeted() -> Mapping {
    Mapping {
        delete_budget: Some(DeleteBudget {
            max: BudgetMax::Rows(BUDGET as u64),
            window: WINDOW,
        }),
        ..mapping()
    }
}

fn start(node: &World) -> Handle {
    let limits = Limits {
        slack: SLACK,
        ..Limits::default()
    };
    node.start_with(budgeted(), limits)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:05}")).collect()
}

fn names_of(index: u32, count: usize) -> Vec<String> {
    let mut names = names(count);
    names.retain(|name| primary_index(name, 3) == index);
    names
}

fn delete(world: &World, names: &[String]) {
    for name in names {
        world.delete(CONTAINER, name);
    }
}

fn left(world: &World) -> usize {
    world.things().remote.len()
}

fn report(handle: &Handle) -> MappingReport {
    handle.reports.borrow().clone()
}

fn batch(handle: &Handle) -> Option<HeldDeletes> {
    report(handle).held_deletes
}

async fn release(handle: &Handle) {
    let batch = batch(handle).unwrap().id;
    handle
        .commands
        .send(Command::ReleaseDeletes(batch).into())
        .await
        .unwrap();
}

async fn kill(handle: Handle) {
    handle.task.abort();
    let _ = handle.task.await;
}

/// Three nodes whose agents have copied these objects and verified each other's work.
async fn three(count: usize) -> ([World; 3], Vec<Handle>) {
    let world = World::new();
    let nodes = [0, 1, 2].map(|index| world.node(index, 3));
    let handles: Vec<_> = nodes.iter().map(start).collect();
    settle(&handles[0]).await;
    for name in names(count) {
        world.put(CONTAINER, &name, "x");
    }
    pass(2 * SLACK).await;
    assert_eq!(left(&world), count);
    (nodes, handles)
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_one_agent_is_carried_out_by_no_other_in_whatever_window() {
    let (nodes, handles) = three(60).await;
    delete(&nodes[0], &names(40));
    pass(SOON).await;
    let own: Vec<_> = (0..3).map(|index| names_of(index, 40).len() - BUDGET).collect();
    let waiting = |handles: &[Handle]| -> Vec<_> {
        let batches = handles.iter().map(|handle| batch(handle).unwrap());
        batches.map(|batch| batch.rows as usize).collect()
    };
    assert_eq!(
        (left(&nodes[0]), waiting(&handles)),
        (60 - 3 * BUDGET, own.clone())
    );
    pass(LONG).await;
    assert_eq!(
        (left(&nodes[0]), waiting(&handles)),
        (60 - 3 * BUDGET, own.clone())
    );
    // A release is of one agent's own batch.
    release(&handles[1]).await;
    pass(SOON).await;
    assert_eq!(left(&nodes[0]), 60 - 3 * BUDGET - own[1]);
    release(&handles[0]).await;
    release(&handles[2]).await;
    pass(SOON).await;
    assert_eq!(left(&nodes[0]), 20);
    // What the others kept waiting of it is gone without a release.
    pass(LONG).await;
    for handle in &handles {
        let report = report(handle);
        assert_eq!((report.held_deletes, report.verify.rows), (None, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn few_deletes_of_a_dead_agent_are_carried_out_and_many_wait_for_a_person() {
    let (nodes, mut handles) = three(90).await;
    kill(handles.pop().unwrap()).await;
    let dead = names_of(2, 90);
    delete(&nodes[0], &dead[..BUDGET]);
    pass(2 * SLACK).await;
    assert_eq!(left(&nodes[0]), 90 - BUDGET, "a budget's worth is everyday work");
    let many = &dead[BUDGET..4 * BUDGET];
    delete(&nodes[0], many);
    pass(LONG).await;
    assert_eq!(left(&nodes[0]), 90 - BUDGET, "so many are not");
    for handle in &handles {
        let report = report(handle);
        let batch = report.held_deletes.unwrap();
        assert_eq!(
            (batch.rows as usize, batch.reason.as_str()),
            (many.len(), "DeletesHeld")
        );
        assert_eq!(report.reason.as_deref(), Some("DeletesHeld"));
        assert_eq!(
            report.verify.rows as usize,
            many.len(),
            "they count as unverified"
        );
        assert_eq!(report.held.latest[0].reason, "DeleteWaits");
    }
    release(&handles[1]).await;
    pass(SOON).await;
    assert_eq!(left(&nodes[0]), 90 - BUDGET - many.len());
    pass(LONG).await;
    assert_eq!((batch(&handles[0]), batch(&handles[1])), (None, None));
}

#[tokio::test(start_paused = true)]
async fn many_deletes_that_come_over_the_end_of_a_window_wait_all_the_same() {
    let (nodes, mut handles) = three(90).await;
    kill(handles.pop().unwrap()).await;
    let dead = names_of(2, 90);
    // The dead agent's windows begin when it likes: these could all be in one.
    delete(&nodes[0], &dead[..1]);
    pass(Duration::from_secs(WINDOW - 3)).await;
    delete(&nodes[0], &dead[1..BUDGET]);
    pass(Duration::from_secs(6)).await;
    delete(&nodes[0], &dead[BUDGET..BUDGET + 3]);
    pass(LONG).await;
    assert_eq!(left(&nodes[0]), 90);
    assert_eq!(batch(&handles[0]).unwrap().rows as usize, BUDGET + 3);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_judged_when_it_is_verified_waits_all_the_same() {
    let (nodes, mut handles) = three(60).await;
    kill(handles.pop().unwrap()).await;
    let dead = names_of(2, 60);
    delete(&nodes[0], &dead[..3 * BUDGET]);
    // The tombstones themselves are on an object server that does not answer.
    for name in &dead {
        let mut things = nodes[0].things();
        things.primaries_unknown.insert(name.clone());
        if dead[..3 * BUDGET].contains(name) {
            things.objects.remove(&(CONTAINER.to_owned(), name.clone()));
        }
    }
    pass(2 * SLACK).await;
    nodes[0].things().primaries_unknown.clear();
    pass(LONG).await;
    assert_eq!(left(&nodes[0]), 60);
    assert_eq!(batch(&handles[0]).unwrap().rows as usize, 3 * BUDGET);
    release(&handles[0]).await;
    pass(SOON).await;
    assert_eq!(left(&nodes[0]), 60 - 3 * BUDGET);
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_an_agents_place_does_not_carry_out_what_waited_there() {
    let (nodes, mut handles) = three(60).await;
    delete(&nodes[0], &names(40));
    pass(SOON).await;
    let before = left(&nodes[0]);
    kill(handles.remove(0)).await;
    let mut heir = nodes[1].clone();
    kill(handles.remove(0)).await;
    heir.part = (0, 3);
    let handle = start(&heir);
    pass(LONG).await;
    assert_eq!(left(&heir), before);
    while let Some(batch) = batch(&handle) {
        assert!(batch.rows > 0);
        release(&handle).await;
        pass(SOON).await;
    }
    assert_eq!(left(&heir), 20);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_lost_its_state_counts_anew_and_keeps_the_rest_waiting() {
    let (nodes, mut handles) = three(60).await;
    delete(&nodes[0], &names(40));
    pass(SOON).await;
    kill(handles.remove(0)).await;
    let forgetful = nodes[0].node(0, 3);
    let before = left(&forgetful);
    let handle = start(&forgetful);
    pass(LONG).await;
    assert_eq!(left(&forgetful), before - BUDGET);
    let rest = names_of(0, 40).len() - 2 * BUDGET;
    assert_eq!(batch(&handle).unwrap().rows as usize, rest);
}
