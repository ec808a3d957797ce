//! Container databases: a whole file, read as the agent reads it.

use std::cell::OnceCell;
use std::path::PathBuf;

use onespace_core::row::Row;
use onespace_stores::swift::container_db::{Chunk, ContainerDb};

const LIMIT: usize = 7;

/// How many chunks are read in a row: more than the corpus has.
const CHUNKS: usize = 200;

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

/// A database file. However damaged: a chunk is not longer than asked for, rows are in order, and each chunk goes on
/// behind the one before, so that a reader ends.
pub fn run(input: &[u8]) {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| {
            // In memory where the system has that.
            let memory = PathBuf::from("/dev/shm");
            let place = if memory.is_dir() {
                memory
            } else {
                std::env::temp_dir()
            };
            tempfile::tempdir_in(place).expect("a temporary folder")
        });
        let path = folder.path().join("container.db");
        std::fs::write(&path, input).expect("a file");
        check(&ContainerDb::new(path));
    });
}

fn check(db: &ContainerDb) {
    let info = db.info();
    assert_eq!(info, db.info(), "the same answer twice");
    if let Ok(info) = &info {
        assert!(!info.account.is_empty() && !info.container.is_empty());
    }
    follow(|after| db.rows_after(after, LIMIT));
    follow(|after| db.tombstones_after(after, LIMIT));
    by_name(db);
    for name in ["plain", ""] {
        assert_eq!(db.rows_of(name), db.rows_of(name), "the same answer twice");
        let _ = db.live_policies(name);
    }
    let _ = db.row_at(1);
}

/// By ROWID, to the end.
fn follow<E: std::fmt::Debug + PartialEq>(read: impl Fn(i64) -> Result<Chunk, E>) {
    let mut after = 0;
    for _ in 0..CHUNKS {
        let Ok(chunk) = read(after) else {
            return;
        };
        assert!(chunk.rows.len() <= LIMIT);
        let mut last = after;
        for row in chunk.rows {
            let rowid = match row {
                Ok(raw) => {
                    let rowid = raw.rowid;
                    let _ = Row::parse(raw);
                    rowid
                }
                Err(damage) => damage.rowid,
            };
            assert!(rowid > last, "row {rowid} after {last}");
            last = rowid;
        }
        assert!(
            chunk.scanned_to >= last,
            "scanned to {} with row {last}",
            chunk.scanned_to
        );
        if chunk.complete {
            return;
        }
        assert!(chunk.scanned_to > after, "no progress after {after}");
        after = chunk.scanned_to;
    }
}

/// By name, to the end.
fn by_name(db: &ContainerDb) {
    let mut after: Option<String> = None;
    for _ in 0..CHUNKS {
        let Ok(chunk) = db.rows_by_name(after.as_deref(), LIMIT) else {
            return;
        };
        assert!(chunk.rows.len() <= LIMIT + 1_000);
        let mut names = chunk
            .rows
            .iter()
            .filter_map(|row| row.as_ref().ok())
            .map(|row| row.name.clone());
        let last = names.next_back();
        if chunk.complete {
            return;
        }
        let last = last.expect("a chunk that is not the last ends with a name");
        assert!(after.is_none_or(|after| last > after), "no progress at {last:?}");
        after = Some(last);
    }
}
