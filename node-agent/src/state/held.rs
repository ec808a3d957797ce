//! The durable, bounded set of rows that failed or wait. A row in it neither blocks the rows behind it nor is
//! forgotten; when the set is full nothing is dropped: the caller's watermark stops.

use onespace_core::mapping::MappingId;
use onespace_core::plan;
use onespace_core::reason::HoldReason;
use onespace_core::report::{HeldReport, HeldRow, rfc3339};
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{DatabaseKey, Sql, State, StateError};

/// Rows of the held set that a report shows.
const SHOWN: i64 = 5;

/// The reason of rows that have not failed, but are under way.
const TRANSFERRING: &str = HoldReason::Transferring.as_str();

/// A name in a report is cut at so many bytes.
const SHOWN_NAME: usize = 256;

/// When rows of a database that is not there are looked at again.
const ABSENT: std::time::Duration = std::time::Duration::from_secs(60);

/// How often it is checked whether a transfer is still under way; its end is noted at once.
const TRANSFER: std::time::Duration = std::time::Duration::from_secs(60);

/// Which row waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// Of which database.
    pub database: DatabaseKey,
    /// Object name. A later row of the name replaces its entry.
    pub name: String,
}

/// A row that is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub key: HeldKey,
    /// Its ROWID.
    pub row: i64,
    /// It is this agent's, not one that it verifies.
    pub own: bool,
    /// It counts for the policy's objective.
    pub counted: bool,
    /// Why, and what to do.
    pub held: plan::Held,
    /// Since when it waits, if it does not already.
    pub since: Timestamp,
}

/// A row that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub key: HeldKey,
    /// Its ROWID when it was held.
    pub row: i64,
    /// Tries so far.
    pub attempts: u32,
    /// It counts for the policy's objective.
    pub counted: bool,
    /// Why it was held; `None` = it waited for a person.
    pub reason: Option<HoldReason>,
    /// It is a delete that a person was to look at: Swift may have forgotten its tombstone by now.
    pub is_delete: bool,
}

/// Whether a row found a place in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is durable.
    Yes,
    /// The set is full; nothing was recorded.
    Full,
}

/// The longest wait before a row is tried again by itself.
pub(super) const LONGEST: std::time::Duration = std::time::Duration::from_secs(3600);

/// How long until a row is tried again by itself: doubling from 2 s to an hour.
fn backoff(attempts: u32) -> std::time::Duration {
    std::time::Duration::from_secs(2u64.saturating_pow(attempts.clamp(1, 12))).min(LONGEST)
}

impl State {
    /// Records that a row waits, or that it failed once more.
    /// `limit` bounds the set of one mapping, own rows and others' by themselves: others' rows never stop own ones.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn hold(&self, holding: Holding, now: Timestamp, limit: u64) -> Result<Kept, StateError> {
        self.run(move |sql| {
            let kept = insert(sql, &holding, now, limit)?;
            if kept == Kept::Yes {
                let Holding { key, row, .. } = &holding;
                super::batches::hand_over(sql, &key.database, &key.name, *row)?;
            }
            Ok(kept)
        })
        .await
    }

    /// Makes rows due now that wait for the end of a transfer: those of one name, or, after a restart, all of a mapping.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn transfers_over(&self, mapping: &MappingId, of: Option<&HeldKey>) -> Result<(), StateError> {
        let mapping = mapping.0.clone();
        let of = of.map(|key| (key.database.database.clone(), key.name.clone()));
        self.run(move |sql| {
            let (one, (db, name)) = (of.is_some(), of.unwrap_or_default());
            sql.prepare_cached(
                "UPDATE held SET next_try = 0 WHERE mapping = ? AND reason = ? AND (NOT ? OR (db = ? AND name = ?))",
            )?
            .execute(params![mapping, TRANSFERRING, one, db, name])
            .map(|_| ())
        })
        .await
    }

    /// Held rows of a mapping that are to be tried again now, the longest due first.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn due(
        &self,
        mapping: &MappingId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Held>, StateError> {
        let mapping = mapping.clone();
        self.read(move |sql| {
            sql.prepare_cached(
                "SELECT db, name, container, row, attempts, counted, reason, EXISTS
                     (SELECT 1 FROM waiting_delete AS w WHERE w.mapping = h.mapping AND w.db = h.db AND w.name = h.name AND w.row = h.row)
                 FROM held AS h WHERE mapping = ? AND next_try IS NOT NULL AND next_try <= ? ORDER BY next_try LIMIT ?",
            )?
            .query_map(
                params![mapping.0, i64::try_from(now.ticks()).unwrap_or(i64::MAX), limit],
                |row| {
                    Ok(Held {
                        key: HeldKey {
                            database: DatabaseKey {
                                mapping: mapping.clone(),
                                database: row.get(0)?,
                                container: row.get(2)?,
                            },
                            name: row.get(1)?,
                        },
                        row: row.get(3)?,
                        attempts: row.get(4)?,
                        counted: row.get(5)?,
                        reason: HoldReason::from_word(&row.get::<_, String>(6)?),
                        is_delete: row.get(7)?,
                    })
                },
            )?
            .collect()
        })
        .await
    }

    /// Puts off the due rows of a database that is not on this node now, so that they do not stand before others. It
    /// counts as a try.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn postpone(
        &self,
        mapping: &MappingId,
        database: &str,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let (mapping, database) = (mapping.0.clone(), database.to_owned());
        let ticks = |time: Timestamp| i64::try_from(time.ticks()).unwrap_or(i64::MAX);
        self.run(move |sql| {
            sql.execute(
                "UPDATE held SET next_try = ?, attempts = attempts + 1 WHERE mapping = ? AND db = ? AND next_try <= ?",
                params![ticks(now.plus(ABSENT)), mapping, database, ticks(now)],
            )
            .map(|_| ())
        })
        .await
    }

    /// Makes one name of a mapping due now; returns how many rows of it are held.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn retry_name(
        &self,
        mapping: &MappingId,
        container: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<usize, StateError> {
        let (mapping, container, name) = (mapping.0.clone(), container.to_owned(), name.to_owned());
        self.run(move |sql| {
            sql.execute(
                "UPDATE held SET next_try = ? WHERE mapping = ? AND container = ? AND name = ?",
                params![
                    i64::try_from(now.ticks()).unwrap_or(i64::MAX),
                    mapping,
                    container,
                    name
                ],
            )
        })
        .await
    }

    /// Whether rows of a mapping wait that time may mend and that had fewer than so many tries.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn has_hope(&self, mapping: &MappingId, tries: u32) -> Result<bool, StateError> {
        let mapping = mapping.0.clone();
        self.read(move |sql| {
            sql.query_row(
                "SELECT 1 FROM held WHERE mapping = ? AND next_try IS NOT NULL AND attempts < ? LIMIT 1",
                params![mapping, tries],
                |_| Ok(()),
            )
            .optional()
            .map(|found| found.is_some())
        })
        .await
    }

    /// What a report says of a mapping's held rows.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn held_report(&self, mapping: &MappingId, limit: u64) -> Result<HeldReport, StateError> {
        let mapping = mapping.0.clone();
        self.read(move |sql| {
            let (rows, own, transferring, oldest): (i64, i64, i64, Option<i64>) = sql.query_row(
                "SELECT count(*), coalesce(sum(own), 0), coalesce(sum(own AND reason = ?2), 0),
                     min(CASE WHEN own AND reason = ?2 THEN since END)
                 FROM held WHERE mapping = ?1",
                params![mapping, TRANSFERRING],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )?;
            let count = |rows: i64| u64::try_from(rows).unwrap_or(0);
            let (rows, own, transferring) = (count(rows), count(own), count(transferring));
            let latest = sql
                .prepare_cached(
                    "SELECT container, name, reason, message, attempts, since, next_try FROM held
                     WHERE mapping = ? AND reason <> ? ORDER BY own DESC, since DESC LIMIT ?",
                )?
                .query_map(params![mapping, TRANSFERRING, SHOWN], |row| {
                    let (container, name): (String, String) = (row.get(0)?, row.get(1)?);
                    let next_try: Option<i64> = row.get(6)?;
                    Ok(HeldRow {
                        object: cut(&format!("{container}/{name}"), SHOWN_NAME),
                        reason: row.get(2)?,
                        message: row.get(3)?,
                        attempts: row.get(4)?,
                        since: show(row.get(5)?),
                        next_try: next_try.map(show),
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(HeldReport {
                rows: own.saturating_sub(transferring),
                of_others: rows.saturating_sub(own),
                transferring: (
                    transferring,
                    oldest.map(|ticks| Timestamp::from_ticks(count(ticks), 0)),
                ),
                full: own >= limit,
                latest,
            })
        })
        .await
    }
}

/// Puts a row into the set, or counts one more try of it.
pub(super) fn insert(
    sql: &Sql,
    holding: &Holding,
    now: Timestamp,
    limit: u64,
) -> Result<Kept, rusqlite::Error> {
    let Holding {
        key,
        row,
        own,
        counted,
        held,
        since,
    } = holding;
    let DatabaseKey {
        mapping,
        database,
        container,
    } = &key.database;
    let before: Option<(i64, u32, i64, bool, bool)> = sql
        .query_row(
            "SELECT row, attempts, since, reason = ?, counted FROM held WHERE mapping = ? AND db = ? AND name = ?",
            params![TRANSFERRING, mapping.0, database, key.name],
            |found| {
                Ok((
                    found.get(0)?,
                    found.get(1)?,
                    found.get(2)?,
                    found.get(3)?,
                    found.get(4)?,
                ))
            },
        )
        .optional()?;
    if before.is_none() {
        let count: i64 = sql.query_row(
            "SELECT count(*) FROM held WHERE mapping = ? AND own = ?",
            params![mapping.0, own],
            |found| found.get(0),
        )?;
        if u64::try_from(count).unwrap_or(0) >= limit {
            return Ok(Kept::Full);
        }
    }
    if before.is_some_and(|(held_row, ..)| held_row > *row) {
        return Ok(Kept::Yes);
    }
    // A later row of the name starts its count anew. How a transfer ends belongs to the try that began it.
    let (attempts, since, counted) = match before {
        Some((same, attempts, since, under_way, before)) if same == *row => (
            attempts.saturating_add(u32::from(!under_way)),
            since,
            *counted || before,
        ),
        _ => (1, i64::try_from(since.ticks()).unwrap_or(i64::MAX), *counted),
    };
    let wait = match held.reason {
        HoldReason::Transferring => TRANSFER,
        _ => backoff(attempts),
    };
    let next_try =
        plan::mends_itself(held.reason).then(|| i64::try_from(now.plus(wait).ticks()).unwrap_or(i64::MAX));
    sql.execute(
        "INSERT OR REPLACE INTO held
         (mapping, db, name, container, row, own, counted, reason, message, attempts, since, next_try)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            mapping.0,
            database,
            key.name,
            container,
            row,
            own,
            counted,
            held.reason.as_str(),
            held.message,
            attempts,
            since,
            next_try
        ],
    )?;
    Ok(Kept::Yes)
}

fn show(ticks: i64) -> String {
    rfc3339(Timestamp::from_ticks(u64::try_from(ticks).unwrap_or(0), 0))
}

/// At most so many bytes, never half a character.
fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
