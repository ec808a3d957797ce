//! Dynamic large objects: copied whole, followed every slack.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::time::Duration;

use onespace_core::naming::Namespace;
use onespace_node_agent::mapping_task::Handle;
use onespace_node_agent::work::Limits;
use world::{CONTAINER, World, mapping, pass, settle};

const SLACK: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

fn start(world: &World) -> Handle {
    let limits = Limits {
        slack: SLACK,
        ..Limits::default()
    };
    world.start_with(mapping(), limits)
}

/// A user's PUT of a manifest, now.
fn put_dynamic(world: &World, name: &str, manifest: &str) {
    let key = (CONTAINER.to_owned(), name.to_owned());
    world.things().manifests.insert(key, manifest.to_owned());
    world.put(CONTAINER, name, "");
}

/// A user's PUT of a segment; its container is not followed.
fn put_segment(world: &World, name: &str, body: &str) {
    world.store("segments", name, body);
}

fn drop_segment(world: &World, name: &str) {
    let key = ("segments".to_owned(), name.to_owned());
    world.things().objects.remove(&key);
}

fn manifest_key(name: &str) -> String {
    Namespace::new("a", CONTAINER, Some("")).manifest_key(name)
}

fn held(handle: &Handle) -> Option<String> {
    let report = handle.reports.borrow();
    report.held.latest.first().map(|row| row.reason.clone())
}

async fn with_one_of_three() -> (World, Handle) {
    let world = World::new();
    let handle = start(&world);
    settle(&handle).await;
    for (name, body) in [("big/1", "one "), ("big/2", "two "), ("big/3", "three")] {
        put_segment(&world, name, body);
    }
    put_segment(&world, "bigger", "another's");
    put_dynamic(&world, "film", "segments/big/");
    settle(&handle).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("one two three"));
    (world, handle)
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_at_again_every_slack_and_follows_its_segments() {
    let (world, handle) = with_one_of_three().await;
    let before = world.things().requests.len();
    pass(3 * SLACK + MINUTE).await;
    let asked = world.things().requests.split_off(before);
    assert!(
        asked.iter().all(|request| request.starts_with("HEAD")),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 6, "object and manifest, three times: {asked:?}");
    // One more, one changed, one less.
    put_segment(&world, "big/4", " four");
    pass(SLACK + MINUTE).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("one two three four"));
    put_segment(&world, "big/1", "ONE ");
    drop_segment(&world, "big/2");
    handle.task.abort();
    let handle = start(&world);
    pass(SLACK + MINUTE).await;
    assert_eq!(
        world.at_remote("film").as_deref(),
        Some("ONE three four"),
        "also after a restart"
    );
    let manifest = world.at_remote(&manifest_key("film")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let names: Vec<_> = manifest["segments"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 3, "{manifest}");
    assert_eq!(
        (&manifest["container"], &manifest["prefix"]),
        (&"segments".into(), &"big/".into())
    );
    world.delete(CONTAINER, "film");
    settle(&handle).await;
    assert_eq!(world.things().remote.len(), 0, "object and manifest go");
    assert!(
        world
            .things()
            .objects
            .contains_key(&("segments".into(), "big/1".into()))
    );
    let before = world.things().requests.len();
    pass(3 * SLACK).await;
    assert_eq!(
        world.things().requests.len(),
        before,
        "it is forgotten with its row"
    );
}

#[tokio::test(start_paused = true)]
async fn one_whose_copy_takes_longer_than_the_slack_is_looked_at_again_all_the_same() {
    let world = World::new();
    let handle = start(&world);
    settle(&handle).await;
    put_segment(&world, "big/1", "one ");
    world.things().slow_puts.insert("film".into(), 2 * SLACK);
    put_dynamic(&world, "film", "segments/big/");
    pass(2 * SLACK + 2 * MINUTE).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("one "));
    world.things().slow_puts.clear();
    put_segment(&world, "big/2", "two");
    pass(SLACK + 4 * MINUTE).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("one two"));
}

#[tokio::test(start_paused = true)]
async fn a_container_of_segments_that_is_not_there_leaves_the_copy_and_an_empty_one_empties_it() {
    let (world, handle) = with_one_of_three().await;
    world.things().no_container.insert("segments".into());
    pass(SLACK + MINUTE).await;
    assert_eq!(held(&handle).as_deref(), Some("SegmentMismatch"));
    assert_eq!(world.at_remote("film").as_deref(), Some("one two three"));
    world.things().no_container.clear();
    for name in ["big/1", "big/2", "big/3"] {
        drop_segment(&world, name);
    }
    pass(2 * SLACK).await;
    assert_eq!(held(&handle), None);
    assert_eq!(
        world.at_remote("film").as_deref(),
        Some(""),
        "Swift serves nothing, too"
    );
    put_segment(&world, "big/1", "again");
    pass(SLACK + MINUTE).await;
    assert_eq!(
        world.at_remote("film").as_deref(),
        Some("again"),
        "it is not forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn one_whose_segments_change_while_they_are_read_is_read_again() {
    let world = World::new();
    let handle = start(&world);
    settle(&handle).await;
    put_segment(&world, "big/1", "one ");
    world.things().while_uploading = Some(("segments".into(), "big/2".into(), "two".into()));
    put_dynamic(&world, "film", "segments/big/");
    settle(&handle).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("one two"));
    assert_eq!(held(&handle), None);
}

#[tokio::test(start_paused = true)]
async fn one_that_contains_itself_or_names_nothing_ends() {
    let world = World::new();
    let handle = start(&world);
    settle(&handle).await;
    world.put(CONTAINER, "loop/a", "a body");
    put_dynamic(&world, "loop/b", &format!("{CONTAINER}/loop/"));
    put_dynamic(&world, "broken", "segments");
    let report = settle(&handle).await;
    assert_eq!(world.at_remote("loop/b").as_deref(), Some("a body"));
    assert_eq!(report.held.rows, 1, "{report:?}");
    assert_eq!(held(&handle).as_deref(), Some("InvalidManifest"));
}

#[tokio::test(start_paused = true)]
async fn a_plain_object_over_it_removes_its_manifest_and_ends_the_looks() {
    let (world, handle) = with_one_of_three().await;
    assert!(world.at_remote(&manifest_key("film")).is_some());
    world.things().manifests.clear();
    world.put(CONTAINER, "film", "plain");
    settle(&handle).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("plain"));
    assert_eq!(world.at_remote(&manifest_key("film")), None);
    pass(2 * SLACK).await;
    let before = world.things().requests.len();
    pass(3 * SLACK).await;
    assert_eq!(world.things().requests.len(), before);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_object_that_1space_copied_becomes_the_whole_object() {
    let world = World::new();
    put_segment(&world, "big/1", "one");
    put_dynamic(&world, "film", "segments/big/");
    pass(3 * SLACK).await;
    // Without a mark, and newer than Swift's by more than clocks may be apart.
    world.put_at_remote("film", "");
    if let Some(stored) = world.things().remote.get_mut("film") {
        let headers = &mut stored.object.headers.metadata;
        headers.insert("x-object-manifest".into(), "segments/big/".into());
    }
    pass(3 * SLACK).await;
    let handle = start(&world);
    settle(&handle).await;
    assert_eq!(world.at_remote("film").as_deref(), Some("one"));
}
