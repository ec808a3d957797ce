//! Rows that were passed and are to be verified: in stretches, per database and mapping, and under which assignment.

use onespace_core::naming;
use onespace_core::plan::verify::{self, Stretch};
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};
use std::time::Duration;

use super::progress::DatabaseKey;
use super::seen_deletes::{self, PassedDeletes};
use super::{Sql, State, StateError};

/// Which rows of a container are an agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the replica among the container's nodes.
    pub index: u32,
    /// How many there are.
    pub replicas: u32,
}

/// When rows are passed, and how long after that they are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    /// Now.
    pub at: Timestamp,
    /// How long after.
    pub slack: Duration,
}

/// How far a stretch was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Of which kind it is.
    pub tombstones: bool,
    /// Where it began when it was taken up.
    pub after: i64,
    /// How far it is done.
    pub to: Reached,
}

/// How far a stretch is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Up to this ROWID.
    Row(i64),
    /// Up to this name, in name order.
    Name(String),
    /// To its end, in name order.
    LastName,
}

pub(super) const SCHEMA: &str = "
CREATE TABLE verification (
    mapping TEXT NOT NULL, db TEXT NOT NULL, replica INTEGER NOT NULL, replicas INTEGER NOT NULL,
    first_pass INTEGER NOT NULL, processed INTEGER NOT NULL, deletes INTEGER NOT NULL,
    PRIMARY KEY (mapping, db)) WITHOUT ROWID;
CREATE TABLE stretch (
    mapping TEXT NOT NULL, db TEXT NOT NULL, tombstones INTEGER NOT NULL, after INTEGER NOT NULL, last INTEGER NOT NULL,
    since INTEGER NOT NULL, passed INTEGER NOT NULL, own INTEGER NOT NULL, after_name TEXT, many INTEGER NOT NULL,
    PRIMARY KEY (mapping, db, tombstones, after)) WITHOUT ROWID;
";

impl State {
    /// Notes which rows of a database are this agent's own. If others were before, verification starts over and takes
    /// in the own rows: whatever neither the former nor the present owner did is found so. Returns whether it does.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn assign(
        &self,
        key: &DatabaseKey,
        assignment: Assignment,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        let key = key.clone();
        self.run(move |sql| {
            let (mapping, db) = (&key.mapping.0, &key.database);
            let Assignment { index, replicas } = assignment;
            let before: Option<(u32, u32)> = sql
                .query_row(
                    "SELECT replica, replicas FROM verification WHERE mapping = ? AND db = ?",
                    params![mapping, db],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some(there) = Watermarks::read(sql, &key)? else {
                return Ok(false);
            };
            if before == Some((index, replicas)) {
                return Ok(false);
            }
            for table in ["verification", "stretch"] {
                sql.execute(
                    &format!("DELETE FROM {table} WHERE mapping = ? AND db = ?"),
                    params![mapping, db],
                )?;
            }
            share_out_held(sql, &key, assignment)?;
            // A first pass under way begins again: it takes the rows that are the agent's own now.
            sql.execute(
                "UPDATE progress SET after_name = NULL WHERE mapping = ? AND db = ? AND NOT first_pass_done",
                params![mapping, db],
            )?;
            sql.execute(
                "INSERT INTO verification (mapping, db, replica, replicas, first_pass, processed, deletes)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    mapping,
                    db,
                    index,
                    replicas,
                    there.first_pass_done,
                    there.processed,
                    there.deletes
                ],
            )?;
            let begin = if there.first_pass_done { 0 } else { there.high };
            let over = |tombstones, after, to| Stretch {
                tombstones,
                after,
                to,
                since: now,
                passed: now,
                own: true,
                after_name: None,
                // Nobody knows what the former owner keeps waiting.
                many: tombstones,
            };
            for stretch in [over(false, begin, there.processed), over(true, 0, there.deletes)] {
                if stretch.to > stretch.after {
                    insert(sql, &key, &stretch)?;
                }
            }
            Ok(before.is_some())
        })
        .await
    }

    /// The rows of a database that are to be verified.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn stretches(&self, key: &DatabaseKey) -> Result<Vec<Stretch>, StateError> {
        let key = key.clone();
        self.read(move |sql| read(sql, &key)).await
    }

    /// The stretch to verify now, if one is due; `turn` counts.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn next_stretch(
        &self,
        key: &DatabaseKey,
        turn: u64,
        passing: Passing,
    ) -> Result<Option<Stretch>, StateError> {
        let key = key.clone();
        let Passing { at, slack } = passing;
        self.run(move |sql| {
            let mut open = read(sql, &key)?;
            let before = open.clone();
            verify::merge_due(&mut open, at, slack);
            write(sql, &key, &before, &open)?;
            Ok(verify::next(&open, turn, at, slack).cloned())
        })
        .await
    }

    /// Records that a stretch is worked on in name order, from its beginning. Returns it as it is now: it may have grown
    /// since it was taken up.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn begin_by_name(
        &self,
        key: &DatabaseKey,
        stretch: &Stretch,
    ) -> Result<Option<Stretch>, StateError> {
        let (key, stretch) = (key.clone(), stretch.clone());
        self.run(move |sql| {
            let Some(mut now) = find(sql, &key, stretch.tombstones, stretch.after)? else {
                return Ok(None);
            };
            remove(sql, &key, &now)?;
            now.after_name = Some(String::new());
            insert(sql, &key, &now)?;
            Ok(Some(now))
        })
        .await
    }
}

/// Held rows stay where they are, whoever owns them now; only how they count changes.
fn share_out_held(sql: &Sql, key: &DatabaseKey, assignment: Assignment) -> Result<(), rusqlite::Error> {
    let of_database = params![key.mapping.0, key.database];
    let names: Vec<String> = sql
        .prepare_cached("SELECT name FROM held WHERE mapping = ? AND db = ?")?
        .query_map(of_database, |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut update =
        sql.prepare_cached("UPDATE held SET own = ? WHERE mapping = ? AND db = ? AND name = ?")?;
    for name in names {
        let own = naming::primary_index(&name, assignment.replicas) == assignment.index;
        update.execute(params![own, key.mapping.0, key.database, name])?;
    }
    Ok(())
}

/// How far a database was worked off.
struct Watermarks {
    high: i64,
    first_pass_done: bool,
    processed: i64,
    deletes: i64,
}

impl Watermarks {
    fn read(sql: &Sql, key: &DatabaseKey) -> Result<Option<Self>, rusqlite::Error> {
        sql.prepare_cached(
            "SELECT high, first_pass_done, processed, deletes FROM progress WHERE mapping = ? AND db = ?",
        )?
        .query_row(params![key.mapping.0, key.database], |row| {
            Ok(Self {
                high: row.get(0)?,
                first_pass_done: row.get(1)?,
                processed: row.get(2)?,
                deletes: row.get(3)?,
            })
        })
        .optional()
    }
}

/// Notes what the watermarks passed since the last time; in the transaction that moves them.
pub(super) fn note(
    sql: &Sql,
    key: &DatabaseKey,
    passing: Passing,
    deletes_of_others: Option<&PassedDeletes>,
) -> Result<(), rusqlite::Error> {
    let (mapping, db) = (&key.mapping.0, &key.database);
    let Passing { at, slack } = passing;
    let noted: Option<(bool, i64, i64)> = sql
        .prepare_cached(
            "SELECT first_pass, processed, deletes FROM verification WHERE mapping = ? AND db = ?",
        )?
        .query_row(params![mapping, db], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let (Some((first_pass, processed, deletes)), Some(there)) = (noted, Watermarks::read(sql, key)?) else {
        return Ok(());
    };
    if (first_pass, processed, deletes) == (there.first_pass_done, there.processed, there.deletes) {
        return Ok(());
    }
    let before = read(sql, key)?;
    let mut open = before.clone();
    if there.first_pass_done && !first_pass {
        verify::pass(&mut open, false, 0, there.high, at, slack);
    }
    verify::pass(&mut open, false, processed, there.processed, at, slack);
    verify::pass(&mut open, true, deletes, there.deletes, at, slack);
    if let Some(passed) = deletes_of_others {
        for seen in seen_deletes::add(sql, key, passed, at)? {
            for stretch in open.iter_mut().filter(|stretch| stretch.tombstones) {
                stretch.many |= seen.may_have(stretch.passed, passed.window);
            }
        }
    }
    verify::merge_due(&mut open, at, slack);
    write(sql, key, &before, &open)?;
    sql.prepare_cached(
        "UPDATE verification SET first_pass = ?, processed = ?, deletes = ? WHERE mapping = ? AND db = ?",
    )?
    .execute(params![
        there.first_pass_done,
        there.processed,
        there.deletes,
        mapping,
        db
    ])
    .map(|_| ())
}

/// Moves the beginning of a stretch that was worked on. It may have grown at its end meanwhile, unless it is worked on
/// in name order.
pub(super) fn advance(sql: &Sql, key: &DatabaseKey, verified: &Verified) -> Result<(), rusqlite::Error> {
    let Verified {
        tombstones,
        after,
        to,
    } = verified;
    let Some(mut stretch) = find(sql, key, *tombstones, *after)? else {
        return Ok(());
    };
    remove(sql, key, &stretch)?;
    match to {
        Reached::Row(row) => stretch.after = stretch.after.max(*row),
        Reached::Name(name) => stretch.after_name = stretch.after_name.max(Some(name.clone())),
        Reached::LastName => stretch.after = stretch.to,
    }
    if stretch.after < stretch.to {
        insert(sql, key, &stretch)?;
    }
    Ok(())
}

/// When the first of the rows that are to be verified were passed.
pub(super) fn oldest(sql: &Sql, key: &DatabaseKey) -> Result<Option<Timestamp>, rusqlite::Error> {
    let oldest: Option<i64> = sql
        .prepare_cached("SELECT min(passed) FROM stretch WHERE mapping = ? AND db = ?")?
        .query_row(params![key.mapping.0, key.database], |row| row.get(0))?;
    Ok(oldest.map(time))
}

/// Forgets what was to be verified, and looked at again, of a database or of all of a mapping's.
pub(super) fn forget(sql: &Sql, mapping: &str, db: Option<&str>) -> Result<(), rusqlite::Error> {
    for table in ["verification", "stretch", "look", "seen_deletes"] {
        sql.execute(
            &format!("DELETE FROM {table} WHERE mapping = ?1 AND db = coalesce(?2, db)"),
            params![mapping, db],
        )?;
    }
    Ok(())
}

fn read(sql: &Sql, key: &DatabaseKey) -> Result<Vec<Stretch>, rusqlite::Error> {
    sql.prepare_cached(
        "SELECT tombstones, after, last, since, passed, own, after_name, many FROM stretch WHERE mapping = ? AND db = ?
         ORDER BY tombstones, after",
    )?
    .query_map(params![key.mapping.0, key.database], |row| {
        Ok(Stretch {
            tombstones: row.get(0)?,
            after: row.get(1)?,
            to: row.get(2)?,
            since: time(row.get(3)?),
            passed: time(row.get(4)?),
            own: row.get(5)?,
            after_name: row.get(6)?,
            many: row.get(7)?,
        })
    })?
    .collect()
}

pub(super) fn time(ticks: i64) -> Timestamp {
    Timestamp::from_ticks(u64::try_from(ticks).unwrap_or(0), 0)
}

fn find(
    sql: &Sql,
    key: &DatabaseKey,
    tombstones: bool,
    after: i64,
) -> Result<Option<Stretch>, rusqlite::Error> {
    let mut open = read(sql, key)?.into_iter();
    Ok(open.find(|open| (open.tombstones, open.after) == (tombstones, after)))
}

fn write(sql: &Sql, key: &DatabaseKey, before: &[Stretch], after: &[Stretch]) -> Result<(), rusqlite::Error> {
    for gone in before.iter().filter(|stretch| !after.contains(stretch)) {
        remove(sql, key, gone)?;
    }
    for new in after.iter().filter(|stretch| !before.contains(stretch)) {
        insert(sql, key, new)?;
    }
    Ok(())
}

fn remove(sql: &Sql, key: &DatabaseKey, stretch: &Stretch) -> Result<(), rusqlite::Error> {
    sql.prepare_cached("DELETE FROM stretch WHERE mapping = ? AND db = ? AND tombstones = ? AND after = ?")?
        .execute(params![
            key.mapping.0,
            key.database,
            stretch.tombstones,
            stretch.after
        ])
        .map(|_| ())
}

fn insert(sql: &Sql, key: &DatabaseKey, stretch: &Stretch) -> Result<(), rusqlite::Error> {
    let Stretch {
        tombstones,
        after,
        to,
        since,
        passed,
        own,
        after_name,
        many,
    } = stretch;
    let ticks = |time: &Timestamp| i64::try_from(time.ticks()).unwrap_or(i64::MAX);
    sql.prepare_cached(
        "INSERT INTO stretch (mapping, db, tombstones, after, last, since, passed, own, after_name, many)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        key.mapping.0,
        key.database,
        tombstones,
        after,
        to,
        ticks(since),
        ticks(passed),
        own,
        after_name,
        many
    ])
    .map(|_| ())
}
