use onespace_core::mapping::{MappingId, Mode};
use onespace_core::plan;
use onespace_core::reason::HoldReason;
use onespace_core::report::Totals;
use onespace_core::timestamp::Timestamp;

use super::*;

fn key(database: &str) -> DatabaseKey {
    DatabaseKey {
        mapping: MappingId("m".into()),
        database: database.into(),
        container: "c".into(),
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

/// Holds row `row` of the name at the time `seconds`.
async fn hold(state: &State, name: &str, row: i64, reason: HoldReason, seconds: u64) -> Kept {
    let key = HeldKey {
        database: key("db"),
        name: name.into(),
    };
    let held = plan::Held::new(reason, "why");
    let holding = Holding {
        key,
        row,
        own: true,
        counted: true,
        held,
        since: at(seconds),
    };
    state.hold(holding, at(seconds), 2).await.unwrap()
}

async fn due(state: &State, seconds: u64) -> Vec<(String, i64, u32)> {
    let due = state.due(&MappingId("m".into()), at(seconds), 100).await.unwrap();
    due.into_iter()
        .map(|held| (held.key.name, held.row, held.attempts))
        .collect()
}

async fn settle(state: &State, name: &str, row: i64) {
    let step = Advance {
        to: Watermark::Unmoved,
        passing: Passing::default(),
        passed_deletes: None,
        totals: Totals::default(),
        settled: vec![(name.into(), row)],
        adopted: Vec::new(),
        looks: Looks::default(),
        judged: Judged::default(),
    };
    state.advance(&key("db"), step).await.unwrap();
}

const MENDS: HoldReason = HoldReason::SourceBehind;

#[tokio::test]
async fn what_was_recorded_is_there_after_a_restart_and_a_second_agent_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let progress = Progress {
        high: 5,
        processed: 5,
        ..Progress::default()
    };
    {
        let state = State::open(folder.path()).unwrap();
        let opened = state
            .open_mapping(&key("db").mapping, Mode::Sync, "1")
            .await
            .unwrap();
        assert!(matches!(opened, Opened::Found(_)));
        state
            .begin(&key("db"), Path::new("/x"), &progress, None)
            .await
            .unwrap();
        let step = Advance {
            to: Watermark::Processed {
                rowid: 9,
                name: Some("n".into()),
            },
            passing: Passing::default(),
            passed_deletes: None,
            totals: Totals {
                objects: 3,
                ..Totals::default()
            },
            settled: Vec::new(),
            adopted: Vec::new(),
            looks: Looks::default(),
            judged: Judged::default(),
        };
        state.advance(&key("db"), step).await.unwrap();
        hold(&state, "x", 7, MENDS, 0).await;
        assert!(matches!(
            State::open(folder.path()),
            Err(StateError::InUse { .. })
        ));
    }
    // The thread that owns the file ends soon after its last handle.
    let state = loop {
        match State::open(folder.path()) {
            Ok(state) => break state,
            Err(StateError::InUse { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let found = state.progress(&key("db")).await.unwrap().unwrap();
    assert_eq!(
        (found.high, found.processed, found.processed_name.as_deref()),
        (5, 9, Some("n"))
    );
    assert_eq!(due(&state, 10).await, [("x".to_owned(), 7, 1)]);
    let Opened::Found(mapping) = state
        .open_mapping(&key("db").mapping, Mode::Sync, "1")
        .await
        .unwrap()
    else {
        panic!("its mode did not change");
    };
    assert_eq!(mapping.totals.objects, 3);
}

#[tokio::test]
async fn a_mapping_of_another_mode_is_refused_and_one_that_starts_over_forgets_rows_but_not_totals() {
    let state = State::in_memory().unwrap();
    let id = key("db").mapping;
    state.open_mapping(&id, Mode::Sync, "1").await.unwrap();
    state
        .begin(&key("db"), Path::new("/x"), &Progress::default(), None)
        .await
        .unwrap();
    hold(&state, "x", 7, MENDS, 0).await;
    assert!(matches!(
        state.open_mapping(&id, Mode::Archive, "1").await.unwrap(),
        Opened::ModeChanged { .. }
    ));
    assert!(state.progress(&key("db")).await.unwrap().is_some());
    state.open_mapping(&id, Mode::Sync, "2").await.unwrap();
    assert_eq!(state.progress(&key("db")).await.unwrap(), None);
    assert!(due(&state, 100).await.is_empty());
}

#[tokio::test]
async fn a_later_row_replaces_an_entry_and_an_earlier_one_changes_nothing() {
    let state = State::in_memory().unwrap();
    hold(&state, "x", 7, MENDS, 0).await;
    hold(&state, "x", 7, MENDS, 10).await;
    assert_eq!(due(&state, 20).await, [("x".to_owned(), 7, 2)]);
    hold(&state, "x", 9, MENDS, 20).await;
    assert_eq!(
        due(&state, 30).await,
        [("x".to_owned(), 9, 1)],
        "its count begins anew"
    );
    hold(&state, "x", 7, MENDS, 30).await;
    assert_eq!(due(&state, 30).await, [("x".to_owned(), 9, 1)]);
    settle(&state, "x", 7).await;
    assert_eq!(due(&state, 30).await.len(), 1, "a later row still waits");
    settle(&state, "x", 9).await;
    assert!(due(&state, 30).await.is_empty());
}

#[tokio::test]
async fn a_later_row_that_is_done_has_the_one_that_waits_looked_for_and_not_forgotten() {
    let state = State::in_memory().unwrap();
    hold(&state, "x", 5, HoldReason::Refused, 0).await;
    assert!(due(&state, 30).await.is_empty());
    settle(&state, "x", 7).await;
    assert_eq!(due(&state, 30).await, [("x".to_owned(), 5, 0)]);
    settle(&state, "x", 5).await;
    assert!(due(&state, 30).await.is_empty());
}

#[tokio::test]
async fn a_full_set_takes_no_new_name_and_drops_none() {
    let state = State::in_memory().unwrap();
    assert_eq!(hold(&state, "a", 1, MENDS, 0).await, Kept::Yes);
    assert_eq!(hold(&state, "b", 2, MENDS, 0).await, Kept::Yes);
    assert_eq!(hold(&state, "c", 3, MENDS, 0).await, Kept::Full);
    assert_eq!(
        hold(&state, "a", 4, MENDS, 0).await,
        Kept::Yes,
        "it has its place already"
    );
    let report = state.held_report(&key("db").mapping, 2).await.unwrap();
    assert_eq!((report.rows, report.full), (2, true));
}

#[tokio::test]
async fn what_time_cannot_mend_is_tried_again_only_when_asked_for() {
    let state = State::in_memory().unwrap();
    let id = key("db").mapping;
    state.open_mapping(&id, Mode::Sync, "1").await.unwrap();
    hold(&state, "x", 1, HoldReason::Refused, 0).await;
    assert!(due(&state, 1_000_000).await.is_empty());
    assert!(!state.has_hope(&id, 3).await.unwrap());
    assert_eq!(state.retry_name(&id, "c", "y", at(5)).await.unwrap(), 0);
    assert_eq!(state.retry_name(&id, "c", "x", at(5)).await.unwrap(), 1);
    assert_eq!(due(&state, 5).await.len(), 1);
    hold(&state, "x", 1, HoldReason::Refused, 5).await;
    assert!(due(&state, 1_000_000).await.is_empty());
    state
        .handle_retry(&id, Some("token".into()), at(6))
        .await
        .unwrap();
    assert_eq!(due(&state, 6).await.len(), 1);
}

#[tokio::test]
async fn rows_of_an_absent_database_are_put_off_and_not_forgotten() {
    let state = State::in_memory().unwrap();
    hold(&state, "x", 1, MENDS, 0).await;
    state.postpone(&key("db").mapping, "db", at(10)).await.unwrap();
    assert!(due(&state, 60).await.is_empty());
    assert_eq!(due(&state, 70).await, [("x".to_owned(), 1, 2)]);
}

#[tokio::test]
async fn what_is_to_be_verified_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let assignment = Assignment {
        index: 1,
        replicas: 3,
    };
    let slack = std::time::Duration::from_secs(160);
    let pass = async |state: &State, to, seconds| {
        let step = Advance {
            to,
            passing: Passing {
                at: at(seconds),
                slack,
            },
            passed_deletes: None,
            totals: Totals::default(),
            settled: Vec::new(),
            adopted: Vec::new(),
            looks: Looks::default(),
            judged: Judged::default(),
        };
        state.advance(&key("db"), step).await.unwrap().unverified
    };
    let ranges = async |state: &State| -> Vec<(bool, i64, i64, bool)> {
        let open = state.stretches(&key("db")).await.unwrap();
        open.iter()
            .map(|stretch| (stretch.tombstones, stretch.after, stretch.to, stretch.own))
            .collect()
    };
    let rows = |rowid| Watermark::Processed { rowid, name: None };
    {
        let state = State::open(folder.path()).unwrap();
        let progress = Progress {
            high: 5,
            processed: 5,
            ..Progress::default()
        };
        state
            .begin(&key("db"), Path::new("/x"), &progress, None)
            .await
            .unwrap();
        assert!(!state.assign(&key("db"), assignment, at(0)).await.unwrap());
        assert_eq!(pass(&state, rows(7), 10).await, Some(at(10)));
        pass(&state, rows(8), 15).await;
        pass(&state, rows(9), 25).await;
        pass(&state, Watermark::Deletes(9), 30).await;
    }
    let state = State::open(folder.path()).unwrap();
    assert!(!state.assign(&key("db"), assignment, at(40)).await.unwrap());
    let mut expected = vec![(false, 5, 8, false), (false, 8, 9, false), (true, 0, 9, false)];
    assert_eq!(ranges(&state).await, expected);
    let done = Watermark::FirstPass {
        after_name: None,
        done: true,
    };
    pass(&state, done, 50).await;
    expected.insert(0, (false, 0, 5, false));
    assert_eq!(
        ranges(&state).await,
        expected,
        "the first pass is verified as a whole"
    );
    let verified = Watermark::Verified(Verified {
        tombstones: false,
        after: 5,
        to: Reached::Row(6),
    });
    assert_eq!(pass(&state, verified, 60).await, Some(at(15)));
    assert_eq!(ranges(&state).await[1], (false, 6, 8, false));
    let another = Assignment {
        index: 0,
        ..assignment
    };
    assert!(state.assign(&key("db"), another, at(70)).await.unwrap());
    assert_eq!(ranges(&state).await, [(false, 0, 9, true), (true, 0, 9, true)]);
}

#[tokio::test]
async fn a_database_that_is_at_another_path_now_is_not_forgotten() {
    let state = State::in_memory().unwrap();
    let progress = Progress::default();
    state
        .begin(&key("db"), Path::new("/old"), &progress, None)
        .await
        .unwrap();
    state.is_at(&key("db"), Path::new("/new"), 0).await.unwrap();
    let (containers, paths) = (["c".to_owned()].into(), [PathBuf::from("/new")].into());
    let mapping = MappingId("m".into());
    state.forget_absent(&mapping, containers, paths).await.unwrap();
    assert_eq!(state.progress(&key("db")).await.unwrap(), Some(progress));
}

/// Changes the file of a state that was dropped.
fn meddle(folder: &Path, change: &str) {
    let connection = rusqlite::Connection::open(folder.join("state.sqlite")).unwrap();
    // Its thread lets go of the file a moment later.
    while connection.execute_batch(change).is_err() {
        std::thread::yield_now();
    }
    connection.close().unwrap();
}

#[tokio::test]
async fn a_state_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(State::open(folder.path()).unwrap());
    meddle(folder.path(), "PRAGMA user_version = 1000");
    let refused = State::open(folder.path());
    assert!(matches!(refused, Err(StateError::Version { found: 1000, .. })));
}

#[tokio::test]
async fn a_state_that_an_earlier_version_wrote_goes_on_and_learns_which_file_a_database_is() {
    let folder = tempfile::tempdir().unwrap();
    let progress = Progress {
        processed: 7,
        ..Progress::default()
    };
    let path = Path::new("/p");
    let state = State::open(folder.path()).unwrap();
    state.begin(&key("db"), path, &progress, None).await.unwrap();
    drop(state);
    meddle(
        folder.path(),
        "ALTER TABLE progress DROP COLUMN file; PRAGMA user_version = 1;",
    );

    let state = State::open(folder.path()).unwrap();
    assert_eq!(state.progress(&key("db")).await.unwrap(), Some(progress.clone()));
    state.is_at(&key("db"), path, u64::MAX).await.unwrap();
    let expected = Progress {
        file: std::num::NonZeroU64::new(u64::MAX),
        ..progress
    };
    assert_eq!(state.progress(&key("db")).await.unwrap(), Some(expected));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_an_error_after_a_minute_and_what_comes_late_comes_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    let (end, hangs) = std::sync::mpsc::channel::<()>();
    let hangs = state.run(move |_| {
        let _ = hangs.recv();
        Ok(())
    });
    let (db, progress) = (key("db"), Progress::default());
    let late = state.begin(&db, Path::new("/p"), &progress, None);
    let (hung, late) = tokio::join!(hangs, late);
    assert!(matches!(hung, Err(StateError::Stuck)));
    assert!(matches!(late, Err(StateError::Stuck)));
    drop(end);
    // Paused time runs away while the thread works.
    let found = loop {
        match state.progress(&key("db")).await {
            Err(StateError::Stuck) => std::thread::yield_now(),
            found => break found.unwrap(),
        }
    };
    assert_eq!(found, Some(progress));
}

#[tokio::test]
async fn what_a_failure_took_out_of_a_transaction_is_not_called_durable() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let first = state.run(move |_| {
        let _ = waits.recv();
        Ok(())
    });
    let (db, progress) = (key("db"), Progress::default());
    let recorded = state.begin(&db, Path::new("/p"), &progress, None);
    // What SQLite does by itself when the disk is full; then a record that leaves another transaction open.
    let ends = state.run(|sql| sql.connection().execute_batch("ROLLBACK"));
    let opens = state.run(|sql| sql.connection().execute_batch("RELEASE record; BEGIN"));
    let all_are_queued = async { go.send(()).unwrap() };
    let (_, recorded, ..) = tokio::join!(first, recorded, ends, opens, all_are_queued);
    let is_there = state.progress(&key("db")).await.unwrap().is_some();
    assert_eq!(recorded.is_ok(), is_there);
}
