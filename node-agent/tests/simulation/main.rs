//! A seeded simulation: several real agents with their own replicas, clocks and disks, a Swift whose servers disagree
//! and fail, and a faulty remote, in one process on paused time. The same seed is the same run.
//!
//! `ONESPACE_SEEDS=10000 cargo test -p onespace-node-agent --test simulation` runs more seeds, `ONESPACE_SEED=123`
//! one, and tells its story.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "what a test cannot do without ends it; a failing seed tells its story; seeds come from the environment"
)]

mod agent;
mod bucket;
mod dice;
mod history;
mod model;
mod swift;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Without a number of seeds, new ones are begun for so long.
const BUDGET: Duration = Duration::from_secs(30);

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn replay(seed: u64) {
    let Err(failure) = history::run(seed, true) else {
        return println!("seed {seed} is clean");
    };
    println!("{}", failure.story.join("\n"));
    panic!("seed {seed}: {}", failure.what);
}

#[test]
fn whatever_fails_nothing_is_lost_nothing_is_wrongly_deleted_and_in_the_end_the_remote_is_as_swift() {
    if let Some(seed) = from_environment("ONESPACE_SEED") {
        return replay(seed);
    }
    let seeds = from_environment("ONESPACE_SEEDS");
    let first = from_environment("ONESPACE_FIRST_SEED").unwrap_or(0);
    let (next, requests, seconds) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
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
                    match history::run(seed, false) {
                        Ok(stats) => {
                            requests.fetch_add(stats.requests, Ordering::Relaxed);
                            seconds.fetch_add(stats.seconds, Ordering::Relaxed);
                        }
                        Err(failure) => drop(failed.lock().unwrap().insert(seed, failure.what)),
                    }
                }
            });
        }
    });
    let ran = next.load(Ordering::Relaxed) - first;
    println!(
        "{ran} seeds from {first} on, {:.0} a second; {} requests, {} s of the world's time",
        ran as f64 / began.elapsed().as_secs_f64(),
        requests.load(Ordering::Relaxed),
        seconds.load(Ordering::Relaxed)
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
