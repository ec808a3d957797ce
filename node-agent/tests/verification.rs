//! What agents do for each other: rows that nobody worked off are found and finished a slack later.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::mapping::Mapping;
use onespace_core::naming::primary_index;
use onespace_core::report::MappingReport;
use onespace_core::row::RawRow;
use onespace_node_agent::mapping_task::{Command, Handle};
use onespace_node_agent::work::Limits;
use world::{CONTAINER, World, mapping, pass, path, refused, settle, swift_row};

const SLACK: Duration = Duration::from_secs(600);

/// After so long, what was passed just now has been verified.
const VERIFIED: Duration = Duration::from_secs(600 + 600 / 16 + 30);

const MINUTE: Duration = Duration::from_secs(60);

/// Three nodes of one world.
fn three() -> [World; 3] {
    let world = World::new();
    [0, 1, 2].map(|index| world.node(index, 3))
}

fn limits() -> Limits {
    Limits {
        slack: SLACK,
        ..Limits::default()
    }
}

fn start(node: &World) -> Handle {
    node.start_with(mapping(), limits())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:05}")).collect()
}

/// Names whose rows are this node's.
fn names_of(index: u32, count: usize) -> Vec<String> {
    names(count)
        .into_iter()
        .filter(|name| primary_index(name, 3) == index)
        .collect()
}

fn put_all(world: &World, names: &[String]) {
    for name in names {
        world.put(CONTAINER, name, name);
    }
}

fn missing(world: &World, names: &[String]) -> usize {
    names
        .iter()
        .filter(|name| world.at_remote(name).is_none())
        .count()
}

/// Requests since so many, by verb.
fn requests(world: &World, since: usize, verb: &str) -> usize {
    let things = world.things();
    things.requests[since..]
        .iter()
        .filter(|request| request.starts_with(verb))
        .count()
}

/// Requests so far, but for probes.
fn asked(world: &World) -> usize {
    world
        .things()
        .requests
        .retain(|request| !request.starts_with("PROBE"));
    world.things().requests.len()
}

fn report(handle: &Handle) -> MappingReport {
    handle.reports.borrow().clone()
}

async fn kill(handle: Handle) {
    handle.task.abort();
    let _ = handle.task.await;
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_node_that_is_down_arrive_through_the_others_after_the_slack() {
    let nodes = three();
    let handles = [start(&nodes[0]), start(&nodes[1])];
    settle(&handles[0]).await;
    put_all(&nodes[0], &names(60));
    let dead = names_of(2, 60);
    settle(&handles[0]).await;
    let shown = settle(&handles[1]).await;
    assert_eq!(missing(&nodes[0], &names(60)), dead.len());
    assert_eq!(shown.pending.rows, 0, "they are not this node's");
    assert_eq!(shown.verify.rows, 60 - names_of(1, 60).len() as u64);
    assert!(shown.verify.oldest.is_some());
    let asked_before = asked(&nodes[0]);
    pass(SLACK - MINUTE).await;
    assert_eq!(asked(&nodes[0]), asked_before, "never early");
    pass(VERIFIED - SLACK + MINUTE).await;
    assert_eq!(missing(&nodes[0], &names(60)), 0);
    let (a, b) = (report(&handles[0]), report(&handles[1]));
    assert_eq!((a.verify.rows, b.verify.rows), (0, 0));
    assert_eq!(a.totals.verified, 60 - names_of(0, 60).len() as u64);
    assert_eq!(a.totals.repaired + b.totals.repaired, dead.len() as u64);
    assert_eq!(
        a.totals.objects,
        names_of(0, 60).len() as u64,
        "its own, and no others"
    );
}

#[tokio::test(start_paused = true)]
async fn no_agent_copies_the_row_of_another_before_copy_after_is_over() {
    let nodes = three();
    let handles = nodes.each_ref().map(|node| {
        let waits = Mapping {
            copy_after: 10 * 3600,
            ..mapping()
        };
        node.start_with(waits, limits())
    });
    for handle in &handles {
        settle(handle).await;
    }
    put_all(&nodes[0], &names(30));
    pass(60 * 9 * MINUTE).await;
    assert_eq!(missing(&nodes[0], &names(30)), 30);
    let [first, _, last] = handles;
    kill(last).await;
    pass(60 * MINUTE + MINUTE).await;
    assert_eq!(missing(&nodes[0], &names(30)), names_of(2, 30).len());
    pass(VERIFIED).await;
    assert_eq!(missing(&nodes[0], &names(30)), 0, "a dead node's are due as well");
    assert_eq!(report(&first).verify.rows, 0);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_delays_verification_by_no_more_than_a_slack() {
    for restarts in [false, true] {
        let nodes = three();
        nodes[0].set_clock_ahead(60 * 24 * 365 * MINUTE);
        let mut handle = start(&nodes[0]);
        settle(&handle).await;
        put_all(&nodes[0], &names(30));
        settle(&handle).await;
        if restarts {
            kill(handle).await;
            nodes[0].set_clock_ahead(Duration::ZERO);
            handle = start(&nodes[0]);
        }
        nodes[0].set_clock_ahead(Duration::ZERO);
        pass(SLACK - MINUTE).await;
        assert_eq!(
            missing(&nodes[0], &names(30)),
            30 - names_of(0, 30).len(),
            "never early"
        );
        pass(VERIFIED - SLACK + MINUTE).await;
        assert_eq!(missing(&nodes[0], &names(30)), 0, "restarts: {restarts}");
        assert_eq!(report(&handle).verify.rows, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn deletes_of_a_node_that_is_down_are_carried_out_by_the_others() {
    let nodes = three();
    let mut handles: Vec<_> = nodes.iter().map(start).collect();
    settle(&handles[0]).await;
    put_all(&nodes[0], &names(30));
    pass(MINUTE).await;
    assert_eq!(missing(&nodes[0], &names(30)), 0);
    kill(handles.pop().unwrap()).await;
    let dead = names_of(2, 30);
    for name in &dead {
        nodes[0].delete(CONTAINER, name);
    }
    settle(&handles[0]).await;
    assert_eq!(missing(&nodes[0], &dead), 0, "not before the slack is over");
    pass(VERIFIED).await;
    assert_eq!(missing(&nodes[0], &dead), dead.len());
    assert_eq!(
        missing(&nodes[0], &names(30)),
        dead.len(),
        "nothing else is touched"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fresh_row_costs_each_verifier_one_head() {
    let nodes = three();
    let handles = nodes.each_ref().map(start);
    for handle in &handles {
        settle(handle).await;
    }
    put_all(&nodes[0], &names(60));
    pass(MINUTE).await;
    assert_eq!(missing(&nodes[0], &names(60)), 0);
    let before = asked(&nodes[0]);
    pass(VERIFIED).await;
    assert_eq!(requests(&nodes[0], before, "HEAD"), 2 * 60);
    assert_eq!(asked(&nodes[0]) - before, 2 * 60);
    for name in names(10) {
        nodes[0].delete(CONTAINER, &name);
    }
    pass(MINUTE).await;
    let before = asked(&nodes[0]);
    pass(VERIFIED).await;
    assert_eq!(requests(&nodes[0], before, "HEAD"), 2 * 10, "tombstones, too");
    let others = asked(&nodes[0]) - before - 2 * 10;
    assert_eq!(
        requests(&nodes[0], before, "LIST"),
        others,
        "whether the bucket is there"
    );
    for handle in &handles {
        assert_eq!(report(handle).totals.repaired, 0);
    }
    let verified: u64 = handles.iter().map(|handle| report(handle).totals.verified).sum();
    assert_eq!(
        verified,
        2 * 60 + 2 * 10,
        "tombstones whose copy is gone count, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_is_verified_with_a_request_for_a_thousand_names() {
    let nodes = three();
    put_all(&nodes[0], &names(2500));
    pass(2 * SLACK).await;
    let handles = nodes.each_ref().map(start);
    for handle in &handles {
        settle(handle).await;
    }
    assert_eq!(missing(&nodes[0], &names(2500)), 0);
    // A key that a listing hides is asked for, and not sent again.
    nodes[0].things().hidden.insert("00007".into());
    let before = asked(&nodes[0]);
    pass(VERIFIED).await;
    assert_eq!(requests(&nodes[0], before, "LIST"), 3 * 3);
    assert_eq!(requests(&nodes[0], before, "HEAD"), 2, "the hidden one");
    assert_eq!(asked(&nodes[0]) - before, 3 * 3 + 2);
    let verified: u64 = handles.iter().map(|handle| report(handle).totals.verified).sum();
    assert_eq!(verified, 2 * 2500);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_a_post_has_changed_is_looked_at_whatever_a_listing_shows() {
    let world = World::new();
    world.put(CONTAINER, "put", "1");
    let time = world.store(CONTAINER, "posted", "2");
    world.insert(CONTAINER, swift_row("posted", &format!("{time}+0+1"), "2"));
    pass(2 * SLACK).await;
    // An agent of a node that was behind copied the former metadata just now.
    world.put_at_remote("put", "1");
    world.put_at_remote("posted", "2");
    let _handle = start(&world);
    pass(MINUTE).await;
    assert!(requests(&world, 0, "LIST") > 0);
    assert_eq!(requests(&world, 0, "HEAD put"), 0);
    assert!(requests(&world, 0, "HEAD posted") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_of_which_a_node_did_nothing_is_completed() {
    let nodes = three();
    put_all(&nodes[0], &names(300));
    pass(2 * SLACK).await;
    let handles = [start(&nodes[0]), start(&nodes[1])];
    for handle in &handles {
        settle(handle).await;
    }
    assert_eq!(missing(&nodes[0], &names(300)), names_of(2, 300).len());
    pass(VERIFIED).await;
    assert_eq!(missing(&nodes[0], &names(300)), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_verified_survives_kills_and_is_not_late() {
    let nodes = three();
    let handle = start(&nodes[0]);
    settle(&handle).await;
    put_all(&nodes[0], &names(30));
    settle(&handle).await;
    kill(handle).await;
    pass(SLACK / 2).await;
    let handle = start(&nodes[0]);
    settle(&handle).await;
    assert!(missing(&nodes[0], &names(30)) > 0);
    pass(VERIFIED - SLACK / 2).await;
    assert_eq!(missing(&nodes[0], &names(30)), 0);
    let verified = report(&handle).totals.verified;
    kill(handle).await;
    let before = asked(&nodes[0]);
    let handle = start(&nodes[0]);
    pass(VERIFIED).await;
    assert_eq!(asked(&nodes[0]), before, "it is done once");
    assert_eq!(report(&handle).totals.verified, verified, "and counted once");
}

#[tokio::test(start_paused = true)]
async fn a_kill_amid_a_merge_with_a_listing_loses_no_row() {
    let nodes = three();
    put_all(&nodes[0], &names(400));
    pass(2 * SLACK).await;
    let limits = Limits {
        chunk: 20,
        ..limits()
    };
    let mut handle = nodes[0].start_with(mapping(), limits);
    settle(&handle).await;
    pass(SLACK).await;
    for step in 0..200 {
        kill(handle).await;
        handle = nodes[0].start_with(mapping(), limits);
        pass(Duration::from_millis(500 + 7 * step)).await;
    }
    pass(VERIFIED - SLACK).await;
    assert_eq!(missing(&nodes[0], &names(400)), 0);
    assert_eq!(
        report(&handle).totals.repaired,
        400 - names_of(0, 400).len() as u64
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_a_stranger_removed_is_made_again() {
    let nodes = three();
    let handles = nodes.each_ref().map(start);
    settle(&handles[0]).await;
    put_all(&nodes[0], &names(30));
    pass(MINUTE).await;
    nodes[0].things().remote.remove("00003").unwrap();
    nodes[0].things().remote.remove("00011").unwrap();
    pass(VERIFIED).await;
    assert_eq!(missing(&nodes[0], &names(30)), 0);
    let repaired: u64 = handles.iter().map(|handle| report(handle).totals.repaired).sum();
    assert_eq!(repaired, 2);
}

#[tokio::test(start_paused = true)]
async fn a_verifier_neither_overwrites_nor_removes_what_is_newer() {
    let nodes = three();
    let handle = start(&nodes[0]);
    settle(&handle).await;
    let others = names_of(1, 40);
    let (changed, revived) = (&others[0], &others[1]);
    nodes[0].put(CONTAINER, changed, "old");
    nodes[0].put(CONTAINER, revived, "old");
    nodes[0].delete(CONTAINER, revived);
    settle(&handle).await;
    // Newer bodies, copied already, whose rows do not come to this node.
    let old_rows = nodes[0].things().databases[&path(CONTAINER)].rows.clone();
    let copying = start(&nodes[1]);
    for name in [changed, revived] {
        nodes[0].put(CONTAINER, name, "new");
    }
    settle(&copying).await;
    kill(copying).await;
    let file = path(CONTAINER);
    nodes[0].things().databases.get_mut(&file).unwrap().rows = old_rows;
    let before = asked(&nodes[0]);
    pass(VERIFIED).await;
    for name in [changed, revived] {
        assert_eq!(nodes[0].at_remote(name).as_deref(), Some("new"), "{name}");
    }
    assert_eq!(requests(&nodes[0], before, "HEAD"), 2, "both were looked at");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_a_verifier_cannot_finish_counts_as_unverified_and_stops_nothing() {
    let nodes = three();
    let limits = Limits { held: 2, ..limits() };
    let handle = nodes[0].start_with(mapping(), limits);
    settle(&handle).await;
    let others: Vec<_> = names_of(1, 40).into_iter().take(4).collect();
    for name in &others {
        nodes[0].things().put_trouble.insert(name.clone(), refused());
    }
    put_all(&nodes[0], &names(40));
    pass(VERIFIED).await;
    let shown = report(&handle);
    assert_eq!(shown.held.rows, 0, "they are not this node's");
    assert!(!shown.held.full);
    assert!(shown.verify.rows >= 2);
    assert_eq!(shown.held.latest.len(), 2, "but they are shown");
    let before = asked(&nodes[0]);
    pass(10 * MINUTE).await;
    assert!(
        asked(&nodes[0]) - before < 100,
        "nor asked for all the time: {}",
        asked(&nodes[0]) - before
    );
    nodes[0].put(CONTAINER, &names_of(0, 40)[0], "fresh");
    pass(MINUTE).await;
    assert_eq!(nodes[0].at_remote(&names_of(0, 40)[0]).as_deref(), Some("fresh"));
    nodes[0].things().put_trouble.clear();
    handle.commands.send(Command::Retry(None).into()).await.unwrap();
    pass(2 * VERIFIED).await;
    assert_eq!(missing(&nodes[0], &names(40)), 0);
    let shown = report(&handle);
    assert_eq!((shown.held.rows, shown.verify.rows), (0, 0));
    assert_eq!(shown.totals.repaired, 40 - names_of(0, 40).len() as u64);
}

#[tokio::test(start_paused = true)]
async fn names_that_move_to_another_node_before_anyone_did_them_are_found() {
    let nodes = three();
    let handle = start(&nodes[1]);
    settle(&handle).await;
    put_all(&nodes[1], &names(30));
    let moved = names_of(0, 30);
    settle(&handle).await;
    // The node that should have done them never comes back; this one takes its place in the ring, has read past them
    // as another's, and now they are its own.
    nodes[1].stop(handle).await;
    let mut heir = nodes[1].clone();
    heir.part = (0, 3);
    let handle = start(&heir);
    settle(&handle).await;
    assert_eq!(missing(&heir, &moved), moved.len());
    pass(VERIFIED).await;
    assert_eq!(missing(&heir, &names(30)), 0);
    // What is known already does not start it over again.
    heir.stop(handle).await;
    let before = asked(&heir);
    let handle = start(&heir);
    pass(VERIFIED).await;
    assert_eq!(asked(&heir), before);
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn names_that_move_amid_a_first_pass_are_taken_by_it() {
    let nodes = three();
    put_all(&nodes[1], &names(400));
    pass(2 * SLACK).await;
    let limits = Limits {
        chunk: 50,
        ..limits()
    };
    let handle = nodes[1].start_with(mapping(), limits);
    while missing(&nodes[1], &names(400)) > 350 {
        pass(Duration::from_millis(10)).await;
    }
    kill(handle).await;
    let mut heir = nodes[1].clone();
    heir.part = (0, 3);
    let handle = heir.start_with(mapping(), limits);
    settle(&handle).await;
    assert_eq!(missing(&heir, &names_of(0, 400)), 0);
    pass(VERIFIED).await;
    assert_eq!(missing(&heir, &names(400)), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_to_be_verified_is_waited_for_and_what_is_not_is_not() {
    let nodes = three();
    let limits = Limits {
        slack: Duration::from_secs(2),
        ..limits()
    };
    let handle = nodes[0].start_with(mapping(), limits);
    settle(&handle).await;
    put_all(&nodes[0], &names(30));
    settle(&handle).await;
    assert_eq!(missing(&nodes[0], &names(30)), 0, "the slack was over");
}

/// A symlink that names no version of its target, in the same container.
fn link(world: &World, name: &str, target: &str) {
    let time = world.store(CONTAINER, name, "");
    let row = swift_row(name, &time.to_string(), "");
    let etag = format!("{}; symlink_target={CONTAINER}/{target}", row.etag);
    world.insert(CONTAINER, RawRow { etag, ..row });
}

#[tokio::test(start_paused = true)]
async fn a_link_is_looked_at_again_every_slack_and_follows_its_target() {
    let world = World::new();
    let handle = start(&world);
    settle(&handle).await;
    world.put(CONTAINER, "target", "one");
    link(&world, "link", "target");
    settle(&handle).await;
    assert_eq!(world.at_remote("link").as_deref(), Some("one"));
    let before = asked(&world);
    pass(3 * SLACK + MINUTE).await;
    assert_eq!(requests(&world, before, "HEAD link"), 3);
    assert_eq!(asked(&world) - before, 3, "HEADs only while nothing changes");
    world.put(CONTAINER, "target", "two");
    pass(MINUTE).await;
    assert_eq!(world.at_remote("link").as_deref(), Some("one"));
    kill(handle).await;
    let handle = start(&world);
    pass(SLACK).await;
    assert_eq!(
        world.at_remote("link").as_deref(),
        Some("two"),
        "also after a restart"
    );
    assert_eq!(report(&handle).held.rows, 0);
    world.delete(CONTAINER, "link");
    settle(&handle).await;
    assert_eq!(world.at_remote("link"), None);
    pass(SLACK + MINUTE).await;
    let before = asked(&world);
    pass(3 * SLACK).await;
    assert_eq!(asked(&world), before, "it is forgotten with its row");
}
