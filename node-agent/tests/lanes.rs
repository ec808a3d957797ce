//! What the work on a mapping does when things go wrong, in a world in memory whose time the test owns.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::mapping::{Mapping, MappingState};
use onespace_core::plan::Held;
use onespace_core::reason::{HoldReason, PauseReason};
use onespace_core::report::RunState;
use onespace_core::row::RawRow;
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::clock::Clock;
use onespace_node_agent::databases::DatabaseError;
use onespace_node_agent::mapping_task::{Command, Handle};
use onespace_node_agent::state::{DatabaseKey, HeldKey, Holding};
use onespace_node_agent::work::Limits;
use onespace_stores::remote::RemoteError;
use world::{
    CONTAINER, Object, World, mapping, pass, path, paused, refused, settle, swift_row, tombstone_row,
};

const HOUR: u64 = 3600;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn objects_that_are_put_and_deleted_in_swift_come_and_go_at_the_remote() {
    let world = World::new();
    world.put(CONTAINER, "before", "1");
    let handle = world.start(mapping());
    settle(&handle).await;
    assert_eq!(world.at_remote("before").as_deref(), Some("1"));
    world.put(CONTAINER, "later", "2");
    world.put(CONTAINER, "before", "3");
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("later").as_deref(), Some("2"));
    assert_eq!(world.at_remote("before").as_deref(), Some("3"));
    assert_eq!((report.held.rows, report.pending.rows), (0, 0));
    world.delete(CONTAINER, "before");
    settle(&handle).await;
    assert_eq!(world.at_remote("before"), None);
    assert_eq!(world.at_remote("later").as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_not_due_does_not_keep_a_failed_row_before_it_waiting() {
    let world = World::new();
    let handle = world.start(Mapping {
        copy_after: 30 * 24 * HOUR,
        ..mapping()
    });
    settle(&handle).await;
    world.things().remote_trouble = Some(paused(PauseReason::Unreachable));
    // Delivered late, as the object updater does: due at once.
    let old = Timestamp::from_unix_seconds(1_700_000_000);
    let body = "old".into();
    world.things().objects.insert(
        (CONTAINER.into(), "old".into()),
        Object::There { time: old, body },
    );
    world.insert(CONTAINER, swift_row("old", &old.to_string(), "old"));
    world.put(CONTAINER, "new", "new");
    pass(seconds(10)).await;
    world.things().remote_trouble = None;
    pass(seconds(120)).await;
    assert_eq!(world.at_remote("old").as_deref(), Some("old"));
    assert_eq!(world.at_remote("new"), None, "it is not due for a month");
}

/// The object `x` of another storage policy, whose row is held; its time.
async fn held_under_another_policy(world: &World, handle: &Handle) -> Timestamp {
    world.things().put_trouble.insert("x".into(), refused());
    let time = world.store(CONTAINER, "x", "moved");
    let moved = RawRow {
        policy_index: 1,
        ..swift_row("x", &time.to_string(), "moved")
    };
    world.insert(CONTAINER, moved);
    assert_eq!(settle(handle).await.held.rows, 1);
    time
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_under_one_storage_policy_leaves_the_waiting_row_of_another() {
    let world = World::new();
    let handle = world.start(mapping());
    let time = held_under_another_policy(&world, &handle).await;
    // What Swift's reconciler leaves behind under the policy that the object was in.
    world.insert(CONTAINER, tombstone_row("x", &time.with_offset(1).to_string()));
    assert_eq!(settle(&handle).await.held.rows, 1, "the live row still waits");
    world.things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    assert_eq!(settle(&handle).await.held.rows, 0);
    assert_eq!(world.at_remote("x").as_deref(), Some("moved"));
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_that_is_held_itself_does_not_take_the_place_of_another_policys_live_row() {
    let world = World::new();
    let handle = world.start(mapping());
    let time = held_under_another_policy(&world, &handle).await;
    world.insert(CONTAINER, tombstone_row("x", &time.with_offset(1).to_string()));
    settle(&handle).await;
    // What happens when the database is busy just when the tombstone is looked at.
    let database = world.things().databases[&path(CONTAINER)].id.clone();
    let holding = Holding {
        key: HeldKey {
            database: DatabaseKey {
                mapping: mapping().id,
                database,
                container: CONTAINER.into(),
            },
            name: "x".into(),
        },
        row: 2,
        own: true,
        counted: false,
        held: Held::new(HoldReason::SourceFailed, "busy"),
        since: world.clock.now(),
    };
    world.state.hold(holding, world.clock.now(), 10).await.unwrap();
    world.things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    assert_eq!(settle(&handle).await.held.rows, 0);
    assert_eq!(world.at_remote("x").as_deref(), Some("moved"));
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_a_live_row_of_another_policy_kept_back_acts_once_the_reconciler_has_ended_that() {
    let world = World::new();
    let handle = world.start(mapping());
    let time = world.store(CONTAINER, "x", "misplaced");
    let misplaced = RawRow {
        policy_index: 1,
        ..swift_row("x", &time.to_string(), "misplaced")
    };
    world.insert(CONTAINER, misplaced);
    settle(&handle).await;
    world.delete(CONTAINER, "x");
    settle(&handle).await;
    assert_eq!(world.at_remote("x").as_deref(), Some("misplaced"));
    let ended = RawRow {
        policy_index: 1,
        ..tombstone_row("x", &time.with_offset(1).to_string())
    };
    world.insert(CONTAINER, ended);
    settle(&handle).await;
    assert_eq!(world.at_remote("x"), None);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_was_replaced_is_worked_off_from_its_start() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.put(CONTAINER, name, name);
    }
    let handle = world.start(mapping());
    settle(&handle).await;
    world.create(CONTAINER);
    world.put(CONTAINER, "only in the new one", "1");
    settle(&handle).await;
    assert_eq!(world.at_remote("only in the new one").as_deref(), Some("1"));
    world.put(CONTAINER, "followed", "2");
    settle(&handle).await;
    assert_eq!(world.at_remote("followed").as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_cannot_be_read_is_neither_asked_all_the_time_nor_given_up() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    let (file, before) = (path(CONTAINER), world.things().databases[&path(CONTAINER)].reads);
    let trouble = DatabaseError::NotCommitted {
        path: file.clone(),
        what: "connection refused".into(),
    };
    world.things().databases.get_mut(&file).unwrap().trouble = Some(trouble);
    world.put(CONTAINER, "x", "1");
    pass(seconds(60)).await;
    let reads = world.things().databases[&file].reads - before;
    assert!(reads < 150, "{reads} reads in a minute");
    let report = handle.reports.borrow().clone();
    assert_eq!((report.databases.unreadable, report.idle), (1, false));
    world.things().databases.get_mut(&file).unwrap().trouble = None;
    let report = settle(&handle).await;
    assert_eq!(report.databases.unreadable, 0);
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_could_not_be_counted_is_counted_when_it_can_be() {
    let world = World::new();
    let handle = world.start(Mapping {
        state: MappingState::Suspended,
        ..mapping()
    });
    pass(seconds(10)).await;
    let file = path(CONTAINER);
    world.put(CONTAINER, "x", "1");
    world.things().databases.get_mut(&file).unwrap().trouble = Some(DatabaseError::Busy(file.clone()));
    // Long enough for the change to be no news any more.
    pass(seconds(4)).await;
    world.things().databases.get_mut(&file).unwrap().trouble = None;
    pass(seconds(10)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!((report.state, report.pending.rows), (RunState::Suspended, 1));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_cannot_be_opened_is_not_taken_for_one_that_is_done() {
    let world = World::new();
    world.put(CONTAINER, "x", "1");
    let file = path(CONTAINER);
    world.things().databases.get_mut(&file).unwrap().trouble = Some(DatabaseError::Busy(file.clone()));
    let handle = world.start(mapping());
    pass(seconds(30)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!((report.idle, report.initial_pass_complete), (false, false));
    world.things().databases.get_mut(&file).unwrap().trouble = None;
    let report = settle(&handle).await;
    assert!(report.initial_pass_complete);
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_refused_pauses_the_mapping_and_is_shown() {
    let world = World::new();
    world.put(CONTAINER, "x", "1");
    world.things().list_trouble = Some(refused());
    let handle = world.start(mapping());
    pass(seconds(60)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(report.state, RunState::Paused);
    assert_eq!(report.reason.as_deref(), Some("UnexpectedAnswer"));
    let listings = world
        .things()
        .requests
        .iter()
        .filter(|request| request.starts_with("LIST"))
        .count();
    assert!(listings < 15, "{listings} listings in a minute");
    world.things().list_trouble = None;
    settle(&handle).await;
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_swift_that_is_down_costs_the_remote_nothing_and_is_shown_until_it_is_back() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    let probes = world.things().probes;
    let requests = world.things().requests.len();
    world.things().swift_is_down = true;
    world.put(CONTAINER, "x", "1");
    for _ in 0..300 {
        pass(seconds(2)).await;
        let report = handle.reports.borrow().clone();
        assert_eq!(report.state, RunState::Paused);
        assert!(report.remote.reachable, "the remote is not to blame");
        assert_eq!(report.held.rows, 0, "no row is charged");
        assert!(report.pending.oldest.is_some());
    }
    assert_eq!(world.things().probes, probes);
    assert_eq!(world.things().requests.len(), requests);
    world.things().swift_is_down = false;
    let report = settle(&handle).await;
    assert_eq!(report.state, RunState::Running);
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn held_rows_of_a_database_that_is_gone_do_not_stand_before_others() {
    let world = World::new();
    world.create("gone");
    let handle = world.start(Mapping {
        source: onespace_core::mapping::Source {
            account: "a".into(),
            container: "/*".into(),
        },
        target: onespace_core::mapping::Target {
            prefix: None,
            ..mapping().target
        },
        ..mapping()
    });
    settle(&handle).await;
    let altered = RemoteError::Altered {
        stored: "1".into(),
        sent: "2".into(),
    };
    let key = |container: &str, name: &str| {
        onespace_core::naming::Namespace::new("a", container, None)
            .object_key(name)
            .unwrap()
    };
    for number in 0..150 {
        let name = number.to_string();
        world
            .things()
            .put_trouble
            .insert(key("gone", &name), altered.clone());
        world.put("gone", &name, "x");
    }
    pass(seconds(5)).await;
    world.things().put_trouble.insert(key(CONTAINER, "x"), altered);
    world.put(CONTAINER, "x", "1");
    pass(seconds(5)).await;
    assert_eq!(handle.reports.borrow().held.rows, 151);
    world.things().databases.remove(&path("gone"));
    pass(seconds(20)).await;
    world.things().put_trouble.clear();
    pass(seconds(600)).await;
    assert_eq!(world.at_remote(&key(CONTAINER, "x")).as_deref(), Some("1"));
    assert_eq!(handle.reports.borrow().held.rows, 150, "nothing is dropped");
}

#[tokio::test(start_paused = true)]
async fn a_full_held_set_stops_the_watermark_without_asking_all_the_time_and_drops_nothing() {
    let world = World::new();
    let handle = world.start_with(
        mapping(),
        Limits {
            held: 3,
            ..Limits::default()
        },
    );
    settle(&handle).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        world.things().put_trouble.insert(name.into(), refused());
        world.put(CONTAINER, name, name);
    }
    world.put_at_remote("stranger's", "1");
    world.delete(CONTAINER, "stranger's");
    let before = world.things().requests.len();
    pass(seconds(60)).await;
    let requests = world.things().requests.len() - before;
    assert!(requests < 400, "{requests} requests in a minute");
    let report = handle.reports.borrow().clone();
    assert_eq!((report.state, report.held.rows), (RunState::Paused, 3));
    assert_eq!(report.reason.as_deref(), Some("HeldSetFull"));
    world.things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    let report = settle(&handle).await;
    for name in names {
        assert_eq!(world.at_remote(name).as_deref(), Some(name));
    }
    assert_eq!(
        world.at_remote("stranger's").as_deref(),
        Some("1"),
        "it is not ours"
    );
    assert_eq!(report.held.rows, 1, "and that is shown");
}

#[tokio::test(start_paused = true)]
async fn a_strangers_newer_object_is_neither_overwritten_nor_deleted() {
    let world = World::new();
    world.put(CONTAINER, "x", "ours");
    pass(seconds(2 * HOUR)).await;
    world.put_at_remote("x", "a stranger's");
    let handle = world.start(mapping());
    let report = settle(&handle).await;
    assert_eq!(report.held.latest[0].reason, "RemoteNewer");
    world.delete(CONTAINER, "x");
    let report = settle(&handle).await;
    assert_eq!(report.held.latest[0].reason, "NotOurs");
    assert_eq!(world.at_remote("x").as_deref(), Some("a stranger's"));
}

#[tokio::test(start_paused = true)]
async fn an_equal_object_is_adopted_without_being_sent_and_deleted_with_its_original() {
    let world = World::new();
    world.put(CONTAINER, "x", "same");
    pass(seconds(2 * HOUR)).await;
    world.put_at_remote("x", "same");
    let handle = world.start(mapping());
    settle(&handle).await;
    assert!(
        !world
            .things()
            .requests
            .iter()
            .any(|request| request.starts_with("PUT"))
    );
    world.delete(CONTAINER, "x");
    settle(&handle).await;
    assert_eq!(world.at_remote("x"), None);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_object_that_a_stranger_wrote_again_after_the_delete_stays() {
    let world = World::new();
    world.put(CONTAINER, "x", "same");
    pass(seconds(2 * HOUR)).await;
    world.put_at_remote("x", "same");
    let handle = world.start(mapping());
    settle(&handle).await;
    world.stop(handle).await;
    world.delete(CONTAINER, "x");
    pass(seconds(2 * HOUR)).await;
    world.put_at_remote("x", "same");
    let handle = world.start(mapping());
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("x").as_deref(), Some("same"));
    assert_eq!(report.held.latest[0].reason, "RemoteNewer");
}

#[tokio::test(start_paused = true)]
async fn a_row_at_which_the_remote_always_breaks_off_does_not_keep_the_rows_behind_it_waiting() {
    let world = World::new();
    let limits = Limits {
        chunk: 5,
        ..Limits::default()
    };
    let handle = world.start_with(mapping(), limits);
    settle(&handle).await;
    world.put(CONTAINER, "poison", "1");
    world
        .things()
        .put_trouble
        .insert("poison".into(), paused(PauseReason::Unreachable));
    for number in 0..20 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    pass(seconds(60)).await;
    let report = handle.reports.borrow().clone();
    assert_eq!(
        (report.held.rows, report.held.latest[0].reason.as_str()),
        (1, "RemoteFailed")
    );
    for number in 0..20 {
        assert!(world.at_remote(&number.to_string()).is_some(), "{number}");
    }
    world.things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    settle(&handle).await;
    assert_eq!(world.at_remote("poison").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_held_row_at_which_the_remote_still_breaks_off_makes_nothing_pause_when_it_is_tried_again() {
    let world = World::new();
    let limits = Limits {
        chunk: 5,
        ..Limits::default()
    };
    let handle = world.start_with(mapping(), limits);
    settle(&handle).await;
    world.put(CONTAINER, "poison", "1");
    world
        .things()
        .put_trouble
        .insert("poison".into(), paused(PauseReason::Unreachable));
    for number in 0..20 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    pass(seconds(60)).await;
    assert_eq!(handle.reports.borrow().held.latest[0].reason, "RemoteFailed");
    let paused_for = async |time: u64| {
        let mut paused = 0;
        for _ in 0..time {
            pass(seconds(1)).await;
            paused += u64::from(handle.reports.borrow().state == RunState::Paused);
        }
        paused
    };
    let tries = || {
        let things = world.things();
        let puts = things.requests.iter().filter(|request| *request == "PUT poison");
        puts.count()
    };
    let before = tries();
    assert_eq!(paused_for(2 * HOUR).await, 0);
    assert!(
        (3..20).contains(&(tries() - before)),
        "{} tries",
        tries() - before
    );
    world.things().remote_trouble = Some(paused(PauseReason::Unreachable));
    assert!(paused_for(2 * HOUR).await > 0, "now it is the remote's trouble");
    world.things().remote_trouble = None;
    world.things().put_trouble.clear();
    pass(seconds(HOUR + 120)).await;
    assert_eq!(world.at_remote("poison").as_deref(), Some("1"));
}

/// All containers of the account, with keys of their own.
fn all_containers() -> Mapping {
    Mapping {
        source: onespace_core::mapping::Source {
            account: "a".into(),
            container: "/*".into(),
        },
        target: onespace_core::mapping::Target {
            prefix: None,
            ..mapping().target
        },
        ..mapping()
    }
}

fn key_of(container: &str, name: &str) -> String {
    onespace_core::naming::Namespace::new("a", container, None)
        .object_key(name)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn held_rows_of_a_database_whose_disk_hangs_do_not_stand_before_others() {
    let world = World::new();
    world.create("hung");
    let handle = world.start(all_containers());
    settle(&handle).await;
    let altered = RemoteError::Altered {
        stored: "1".into(),
        sent: "2".into(),
    };
    let held: Vec<_> = (0..150).map(|number| ("hung", number.to_string())).collect();
    for (container, name) in held
        .iter()
        .map(|(container, name)| (*container, name.as_str()))
        .chain([(CONTAINER, "x")])
    {
        world
            .things()
            .put_trouble
            .insert(key_of(container, name), altered.clone());
        world.put(container, name, "1");
    }
    pass(seconds(5)).await;
    assert_eq!(handle.reports.borrow().held.rows, 151);
    world.things().unseen.insert(path("hung"));
    pass(seconds(20)).await;
    world.things().put_trouble.clear();
    pass(seconds(600)).await;
    assert_eq!(world.at_remote(&key_of(CONTAINER, "x")).as_deref(), Some("1"));
    assert_eq!(handle.reports.borrow().databases.unreadable, 1);
    world.things().unseen.clear();
    pass(seconds(2 * HOUR)).await;
    assert_eq!(settle(&handle).await.held.rows, 0);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_busy_whenever_it_is_read_is_shown_as_unreadable_after_a_minute() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    let file = path(CONTAINER);
    world.things().databases.get_mut(&file).unwrap().trouble = Some(DatabaseError::Busy(file.clone()));
    world.put(CONTAINER, "x", "1");
    pass(seconds(30)).await;
    assert_eq!(handle.reports.borrow().databases.unreadable, 0);
    pass(seconds(60)).await;
    assert_eq!(handle.reports.borrow().databases.unreadable, 1);
    world.things().databases.get_mut(&file).unwrap().trouble = None;
    assert_eq!(settle(&handle).await.databases.unreadable, 0);
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_name_cannot_be_read_is_not_forgotten_when_it_is_tried_again() {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    world.put(CONTAINER, "x", "1");
    let damaged = |rows: &[i64]| {
        let mut things = world.things();
        let db = things.databases.get_mut(&path(CONTAINER)).unwrap();
        db.damaged = rows.iter().copied().collect();
    };
    damaged(&[1]);
    settle(&handle).await;
    for _ in 0..2 {
        handle.commands.send(Command::Retry(None).into()).await.unwrap();
        let report = settle(&handle).await;
        assert_eq!(
            (report.held.rows, report.held.latest[0].reason.as_str()),
            (1, "UnreadableRow")
        );
    }
    damaged(&[]);
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    assert_eq!(settle(&handle).await.held.rows, 0);
    assert_eq!(world.at_remote("x").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_takes_a_databases_place_while_it_is_followed_is_worked_off_anew() {
    let world = World::new();
    for name in ["a", "b"] {
        world.put(CONTAINER, name, name);
    }
    let handle = world.start(mapping());
    settle(&handle).await;
    let backup = world.things().databases[&path(CONTAINER)].clone();
    for name in ["c", "d", "e"] {
        world.put(CONTAINER, name, name);
    }
    settle(&handle).await;
    // The rows of others come back in another order, with new ones among them, before anybody looks.
    world.restore(CONTAINER, backup);
    for name in ["new 1", "new 2", "c", "d", "e"] {
        world.put(CONTAINER, name, name);
    }
    settle(&handle).await;
    for name in ["a", "b", "c", "d", "e", "new 1", "new 2"] {
        assert_eq!(world.at_remote(name).as_deref(), Some(name));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_keeps_neither_a_pause_nor_a_held_row_waiting() {
    for restarts in [false, true] {
        let world = World::new();
        world.set_clock_ahead(seconds(365 * 24 * HOUR));
        let mut handle = world.start(mapping());
        settle(&handle).await;
        let altered = RemoteError::Altered {
            stored: "1".into(),
            sent: "2".into(),
        };
        world.things().put_trouble.insert("held".into(), altered);
        world.put(CONTAINER, "held", "1");
        pass(seconds(20)).await;
        world.things().remote_trouble = Some(paused(PauseReason::Unreachable));
        world.put(CONTAINER, "x", "1");
        pass(seconds(20)).await;
        assert_eq!(handle.reports.borrow().state, RunState::Paused);
        if restarts {
            world.stop(handle).await;
            world.set_clock_ahead(Duration::ZERO);
            handle = world.start(mapping());
        }
        world.set_clock_ahead(Duration::ZERO);
        world.things().remote_trouble = None;
        world.things().put_trouble.clear();
        pass(seconds(130)).await;
        assert_eq!(world.at_remote("x").as_deref(), Some("1"));
        pass(seconds(HOUR + 60)).await;
        assert_eq!(
            world.at_remote("held").as_deref(),
            Some("1"),
            "restarts: {restarts}"
        );
        assert_eq!(settle(&handle).await.held.rows, 0);
    }
}

/// Numbers that a seed determines (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Users write and delete, databases are replaced, Swift, the remote and single keys fail, the agent restarts; in the
/// end the remote holds exactly what Swift holds.
async fn history(seed: u64) {
    let world = World::new();
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mapping = Mapping {
        copy_after: [0, 0, 20][dice.roll(3) as usize],
        ..mapping()
    };
    let limits = Limits {
        chunk: 1 + dice.roll(7) as usize,
        ..Limits::default()
    };
    let mut handle = world.start_with(mapping.clone(), limits);
    for step in 0..80 {
        let name = format!("{}", dice.roll(9));
        match dice.roll(20) {
            0..=8 => world.put(CONTAINER, &name, &format!("{step}")),
            9..=12 => world.delete(CONTAINER, &name),
            13 => {
                let down = dice.roll(2) == 0;
                world.things().remote_trouble = down.then(|| paused(PauseReason::ServerError));
            }
            14 => world.things().swift_is_down = dice.roll(2) == 0,
            15 => drop(world.things().put_trouble.insert(name, refused())),
            16 => world.things().put_trouble.clear(),
            17 if dice.roll(3) == 0 => world.replace(CONTAINER),
            18 if dice.roll(2) == 0 => {
                handle.task.abort();
                let _ = (&mut handle.task).await;
                handle = world.start_with(mapping.clone(), limits);
            }
            _ => {}
        }
        pass(Duration::from_millis(1 + dice.roll(4) * dice.roll(1500))).await;
    }
    {
        let mut things = world.things();
        things.remote_trouble = None;
        things.swift_is_down = false;
        things.put_trouble.clear();
    }
    pass(seconds(mapping.copy_after + 70)).await;
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    let report = settle(&handle).await;
    let things = world.things();
    for ((_, name), object) in &things.objects {
        let copy = things.remote.get(name).map(|stored| &stored.body);
        match object {
            Object::There { body, .. } => {
                assert_eq!(copy, Some(body), "seed {seed}, object {name}: {report:#?}");
            }
            Object::Deleted(_) => {
                assert_eq!(copy, None, "seed {seed}, object {name} was deleted: {report:#?}");
            }
        }
    }
    assert_eq!(
        (report.held.rows, report.pending.rows),
        (0, 0),
        "seed {seed}: {report:#?}"
    );
    assert!(world.clock.now() > Timestamp::default());
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_meanwhile_in_the_end_the_remote_holds_what_swift_holds() {
    for seed in 1..=10 {
        history(seed).await;
    }
}
