//! How many rows were in step in time, by when they were due: written in the record that moves a watermark, so that a
//! row counts once.

use onespace_core::mapping::MappingId;
use onespace_core::objective::{Counts, Objective, Tally};
use onespace_core::reason::{HoldReason, StallReason};
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::deletes::FORGOTTEN;
use super::progress::{as_sql, from_sql};
use super::verified::time;
use super::{Sql, State, StateError};

pub(super) const SCHEMA: &str = "
CREATE TABLE objective (
    mapping TEXT PRIMARY KEY, within INTEGER NOT NULL, over INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE objective_slot (
    mapping TEXT NOT NULL, slot INTEGER NOT NULL, good INTEGER NOT NULL, missed INTEGER NOT NULL,
    PRIMARY KEY (mapping, slot)) WITHOUT ROWID;
";

/// What one turn adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Rows that are in step now.
    pub tally: Tally,
    /// Slots before this one have left the window.
    pub first_slot: u64,
}

impl State {
    /// What was counted for a mapping's objective, and since when. Rows that were judged by other times than this
    /// objective's are forgotten.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn open_objective(
        &self,
        mapping: &MappingId,
        objective: Option<Objective>,
        now: Timestamp,
    ) -> Result<Option<(Tally, Timestamp)>, StateError> {
        let mapping = mapping.0.clone();
        self.run(move |sql| {
            let Some(Objective {
                ratio: _,
                within,
                over,
            }) = objective
            else {
                forget(sql, &mapping)?;
                return Ok(None);
            };
            let (within, over) = (as_sql(within), as_sql(over));
            let since: Option<i64> = sql
                .query_row(
                    "SELECT since FROM objective WHERE mapping = ? AND within = ? AND over = ?",
                    params![mapping, within, over],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(since) = since else {
                forget(sql, &mapping)?;
                sql.execute(
                    "INSERT INTO objective (mapping, within, over, since) VALUES (?, ?, ?, ?)",
                    params![mapping, within, over, as_sql(now.ticks())],
                )?;
                return Ok(Some((Tally::default(), now)));
            };
            let mut tally = Tally::default();
            let mut slots =
                sql.prepare_cached("SELECT slot, good, missed FROM objective_slot WHERE mapping = ?")?;
            let mut rows = slots.query([&mapping])?;
            while let Some(row) = rows.next()? {
                let counts = Counts {
                    good: from_sql(row.get(1)?),
                    missed: from_sql(row.get(2)?),
                };
                tally.add(from_sql(row.get(0)?), counts);
            }
            Ok(Some((tally, time(since))))
        })
        .await
    }

    /// Rows that count for the objective and wait in the durable sets: held ones, deletes beyond the budget, and what is
    /// on its way to the remote since before `late_since`.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn waiting_for_objective(
        &self,
        mapping: &MappingId,
        late_since: Timestamp,
    ) -> Result<u64, StateError> {
        let (mapping, late_since) = (mapping.0.clone(), as_sql(late_since.ticks()));
        self.read(move |sql| {
            let held: i64 = sql
                .prepare_cached(
                    "SELECT count(*) FROM held WHERE mapping = ? AND own AND counted AND (reason <> ? OR since < ?)",
                )?
                .query_row(
                    params![mapping, HoldReason::Transferring.as_str(), late_since],
                    |row| row.get(0),
                )?;
            let deletes: i64 = sql
                .prepare_cached(
                    "SELECT count(*) FROM batch AS b JOIN waiting_delete AS w ON w.mapping = b.mapping AND w.batch = b.id
                     JOIN progress AS p ON p.mapping = w.mapping AND p.db = w.db
                     WHERE b.mapping = ? AND b.reason = ? AND NOT b.of_others AND w.row > p.high AND w.row <> ? AND NOT w.handed_over",
                )?
                .query_row(
                    params![mapping, StallReason::DeletesHeld.as_str(), FORGOTTEN],
                    |row| row.get(0),
                )?;
            Ok(from_sql(held) + from_sql(deletes))
        })
        .await
    }
}

pub(super) fn record(sql: &Sql, mapping: &str, judged: &Judged) -> Result<(), rusqlite::Error> {
    let Judged { tally, first_slot } = judged;
    if tally.is_empty() {
        return Ok(());
    }
    for (slot, Counts { good, missed }) in tally.slots() {
        sql.prepare_cached(
            "INSERT INTO objective_slot (mapping, slot, good, missed) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET good = good + excluded.good, missed = missed + excluded.missed",
        )?
        .execute(params![mapping, as_sql(slot), as_sql(good), as_sql(missed)])?;
    }
    sql.prepare_cached("DELETE FROM objective_slot WHERE mapping = ? AND slot < ?")?
        .execute(params![mapping, as_sql(*first_slot)])
        .map(|_| ())
}

/// Forgets what was counted: the mapping starts over, or is measured by other times.
pub(super) fn forget(sql: &Sql, mapping: &str) -> Result<(), rusqlite::Error> {
    for table in ["objective", "objective_slot"] {
        sql.execute(&format!("DELETE FROM {table} WHERE mapping = ?"), [mapping])?;
    }
    Ok(())
}
