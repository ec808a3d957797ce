//! Which databases a mapping follows, and what happens when they come, go, hang, or are sharded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::mapping::{Mapping, Source};
use onespace_core::plan::Held as Hold;
use onespace_core::reason::HoldReason;
use onespace_core::report::RunState;
use onespace_node_agent::clock::Clock;
use onespace_node_agent::mapping_task::Command;
use onespace_node_agent::state::{DatabaseKey, HeldKey, Holding};
use world::{CONTAINER, World, mapping, pass, path, settle};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn all_containers() -> Mapping {
    Mapping {
        source: Source {
            account: "a".into(),
            container: "/*".into(),
        },
        ..mapping()
    }
}

/// What the sharder does first: a shard with a copy of these rows, tombstones last.
fn cleave(world: &World, shard: &str, names: impl Fn(&str) -> bool) {
    world.create(shard);
    let mut rows: Vec<_> = world.things().databases[&path(CONTAINER)]
        .rows
        .values()
        .filter(|row| names(&row.name))
        .cloned()
        .collect();
    rows.sort_by(|a, b| (a.deleted, &a.name).cmp(&(b.deleted, &b.name)));
    for row in rows {
        world.insert(shard, row);
    }
}

#[tokio::test(start_paused = true)]
async fn sharding_sends_nothing_anew_and_deletes_nothing_and_what_users_do_meanwhile_arrives() {
    let world = World::new();
    for number in 0..40 {
        world.put(CONTAINER, &format!("o{number:02}"), "before");
    }
    world.put(CONTAINER, "gone", "x");
    let handle = world.start(mapping());
    settle(&handle).await;
    world.delete(CONTAINER, "gone");
    settle(&handle).await;
    let before = world.things().requests.len();

    // Two shards, each with a copy of its half; then the rows go from the root without tombstones.
    cleave(&world, "c#1", |name| name < "o20");
    cleave(&world, "c#2", |name| name >= "o20");
    world.put(CONTAINER, "o00", "while it is sharded");
    world.delete(CONTAINER, "o01");
    settle(&handle).await;
    cleave(&world, "c#1", |name| name < "o20");
    world
        .things()
        .databases
        .get_mut(&path(CONTAINER))
        .unwrap()
        .rows
        .clear();
    settle(&handle).await;
    world.things().databases.remove(&path(CONTAINER));
    world.put("c#2", "o30", "after");
    world.put("c#2", "o99", "after");
    world.delete("c#1", "o02");
    let report = settle(&handle).await;

    assert_eq!(report.databases.open, 2);
    assert_eq!(world.at_remote("o00").as_deref(), Some("while it is sharded"));
    assert_eq!(world.at_remote("o30").as_deref(), Some("after"));
    assert_eq!(world.at_remote("o99").as_deref(), Some("after"));
    assert_eq!((world.at_remote("o01"), world.at_remote("o02")), (None, None));
    let things = world.things();
    assert_eq!(things.remote.len(), 39);
    let of = |verb: &str| {
        let mut keys: Vec<_> = things.requests[before..]
            .iter()
            .filter_map(|request| request.strip_prefix(verb))
            .filter(|key| !key.contains(".onespace"))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    assert_eq!(of("PUT "), ["o00", "o30", "o99"]);
    assert_eq!(of("DELETE "), ["o01", "o02"]);
}

/// Requests of a kind since so many, but for probes: the keys.
fn asked(world: &World, since: usize, verb: &str) -> Vec<String> {
    let things = world.things();
    let keys = things.requests[since..]
        .iter()
        .filter_map(|request| request.strip_prefix(verb))
        .filter(|key| !key.contains(".onespace"));
    let mut keys: Vec<_> = keys.map(ToOwned::to_owned).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A container that was sharded in two, everything copied.
async fn sharded() -> (World, onespace_node_agent::mapping_task::Handle) {
    let world = World::new();
    for number in 0..40 {
        world.put(CONTAINER, &format!("o{number:02}"), "before");
    }
    let handle = world.start(mapping());
    settle(&handle).await;
    cleave(&world, "c#1", |name| name < "o20");
    cleave(&world, "c#2", |name| name >= "o20");
    settle(&handle).await;
    world.things().databases.remove(&path(CONTAINER));
    assert_eq!(settle(&handle).await.databases.open, 2);
    (world, handle)
}

/// What the sharder does with the rows of a shard: they go into another one, and vanish here without tombstones.
fn move_rows(world: &World, from: &str, to: &str, names: impl Fn(&str) -> bool) {
    let moved: Vec<_> = {
        let mut things = world.things();
        let db = things.databases.get_mut(&path(from)).unwrap();
        let moved = db.rows.values().filter(|row| names(&row.name)).cloned().collect();
        db.rows.retain(|_, row| !names(&row.name));
        moved
    };
    for row in moved {
        world.insert(to, row);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_merged_into_another_loses_and_deletes_nothing() {
    let (world, handle) = sharded().await;
    world.things().put_trouble.insert("o25".into(), world::refused());
    world.put("c#2", "o25", "held when it moves");
    assert_eq!(settle(&handle).await.held.rows, 1);
    let before = world.things().requests.len();
    // Updates that come to the shard that shrinks until the last moment, and to the other already.
    world.put("c#2", "o30", "just before");
    world.delete("c#2", "o31");
    move_rows(&world, "c#2", "c#1", |_| true);
    world.put("c#1", "o32", "just after");
    world.delete("c#1", "o33");
    settle(&handle).await;
    world.things().put_trouble.clear();
    world.things().databases.remove(&path("c#2"));
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    let report = settle(&handle).await;
    assert_eq!(
        (report.databases.open, report.held.rows, report.pending.rows),
        (1, 0, 0)
    );
    for (name, body) in [
        ("o25", "held when it moves"),
        ("o30", "just before"),
        ("o32", "just after"),
    ] {
        assert_eq!(world.at_remote(name).as_deref(), Some(body));
    }
    assert_eq!(world.things().remote.len(), 38);
    assert_eq!(asked(&world, before, "PUT "), ["o25", "o30", "o32"]);
    assert_eq!(asked(&world, before, "DELETE "), ["o31", "o33"]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_sharded_again_loses_and_deletes_nothing() {
    let (world, handle) = sharded().await;
    let before = world.things().requests.len();
    for shard in ["c#3", "c#4"] {
        world.create(shard);
    }
    world.put("c#2", "o21", "just before");
    world.delete("c#2", "o22");
    move_rows(&world, "c#2", "c#3", |name| name < "o30");
    // The first of them takes updates already, while the other has not come to be.
    world.put("c#3", "o23", "in between");
    world.put("c#2", "o35", "in between");
    settle(&handle).await;
    move_rows(&world, "c#2", "c#4", |_| true);
    world.things().databases.remove(&path("c#2"));
    world.delete("c#4", "o36");
    let report = settle(&handle).await;
    assert_eq!(
        (report.databases.open, report.held.rows, report.pending.rows),
        (3, 0, 0)
    );
    for (name, body) in [
        ("o21", "just before"),
        ("o23", "in between"),
        ("o35", "in between"),
    ] {
        assert_eq!(world.at_remote(name).as_deref(), Some(body));
    }
    assert_eq!(world.things().remote.len(), 38);
    assert_eq!(asked(&world, before, "PUT "), ["o21", "o23", "o35"]);
    assert_eq!(asked(&world, before, "DELETE "), ["o22", "o36"]);
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_held_for_a_database_that_is_gone_are_held_no_longer() {
    let world = World::new();
    world.put(CONTAINER, "o", "x");
    let handle = world.start(mapping());
    settle(&handle).await;
    let key = HeldKey {
        database: DatabaseKey {
            mapping: mapping().id,
            database: world.things().databases[&path(CONTAINER)].id.clone(),
            container: CONTAINER.into(),
        },
        name: "o".into(),
    };
    let holding = Holding {
        key,
        row: 1,
        own: true,
        counted: false,
        held: Hold::new(HoldReason::Refused, "no"),
        since: world.clock.now(),
    };
    world.state.hold(holding, world.clock.now(), 10).await.unwrap();
    cleave(&world, "c#1", |_| true);
    assert_eq!(settle(&handle).await.held.rows, 1, "the root is still there");
    world.things().databases.remove(&path(CONTAINER));
    pass(seconds(12)).await;
    assert_eq!(settle(&handle).await.held.rows, 0);
    assert_eq!(world.at_remote("o").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_not_there_is_reported_until_it_is() {
    let world = World::new();
    world.things().databases.clear();
    let handle = world.start(mapping());
    let report = settle(&handle).await;
    assert_eq!(
        (report.state, report.reason.as_deref(), report.databases.open),
        (RunState::Running, Some("SourceNotFound"), 0)
    );
    assert!(report.message.is_some() && !report.initial_pass_complete);
    world.create(CONTAINER);
    world.put(CONTAINER, "o", "x");
    let report = settle(&handle).await;
    assert_eq!((report.reason, report.databases.open), (None, 1));
    assert_eq!(world.at_remote("o").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn containers_that_appear_later_are_followed_and_those_that_go_are_let_go() {
    let world = World::new();
    world.put(CONTAINER, "o", "x");
    let handle = world.start(all_containers());
    settle(&handle).await;
    for number in 0..300 {
        let container = format!("new{number:03}");
        world.create(&container);
        world.put(&container, &format!("o{number:03}"), "x");
    }
    let report = settle(&handle).await;
    assert_eq!((report.databases.open, world.things().remote.len()), (301, 301));
    world.things().databases.remove(&path("new007"));
    let report = settle(&handle).await;
    assert_eq!((report.databases.open, world.things().remote.len()), (300, 301));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_is_put_back_and_written_to_before_anyone_looks_is_worked_off_from_its_start() {
    let world = World::new();
    world.put(CONTAINER, "a", "1");
    let backup = world.backup(CONTAINER);
    world.put(CONTAINER, "b", "1");
    let handle = world.start(mapping());
    settle(&handle).await;
    // The same name stands at the same number again.
    world.restore(CONTAINER, backup.clone());
    world.put(CONTAINER, "b", "2");
    settle(&handle).await;
    assert_eq!(world.at_remote("b").as_deref(), Some("2"), "the agent runs");
    world.stop(handle).await;
    world.restore(CONTAINER, backup);
    world.put(CONTAINER, "b", "3");
    world.put(CONTAINER, "c", "3");
    let handle = world.start(mapping());
    settle(&handle).await;
    assert_eq!(world.at_remote("b").as_deref(), Some("3"), "it did not run");
}

#[tokio::test(start_paused = true)]
async fn a_database_whose_disk_hangs_stops_neither_the_others_nor_the_reports() {
    let world = World::new();
    world.create("hung");
    world.put("hung", "hung", "x");
    world.things().hangs.insert(path("hung"));
    let handle = world.start(all_containers());
    world.put(CONTAINER, "o", "x");
    pass(seconds(60)).await;
    assert_eq!(world.at_remote("o").as_deref(), Some("x"));
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    pass(seconds(1)).await;
    assert_eq!(
        handle.commands.capacity(),
        handle.commands.max_capacity(),
        "the command was taken up"
    );
    let report = handle.reports.borrow().clone();
    assert_eq!(report.databases.open, 1);
    assert!(!report.idle, "a database that was not opened is not done");
    world.things().hangs.clear();
    settle(&handle).await;
    assert_eq!(world.at_remote("hung").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_the_program_is_shown_and_tried_again() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    world.things().panics.insert("o".into());
    world.put(CONTAINER, "o", "x");
    pass(seconds(30)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(
        (report.state, report.reason.as_deref()),
        (RunState::Paused, Some("InternalError"))
    );
    assert!(!report.message.unwrap().contains("a mistake in the program"));
    world.things().panics.clear();
    let report = settle(&handle).await;
    assert_eq!((report.state, report.reason), (RunState::Running, None));
    assert_eq!(world.at_remote("o").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_database_or_is_suspended_asks_the_remote_nothing() {
    let world = World::new();
    let suspended = world.start(Mapping {
        state: onespace_core::mapping::MappingState::Suspended,
        ..mapping()
    });
    pass(seconds(120)).await;
    let report = suspended.reports.borrow().clone();
    assert_eq!(
        (report.databases.open, report.remote.reachable),
        (1, true),
        "no alert"
    );
    suspended.cancel.cancel();
    suspended.task.await.unwrap();
    let elsewhere = world.things().databases.remove(&path(CONTAINER)).unwrap();
    let handle = world.start(mapping());
    // There is nothing to do, and that is known without the remote.
    let report = settle(&handle).await;
    assert_eq!((report.state, report.databases.open), (RunState::Running, 0));
    assert_eq!((world.things().probes, report.remote.probed_at), (0, None));
    assert!(report.remote.reachable, "no alert");
    // It comes with the ring.
    world.things().databases.insert(path(CONTAINER), elsewhere);
    world.put(CONTAINER, "x", "1");
    pass(seconds(10)).await;
    settle(&handle).await;
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
    assert_eq!(world.things().probes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_mapping_without_a_database_here_costs_little_and_takes_up_what_it_is_told_at_once() {
    let world = World::new();
    world.things().databases.clear();
    let handle = world.start(mapping());
    settle(&handle).await;
    let before = world.clock_readings();
    pass(seconds(600)).await;
    let readings = world.clock_readings() - before;
    assert!(
        readings < 1_500,
        "looked at the clock {readings} times in 600 seconds"
    );
    let mut next = mapping();
    next.policy.generation += 1;
    next.triggers.retry = Some("again".to_owned());
    let order = Command::GoOn {
        mapping: next.clone().into(),
        renewed: false,
    };
    handle.commands.send(order.into()).await.unwrap();
    pass(seconds(1)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(report.policy, Some(next.policy));
    assert_eq!(report.handled.retry.as_deref(), Some("again"));
}
