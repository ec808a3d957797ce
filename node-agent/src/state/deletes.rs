//! Deletes under way, and the budget of deletes.
//!
//! A delete is under way from before the remote is asked until the look at Swift after it. A budget is counted in the
//! same transaction that records a delete as under way, so that neither a restart nor a retry counts one twice.

use onespace_core::mapping::MappingId;
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::adopted::key_hash;
use super::batches::{Standing, drop_empty_batches, standing};
use super::progress::{as_sql, from_sql};
use super::{DatabaseKey, Sql, State, StateError};

pub(super) const SCHEMA: &str = "
CREATE TABLE deleting (
    mapping TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (mapping, container, name)) WITHOUT ROWID;
CREATE TABLE budget (
    mapping TEXT NOT NULL, db TEXT NOT NULL, since INTEGER NOT NULL, live INTEGER NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (mapping, db)) WITHOUT ROWID;
";

/// A window of time in which deletes of one database are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When it began.
    pub since: Timestamp,
    /// Live rows of the database at that time.
    pub live: u64,
}

/// What a delete is counted against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Of which database.
    pub database: DatabaseKey,
    /// Deletes of the current window, at most. `None` = the policy has no budget.
    pub max: Option<u64>,
}

/// Whether a delete may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is recorded as under way.
    Yes,
    /// The budget is used up; nothing was recorded.
    OverBudget,
}

/// The row of a delete whose tombstone Swift has forgotten.
pub const FORGOTTEN: i64 = 0;

impl State {
    /// Records that a delete at the remote begins, and counts it. One that was under way already, or that a person
    /// released, is not counted. One that waits for a person does not begin, whatever a budget would allow.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn begin_delete(
        &self,
        allowance: &Allowance,
        name: &str,
        now: Timestamp,
    ) -> Result<Begun, StateError> {
        let (Allowance { database: key, max }, name) = (allowance.clone(), name.to_owned());
        self.run(move |sql| {
            let DatabaseKey {
                mapping: MappingId(mapping),
                database,
                container,
            } = &key;
            let under_way = is_deleting(sql, mapping, container, &name)?;
            let standing = standing(sql, mapping, database, &name)?;
            if let Some(max) = max
                && !under_way
                && standing != Standing::Released
            {
                if standing == Standing::Waits {
                    return Ok(Begun::OverBudget);
                }
                let counted = sql.execute(
                    "UPDATE budget SET used = used + 1 WHERE mapping = ? AND db = ? AND used < ?",
                    params![mapping, database, as_sql(max)],
                )?;
                if counted == 0 {
                    return Ok(Begun::OverBudget);
                }
            }
            sql.execute(
                "INSERT OR REPLACE INTO deleting (mapping, container, name, since) VALUES (?, ?, ?, ?)",
                params![mapping, container, name, as_sql(now.ticks())],
            )?;
            Ok(Begun::Yes)
        })
        .await
    }

    /// Whether a delete at the remote had begun and was never seen to end.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_deleting(
        &self,
        mapping: &MappingId,
        container: &str,
        name: &str,
    ) -> Result<bool, StateError> {
        let (mapping, container, name) = (mapping.0.clone(), container.to_owned(), name.to_owned());
        self.read(move |sql| is_deleting(sql, &mapping, &container, &name))
            .await
    }

    /// Records that a delete at the remote, with its second look, is complete.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn end_delete(
        &self,
        mapping: &MappingId,
        container: &str,
        name: &str,
        key: &str,
    ) -> Result<(), StateError> {
        let (mapping, container, name) = (mapping.0.clone(), container.to_owned(), name.to_owned());
        let hash = key_hash(key);
        self.run(move |sql| {
            sql.execute(
                "DELETE FROM deleting WHERE mapping = ? AND container = ? AND name = ?",
                params![mapping, container, name],
            )?;
            sql.execute(
                "DELETE FROM adopted WHERE mapping = ? AND name = ?",
                params![mapping, hash],
            )?;
            Ok(())
        })
        .await
    }

    /// The window in which deletes of a database were counted last.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn budget_window(&self, key: &DatabaseKey) -> Result<Option<Window>, StateError> {
        let key = key.clone();
        self.read(move |sql| {
            sql.query_row(
                "SELECT since, live FROM budget WHERE mapping = ? AND db = ?",
                params![key.mapping.0, key.database],
                |row| {
                    Ok(Window {
                        since: Timestamp::from_ticks(from_sql(row.get(0)?), 0),
                        live: from_sql(row.get(1)?),
                    })
                },
            )
            .optional()
        })
        .await
    }

    /// Begins a new window.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn begin_window(&self, key: &DatabaseKey, window: Window) -> Result<(), StateError> {
        let key = key.clone();
        self.run(move |sql| {
            sql.execute(
                "INSERT OR REPLACE INTO budget (mapping, db, since, live, used) VALUES (?, ?, ?, ?, 0)",
                params![
                    key.mapping.0,
                    key.database,
                    as_sql(window.since.ticks()),
                    as_sql(window.live)
                ],
            )
            .map(|_| ())
        })
        .await
    }
}

fn is_deleting(sql: &Sql, mapping: &str, container: &str, name: &str) -> Result<bool, rusqlite::Error> {
    sql.query_row(
        "SELECT 1 FROM deleting WHERE mapping = ? AND container = ? AND name = ?",
        params![mapping, container, name],
        |_| Ok(()),
    )
    .optional()
    .map(|found| found.is_some())
}

/// A database starts over: its tombstones come again.
pub(super) fn forget_database(sql: &Sql, mapping: &str, database: &str) -> Result<(), rusqlite::Error> {
    for table in ["waiting_delete", "budget"] {
        sql.execute(
            &format!("DELETE FROM {table} WHERE mapping = ? AND db = ?"),
            params![mapping, database],
        )?;
    }
    super::reconcile::forget(sql, mapping, Some(database))?;
    drop_empty_batches(sql, mapping)
}

/// A mapping starts over.
pub(super) fn forget_mapping(sql: &Sql, mapping: &str) -> Result<(), rusqlite::Error> {
    for table in ["waiting_delete", "batch", "budget"] {
        sql.execute(&format!("DELETE FROM {table} WHERE mapping = ?"), [mapping])?;
    }
    super::reconcile::forget(sql, mapping, None)
}
