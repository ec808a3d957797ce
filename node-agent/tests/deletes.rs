//! Deletes in a world in memory: what goes at the remote, and above all what does not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::mapping::{Mapping, MappingState};
use onespace_core::report::RunState;
use onespace_node_agent::state::State;
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
