//! Deletes of the other agents' parts of the names, counted in the transaction that records that they were read past.

use std::collections::BTreeMap;
use std::time::Duration;

use onespace_core::budget::SeenDeletes;
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Sql;
use super::progress::{DatabaseKey, as_sql, from_sql};

pub(super) const SCHEMA: &str = "
CREATE TABLE seen_deletes (
    mapping TEXT NOT NULL, db TEXT NOT NULL, replica INTEGER NOT NULL, since INTEGER NOT NULL,
    count INTEGER NOT NULL, before INTEGER NOT NULL,
    PRIMARY KEY (mapping, db, replica)) WITHOUT ROWID;
";

/// Deletes of others that a turn read past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedDeletes {
    /// How many, by the index of the replica to which their names hash.
    pub of: BTreeMap<u32, u64>,
    /// The budget of each of those agents, as far as it can be told here.
    pub max: u64,
    /// The budget's window.
    pub window: Duration,
}

/// Counts them. Returns those of which there are so many that some may wait for a person.
pub(super) fn add(
    sql: &Sql,
    key: &DatabaseKey,
    passed: &PassedDeletes,
    now: Timestamp,
) -> Result<Vec<SeenDeletes>, rusqlite::Error> {
    let PassedDeletes { of, max, window } = passed;
    let (mapping, db) = (&key.mapping.0, &key.database);
    let mut too_many = Vec::new();
    for (replica, count) in of {
        let before = sql
            .prepare_cached(
                "SELECT since, count, before FROM seen_deletes WHERE mapping = ? AND db = ? AND replica = ?",
            )?
            .query_row(params![mapping, db, replica], |row| {
                Ok(SeenDeletes {
                    since: Timestamp::from_ticks(from_sql(row.get(0)?), 0),
                    count: from_sql(row.get(1)?),
                    before: from_sql(row.get(2)?),
                })
            })
            .optional()?;
        let seen = before.unwrap_or_default().add(*count, now, *window);
        sql.prepare_cached(
            "INSERT OR REPLACE INTO seen_deletes (mapping, db, replica, since, count, before) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            mapping,
            db,
            replica,
            as_sql(seen.since.ticks()),
            as_sql(seen.count),
            as_sql(seen.before)
        ])?;
        if seen.may_exceed(*max) {
            too_many.push(seen);
        }
    }
    Ok(too_many)
}
