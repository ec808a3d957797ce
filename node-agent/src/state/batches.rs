//! Batches of deletes that wait for a person.
//!
//! A batch is held, or released by a person; its deletes are then worked off like held rows whose time has come.

use onespace_core::mapping::MappingId;
use onespace_core::plan;
use onespace_core::reason::{HoldReason, StallReason};
use onespace_core::report::HeldDeletes;
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};
use sha2::Digest;

use super::deletes::FORGOTTEN;
use super::progress::{as_sql, from_sql};
use super::{DatabaseKey, Held, HeldKey, Holding, Kept, Sql, State, StateError, held};

pub(super) const SCHEMA: &str = "
CREATE TABLE batch (
    mapping TEXT NOT NULL, id TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER NOT NULL, released INTEGER NOT NULL,
    of_others INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (mapping, id)) WITHOUT ROWID;
CREATE TABLE waiting_delete (
    mapping TEXT NOT NULL, db TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, row INTEGER NOT NULL,
    batch TEXT NOT NULL, handed_over INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (mapping, db, name)) WITHOUT ROWID;
CREATE INDEX waiting_delete_batch ON waiting_delete (mapping, batch);
";

/// The reason of a batch whose pass is not at its end: it is not shown, and not released.
pub(super) const UNDECIDED: &str = "";

/// How a batch was released: by a person, or because its pass found few enough. The latter counts against the budget.
const BY_A_PERSON: i64 = 1;
pub(super) const BY_ITSELF: i64 = 2;

/// A delete that waits in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which name, of which database.
    pub key: HeldKey,
    /// ROWID of its tombstone.
    pub row: i64,
    /// The name is this agent's own.
    pub own: bool,
}

impl State {
    /// Puts a delete into the mapping's open batch for this reason. Other agents' deletes have a batch of their own, and
    /// are looked at again now and then: when it was released there, nothing is left to wait for. `limit` bounds the
    /// deletes of one mapping that wait, of each kind by itself.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn hold_delete(
        &self,
        waiting: &Waiting,
        reason: StallReason,
        now: Timestamp,
        limit: u64,
    ) -> Result<Kept, StateError> {
        let waiting = waiting.clone();
        self.run(move |sql| {
            let Waiting {
                key: HeldKey { database: key, name },
                row,
                own,
            } = &waiting;
            let mapping = &key.mapping.0;
            let before: Option<i64> = sql
                .query_row(
                    "SELECT row FROM waiting_delete WHERE mapping = ? AND db = ? AND name = ?",
                    params![mapping, key.database, name],
                    |found| found.get(0),
                )
                .optional()?;
            if before.is_some_and(|before| before > *row) {
                return Ok(Kept::Yes);
            }
            if before.is_none() && count(sql, mapping, *own)? >= limit {
                return Ok(Kept::Full);
            }
            let batch = open_batch(sql, mapping, reason, *own, now)?;
            insert(sql, key, name, *row, &batch)?;
            if !own {
                let holding = Holding {
                    key: waiting.key.clone(),
                    row: *row,
                    own: false,
                    counted: false,
                    held: plan::Held::new(
                        HoldReason::DeleteWaits,
                        "another agent's delete, one of many: release it there, or the batch of them here",
                    ),
                    since: now,
                };
                return held::insert(sql, &holding, now, limit);
            }
            sql.execute(
                "DELETE FROM held WHERE mapping = ? AND db = ? AND name = ? AND row <= ?",
                params![mapping, key.database, name, row],
            )?;
            Ok(Kept::Yes)
        })
        .await
    }

    /// The oldest batch that waits, if any (those of other agents' deletes last), and whether there is room for more
    /// deletes that wait.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn held_deletes(
        &self,
        mapping: &MappingId,
        limit: u64,
    ) -> Result<(Option<HeldDeletes>, bool), StateError> {
        let mapping = mapping.0.clone();
        self.read(move |sql| {
            let batch = sql
                .prepare_cached(
                    "SELECT id, reason, (SELECT count(*) FROM waiting_delete AS w WHERE w.mapping = b.mapping AND w.batch = b.id)
                     FROM batch AS b WHERE mapping = ? AND released = 0 AND reason <> '' ORDER BY of_others, since, id",
                )?
                .query_map([&mapping], |row| {
                    Ok(HeldDeletes {
                        id: row.get(0)?,
                        reason: row.get(1)?,
                        rows: from_sql(row.get(2)?),
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .find(|batch| batch.rows > 0);
            Ok((batch, count(sql, &mapping, true)? >= limit))
        })
        .await
    }

    /// Releases these batches, and records the trigger that asked for it in the same transaction. A batch that is not
    /// there (any more) is nothing to release. Returns how many were there.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn release_deletes(
        &self,
        mapping: &MappingId,
        batches: Vec<String>,
        trigger: Option<String>,
    ) -> Result<usize, StateError> {
        let mapping = mapping.0.clone();
        self.run(move |sql| {
            let mut released = 0;
            for batch in batches {
                released += sql.execute(
                    "UPDATE batch SET released = ? WHERE mapping = ? AND id = ? AND reason <> ''",
                    params![BY_A_PERSON, mapping, batch],
                )?;
            }
            if trigger.is_some() {
                sql.execute(
                    "UPDATE mapping SET handled_release = ? WHERE id = ?",
                    params![trigger, mapping],
                )?;
            }
            Ok(released)
        })
        .await
    }

    /// Databases with released deletes that nobody has worked on yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn databases_with_released(&self, mapping: &MappingId) -> Result<Vec<String>, StateError> {
        let mapping = mapping.0.clone();
        self.read(move |sql| {
            sql.prepare_cached(
                "SELECT DISTINCT w.db FROM batch AS b JOIN waiting_delete AS w ON w.mapping = b.mapping AND w.batch = b.id
                 WHERE b.mapping = ? AND b.released > 0 AND w.handed_over = 0",
            )?
            .query_map([&mapping], |row| row.get(0))?
            .collect()
        })
        .await
    }

    /// Released deletes of a database that nobody has worked on yet, as rows that are due.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn released(&self, key: &DatabaseKey, limit: u32) -> Result<Vec<Held>, StateError> {
        let key = key.clone();
        self.read(move |sql| {
            sql.prepare_cached(
                "SELECT w.name, w.row FROM waiting_delete AS w JOIN batch AS b ON b.mapping = w.mapping AND b.id = w.batch
                 WHERE w.mapping = ? AND w.db = ? AND w.handed_over = 0 AND b.released > 0 ORDER BY w.name LIMIT ?",
            )?
            .query_map(params![key.mapping.0, key.database, limit], |row| {
                Ok(Held {
                    key: HeldKey {
                        database: key.clone(),
                        name: row.get(0)?,
                    },
                    row: row.get(1)?,
                    attempts: 0,
                    counted: true,
                    reason: None,
                    is_delete: true,
                })
            })?
            .collect()
        })
        .await
    }
}

/// How a delete stands with a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It never waited for one, or only the budget decides.
    Free,
    /// It waits.
    Waits,
    /// It was released.
    Released,
}

pub(super) fn standing(
    sql: &Sql,
    mapping: &str,
    database: &str,
    name: &str,
) -> Result<Standing, rusqlite::Error> {
    let released: Option<i64> = sql
        .query_row(
            "SELECT b.released FROM waiting_delete AS w JOIN batch AS b ON b.mapping = w.mapping AND b.id = w.batch
             WHERE w.mapping = ? AND w.db = ? AND w.name = ?",
            params![mapping, database, name],
            |row| row.get(0),
        )
        .optional()?;
    Ok(match released {
        None | Some(BY_ITSELF) => Standing::Free,
        Some(BY_A_PERSON) => Standing::Released,
        Some(_) => Standing::Waits,
    })
}

/// Deletes that wait: this agent's own, or those of others.
pub(super) fn count(sql: &Sql, mapping: &str, own: bool) -> Result<u64, rusqlite::Error> {
    sql.query_row(
        "SELECT count(*) FROM waiting_delete AS w JOIN batch AS b ON b.mapping = w.mapping AND b.id = w.batch
         WHERE w.mapping = ? AND b.of_others = ?",
        params![mapping, !own],
        |row| row.get(0),
    )
    .map(from_sql)
}

/// The batch of this reason that is not released yet; a new one, if there is none.
fn open_batch(
    sql: &Sql,
    mapping: &str,
    reason: StallReason,
    own: bool,
    now: Timestamp,
) -> Result<String, rusqlite::Error> {
    let open: Option<String> = sql
        .query_row(
            "SELECT id FROM batch WHERE mapping = ? AND reason = ? AND released = 0 AND of_others = ?",
            params![mapping, reason.as_str(), !own],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(open) = open {
        return Ok(open);
    }
    let digest = sha2::Sha256::digest(format!("{mapping} {reason} {own} {}", now.ticks()));
    let id = hex::encode(&digest[..6]);
    sql.execute(
        "INSERT INTO batch (mapping, id, reason, since, released, of_others) VALUES (?, ?, ?, ?, 0, ?)",
        params![mapping, id, reason.as_str(), as_sql(now.ticks()), !own],
    )?;
    Ok(id)
}

fn insert(sql: &Sql, key: &DatabaseKey, name: &str, row: i64, batch: &str) -> Result<(), rusqlite::Error> {
    sql.prepare_cached(
        "INSERT OR REPLACE INTO waiting_delete (mapping, db, container, name, row, batch) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        key.mapping.0,
        key.database,
        key.container,
        name,
        row,
        batch
    ])
    .map(|_| ())
}

/// A candidate of a pass; a name that waits already keeps its place.
pub(super) fn insert_if_absent(
    sql: &Sql,
    key: &DatabaseKey,
    name: &str,
    batch: &str,
) -> Result<(), rusqlite::Error> {
    sql.prepare_cached(
        "INSERT OR IGNORE INTO waiting_delete (mapping, db, container, name, row, batch) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        key.mapping.0,
        key.database,
        key.container,
        name,
        FORGOTTEN,
        batch
    ])
    .map(|_| ())
}

/// A released delete could not be done yet: from now on it waits among the held rows, but stays released.
pub(super) fn hand_over(sql: &Sql, key: &DatabaseKey, name: &str, row: i64) -> Result<(), rusqlite::Error> {
    sql.prepare_cached(
        "UPDATE waiting_delete SET handed_over = 1 WHERE mapping = ? AND db = ? AND name = ? AND row <= ?",
    )?
    .execute(params![key.mapping.0, key.database, name, row])
    .map(|_| ())
}

/// A name is done: what waited of it up to this row is moot. A batch goes with the last of its deletes.
pub(super) fn settle(sql: &Sql, key: &DatabaseKey, name: &str, row: i64) -> Result<(), rusqlite::Error> {
    let mapping = &key.mapping.0;
    let gone = sql
        .prepare_cached("DELETE FROM waiting_delete WHERE mapping = ? AND db = ? AND name = ? AND row <= ?")?
        .execute(params![mapping, key.database, name, row])?;
    if gone > 0 {
        drop_empty_batches(sql, mapping)?;
    }
    Ok(())
}

pub(super) fn drop_empty_batches(sql: &Sql, mapping: &str) -> Result<(), rusqlite::Error> {
    sql.prepare_cached(
        "DELETE FROM batch WHERE mapping = ?1 AND NOT EXISTS
         (SELECT 1 FROM waiting_delete AS w WHERE w.mapping = ?1 AND w.batch = batch.id)",
    )?
    .execute([mapping])
    .map(|_| ())
}
