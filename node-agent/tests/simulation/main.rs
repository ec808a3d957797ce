//! A seeded simulation: several real agents with their own replicas, clocks and disks, a Swift whose servers disagree,
//! fail and forget, a faulty remote, and a person, in one process on paused time. The same seed is the same run.
//!
//! `ONESPACE_SEEDS=10000 cargo test -p onespace-node-agent --test simulation` runs more seeds, `ONESPACE_SEED=123`
//! one, and tells its story. With the feature `planted-faults`, `ONESPACE_LOOK_FOR_FAULTS=all` looks for the first seed that
//! finds each fault that can be planted, which takes some minutes; a fault's name in its place, for that one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "what a test cannot do without ends it; a failing seed tells its story; seeds come from the environment"
)]

mod agent;
mod bucket;
mod deletes;
mod dice;
mod history;
mod model;
mod swift;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "planted-faults")]
use onespace_core::planted::{Fault, plant};

/// Without a number of seeds, new ones are begun for so long.
const BUDGET: Duration = Duration::from_secs(30);

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn replay(seed: u64) {
    let (story, result) = history::tell(seed);
    println!("{}", story.join("\n"));
    match result {
        Ok(stats) => println!("seed {seed} is clean: {stats:?}"),
        Err(what) => panic!("seed {seed}: {what}"),
    }
}

#[test]
fn whatever_fails_nothing_is_lost_nothing_is_wrongly_deleted_and_in_the_end_the_remote_is_as_swift() {
    if let Some(seed) = from_environment("ONESPACE_SEED") {
        return replay(seed);
    }
    let seeds = from_environment("ONESPACE_SEEDS");
    let first = from_environment("ONESPACE_FIRST_SEED").unwrap_or(0);
    let next = AtomicU64::new(first);
    let sums = std::sync::Mutex::new(history::Stats::default());
    let began = Instant::now();
    let failed = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let over = seeds.is_none() && began.elapsed() > BUDGET;
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if over || seeds.is_some_and(|seeds| seed >= first + seeds) {
                        break next.fetch_sub(1, Ordering::Relaxed);
                    }
                    match history::run(seed) {
                        Ok(stats) => sums.lock().unwrap().add(stats),
                        Err(what) => {
                            // At once: whoever runs thousands of them need not wait.
                            println!("seed {seed} fails");
                            failed.lock().unwrap().insert(seed, what);
                        }
                    }
                }
            });
        }
    });
    let ran = next.load(Ordering::Relaxed) - first;
    let history::Stats {
        requests,
        seconds,
        deletes: (deletes, forgotten),
    } = sums.into_inner().unwrap();
    println!(
        "{ran} seeds from {first} on, {:.0} a second; {requests} requests, {deletes} deletes, {forgotten} of them of what Swift had forgotten, {seconds} s of the world's time",
        ran as f64 / began.elapsed().as_secs_f64(),
    );
    let failed = failed.into_inner().unwrap();
    for (seed, what) in failed.iter().take(20) {
        println!(
            "seed {seed}: {what}\n    ONESPACE_SEED={seed} cargo test -p onespace-node-agent --test simulation -- --nocapture"
        );
    }
    assert!(
        failed.is_empty(),
        "{} of {ran} seeds fail, the first ones are above",
        failed.len()
    );
}

/// Every fault that can be planted, and the first seed that finds it.
#[cfg(feature = "planted-faults")]
const FOUND: [(Fault, u64); Fault::ALL.len()] = [
    (Fault::VerifiedUnseen, 1),
    (Fault::T3ForT1, 2),
    (Fault::HeldForgotten, 2),
    (Fault::ForeignMark, 5),
    (Fault::PauseGivesUp, 8),
    (Fault::WatermarkBeforeDurable, 8),
    (Fault::NewerOverwritten, 11),
    (Fault::NoSecondLook, 24),
    (Fault::FirstPassDeletes, 34),
    (Fault::MassDelete, 34),
    (Fault::UnmarkedDeleted, 57),
    (Fault::UnmarkedForgotten, 106),
    (Fault::BudgetRefilled, 116),
    (Fault::RestoredUnnoticed, 135),
    (Fault::FormerContainerDeleted, 249),
];

/// Within so many seeds a planted fault is found.
#[cfg(feature = "planted-faults")]
const ENOUGH: u64 = 1000;

/// The first of these seeds that fails with the fault, and is clean without it.
#[cfg(feature = "planted-faults")]
fn find(fault: Fault, mut seeds: impl Iterator<Item = u64>) -> Option<u64> {
    seeds.find(|seed| {
        plant(Some(fault));
        let failure = history::run(*seed).err();
        plant(None);
        if let Some(what) = &failure {
            let what = what.lines().next().unwrap_or_default();
            println!("{fault:?}: seed {seed}: {what}");
        }
        failure.is_some() && history::run(*seed).is_ok()
    })
}

#[cfg(feature = "planted-faults")]
#[test]
fn planted_faults_are_found_within_a_thousand_seeds() {
    if let Ok(wanted) = std::env::var("ONESPACE_LOOK_FOR_FAULTS") {
        return look_for(&wanted);
    }
    for fault in Fault::ALL {
        let known = FOUND.iter().find(|(of, _)| *of == fault).map(|(_, seed)| *seed);
        let found = find(fault, known.into_iter().chain(0..ENOUGH));
        assert!(found.is_some(), "{fault:?} is not found within {ENOUGH} seeds");
    }
}

/// Where the table above comes from: looks for one fault, or for all.
#[cfg(feature = "planted-faults")]
fn look_for(wanted: &str) {
    let all = Fault::ALL.into_iter();
    let wanted = all.filter(|fault| wanted == "all" || wanted == format!("{fault:?}"));
    std::thread::scope(|scope| {
        for fault in wanted {
            scope.spawn(move || match find(fault, 0..ENOUGH) {
                Some(seed) => println!("{fault:?} is found at seed {seed}"),
                None => println!("{fault:?} is not found"),
            });
        }
    });
}
