//! What keeps a mapping from working is shown within a second, in `/status` and in the metrics.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot do without ends it"
)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onespace_core::budget::{BudgetMax, DeleteBudget};
use onespace_core::limits::{Limits as Rates, Window};
use onespace_core::mapping::{Mapping, MappingState, Mode};
use onespace_core::reason::PauseReason;
use onespace_core::report::{ConfigReport, LimitsReport, RunState};
use onespace_node_agent::mapping_task::{Command, Handle, Order};
use onespace_node_agent::metrics;
use onespace_node_agent::reporter::{LIMIT, Reporter};
use onespace_node_agent::supervisor::{Entry, Running};
use onespace_node_agent::work::Limits;
use tokio::sync::watch;
use world::{CONTAINER, Things, World, mapping, pass, paused, refused, settle};

const SECOND: Duration = Duration::from_secs(1);

/// What `/status` and `/metrics` answer about the mapping now.
fn shown(handle: &Handle) -> (RunState, Option<String>, String) {
    let entry = Entry {
        reports: handle.reports.clone(),
        commands: handle.commands.clone(),
    };
    let running = Running {
        config: ConfigReport::default(),
        loaded: true,
        waits_for_endpoint: false,
        mappings: BTreeMap::from([(mapping().id, entry)]),
    };
    let (_sender, running) = watch::channel(running);
    let reporter = Reporter::new(|| "node".into(), "boot".into(), running);
    let report = reporter.report(None, None, LIMIT).mappings.remove(0);
    let metrics = metrics::render(true, &reporter.config(), &reporter.mappings()).unwrap();
    (report.state, report.reason, String::from_utf8(metrics).unwrap())
}

#[track_caller]
fn is_shown(handle: &Handle, state: RunState, reason: Option<&str>, metric: &str) {
    let (state_now, reason_now, metrics) = shown(handle);
    assert_eq!((state_now, reason_now.as_deref()), (state, reason));
    let labels = r#"name="test",namespace="swift""#;
    let line = metric.replace('*', labels);
    assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
}

#[track_caller]
fn is_paused(handle: &Handle, reason: &str) {
    let metric = format!(r#"onespace_mapping_paused{{*,reason="{reason}"}} 1"#);
    is_shown(handle, RunState::Paused, Some(reason), &metric);
}

async fn running() -> (World, Handle) {
    let world = World::new();
    let handle = world.start(mapping());
    settle(&handle).await;
    (world, handle)
}

#[tokio::test(start_paused = true)]
async fn every_failure_of_the_remote_is_shown_within_a_second() {
    use PauseReason as P;
    for reason in [
        P::Unreachable,
        P::TlsFailed,
        P::Timeout,
        P::ServerError,
        P::SlowDown,
        P::InvalidCredentials,
        P::AccessDenied,
        P::NoSuchBucket,
        P::QuotaExceeded,
        P::AddressDenied,
        P::UnexpectedAnswer,
    ] {
        let (world, handle) = running().await;
        world.things().remote_trouble = Some(paused(reason));
        world.put(CONTAINER, "a", "1");
        pass(SECOND).await;
        is_paused(&handle, reason.as_str());
        is_shown(
            &handle,
            RunState::Paused,
            Some(reason.as_str()),
            "onespace_remote_reachable{*} 0",
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_failure_of_swift_or_the_agents_own_disk_is_shown_within_a_second() {
    type Fault = fn(&mut Things);
    let cases: [(Fault, &str); 3] = [
        (|things| things.swift_is_down = true, "SourceUnavailable"),
        (
            |things| things.endpoint_is_public = true,
            "InternalEndpointRequired",
        ),
        (
            |things| things.endpoint_cannot_decrypt = true,
            "EndpointCannotDecrypt",
        ),
    ];
    for (fault, reason) in cases {
        let (world, handle) = running().await;
        fault(&mut world.things());
        world.put(CONTAINER, "a", "1");
        pass(SECOND).await;
        is_paused(&handle, reason);
    }
    let (world, handle) = running().await;
    world.state.refuse_records(true).await.unwrap();
    world.put(CONTAINER, "a", "1");
    pass(SECOND).await;
    is_paused(&handle, "StateUnavailable");
    world.state.refuse_records(false).await.unwrap();
    settle(&handle).await;
    assert_eq!(shown(&handle).0, RunState::Running);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_an_order_hears_what_came_of_it() {
    let (world, handle) = running().await;
    let obeyed = async |command| {
        let (order, obeyed) = Order::new(command);
        handle.commands.send(order).await.unwrap();
        obeyed.await.unwrap()
    };
    let release = || Command::ReleaseDeletes("there is none".into());
    assert!(matches!(obeyed(release()).await, Ok(0)));
    assert!(matches!(obeyed(Command::Retry(None)).await, Ok(0)));
    world.state.refuse_records(true).await.unwrap();
    for command in [release(), Command::Retry(None)] {
        let error = obeyed(command).await.unwrap_err().to_string();
        assert!(error.contains("free space under --state"), "{error}");
    }
    world.state.refuse_records(false).await.unwrap();
    settle(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_cannot_be_recorded_is_acted_on_once_the_disk_takes_records_again() {
    let (world, handle) = running().await;
    world.state.refuse_records(true).await.unwrap();
    let mut triggered = mapping();
    triggered.triggers.retry = Some("today".into());
    let order = Command::GoOn {
        mapping: Arc::new(triggered),
        renewed: false,
    };
    handle.commands.send(order.into()).await.unwrap();
    pass(SECOND).await;
    assert_eq!(handle.reports.borrow().handled.retry, None);
    world.state.refuse_records(false).await.unwrap();
    let report = settle(&handle).await;
    assert_eq!(report.handled.retry.as_deref(), Some("today"));
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_shown_though_a_long_transfer_goes_on_and_is_over_when_it_is() {
    let (world, handle) = running().await;
    let hour = Duration::from_secs(3600);
    world.things().slow_puts.insert("slow".into(), hour);
    world.put(CONTAINER, "slow", "1");
    world
        .things()
        .put_trouble
        .insert("small".into(), paused(PauseReason::InvalidCredentials));
    world.put(CONTAINER, "small", "1");
    pass(SECOND).await;
    is_paused(&handle, "InvalidCredentials");
    world.things().put_trouble.clear();
    pass(hour).await;
    settle(&handle).await;
    assert_eq!(shown(&handle).0, RunState::Running);
    assert_eq!(world.at_remote("slow").as_deref(), Some("1"));
    assert_eq!(world.at_remote("small").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_full_held_set_a_suspended_and_a_refused_mapping_are_shown_within_a_second() {
    let world = World::new();
    let limits = Limits {
        held: 1,
        ..Limits::default()
    };
    let handle = world.start_with(mapping(), limits);
    settle(&handle).await;
    for name in ["a", "b"] {
        world.things().put_trouble.insert(name.into(), refused());
        world.put(CONTAINER, name, "1");
    }
    pass(SECOND).await;
    is_paused(&handle, "HeldSetFull");
    world.stop(handle).await;
    let suspended = Mapping {
        state: MappingState::Suspended,
        ..mapping()
    };
    let handle = world.start(suspended);
    pass(SECOND).await;
    let metric = r#"onespace_mapping_state{*,state="Suspended"} 1"#;
    is_shown(&handle, RunState::Suspended, None, metric);
    world.stop(handle).await;
    let other = Mapping {
        mode: Mode::Archive,
        ..mapping()
    };
    let handle = world.start(other);
    pass(SECOND).await;
    let metric = r#"onespace_mapping_refused{*,reason="ModeChanged"} 1"#;
    is_shown(&handle, RunState::Refused, Some("ModeChanged"), metric);
}

#[tokio::test(start_paused = true)]
async fn deletes_that_wait_for_a_person_are_shown_within_a_second() {
    let world = World::new();
    let braked = Mapping {
        delete_budget: Some(DeleteBudget {
            max: BudgetMax::Rows(0),
            window: 3600,
        }),
        ..mapping()
    };
    let handle = world.start(braked);
    world.put(CONTAINER, "a", "1");
    settle(&handle).await;
    world.delete(CONTAINER, "a");
    pass(SECOND).await;
    let metric = r#"onespace_deletes_held{*,reason="DeletesHeld"} 1"#;
    is_shown(&handle, RunState::Running, Some("DeletesHeld"), metric);
    world.stop(handle).await;

    // Deletes of most of a container, forgotten while no agent ran.
    let age = Duration::from_secs(1200);
    let world = World::new();
    world.things().reclaim_age = Some(age);
    let limits = Limits {
        slack: Duration::from_secs(60),
        ..Limits::default()
    };
    pass(Duration::from_secs(60)).await;
    let handle = world.start_with(mapping(), limits);
    for number in 0..40 {
        world.put(CONTAINER, &number.to_string(), "x");
    }
    pass(age + Duration::from_secs(300)).await;
    settle(&handle).await;
    world.stop(handle).await;
    let gone = (0..20).map(|number: u32| number.to_string());
    gone.clone().for_each(|name| world.delete(CONTAINER, &name));
    pass(age * 5).await;
    gone.for_each(|name| world.forget(CONTAINER, &name));
    let handle = world.start_with(mapping(), limits);
    let mut began = false;
    for _ in 0..6000 {
        let (batch, _) = world.state.held_deletes(&mapping().id, 10_000).await.unwrap();
        began = batch.is_some();
        if began {
            break;
        }
        pass(SECOND / 10).await;
    }
    assert!(began, "no pass found them");
    pass(SECOND).await;
    let metric = r#"onespace_deletes_held{*,reason="MassDelete"} 20"#;
    is_shown(&handle, RunState::Running, Some("MassDelete"), metric);
}

#[tokio::test(start_paused = true)]
async fn the_limits_in_force_are_shown_and_follow_the_windows_within_a_second() {
    let world = World::new();
    // This world begins on a Friday at 08:00 UTC.
    let limits = Rates {
        bytes_per_second: Some(1 << 20),
        requests_per_second: Some(50),
        windows: vec![Window {
            days: Vec::new(),
            start: "08:10".into(),
            end: "08:20".into(),
            time_zone: "UTC".into(),
            bytes_per_second: Some(8 << 20),
            requests_per_second: None,
        }],
    };
    let limited = Mapping {
        limits: Some(limits),
        ..mapping()
    };
    let handle = world.start(limited);
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let outside = LimitsReport {
        bytes_per_second: Some(1 << 20),
        requests_per_second: Some(50),
        window: None,
    };
    let within = LimitsReport {
        bytes_per_second: Some(8 << 20),
        requests_per_second: Some(50),
        window: Some(0),
    };
    for (wait, expected, metric) in [
        (minutes(1), outside, "onespace_limit_bytes_per_second{*} 1048576"),
        (minutes(9), within, "onespace_limit_bytes_per_second{*} 8388608"),
        (Duration::ZERO, within, "onespace_limit_window{*} 1"),
        (minutes(10), outside, "onespace_limit_window{*} 0"),
        (
            Duration::ZERO,
            outside,
            "onespace_limit_requests_per_second{*} 50",
        ),
    ] {
        pass(wait).await;
        pass(SECOND).await;
        assert_eq!(handle.reports.borrow().limits, Some(expected));
        is_shown(&handle, RunState::Running, None, metric);
    }
}
