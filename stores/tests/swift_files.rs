//! Rings and container databases that a real Swift made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use onespace_stores::swift::container_db::{ContainerDb, DbError};
use onespace_stores::swift::ring::{Ring, RingError};
use proptest::prelude::*;
use rusqlite::Connection;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(name)
}

fn ring(name: &str) -> Ring {
    Ring::load(&fixture("rings").join(format!("{name}.ring.gz"))).unwrap()
}

fn assignments(ring: &Ring) -> Vec<Vec<String>> {
    let names = |partition| {
        ring.primaries(partition)
            .iter()
            .map(|device| device.device.clone())
            .collect()
    };
    (0..1 << ring.part_power()).map(names).collect()
}

#[test]
fn both_versions_of_a_ring_say_the_same() {
    for kind in ["", "-fractional", "-hole"] {
        let (one, two) = (ring(&format!("v1{kind}")), ring(&format!("v2{kind}")));
        assert_eq!(assignments(&one), assignments(&two));
        assert_eq!(
            one.devices().collect::<Vec<_>>(),
            two.devices().collect::<Vec<_>>()
        );
        assert!((one.replica_count() - two.replica_count()).abs() < 1e-9);
    }
}

#[test]
fn a_ring_names_the_devices_of_every_partition() {
    let ring = ring("v1");
    assert_eq!(ring.part_power(), 4);
    assert_eq!(ring.devices().count(), 5);
    for partition in 0..16 {
        let primaries = ring.primaries(partition);
        assert_eq!(primaries.len(), 3);
        for device in primaries {
            assert_eq!(device.server(), format!("192.0.2.{}:6200", device.zone));
            assert_eq!(device.device, format!("sd{}", device.zone));
        }
    }
    assert!(ring.primaries(16).is_empty());
    assert!(ring.primaries(u32::MAX).is_empty());
}

#[test]
fn with_fractional_replicas_half_of_the_partitions_have_one_more() {
    let ring = ring("v1-fractional");
    assert!((ring.replica_count() - 2.5).abs() < 1e-9);
    let counts: Vec<_> = assignments(&ring).iter().map(Vec::len).collect();
    assert_eq!(counts, [3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn a_removed_device_leaves_a_hole_and_no_partition() {
    let ring = ring("v2-hole");
    assert_eq!(ring.devices().count(), 4);
    assert!(assignments(&ring).iter().flatten().all(|device| device != "sd2"));
}

#[test]
fn a_damaged_ring_is_refused_with_its_path_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("empty", Vec::new()), ("text", b"no ring".to_vec())] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let message = Ring::load(&path).unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains("swift-ring-builder"),
            "{message}"
        );
    }
    let missing = Ring::load(&dir.path().join("missing")).unwrap_err();
    assert!(matches!(missing, RingError::Unreadable { .. }));
    for name in ["v1", "v2"] {
        let content = std::fs::read(fixture("rings").join(format!("{name}.ring.gz"))).unwrap();
        for length in 0..content.len() {
            assert!(
                Ring::parse(&content[..length]).is_err(),
                "{name} cut to {length} bytes"
            );
        }
        let whole = unpacked(name);
        // Shorter by less, version 1 is a ring with fractional replicas.
        for length in 0..whole.len() - 32 {
            assert!(
                Ring::parse(&packed(&whole[..length])).is_err(),
                "{name} cut to {length} bytes, packed again"
            );
        }
        let mut version = whole.clone();
        version[5] = 9;
        assert!(matches!(
            Ring::parse(&packed(&version)),
            Err(RingError::Version { version: 9, .. })
        ));
    }
}

fn unpacked(name: &str) -> Vec<u8> {
    let content = std::fs::read(fixture("rings").join(format!("{name}.ring.gz"))).unwrap();
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&content[..]), &mut whole).unwrap();
    whole
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

proptest! {
    #[test]
    fn no_bytes_make_the_ring_reader_panic(
        version in 1_usize..=2,
        changes in proptest::collection::vec((0_usize..4000, any::<u8>()), 1..8),
        raw in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = unpacked(&format!("v{version}"));
        let length = bytes.len();
        for (at, value) in changes {
            bytes[at % length] = value;
        }
        for content in [packed(&bytes), packed(&raw), raw] {
            if let Ok(ring) = Ring::parse(&content) {
                let _ = (ring.primaries(0), ring.primaries(u32::MAX), ring.replica_count());
            }
        }
    }
}

/// A copy that the test may write to.
fn copy(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::copy(fixture("databases").join(name), &path).unwrap();
    path
}

fn names(db: &ContainerDb) -> Vec<String> {
    db.rows_by_name(None, 100)
        .unwrap()
        .rows
        .into_iter()
        .map(|row| row.unwrap().name)
        .collect()
}

#[test]
fn a_recorded_database_has_the_recorded_rows() {
    let db = ContainerDb::new(fixture("databases/forms.db"));
    let recorded: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("rows.json")).unwrap()).unwrap();
    let recorded = recorded["forms"].as_array().unwrap();
    let chunk = db.rows_after(0, 1000).unwrap();
    assert_eq!(chunk.rows.len(), recorded.len());
    for (row, recorded) in chunk.rows.iter().zip(recorded) {
        let row = row.as_ref().unwrap();
        assert_eq!(recorded["rowid"], row.rowid);
        assert_eq!(recorded["name"], row.name);
        assert_eq!(recorded["created_at"], row.created_at);
        assert_eq!(recorded["size"], row.size);
        assert_eq!(recorded["content_type"], row.content_type);
        assert_eq!(recorded["etag"], row.etag);
        assert_eq!(recorded["deleted"], i64::from(row.deleted));
        assert_eq!(recorded["storage_policy_index"], row.policy_index);
    }
    let info = db.info().unwrap();
    assert_eq!(
        (info.account.as_str(), info.container.as_str()),
        ("AUTH_test", "forms")
    );
    assert_eq!(info.head.max_rowid, 25);
    assert_eq!(info.object_count, 16);
}

#[test]
fn rows_come_in_chunks_that_follow_each_other() {
    let db = ContainerDb::new(fixture("databases/forms.db"));
    let all = db.rows_after(0, 1000).unwrap();
    assert!(all.complete);
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let chunk = db.rows_after(after, 3).unwrap();
        found.extend(chunk.rows);
        after = chunk.scanned_to;
        if chunk.complete {
            break;
        }
    }
    assert_eq!(found, all.rows);
    let tombstones = db.tombstones_after(0, 1).unwrap();
    assert!(!tombstones.complete);
    let rest = db.tombstones_after(tombstones.scanned_to, 10).unwrap();
    assert_eq!((rest.rows.len(), rest.complete, rest.scanned_to), (1, true, 25));
}

#[test]
fn databases_of_former_releases_are_read() {
    for name in ["old-premetadata.db", "old-prexsync.db", "old-prespi.db"] {
        let db = ContainerDb::new(fixture("databases").join(name));
        let info = db.info().unwrap();
        assert_eq!(
            (info.account.as_str(), info.container.as_str()),
            ("AUTH_test", "old"),
            "{name}"
        );
        assert_eq!((info.head.id.as_str(), info.head.max_rowid), ("an-old-id", 3));
        assert_eq!((info.object_count, info.policy_index), (2, 0));
        assert!(info.metadata.is_empty() && !info.is_deleted());
        assert_eq!(names(&db), ["a", "ü/b"]);
        let chunk = db.rows_after(1, 10).unwrap();
        assert_eq!(chunk.rows.len(), 2);
        assert!(chunk.rows[0].as_ref().unwrap().deleted);
        assert_eq!(db.live_policies("a").unwrap(), [0]);
    }
}

#[test]
fn a_database_without_the_index_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = copy(&dir, "old-prespi.db");
    Connection::open(&path)
        .unwrap()
        .execute("DROP INDEX ix_object_deleted_name", [])
        .unwrap();
    assert_eq!(names(&ContainerDb::new(&path)), ["a", "ü/b"]);
}

/// A database whose triggers do not stand in the way.
fn writable(dir: &tempfile::TempDir) -> (Connection, ContainerDb) {
    let path = copy(dir, "forms.db");
    let db = Connection::open(&path).unwrap();
    let triggers: Vec<String> = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'object'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for trigger in triggers {
        db.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    (db, ContainerDb::new(path))
}

#[test]
fn a_damaged_row_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, db) = writable(&dir);
    writer
        .execute_batch(
            "DELETE FROM object WHERE ROWID > 5;
             INSERT INTO object VALUES
                (31, 'no size', '1', 'many', 't', 'e', 0, 0),
                (32, x'ff', '1', 1, 't', 'e', 0, 0),
                (33, CAST(x'7aff' AS TEXT), '1', 1, 't', 'e', 0, 0),
                (34, NULL, '1', 1, 't', 'e', 0, 0),
                (35, 'no time', NULL, 1, 't', 'e', 0, 0),
                (36, 'half deleted', '1', 1, 't', 'e', 2, 0),
                (37, 'zz', '1', 1, 't', 'e', 0, 0);",
        )
        .unwrap();
    let rows = db.rows_after(30, 100).unwrap().rows;
    let damage: Vec<_> = rows
        .iter()
        .filter_map(|row| row.as_ref().err())
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        damage,
        [
            "row 31 (no size): its size is text",
            "row 32: its name is bytes",
            "row 33: its name is not UTF-8",
            "row 34: its name is NULL",
            "row 35 (no time): its created_at is NULL",
            "row 36 (half deleted): its deleted is 2",
        ]
    );
    assert_eq!(rows.last().unwrap().as_ref().unwrap().name, "zz");
    assert_eq!(db.row_at(33).unwrap(), None);

    // In name order, too, every chunk ends where the next one can begin.
    let (mut after, mut found, mut chunks) = (None::<String>, Vec::new(), 0);
    loop {
        let chunk = db.rows_by_name(after.as_deref(), 1).unwrap();
        after = chunk.rows.iter().rev().find_map(|row| match row {
            Ok(row) => Some(row.name.clone()),
            Err(damage) => damage.name.clone(),
        });
        found.extend(chunk.rows);
        chunks += 1;
        if chunk.complete {
            break;
        }
    }
    assert_eq!(found.len(), 10, "four that were there and six");
    assert!(chunks > 3);
}

#[test]
fn a_value_longer_than_memory_should_hold_damages_its_row_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, db) = writable(&dir);
    let before = db.rows_after(0, 1000).unwrap().rows.len();
    writer
        .execute_batch(&format!(
            "INSERT INTO object VALUES
                (90, CAST(zeroblob({huge}) AS TEXT), '1', 1, 't', 'e', 0, 0),
                (91, 'm', '1', 1, 't', zeroblob({huge}), 0, 0),
                (92, 'zz', '1', 1, 't', 'e', 0, 0);",
            huge = 20 << 20
        ))
        .unwrap();
    let rows = db.rows_after(0, 1000).unwrap().rows;
    let damage: Vec<_> = rows
        .iter()
        .filter_map(|row| row.as_ref().err())
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        damage,
        [
            "row 90: a value in it has 20971520 bytes",
            "row 91 (m): a value in it has 20971520 bytes"
        ]
    );
    assert_eq!(rows.len(), before + 3);
    let by_name = db.rows_by_name(Some("l"), 1000).unwrap().rows;
    assert!(by_name.iter().flatten().any(|row| row.name == "zz"));
    assert_eq!(
        db.rows_by_name(None, 1).unwrap().rows.len(),
        2,
        "the damaged one, and where to go on"
    );
}

#[test]
fn rows_of_one_name_under_two_policies_stay_together() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, db) = writable(&dir);
    writer
        .execute_batch("INSERT INTO object VALUES (40, 'dlo', '1', 1, 't', 'e', 0, 1)")
        .unwrap();
    assert_eq!(db.live_policies("dlo").unwrap().len(), 2);
    let chunk = db.rows_by_name(Some("deleted"), 1).unwrap();
    let names: Vec<_> = chunk
        .rows
        .iter()
        .map(|row| row.as_ref().unwrap().name.as_str())
        .collect();
    assert_eq!((names, chunk.complete), (vec!["dlo", "dlo"], false));
}

#[test]
fn a_writer_makes_a_database_busy_and_a_reader_never_blocks_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, db) = writable(&dir);
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(db.info(), Err(DbError::Busy(db.path().to_owned())));
    writer.execute_batch("DELETE FROM object; COMMIT").unwrap();
    assert_eq!(db.rows_after(0, 10).unwrap().rows, []);
    writer.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
}

#[test]
fn a_crashed_writers_journal_means_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, db) = writable(&dir);
    // What a crash leaves: the journal, synced, beside a half-changed file. A copy taken in the middle of a
    // transaction whose pages were already spilled is exactly that.
    writer
        .execute_batch("PRAGMA cache_size = 2; BEGIN; UPDATE object SET content_type = hex(zeroblob(3000));")
        .unwrap();
    let crashed = dir.path().join("crashed.db");
    std::fs::copy(db.path(), &crashed).unwrap();
    let journal = |path: &Path| PathBuf::from(format!("{}-journal", path.display()));
    std::fs::copy(journal(db.path()), journal(&crashed)).unwrap();
    assert_eq!(
        ContainerDb::new(&crashed).rows_after(0, 1),
        Err(DbError::Busy(crashed))
    );
}

#[test]
fn what_is_no_container_database_is_said_to_be_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a%20b?c#.db");
    let db = ContainerDb::new(&path);
    assert_eq!(db.info(), Err(DbError::Gone(path.clone())));
    for content in [&b""[..], b"SQLite format 3\0", &[b'x'; 5000]] {
        std::fs::write(&path, content).unwrap();
        for result in [db.info().map(drop), db.rows_after(0, 1).map(drop)] {
            let message = result.unwrap_err().to_string();
            assert!(
                message.contains("a%20b?c#.db") && message.contains("quarantines"),
                "{message}"
            );
        }
    }
    std::fs::copy(fixture("databases/forms.db"), &path).unwrap();
    assert_eq!(db.info().unwrap().container, "forms");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_the_database_reader_panic(changes in proptest::collection::vec((0_usize..53_248, any::<u8>()), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut content = std::fs::read(fixture("databases/forms.db")).unwrap();
        let length = content.len();
        for (at, value) in changes {
            content[at % length] = value;
        }
        let path = dir.path().join("x.db");
        std::fs::write(&path, content).unwrap();
        let db = ContainerDb::new(path);
        let _ = (db.info(), db.rows_after(0, 100), db.rows_by_name(None, 100), db.tombstones_after(0, 10), db.rows_of("plain"));
    }
}

#[test]
fn a_node_that_is_not_in_the_ring_is_told_from_one_that_has_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("rings/v1.ring.gz"), dir.path().join("container.ring.gz")).unwrap();
    std::fs::write(
        dir.path().join("swift.conf"),
        "[swift-hash]\nswift_hash_path_suffix = x\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("container-server.conf"), "[DEFAULT]\n").unwrap();
    let server = ring("v1").devices().next().unwrap().server();
    let in_ring = |server: &str| {
        let node =
            onespace_stores::swift::locate::Node::load(dir.path(), dir.path(), &[server.parse().unwrap()]);
        node.unwrap().is_in_ring()
    };
    assert!(in_ring(&server));
    assert!(!in_ring("192.0.2.1:6201"));
}
