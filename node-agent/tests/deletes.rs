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
use onespace_core::naming::primary_index;
use onespace_core::report::{MappingReport, RunState};
use onespace_node_agent::clock::Clock as _;
use onespace_node_agent::mapping_task::{Command, Handle};
use onespace_node_agent::state::State;
use onespace_node_agent::work::Limits;
use world::{CONTAINER, World, mapping, pass, path, settle};

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
    handle.commands.send(command.into()).await.unwrap();
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
async fn a_batch_is_carried_out_though_swift_has_forgotten_its_tombstones_before_it_is_released() {
    let world = World::new();
    pass(seconds(60)).await;
    for number in 0..8 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    let handle = world.start_with(with_budget("2"), close_clocks());
    settle(&handle).await;
    pass(seconds(300)).await;
    delete(&world, 0..6);
    let batch = settle(&handle).await.held_deletes.unwrap();
    assert_eq!((batch.rows, world.things().remote.len()), (4, 6));
    for number in 0..6 {
        world.forget(CONTAINER, &number.to_string());
    }
    world.put(CONTAINER, "5", "again");
    settle(&handle).await;
    release(&handle, &batch.id).await;
    let report = settle(&handle).await;
    let keys: Vec<_> = world.things().remote.keys().cloned().collect();
    assert_eq!(keys, ["5", "6", "7"]);
    assert_eq!((report.held_deletes, report.held.rows), (None, 0));
    assert_eq!(report.totals.deletes, 5);
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

/// How long Swift keeps tombstones here. Short, for an agent at work looks around twice a second of the world's time.
const RECLAIM_AGE: Duration = Duration::from_secs(1200);

/// Clocks that are less apart than tombstones live.
fn close_clocks() -> Limits {
    Limits {
        slack: seconds(60),
        ..Limits::default()
    }
}

async fn copied_before(world: &World, count: usize) -> Handle {
    world.things().reclaim_age = Some(RECLAIM_AGE);
    for number in 0..count {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    let handle = world.start_with(mapping(), close_clocks());
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), count);
    handle
}

/// A copied world whose agent is away for longer than tombstones live; in between, objects `gone` were deleted and
/// forgotten.
async fn away_for_too_long(count: usize, gone: std::ops::Range<usize>) -> World {
    let world = World::new();
    pass(seconds(60)).await;
    let handle = copied_before(&world, count).await;
    // One pass must have seen them: the first one began before they were put.
    pass(RECLAIM_AGE + seconds(300)).await;
    settle(&handle).await;
    world.stop(handle).await;
    delete(&world, gone.clone());
    pass(RECLAIM_AGE * 5).await;
    for number in gone {
        world.forget(CONTAINER, &number.to_string());
    }
    world
}

/// Starts the agent again, and gives it time for a pass and for what may wait to be tried again.
async fn back(world: &World, mapping: Mapping) -> (Handle, MappingReport) {
    let handle = world.start_with(mapping, close_clocks());
    let report = settle(&handle).await;
    (handle, report)
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_swift_forgot_while_the_agent_was_away_is_carried_out() {
    let world = away_for_too_long(8, 3..5).await;
    let (_handle, report) = back(&world, mapping()).await;
    let keys: Vec<_> = world.things().remote.keys().cloned().collect();
    assert_eq!(keys, ["0", "1", "2", "5", "6", "7"]);
    assert_eq!((report.totals.deletes, report.held.rows), (2, 0));
    assert_eq!(report.reconcile.unwrap().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_was_forgotten_before_its_time_is_found_once_in_a_reclaim_age() {
    let world = World::new();
    pass(seconds(60)).await;
    let handle = copied_before(&world, 5).await;
    pass(RECLAIM_AGE + seconds(300)).await;
    // An old-dated tombstone: gone before anyone could read it.
    world.things().objects.remove(&(CONTAINER.into(), "3".into()));
    world
        .things()
        .databases
        .get_mut(&path(CONTAINER))
        .unwrap()
        .rows
        .retain(|_, row| row.name != "3");
    settle(&handle).await;
    assert!(world.at_remote("3").is_some(), "nobody can know yet");
    pass(RECLAIM_AGE + seconds(10)).await;
    settle(&handle).await;
    assert_eq!(world.at_remote("3"), None);
}

#[tokio::test(start_paused = true)]
async fn the_first_pass_over_a_database_deletes_nothing_that_swift_forgot() {
    let mut world = away_for_too_long(8, 3..5).await;
    world.state = State::in_memory().unwrap();
    let (_handle, report) = back(&world, mapping()).await;
    assert_eq!((world.things().remote.len(), report.totals.deletes), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_does_not_propagate_deletes_reconciles_nothing() {
    let world = away_for_too_long(8, 3..5).await;
    let keep = Mapping {
        propagate_delete: false,
        ..mapping()
    };
    back(&world, keep).await;
    assert_eq!(world.things().remote.len(), 8);
}

/// Nothing is deleted while `trouble` lasts, for the reason that is given; afterwards all of it is.
async fn refused_while(
    trouble: impl Fn(&mut world::Things),
    mend: impl Fn(&mut world::Things),
    reason: Option<&str>,
) {
    let world = away_for_too_long(8, 3..5).await;
    trouble(&mut world.things());
    let handle = world.start_with(mapping(), close_clocks());
    pass(seconds(600)).await;
    assert_eq!(world.things().remote.len(), 8);
    let report = handle.reports.borrow().clone();
    assert_eq!(report.reconcile.unwrap().reason.as_deref(), reason);
    mend(&mut world.things());
    pass(seconds(1200)).await;
    assert_eq!(world.things().remote.len(), 6, "and when it is over they go");
    assert_eq!(handle.reports.borrow().held.rows, 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_being_sharded_is_not_reconciled() {
    for state in ["sharding", "sharded"] {
        refused_while(
            |things| things.sharding = Some(state),
            |things| things.sharding = None,
            Some("ContainerSharded"),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_lacks_rows_which_a_peer_has_is_not_reconciled() {
    refused_while(
        |things| things.peer_has_more = 1,
        |things| things.peer_has_more = 0,
        Some("PeersDiffer"),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_database_whose_peer_is_silent_is_not_reconciled() {
    refused_while(
        |things| things.peer_is_silent = true,
        |things| things.peer_is_silent = false,
        Some("PeerSilent"),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_name_a_peer_lists_stays() {
    let both = ["3".to_owned(), "4".to_owned()];
    refused_while(
        |things| things.peer_lists.extend(both.clone()),
        |things| things.peer_lists.clear(),
        None,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_stays_until_every_primary_object_server_says_that_the_object_is_gone() {
    let both = ["3".to_owned(), "4".to_owned()];
    refused_while(
        |things| things.primaries_unknown.extend(both.clone()),
        |things| things.primaries_unknown.clear(),
        None,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_an_object_server_still_has_keeps_its_copy_though_no_row_speaks_of_it() {
    let world = away_for_too_long(8, 3..5).await;
    world.store(CONTAINER, "3", "x");
    let (_handle, report) = back(&world, mapping()).await;
    assert!(world.at_remote("3").is_some());
    assert_eq!(world.at_remote("4"), None);
    assert_eq!(report.totals.deletes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_the_remote_forbids_to_look_at_stops_no_pass_and_pauses_nothing() {
    let world = away_for_too_long(8, 3..5).await;
    let forbidden = world::paused(onespace_core::reason::PauseReason::AccessDenied);
    world.things().head_trouble.insert("4".into(), forbidden);
    let (_handle, report) = back(&world, mapping()).await;
    assert_eq!((report.state, report.totals.deletes), (RunState::Running, 1));
    assert_eq!(world.at_remote("3"), None);
    assert!(world.at_remote("4").is_some());
}

#[tokio::test(start_paused = true)]
async fn copies_from_before_the_container_was_created_again_stay() {
    let world = away_for_too_long(8, 3..5).await;
    let now = world.clock.now();
    world
        .things()
        .databases
        .get_mut(&path(CONTAINER))
        .unwrap()
        .created = now;
    let (_handle, report) = back(&world, mapping()).await;
    assert_eq!((world.things().remote.len(), report.totals.deletes), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn what_has_no_mark_or_another_sources_or_archives_is_reported_and_stays() {
    let world = away_for_too_long(8, 3..5).await;
    world.put_at_remote("stranger's", "1");
    {
        let mut things = world.things();
        let mut foreign = things.remote["3"].clone();
        let metadata = &mut foreign.object.headers.metadata;
        metadata.insert("onespace-source".into(), "0".repeat(64));
        things.remote.insert("3".into(), foreign);
        let archived = things.remote.get_mut("4").unwrap();
        let metadata = &mut archived.object.headers.metadata;
        metadata.insert("onespace-mode".into(), "Archive".into());
    }
    let (_handle, report) = back(&world, mapping()).await;
    assert_eq!((world.things().remote.len(), report.totals.deletes), (9, 0));
    assert_eq!(report.reconcile.unwrap().unmarked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_the_same_source_under_another_mapping_is_ours() {
    let world = away_for_too_long(8, 3..4).await;
    {
        let mut things = world.things();
        let copy = things.remote.get_mut("3").unwrap();
        let metadata = &mut copy.object.headers.metadata;
        metadata.insert("onespace-mapping".into(), "f".repeat(32));
    }
    back(&world, mapping()).await;
    assert_eq!(world.at_remote("3"), None);
}

#[tokio::test(start_paused = true)]
async fn a_mass_delete_waits_for_a_person_also_over_a_restart() {
    let world = away_for_too_long(40, 0..20).await;
    let (handle, report) = back(&world, mapping()).await;
    assert_eq!((world.things().remote.len(), report.totals.deletes), (40, 0));
    let batch = report.held_deletes.unwrap();
    assert_eq!((batch.rows, batch.reason.as_str()), (20, "MassDelete"));
    assert_eq!(report.reason.as_deref(), Some("MassDelete"));
    // One of them lives again.
    world.put(CONTAINER, "7", "again");
    settle(&handle).await;
    world.stop(handle).await;
    let (handle, report) = back(&world, mapping()).await;
    assert_eq!(report.held_deletes.as_ref().map(|batch| batch.rows), Some(19));
    release(&handle, &batch.id).await;
    let report = settle(&handle).await;
    assert_eq!((world.things().remote.len(), report.totals.deletes), (21, 19));
    assert_eq!(world.at_remote("7").as_deref(), Some("again"));
    assert_eq!(report.held_deletes, None);
}

#[tokio::test(start_paused = true)]
async fn when_more_was_forgotten_than_may_wait_what_is_released_is_carried_out_and_the_rest_is_found() {
    let world = away_for_too_long(8, 3..8).await;
    let limits = Limits {
        held: 3,
        ..close_clocks()
    };
    let handle = world.start_with(mapping(), limits);
    let report = settle(&handle).await;
    let batch = report.held_deletes.unwrap();
    assert_eq!((batch.rows, batch.reason.as_str()), (3, "MassDelete"));
    release(&handle, &batch.id).await;
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_mass_delete_is_of_the_agents_own_part_of_the_names() {
    let nodes = {
        let world = World::new();
        [0, 1, 2].map(|index| world.node(index, 3))
    };
    let world = &nodes[0];
    pass(seconds(60)).await;
    world.things().reclaim_age = Some(RECLAIM_AGE);
    for number in 0..1200 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    let mut handles = Vec::new();
    for node in &nodes {
        handles.push(node.start_with(mapping(), close_clocks()));
    }
    pass(RECLAIM_AGE + seconds(600)).await;
    for (node, handle) in nodes.iter().zip(handles) {
        settle(&handle).await;
        node.stop(handle).await;
    }
    assert_eq!(world.things().remote.len(), 1200);
    // Ten are under a hundredth of all, and over a hundredth of this agent's third.
    let mine = (0..1200).filter(|number| primary_index(&number.to_string(), 3) == 0);
    let gone: Vec<_> = mine.take(10).map(|number| number.to_string()).collect();
    for name in &gone {
        world.delete(CONTAINER, name);
    }
    pass(RECLAIM_AGE * 5).await;
    for name in &gone {
        world.forget(CONTAINER, name);
    }
    let (_handle, report) = back(world, mapping()).await;
    assert_eq!(report.held_deletes.map(|batch| batch.rows), Some(10));
    assert_eq!(world.things().remote.len(), 1200);
}

#[tokio::test(start_paused = true)]
async fn forgotten_deletes_count_against_the_budget() {
    let world = away_for_too_long(8, 3..6).await;
    let (handle, report) = back(&world, with_budget("1")).await;
    let batch = report.held_deletes.unwrap();
    assert_eq!((batch.rows, batch.reason.as_str()), (2, "DeletesHeld"));
    assert_eq!(world.things().remote.len(), 7);
    release(&handle, &batch.id).await;
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_pass_of_many_pages_goes_on_after_a_restart() {
    let world = away_for_too_long(60, 20..22).await;
    let limits = Limits {
        chunk: 5,
        ..close_clocks()
    };
    let handle = world.start_with(mapping(), limits);
    let listings = || {
        let things = world.things();
        let listings = things
            .requests
            .iter()
            .filter(|request| request.starts_with("LIST"));
        listings.count()
    };
    let before = listings();
    while listings() < before + 4 {
        pass(Duration::from_millis(1)).await;
        assert_eq!(
            world.things().remote.len(),
            60,
            "the pass is under way before anything goes"
        );
    }
    world.stop(handle).await;
    assert_eq!(
        world.things().remote.len(),
        60,
        "nothing goes before the pass is over"
    );
    let handle = world.start_with(mapping(), limits);
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 58);
}
