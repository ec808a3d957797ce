//! Watermarks: how far each database was worked off.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use onespace_core::mapping::MappingId;
use onespace_core::report::Totals;
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::adopted::{Adopted, insert_adopted};
use super::looks::{self, Looks};
use super::mapping::add_totals;
use super::objective::{self, Judged};
use super::seen_deletes::PassedDeletes;
use super::verified::{self, Passing, Verified};
use super::{State, StateError, batches, deletes};

/// One database under one mapping. Replicas are numbered each by itself, so progress belongs to a database's id,
/// never to a path or a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseKey {
    /// The mapping.
    pub mapping: MappingId,
    /// `container_info.id`.
    pub database: String,
    /// The container (of a shard: its root).
    pub container: String,
}

/// How far a database was worked off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows up to here belong to the first pass, in name order; later ones are followed in ROWID order.
    pub high: i64,
    /// The first pass is done up to this name.
    pub after_name: Option<String>,
    /// The first pass is complete.
    pub first_pass_done: bool,
    /// Live rows up to here are done or durably held.
    pub processed: i64,
    /// The name that stood at `processed`: another one there later shows a restored database.
    pub processed_name: Option<String>,
    /// Tombstones up to here are done or durably held.
    pub deletes: i64,
    /// When the database was first seen.
    pub seen: Timestamp,
    /// The inode of its file: a backup that was put back is another one, whatever was written to it since. `None` = not
    /// known, in a state that an earlier version wrote.
    pub file: Option<NonZeroU64>,
}

impl Progress {
    /// Whether it speaks of another file than that with this inode.
    #[must_use]
    pub fn is_of_another(&self, file: u64) -> bool {
        self.file.is_some_and(|known| known.get() != file)
    }
}

pub(super) fn as_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

impl State {
    /// How far a database was worked off; `None` = never seen under this mapping.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn progress(&self, key: &DatabaseKey) -> Result<Option<Progress>, StateError> {
        let key = key.clone();
        self.read(move |sql| {
            sql.query_row(
                "SELECT high, after_name, first_pass_done, processed, processed_name, deletes, seen, file FROM progress
                 WHERE mapping = ? AND db = ?",
                params![key.mapping.0, key.database],
                |row| {
                    Ok(Progress {
                        high: row.get(0)?,
                        after_name: row.get(1)?,
                        first_pass_done: row.get(2)?,
                        processed: row.get(3)?,
                        processed_name: row.get(4)?,
                        deletes: row.get(5)?,
                        seen: verified::time(row.get(6)?),
                        file: NonZeroU64::new(row.get::<_, i64>(7)?.cast_unsigned()),
                    })
                },
            )
            .optional()
        })
        .await
    }

    /// Notes where a database is now, and which file it is: what is kept of one that is at none of the known paths is
    /// forgotten.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_at(&self, key: &DatabaseKey, path: &Path, file: u64) -> Result<(), StateError> {
        let (key, path) = (key.clone(), path.to_string_lossy().into_owned());
        self.run(move |sql| {
            sql.execute(
                "UPDATE progress SET path = ?1, file = ?2
                 WHERE mapping = ?3 AND db = ?4 AND (path, file) <> (?1, ?2)",
                params![path, file.cast_signed(), key.mapping.0, key.database],
            )
            .map(|_| ())
        })
        .await
    }

    /// The other database that this replica of the container was before: replaced replicas have new ids.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn at_path(&self, key: &DatabaseKey, path: &Path) -> Result<Option<String>, StateError> {
        let (key, path) = (key.clone(), path.to_string_lossy().into_owned());
        self.read(move |sql| {
            sql.query_row(
                "SELECT db FROM progress WHERE mapping = ? AND path = ? AND db <> ?",
                params![key.mapping.0, path, key.database],
                |row| row.get(0),
            )
            .optional()
        })
        .await
    }

    /// Forgets the databases of these containers that are at none of these paths, with their held rows.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget_absent(
        &self,
        mapping: &MappingId,
        containers: BTreeSet<String>,
        paths: BTreeSet<PathBuf>,
    ) -> Result<(), StateError> {
        let mapping = mapping.0.clone();
        self.run(move |sql| {
            let known: Vec<(String, String, String)> = sql
                .prepare_cached("SELECT db, container, path FROM progress WHERE mapping = ?")?
                .query_map([&mapping], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            for (database, container, path) in known {
                if !containers.contains(&container) || paths.contains(Path::new(&path)) {
                    continue;
                }
                for table in ["held", "progress"] {
                    sql.execute(
                        &format!("DELETE FROM {table} WHERE mapping = ? AND db = ?"),
                        params![mapping, database],
                    )?;
                }
                deletes::forget_database(sql, &mapping, &database)?;
                verified::forget(sql, &mapping, Some(&database))?;
            }
            Ok(())
        })
        .await
    }

    /// Starts a database over: its progress is as given, none of its rows is held. What is kept of `replaced`, the
    /// database that stood at the same path before, goes.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn begin(
        &self,
        key: &DatabaseKey,
        path: &Path,
        progress: &Progress,
        replaced: Option<String>,
    ) -> Result<(), StateError> {
        let (key, path, progress) = (key.clone(), path.to_string_lossy().into_owned(), progress.clone());
        self.run(move |sql| {
            for database in [Some(&key.database), replaced.as_ref()].into_iter().flatten() {
                sql.execute("DELETE FROM held WHERE mapping = ? AND db = ?", params![key.mapping.0, database])?;
                sql.execute("DELETE FROM progress WHERE mapping = ? AND db = ?", params![key.mapping.0, database])?;
                deletes::forget_database(sql, &key.mapping.0, database)?;
                verified::forget(sql, &key.mapping.0, Some(database))?;
            }
            let Progress { high, after_name, first_pass_done, processed, processed_name, deletes, seen, file } = progress;
            sql.execute(
                "INSERT OR REPLACE INTO progress
                 (mapping, db, container, path, high, after_name, first_pass_done, processed, processed_name, deletes,
                  seen, file)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    key.mapping.0,
                    key.database,
                    key.container,
                    path,
                    high,
                    after_name,
                    first_pass_done,
                    processed,
                    processed_name,
                    deletes,
                    as_sql(seen.ticks()),
                    file.map_or(0, NonZeroU64::get).cast_signed()
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Moves a watermark and adds what was done on the way, in one record. Returns what lies ahead.
    ///
    /// # Errors
    /// [`StateError`]: then nothing of it is recorded.
    pub async fn advance(&self, key: &DatabaseKey, step: Advance) -> Result<Ahead, StateError> {
        let key = key.clone();
        self.run(move |sql| {
            let Advance { to, passing, passed_deletes, totals, settled, adopted, looks, judged } = step;
            looks::record(sql, &key, &looks, passing)?;
            let (mapping, db) = (&key.mapping.0, &key.database);
            match &to {
                Watermark::Processed { rowid, name } => sql.execute(
                    "UPDATE progress SET processed = max(processed, ?), processed_name = ? WHERE mapping = ? AND db = ?",
                    params![rowid, name, mapping, db],
                )?,
                Watermark::Deletes(rowid) => sql.execute(
                    "UPDATE progress SET deletes = max(deletes, ?) WHERE mapping = ? AND db = ?",
                    params![rowid, mapping, db],
                )?,
                Watermark::FirstPass { after_name, done } => sql.execute(
                    "UPDATE progress SET after_name = coalesce(?, after_name), first_pass_done = ? WHERE mapping = ? AND db = ?",
                    params![after_name, done, mapping, db],
                )?,
                Watermark::Verified(_) | Watermark::Unmoved => 0,
            };
            match &to {
                Watermark::Verified(verified) => verified::advance(sql, &key, verified)?,
                Watermark::Unmoved => {}
                _ => verified::note(sql, &key, passing, passed_deletes.as_ref())?,
            }
            let mut settle = sql.prepare_cached("DELETE FROM held WHERE mapping = ? AND db = ? AND name = ? AND row = ?")?;
            // An earlier row is mostly gone. Under another storage policy it may be there still: it is looked for.
            let mut look_for = sql.prepare_cached(
                "UPDATE held SET next_try = 0, attempts = 0 WHERE mapping = ? AND db = ? AND name = ? AND row < ?",
            )?;
            for (name, row) in settled {
                settle.execute(params![mapping, db, name, row])?;
                look_for.execute(params![mapping, db, name, row])?;
                batches::settle(sql, &key, &name, row)?;
            }
            for adopted in &adopted {
                insert_adopted(sql, mapping, adopted)?;
            }
            add_totals(sql, mapping, totals)?;
            objective::record(sql, mapping, &judged)?;
            Ok(Ahead {
                unverified: verified::oldest(sql, &key)?,
                look: looks::next(sql, &key)?,
            })
        })
        .await
    }
}

/// Which watermark moves, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// Live rows.
    Processed {
        /// Up to here.
        rowid: i64,
        /// The name at it.
        name: Option<String>,
    },
    /// Tombstones.
    Deletes(i64),
    /// The first pass.
    FirstPass {
        /// Up to this name; `None` = as before.
        after_name: Option<String>,
        /// It is complete.
        done: bool,
    },
    /// Rows that others work off.
    Verified(Verified),
    /// None: a held row was tried again.
    Unmoved,
}

/// One record of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The watermark.
    pub to: Watermark,
    /// When it moves: what it passes is verified a slack later.
    pub passing: Passing,
    /// Deletes of others among that, under a policy with a budget.
    pub passed_deletes: Option<PassedDeletes>,
    /// What was done since the last record.
    pub totals: Totals,
    /// Names that no longer wait, with the row that settled them: a later row's entry stays.
    pub settled: Vec<(String, i64)>,
    /// Objects that are ours from now on.
    pub adopted: Vec<Adopted>,
    /// Names that are to be looked at again.
    pub looks: Looks,
    /// Rows that count for the objective.
    pub judged: Judged,
}

/// What is to be done in a database later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// When the first of the rows that are to be verified were passed; `None` = there are none.
    pub unverified: Option<Timestamp>,
    /// When the next look at names whose copy may change while their row does not is due.
    pub look: Option<Timestamp>,
}
