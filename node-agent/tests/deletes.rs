//! Deletes in a world in memory: what goes at the remote, and above all what does not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::budget::{BudgetMax, DeleteBudget};
use onespace_core::mapping::{Mapping, MappingState, Triggers};
use onespace_core::report::RunState;
use onespace_node_agent::mapping_task::{Command, Handle};
use onespace_node_agent::state::State;
use onespace_node_agent::work::Limits;
use world::{CONTAINER, World, mapping, pass, settle};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_not_counted_as_done_because_the_bucket_is_gone() {
    let world = World::new();
    world.put(CONTAINER, "x", "1");
    let handle = world.start(mapping());
    settle(&handle).await;
    world.things().bucket_is_gone = true;
    world.delete(CONTAINER, "x");
    pass(seconds(30)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(report.state, RunState::Paused);
    assert_eq!(report.reason.as_deref(), Some("NoSuchBucket"));
    world.things().bucket_is_gone = false;
    settle(&handle).await;
    assert_eq!(
        world.at_remote("x"),
        None,
        "it is there again, and the delete was not forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn tombstones_of_a_database_that_is_first_seen_delete_our_copies_alone() {
    let mut world = World::new();
    world.put(CONTAINER, "ours", "1");
    let handle = world.start(mapping());
    settle(&handle).await;
    world.stop(handle).await;
    world.put_at_remote("stranger's", "1");
    world.delete(CONTAINER, "ours");
    world.delete(CONTAINER, "stranger's");
    world.delete(CONTAINER, "nobody's");
    world.state = State::in_memory().unwrap();
    let handle = world.start(mapping());
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("ours"), None);
    assert_eq!(world.at_remote("stranger's").as_deref(), Some("1"));
    assert_eq!(report.held.latest[0].reason, "NotOurs");
    assert_eq!((report.held.rows, report.totals.deletes), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_suspended_policy_stops_at_the_next_delete() {
    let world = World::new();
    for number in 0..60 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    let handle = world.start(mapping());
    settle(&handle).await;
    for number in 0..60 {
        world.delete(CONTAINER, &number.to_string());
    }
    while world.things().remote.len() == 60 {
        pass(Duration::from_millis(1)).await;
    }
    // What the supervisor does when the policy changes.
    world.stop(handle).await;
    let left = world.things().remote.len();
    assert!(
        left > 60 - 3 * 8,
        "rows under way are finished, and no others: {left} left"
    );
    let suspended = Mapping {
        state: MappingState::Suspended,
        ..mapping()
    };
    let handle = world.start(suspended);
    let report = settle(&handle).await;
    assert_eq!(report.state, RunState::Suspended);
    assert_eq!(world.things().remote.len(), left);
    world.stop(handle).await;
    let handle = world.start(mapping());
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 0);
}

/// A mapping that may delete so many copies in an hour.
fn with_budget(max: &str) -> Mapping {
    Mapping {
        delete_budget: Some(DeleteBudget {
            max: BudgetMax::parse(max).unwrap(),
            window: 3600,
        }),
        ..mapping()
    }
}

/// Puts objects `0`, `1`, ... and has them copied.
async fn copied(world: &World, mapping: Mapping, count: usize) -> Handle {
    for number in 0..count {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    let handle = world.start(mapping);
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), count);
    handle
}

fn delete(world: &World, numbers: std::ops::Range<usize>) {
    for number in numbers {
        world.delete(CONTAINER, &number.to_string());
    }
}

async fn release(handle: &Handle, batch: &str) {
    let command = Command::ReleaseDeletes(batch.to_owned());
    handle.commands.send(command).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletes_beyond_the_budget_wait_as_one_batch_while_all_else_goes_on() {
    let world = World::new();
    let handle = copied(&world, with_budget("5"), 20).await;
    delete(&world, 0..12);
    world.put(CONTAINER, "after", "1");
    let report = settle(&handle).await;
    assert_eq!(world.things().remote.len(), 20 - 5 + 1);
    let batch = report.held_deletes.unwrap();
    assert_eq!((batch.rows, batch.reason.as_str()), (7, "DeletesHeld"));
    assert_eq!(
        (report.state, report.reason.as_deref()),
        (RunState::Running, Some("DeletesHeld"))
    );
    assert!(report.message.unwrap().contains(&batch.id), "how to release it");
    assert_eq!((report.held.rows, report.pending.rows), (0, 0));

    release(&handle, "another").await;
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 16);
    release(&handle, &batch.id).await;
    let report = settle(&handle).await;
    assert_eq!(world.things().remote.len(), 9);
    assert_eq!((report.held_deletes, report.reason), (None, None));
    assert_eq!(report.totals.deletes, 12);
}

#[tokio::test(start_paused = true)]
async fn a_share_is_of_the_rows_that_were_live_when_the_window_began() {
    let world = World::new();
    let handle = copied(&world, with_budget("10%"), 50).await;
    pass(seconds(4000)).await;
    delete(&world, 0..1);
    settle(&handle).await;
    delete(&world, 1..30);
    let report = settle(&handle).await;
    assert_eq!(
        report.totals.deletes, 5,
        "of 49 or 50 rows, not of the 20 that are left"
    );
    assert_eq!(report.held_deletes.unwrap().rows, 25);
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_refill_a_budget_and_the_next_window_does() {
    let world = World::new();
    let handle = copied(&world, with_budget("2"), 10).await;
    delete(&world, 0..2);
    settle(&handle).await;
    world.stop(handle).await;
    delete(&world, 2..3);
    let handle = world.start(with_budget("2"));
    let report = settle(&handle).await;
    assert_eq!((report.totals.deletes, report.held_deletes.unwrap().rows), (2, 1));
    world.stop(handle).await;
    let handle = world.start(with_budget("2"));
    let report = settle(&handle).await;
    let batch = report.held_deletes.unwrap();
    assert_eq!(batch.rows, 1, "held deletes are durable");
    pass(seconds(3600)).await;
    delete(&world, 3..5);
    let report = settle(&handle).await;
    assert_eq!(report.totals.deletes, 4);
    assert_eq!(
        report.held_deletes.as_ref(),
        Some(&batch),
        "what waits for a person waits longer than a window"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_lives_again_is_not_deleted_when_its_batch_is_released() {
    let world = World::new();
    let handle = copied(&world, with_budget("0"), 3).await;
    delete(&world, 0..3);
    let batch = settle(&handle).await.held_deletes.unwrap();
    assert_eq!(batch.rows, 3);
    world.put(CONTAINER, "1", "again");
    settle(&handle).await;
    release(&handle, &batch.id).await;
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("1").as_deref(), Some("again"));
    assert_eq!((world.things().remote.len(), report.totals.deletes), (1, 2));
    assert_eq!(report.held_deletes, None);
}

#[tokio::test(start_paused = true)]
async fn a_release_trigger_acts_once_and_is_echoed() {
    let world = World::new();
    let handle = copied(&world, with_budget("0"), 4).await;
    delete(&world, 0..2);
    let batch = settle(&handle).await.held_deletes.unwrap();
    world.stop(handle).await;
    let triggered = |value: &str| Mapping {
        triggers: Triggers {
            release_deletes: Some(value.to_owned()),
            ..Triggers::default()
        },
        ..with_budget("0")
    };
    // Other agents have batches of their own.
    let value = format!("{}, fromAnotherAgent", batch.id);
    let handle = world.start(triggered(&value));
    let report = settle(&handle).await;
    assert_eq!(world.things().remote.len(), 2);
    assert_eq!(report.handled.release_deletes.as_ref(), Some(&value));
    delete(&world, 2..3);
    let second = settle(&handle).await.held_deletes.unwrap();
    assert_ne!(second.id, batch.id);
    world.stop(handle).await;
    let handle = world.start(triggered(&value));
    let report = settle(&handle).await;
    assert_eq!(
        (world.things().remote.len(), report.held_deletes.unwrap().rows),
        (2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn when_no_more_deletes_may_wait_deletes_stand_still_and_nothing_else_does() {
    let world = World::new();
    for number in 0..8 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    let limits = Limits {
        held: 3,
        ..Limits::default()
    };
    let handle = world.start_with(with_budget("0"), limits);
    settle(&handle).await;
    delete(&world, 0..6);
    pass(seconds(10)).await;
    let before = world.things().requests.len();
    pass(seconds(60)).await;
    let requests = world.things().requests.len() - before;
    assert!(requests < 10, "{requests} requests in a minute");
    world.put(CONTAINER, "after", "1");
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("after").as_deref(), Some("1"));
    assert_eq!(report.held_deletes.as_ref().unwrap().rows, 3);
    assert!(report.message.unwrap().contains("stand still"));
    assert_eq!(report.pending.rows, 3, "and shown as what is left to do");
    release(&handle, &report.held_deletes.unwrap().id).await;
    let report = settle(&handle).await;
    assert_eq!(report.held_deletes.as_ref().unwrap().rows, 3, "the next batch");
    release(&handle, &report.held_deletes.unwrap().id).await;
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 3);
}
