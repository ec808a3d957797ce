//! Objects whose copy takes long: what the rest of their container sees of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use onespace_core::reason::PauseReason;
use onespace_core::report::{RunState, rfc3339};
use onespace_node_agent::clock::Clock;
use onespace_node_agent::mapping_task::Command;
use world::{CONTAINER, World, mapping, pass, paused, settle};

/// Much longer than a turn.
const LONG: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

fn slow(world: &World, name: &str, time: Duration) {
    world.things().slow_puts.insert(name.into(), time);
}

fn at_full_speed(world: &World) {
    world.things().slow_puts.clear();
}

#[tokio::test(start_paused = true)]
async fn rows_behind_an_object_that_takes_long_are_copied_meanwhile_and_it_counts_as_pending() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    slow(&world, "huge", 3 * LONG);
    let put_at = world.clock.now();
    world.put(CONTAINER, "huge", "h");
    pass(MINUTE).await;
    for index in 0..10 {
        world.put(CONTAINER, &format!("small {index}"), "s");
        pass(MINUTE).await;
        assert_eq!(world.at_remote(&format!("small {index}")).as_deref(), Some("s"));
    }
    world.delete(CONTAINER, "small 0");
    pass(MINUTE).await;
    assert_eq!(world.at_remote("small 0"), None);
    let report = handle.reports.borrow().clone();
    assert_eq!(
        (report.pending.rows, report.held.rows),
        (1, 0),
        "it is no failure"
    );
    assert!(report.held.latest.is_empty());
    assert_eq!(
        report.pending.oldest,
        Some(rfc3339(put_at)),
        "its lag is not hidden"
    );
    assert!(!report.idle);
    pass(3 * LONG).await;
    assert_eq!(world.at_remote("huge").as_deref(), Some("h"));
    let report = settle(&handle).await;
    assert_eq!(
        (report.pending.rows, report.held.rows, report.totals.objects),
        (0, 0, 11)
    );
    let sent = world
        .things()
        .requests
        .iter()
        .filter(|request| *request == "PUT huge")
        .count();
    assert_eq!(sent, 1, "it was sent once");
}

#[tokio::test(start_paused = true)]
async fn later_versions_of_an_object_that_is_on_its_way_follow_it_in_their_order() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    slow(&world, "huge", LONG);
    world.put(CONTAINER, "huge", "first");
    pass(MINUTE).await;
    world.put(CONTAINER, "huge", "second");
    pass(MINUTE).await;
    at_full_speed(&world);
    world.put(CONTAINER, "other", "o");
    pass(MINUTE).await;
    assert_eq!(world.at_remote("other").as_deref(), Some("o"));
    assert_eq!(world.at_remote("huge"), None);
    pass(LONG).await;
    settle(&handle).await;
    assert_eq!(world.at_remote("huge").as_deref(), Some("second"));
    slow(&world, "huge", LONG);
    world.put(CONTAINER, "huge", "third");
    pass(MINUTE).await;
    world.delete(CONTAINER, "huge");
    pass(2 * LONG).await;
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("huge"), None, "its delete came after it");
    assert_eq!((report.pending.rows, report.held.rows), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_long_copy_goes_on_while_keys_are_renewed_and_a_retry_is_asked_for() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    slow(&world, "huge", LONG);
    world.put(CONTAINER, "huge", "h");
    pass(MINUTE).await;
    let mut renewed = mapping();
    renewed.policy.generation += 1;
    renewed.triggers.retry = Some("today".into());
    let generation = renewed.policy.generation;
    let order = Command::GoOn {
        mapping: Arc::new(renewed),
        renewed: true,
    };
    let before = world.things().probes;
    handle.commands.send(order.into()).await.unwrap();
    world.put(CONTAINER, "small", "s");
    pass(MINUTE).await;
    assert_eq!(world.at_remote("small").as_deref(), Some("s"));
    assert_eq!(
        world.things().probes,
        before + 1,
        "new keys may be denied what the former were not"
    );
    let report = handle.reports.borrow().clone();
    assert_eq!(report.handled.retry.as_deref(), Some("today"));
    assert_eq!(report.policy.map(|policy| policy.generation), Some(generation));
    pass(LONG).await;
    settle(&handle).await;
    assert_eq!(world.at_remote("huge").as_deref(), Some("h"));
    let things = world.things();
    let sent = things.requests.iter().filter(|request| *request == "PUT huge");
    assert_eq!(sent.count(), 1, "it was sent once");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_stopped_waits_for_no_long_copy_and_makes_it_anew_when_it_runs_again() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    slow(&world, "huge", 10 * LONG);
    world.put(CONTAINER, "huge", "h");
    pass(MINUTE).await;
    world.put(CONTAINER, "small", "s");
    pass(MINUTE).await;
    let before = world.clock.now();
    world.stop(handle).await;
    assert!(world.clock.now().duration_since(before) < MINUTE);
    assert_eq!(world.at_remote("huge"), None);
    at_full_speed(&world);
    let handle = world.start(mapping());
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("huge").as_deref(), Some("h"));
    assert_eq!((report.pending.rows, report.held.rows), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_fails_late_in_a_long_copy_charges_the_row_nothing_and_it_is_made_again() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    slow(&world, "huge", LONG);
    world.put(CONTAINER, "huge", "h");
    pass(LONG / 2).await;
    world.things().remote_trouble = Some(paused(PauseReason::Unreachable));
    pass(LONG / 2 + MINUTE).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(report.state, RunState::Paused);
    assert_eq!((report.held.rows, report.pending.rows), (0, 1));
    at_full_speed(&world);
    world.things().remote_trouble = None;
    pass(LONG).await;
    settle(&handle).await;
    assert_eq!(world.at_remote("huge").as_deref(), Some("h"));
}

#[tokio::test(start_paused = true)]
async fn a_long_copy_that_always_fails_is_held_after_some_pauses() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    slow(&world, "huge", MINUTE);
    world
        .things()
        .put_trouble
        .insert("huge".into(), paused(PauseReason::Timeout));
    world.put(CONTAINER, "huge", "h");
    pass(3 * LONG).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(report.held.rows, 1, "{report:#?}");
    assert_eq!(report.held.latest[0].reason, "RemoteFailed");
    world.put(CONTAINER, "small", "s");
    pass(MINUTE).await;
    assert_eq!(world.at_remote("small").as_deref(), Some("s"));
}

#[tokio::test(start_paused = true)]
async fn more_long_copies_than_there_are_places_for_are_all_made() {
    let world = World::new();
    for index in 0..10 {
        let name = format!("huge {index}");
        slow(&world, &name, 5 * MINUTE);
        world.put(CONTAINER, &name, "h");
    }
    let handle = world.start(mapping());
    pass(6 * LONG).await;
    let report = settle(&handle).await;
    for index in 0..10 {
        assert_eq!(world.at_remote(&format!("huge {index}")).as_deref(), Some("h"));
    }
    assert_eq!((report.pending.rows, report.held.rows), (0, 0));
}
