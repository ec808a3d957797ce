//! The agent's supervisor: a task that fails in itself is shown, and starts anew.

#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onespace_core::load::Files;
use onespace_core::mapping::{Mapping, MappingId, Target};
use onespace_core::report::MappingReport;
use onespace_core::shard::{credential_id, fold};
use onespace_core::timestamp::Timestamp;
use onespace_node_agent::clock::{Clock, SystemClock};
use onespace_node_agent::files::Folders;
use onespace_node_agent::supervisor::{Running, Supervisor};
use onespace_node_agent::turnstile::Turnstile;
use onespace_node_agent::work::Limits;
use onespace_stores::egress::DenyList;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use world::{World, mapping};

/// A mistake in the program: whoever asks for the time panics.
#[derive(Clone, Debug, Default)]
struct BrokenClock(Arc<AtomicBool>);

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        assert!(!self.0.load(Ordering::Relaxed), "a mistake in the program");
        SystemClock.now()
    }
}

/// Polls until a report of the mapping is as wanted.
async fn report(shown: &watch::Receiver<Running>, id: &MappingId, wanted: impl Fn(&MappingReport) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let last = shown
            .borrow()
            .mappings
            .get(id)
            .map(|entry| entry.reports.borrow().clone());
        if last.as_ref().is_some_and(&wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{last:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn supervisor(
    folders: Folders,
    world: &World,
    clock: BrokenClock,
    running: watch::Sender<Running>,
) -> Supervisor<World, World, BrokenClock> {
    Supervisor {
        folders,
        databases: Arc::new(world.clone()),
        source: Arc::new(world.clone()),
        state: world.state.clone(),
        turnstile: Turnstile::new(4),
        clock,
        limits: Limits::default(),
        deny: DenyList::new([]),
        transports: onespace_stores::s3::Transports::default(),
        running,
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_of_mappings_that_hangs_is_told_and_does_not_keep_the_agent_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever opens it waits for somebody who writes.
    let index = folder.path().join("index.json");
    let made = std::process::Command::new("mkfifo").arg(&index).status().unwrap();
    assert!(made.success());
    let folders = Folders {
        mappings: folder.path().to_owned(),
        credentials: folder.path().to_owned(),
    };
    let world = World::new();
    let (running, mut shown) = watch::channel(Running::default());
    let cancel = CancellationToken::new();
    let supervisor = supervisor(folders, &world, BrokenClock::default(), running);
    let supervisor = tokio::spawn(supervisor.run(cancel.clone()));
    let hangs = |running: &Running| {
        let error = running.config.error.as_deref();
        error.is_some_and(|error| error.contains("does not answer"))
    };
    let told = tokio::time::timeout(Duration::from_secs(60), shown.wait_for(hangs));
    told.await.expect("nothing is said").unwrap();
    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(60), supervisor).await;
    ended.expect("it waits for the folder").unwrap();
    assert!(!shown.borrow().loaded);
}

#[tokio::test]
async fn a_task_that_fails_in_itself_is_shown_and_starts_anew_as_often_as_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut mapping = Mapping {
        target: Target {
            endpoint: Some("http://127.0.0.1:9".into()),
            ..mapping().target
        },
        ..mapping()
    };
    mapping.target.credential.0 = credential_id("swift", "keys");
    let keys = serde_json::json!({"accessKeyId": "a", "secretAccessKey": "b"});
    let keys = BTreeMap::from([(
        mapping.target.credential.0.clone(),
        serde_json::from_value(keys).unwrap(),
    )]);
    let files = fold(std::slice::from_ref(&mapping), &keys, &Files::default(), "1").unwrap();
    let folders = Folders {
        mappings: folder.path().join("mappings"),
        credentials: folder.path().join("credentials"),
    };
    for (folder, files) in [
        (&folders.mappings, &files.mappings),
        (&folders.credentials, &files.credentials),
    ] {
        std::fs::create_dir(folder).unwrap();
        for (shard, bytes) in files {
            std::fs::write(folder.join(format!("{shard}.json")), bytes).unwrap();
        }
    }
    std::fs::write(folders.mappings.join("index.json"), &files.index).unwrap();
    let world = World::new();
    let (running, shown) = watch::channel(Running::default());
    let clock = BrokenClock::default();
    let supervisor = supervisor(folders, &world, clock.clone(), running);
    let cancel = CancellationToken::new();
    let supervisor = tokio::spawn(supervisor.run(cancel.clone()));
    let reason =
        |wanted: &'static str| move |report: &MappingReport| report.reason.as_deref() == Some(wanted);
    for _ in 0..2 {
        // Nothing listens there: the task works, and says so.
        report(&shown, &mapping.id, reason("Unreachable")).await;
        clock.0.store(true, Ordering::Relaxed);
        report(&shown, &mapping.id, reason("InternalError")).await;
        clock.0.store(false, Ordering::Relaxed);
    }
    report(&shown, &mapping.id, reason("Unreachable")).await;
    cancel.cancel();
    supervisor.await.unwrap();
}
