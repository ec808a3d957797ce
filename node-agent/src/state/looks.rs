//! Names whose copy may change while their row does not: symlinks that name no version of their target, and dynamic large
//! objects. They are looked at again and again.

use onespace_core::timestamp::Timestamp;
use rusqlite::params;

use super::progress::DatabaseKey;
use super::verified::{Passing, time};
use super::{Sql, State, StateError};

pub(super) const SCHEMA: &str = "
CREATE TABLE look (
    mapping TEXT NOT NULL, db TEXT NOT NULL, name TEXT NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (mapping, db, name)) WITHOUT ROWID;
CREATE INDEX look_next ON look (mapping, db, next);
";

/// Names that are to be looked at again a slack later, and names that are not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// They are.
    pub again: Vec<String>,
    /// Their row is gone, or is another.
    pub over: Vec<String>,
}

impl State {
    /// Names of a database that are to be looked at now.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn due_looks(
        &self,
        key: &DatabaseKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<String>, StateError> {
        let (key, now) = (key.clone(), i64::try_from(now.ticks()).unwrap_or(i64::MAX));
        self.read(move |sql| {
            sql.prepare_cached(
                "SELECT name FROM look WHERE mapping = ? AND db = ? AND next <= ? ORDER BY next LIMIT ?",
            )?
            .query_map(params![key.mapping.0, key.database, now, limit], |row| row.get(0))?
            .collect()
        })
        .await
    }

    /// When the next look at a database's names is due.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn next_look(&self, key: &DatabaseKey) -> Result<Option<Timestamp>, StateError> {
        let key = key.clone();
        self.read(move |sql| next(sql, &key)).await
    }
}

pub(super) fn record(
    sql: &Sql,
    key: &DatabaseKey,
    looks: &Looks,
    passing: Passing,
) -> Result<(), rusqlite::Error> {
    let Looks { again, over } = looks;
    let (mapping, db) = (&key.mapping.0, &key.database);
    let later = i64::try_from(passing.at.plus(passing.slack).ticks()).unwrap_or(i64::MAX);
    for name in again {
        sql.prepare_cached("INSERT OR REPLACE INTO look (mapping, db, name, next) VALUES (?, ?, ?, ?)")?
            .execute(params![mapping, db, name, later])?;
    }
    for name in over {
        sql.prepare_cached("DELETE FROM look WHERE mapping = ? AND db = ? AND name = ?")?
            .execute(params![mapping, db, name])?;
    }
    Ok(())
}

pub(super) fn next(sql: &Sql, key: &DatabaseKey) -> Result<Option<Timestamp>, rusqlite::Error> {
    let next: Option<i64> = sql
        .prepare_cached("SELECT min(next) FROM look WHERE mapping = ? AND db = ?")?
        .query_row(params![key.mapping.0, key.database], |row| row.get(0))?;
    Ok(next.map(time))
}
