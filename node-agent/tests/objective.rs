//! Objectives: how many rows were in step in time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::mapping::Mapping;
use onespace_core::objective::{Counts, Objective, Ratio};
use onespace_core::reason::PauseReason;
use onespace_node_agent::mapping_task::{Command, Handle};
use world::{CONTAINER, World, mapping, pass, paused, refused, settle};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Every row within a minute, over an hour.
fn measured() -> Mapping {
    Mapping {
        objective: Some(Objective {
            ratio: Ratio::parse("99.9%").unwrap(),
            within: 60,
            over: 3600,
        }),
        ..mapping()
    }
}

fn put_all(world: &World, names: std::ops::Range<u32>) {
    for name in names {
        world.put(CONTAINER, &format!("{name:03}"), "x");
    }
}

/// Good and missed rows.
fn shown(handle: &Handle) -> (u64, u64) {
    let report = handle.reports.borrow();
    let Counts { good, missed } = report.objective.as_ref().unwrap().rows;
    (good, missed)
}

#[tokio::test(start_paused = true)]
async fn rows_in_step_in_time_are_good_and_late_ones_are_missed_already_while_they_wait() {
    let world = World::new();
    let handle = world.start(measured());
    settle(&handle).await;
    assert_eq!(shown(&handle), (0, 0));
    put_all(&world, 0..10);
    settle(&handle).await;
    assert_eq!(shown(&handle), (10, 0));
    world.things().remote_trouble = Some(paused(PauseReason::Unreachable));
    put_all(&world, 10..14);
    pass(MINUTE / 2).await;
    assert_eq!(shown(&handle), (10, 0), "they are not late yet");
    pass(MINUTE).await;
    assert_eq!(shown(&handle), (10, 4));
    world.things().remote_trouble = None;
    settle(&handle).await;
    assert_eq!(shown(&handle), (10, 4));
    world.delete(CONTAINER, "000");
    settle(&handle).await;
    assert_eq!(shown(&handle), (11, 4), "a delete is a row, too");
    pass(HOUR + 2 * MINUTE).await;
    assert_eq!(shown(&handle), (0, 0), "the window has passed");
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_of_old_rows_counts_neither_as_good_nor_as_missed() {
    let world = World::new();
    put_all(&world, 0..20);
    world.delete(CONTAINER, "000");
    world.things().put_trouble.insert("001".into(), refused());
    pass(HOUR / 2).await;
    let handle = world.start(measured());
    settle(&handle).await;
    assert_eq!(shown(&handle), (0, 0));
    // What Swift brings later keeps its time: rows of a shard, or of a replica that was away.
    world.replace(CONTAINER);
    settle(&handle).await;
    assert_eq!(shown(&handle), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_survives_restarts_and_kills_and_is_counted_once() {
    let world = World::new();
    let handle = world.start(measured());
    settle(&handle).await;
    put_all(&world, 0..10);
    settle(&handle).await;
    world.stop(handle).await;
    put_all(&world, 10..12);
    pass(2 * MINUTE).await;
    let handle = world.start(measured());
    settle(&handle).await;
    assert_eq!(shown(&handle), (10, 2), "nobody was there");
    handle.task.abort();
    let _ = handle.task.await;
    let handle = world.start(measured());
    settle(&handle).await;
    assert_eq!(shown(&handle), (10, 2));
    let since = handle.reports.borrow().objective.clone().unwrap().since;
    assert!(since.is_some());
    world.stop(handle).await;
    // Judged by other times, they would count otherwise.
    let mut other = measured();
    other.objective.as_mut().unwrap().within = 600;
    let handle = world.start(other);
    settle(&handle).await;
    assert_eq!(shown(&handle), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_row_behind_one_that_fails_counts_once_and_by_when_it_was_done() {
    let world = World::new();
    let handle = world.start(measured());
    settle(&handle).await;
    world
        .things()
        .put_trouble
        .insert("000".into(), paused(PauseReason::SlowDown));
    put_all(&world, 0..2);
    pass(5 * MINUTE).await;
    assert_eq!(world.at_remote("001").as_deref(), Some("x"));
    world.things().put_trouble.clear();
    settle(&handle).await;
    assert_eq!(shown(&handle), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_held_row_counts_as_missed_until_it_is_done_in_time() {
    let world = World::new();
    let handle = world.start(measured());
    settle(&handle).await;
    world.things().put_trouble.insert("000".into(), refused());
    put_all(&world, 0..3);
    pass(MINUTE / 4).await;
    assert_eq!(shown(&handle), (2, 1));
    world.things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    settle(&handle).await;
    assert_eq!(shown(&handle), (3, 0));
    world.things().put_trouble.insert("003".into(), refused());
    put_all(&world, 3..4);
    pass(2 * HOUR).await;
    assert_eq!(shown(&handle), (0, 1), "as long as it waits");
    world.things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    settle(&handle).await;
    assert_eq!(shown(&handle), (0, 0), "the window has passed");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_takes_long_is_missed_from_when_it_is_late_and_counts_once() {
    let world = World::new();
    let handle = world.start(measured());
    settle(&handle).await;
    world.things().slow_puts.insert("000".into(), 5 * MINUTE);
    put_all(&world, 0..3);
    pass(MINUTE * 3 / 4).await;
    assert_eq!(shown(&handle), (2, 0), "it is not late yet");
    pass(MINUTE).await;
    assert_eq!(shown(&handle), (2, 1));
    settle(&handle).await;
    assert_eq!(world.at_remote("000").as_deref(), Some("x"));
    assert_eq!(shown(&handle), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn time_counts_from_when_a_row_is_due_and_excluded_rows_do_not_count() {
    let world = World::new();
    let mapping = Mapping {
        copy_after: 7200,
        exclude: Some("01".into()),
        ..measured()
    };
    let handle = world.start(mapping);
    settle(&handle).await;
    put_all(&world, 0..15);
    pass(HOUR).await;
    assert_eq!(shown(&handle), (0, 0));
    pass(HOUR + MINUTE / 2).await;
    assert_eq!(world.at_remote("009").as_deref(), Some("x"));
    assert_eq!(shown(&handle), (10, 0));
}
