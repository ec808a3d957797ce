//! How far the reconciling pass over a database is, and when the last one was complete.

use onespace_core::reason::StallReason;
use onespace_core::timestamp::Timestamp;
use rusqlite::{Row, params};
use sha2::Digest;

use super::batches;
use super::progress::{as_sql, from_sql};
use super::{DatabaseKey, Kept, Sql, State, StateError};

pub(super) const SCHEMA: &str = "
CREATE TABLE reconcile (
    mapping TEXT NOT NULL, db TEXT NOT NULL, opened INTEGER NOT NULL, completed INTEGER, before INTEGER,
    head_at INTEGER, gap INTEGER NOT NULL DEFAULT 0, started INTEGER, after TEXT,
    compared INTEGER NOT NULL DEFAULT 0, found INTEGER NOT NULL DEFAULT 0, unmarked INTEGER NOT NULL DEFAULT 0,
    unmarked_last INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (mapping, db)) WITHOUT ROWID;
";

/// What is known of the reconciling passes over a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciling {
    /// When the database was first seen under this mapping.
    pub opened: Timestamp,
    /// When the last pass that was completed began; the first pass, which copies, counts.
    pub completed: Option<Timestamp>,
    /// What the last pass judged copies by: when the one before it began. A pass that did not come to its end has found
    /// candidates, too.
    pub before: Option<Timestamp>,
    /// When tombstones were last read up to the head.
    pub head_at: Option<Timestamp>,
    /// Swift may have forgotten tombstones that were never read.
    pub gap: bool,
    /// The pass that is under way.
    pub pass: Option<Pass>,
    /// Unmarked objects that the last pass met.
    pub unmarked: u64,
}

/// A pass that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// When it began.
    pub started: Timestamp,
    /// Everything up to this name was compared.
    pub after: Option<String>,
    /// Copies that were compared.
    pub compared: u64,
    /// Candidates so far.
    pub found: u64,
    /// Unmarked objects so far.
    pub unmarked: u64,
}

/// A database whose tombstones were read up to the head.
#[derive(Clone, Debug)]
pub struct Head {
    /// Which.
    pub key: DatabaseKey,
    /// When the first pass over it began, which counts as the pass before the first that reconciles.
    pub completed: Timestamp,
    /// Swift may have forgotten tombstones since the last time.
    pub gap: bool,
}

impl State {
    /// What is known of a database's passes; `now` is when it was opened, if that is the first time.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn reconciling(&self, key: &DatabaseKey, now: Timestamp) -> Result<Reconciling, StateError> {
        let key = key.clone();
        self.run(move |sql| {
            sql.execute(
                "INSERT OR IGNORE INTO reconcile (mapping, db, opened) VALUES (?, ?, ?)",
                params![key.mapping.0, key.database, as_sql(now.ticks())],
            )?;
            sql.query_row(
                "SELECT opened, completed, before, head_at, gap, started, after, compared, found, unmarked, unmarked_last
                 FROM reconcile WHERE mapping = ? AND db = ?",
                params![key.mapping.0, key.database],
                understand,
            )
        })
        .await
    }

    /// Records of these databases that their first pass is complete, and that tombstones were read up to the head now, all
    /// in one record.
    ///
    /// # Errors
    /// [`StateError`]: then nothing of it is recorded.
    pub async fn reached_heads(&self, heads: Vec<Head>, now: Timestamp) -> Result<(), StateError> {
        self.run(move |sql| {
            for Head { key, completed, gap } in heads {
                sql.execute(
                    "UPDATE reconcile SET completed = coalesce(completed, ?), head_at = ?, gap = max(gap, ?)
                     WHERE mapping = ? AND db = ?",
                    params![
                        as_sql(completed.ticks()),
                        as_sql(now.ticks()),
                        gap,
                        key.mapping.0,
                        key.database
                    ],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Records how far a pass is, with the candidates that it found on the way. `limit` bounds the deletes of one
    /// mapping that wait.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn advance_pass(
        &self,
        key: &DatabaseKey,
        pass: &Pass,
        candidates: Vec<String>,
        limit: u64,
    ) -> Result<Kept, StateError> {
        let (key, pass) = (key.clone(), pass.clone());
        self.run(move |sql| {
            let mapping = &key.mapping.0;
            let room = limit.saturating_sub(batches::count(sql, mapping, true)?);
            let kept = match candidates.len() as u64 <= room {
                true => Kept::Yes,
                false => Kept::Full,
            };
            let batch = batch(&key, &pass);
            if !candidates.is_empty() {
                sql.execute(
                    "INSERT OR IGNORE INTO batch (mapping, id, reason, since, released) VALUES (?, ?, ?, ?, 0)",
                    params![mapping, batch, batches::UNDECIDED, as_sql(pass.started.ticks())],
                )?;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            for name in candidates.iter().take(room) {
                batches::insert_if_absent(sql, &key, name, &batch)?;
            }
            let Pass { started, after, compared, found, unmarked } = pass;
            sql.execute(
                "UPDATE reconcile SET started = ?, after = ?, compared = ?, found = ?, unmarked = ? WHERE mapping = ? AND db = ?",
                params![
                    as_sql(started.ticks()),
                    after,
                    as_sql(compared),
                    as_sql(found),
                    as_sql(unmarked),
                    mapping,
                    key.database
                ],
            )?;
            Ok(kept)
        })
        .await
    }

    /// Ends a pass. Its candidates are worked off, or, if they are too many, wait for a person. A pass that did not
    /// come to its end counts for nothing: the next is due at once.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn end_pass(
        &self,
        key: &DatabaseKey,
        pass: &Pass,
        mass: bool,
        whole: bool,
    ) -> Result<(), StateError> {
        let (key, pass) = (key.clone(), pass.clone());
        self.run(move |sql| {
            let (mapping, batch) = (&key.mapping.0, batch(&key, &pass));
            if mass {
                sql.execute(
                    "UPDATE batch SET reason = ? WHERE mapping = ? AND id = ?",
                    params![StallReason::MassDelete.as_str(), mapping, batch],
                )?;
            } else {
                sql.execute(
                    "UPDATE batch SET released = ? WHERE mapping = ? AND id = ?",
                    params![batches::BY_ITSELF, mapping, batch],
                )?;
            }
            let started = as_sql(pass.started.ticks());
            sql.execute(
                "UPDATE reconcile SET started = NULL, after = NULL, gap = ?,
                 before = completed, completed = CASE WHEN ? THEN ? ELSE completed END,
                 compared = 0, found = 0, unmarked = 0, unmarked_last = ? WHERE mapping = ? AND db = ?",
                params![
                    !whole,
                    whole,
                    started,
                    as_sql(pass.unmarked),
                    mapping,
                    key.database
                ],
            )?;
            batches::drop_empty_batches(sql, mapping)
        })
        .await
    }
}

/// The batch of a pass's candidates.
fn batch(key: &DatabaseKey, pass: &Pass) -> String {
    let text = format!("{} {} pass {}", key.mapping.0, key.database, pass.started.ticks());
    hex::encode(&sha2::Sha256::digest(text)[..6])
}

fn understand(row: &Row<'_>) -> Result<Reconciling, rusqlite::Error> {
    let time = |ticks: Option<i64>| ticks.map(|ticks| Timestamp::from_ticks(from_sql(ticks), 0));
    let started = time(row.get(5)?);
    let pass = match started {
        None => None,
        Some(started) => Some(Pass {
            started,
            after: row.get(6)?,
            compared: from_sql(row.get(7)?),
            found: from_sql(row.get(8)?),
            unmarked: from_sql(row.get(9)?),
        }),
    };
    Ok(Reconciling {
        opened: Timestamp::from_ticks(from_sql(row.get(0)?), 0),
        completed: time(row.get(1)?),
        before: time(row.get(2)?),
        head_at: time(row.get(3)?),
        gap: row.get(4)?,
        pass,
        unmarked: from_sql(row.get(10)?),
    })
}

/// A database starts over.
pub(super) fn forget(sql: &Sql, mapping: &str, database: Option<&str>) -> Result<(), rusqlite::Error> {
    sql.execute(
        "DELETE FROM reconcile WHERE mapping = ?1 AND (?2 IS NULL OR db = ?2)",
        params![mapping, database],
    )
    .map(|_| ())
}
