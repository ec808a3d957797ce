//! Watermarks, totals and adopted objects.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use onespace_core::mapping::{MappingId, Mode};
use onespace_core::report::Totals;
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::looks::{self, Looks};
use super::objective::{self, Judged};
use super::seen_deletes::PassedDeletes;
use super::verified::{self, Passing, Verified};
use super::{Sql, State, StateError, batches, deletes};

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

/// What is kept of a mapping as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappingState {
    /// Counted since the state was made.
    pub totals: Totals,
    /// The last `retry` trigger that was acted on.
    pub handled_retry: Option<String>,
    /// The last `releaseDeletes` trigger that was acted on.
    pub handled_release: Option<String>,
}

/// An unmarked object that was found equal, and is ours since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The key.
    pub key: String,
    /// Its ETag then.
    pub etag: String,
}

/// Keys are long and many: the first 16 bytes of a sha256 stand for them.
pub(super) fn key_hash(key: &str) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(key.as_bytes())[..16].to_vec()
}

pub(super) fn as_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Sync => "Sync",
        Mode::Archive => "Archive",
        Mode::Migrate => "Migrate",
    }
}

/// What opening a mapping's state found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It goes on.
    Found(MappingState),
    /// It was made with another mode: nothing may run on it.
    ModeChanged {
        /// That mode.
        made_with: String,
    },
}

impl State {
    /// Opens what is kept of a mapping. If the fields that make it start over changed, all progress and held rows
    /// are dropped; totals, handled triggers and adopted objects stay.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn open_mapping(
        &self,
        id: &MappingId,
        mode: Mode,
        starts_over: &str,
    ) -> Result<Opened, StateError> {
        let (id, starts_over) = (id.0.clone(), starts_over.to_owned());
        self.run(move |sql| {
            let found: Option<(String, String)> = sql
                .query_row(
                    "SELECT mode, starts_over FROM mapping WHERE id = ?",
                    [&id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            match found {
                None => {
                    sql.execute(
                        "INSERT INTO mapping (id, mode, starts_over) VALUES (?, ?, ?)",
                        params![id, mode_word(mode), starts_over],
                    )?;
                }
                Some((made_with, _)) if made_with != mode_word(mode) => {
                    return Ok(Opened::ModeChanged { made_with });
                }
                Some((_, same)) if same == starts_over => {}
                Some(_) => {
                    sql.execute("DELETE FROM progress WHERE mapping = ?", [&id])?;
                    sql.execute("DELETE FROM held WHERE mapping = ?", [&id])?;
                    deletes::forget_mapping(sql, &id)?;
                    verified::forget(sql, &id, None)?;
                    objective::forget(sql, &id)?;
                    sql.execute(
                        "UPDATE mapping SET starts_over = ? WHERE id = ?",
                        params![starts_over, id],
                    )?;
                }
            }
            read_mapping(sql, &id).map(Opened::Found)
        })
        .await
    }

    /// Records that a `retry` trigger was acted on, in the same transaction that makes the held rows due.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn handle_retry(
        &self,
        id: &MappingId,
        token: Option<String>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let id = id.0.clone();
        self.run(move |sql| {
            sql.execute(
                "UPDATE held SET next_try = ? WHERE mapping = ?",
                params![as_sql(now.ticks()), id],
            )?;
            if token.is_some() {
                sql.execute(
                    "UPDATE mapping SET handled_retry = ? WHERE id = ?",
                    params![token, id],
                )?;
            }
            Ok(())
        })
        .await
    }

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

    /// Remembers an unmarked, equal object as ours.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn adopt(&self, mapping: &MappingId, adopted: Adopted) -> Result<(), StateError> {
        let mapping = mapping.0.clone();
        self.run(move |sql| insert_adopted(sql, &mapping, &adopted)).await
    }

    /// The ETag under which the unmarked object at this key was adopted.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn adopted(&self, mapping: &MappingId, key: &str) -> Result<Option<String>, StateError> {
        let (mapping, name) = (mapping.0.clone(), key_hash(key));
        self.read(move |sql| {
            sql.query_row(
                "SELECT etag FROM adopted WHERE mapping = ? AND name = ?",
                params![mapping, name],
                |row| row.get(0),
            )
            .optional()
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

fn insert_adopted(sql: &Sql, mapping: &str, adopted: &Adopted) -> Result<(), rusqlite::Error> {
    sql.prepare_cached("INSERT OR REPLACE INTO adopted (mapping, name, etag) VALUES (?, ?, ?)")?
        .execute(params![mapping, key_hash(&adopted.key), adopted.etag])
        .map(|_| ())
}

fn add_totals(sql: &Sql, mapping: &str, totals: Totals) -> Result<(), rusqlite::Error> {
    if totals == Totals::default() {
        return Ok(());
    }
    let Totals {
        objects,
        bytes,
        deletes,
        released,
        verified,
        repaired,
    } = totals;
    sql.execute(
        "UPDATE mapping SET objects = objects + ?, bytes = bytes + ?, deletes = deletes + ?, released = released + ?,
         verified = verified + ?, repaired = repaired + ? WHERE id = ?",
        params![
            as_sql(objects),
            as_sql(bytes),
            as_sql(deletes),
            as_sql(released),
            as_sql(verified),
            as_sql(repaired),
            mapping
        ],
    )?;
    Ok(())
}

fn read_mapping(sql: &Sql, id: &str) -> Result<MappingState, rusqlite::Error> {
    sql.query_row(
        "SELECT objects, bytes, deletes, released, verified, repaired, handled_retry, handled_release FROM mapping WHERE id = ?",
        [id],
        |row| {
            Ok(MappingState {
                totals: Totals {
                    objects: from_sql(row.get(0)?),
                    bytes: from_sql(row.get(1)?),
                    deletes: from_sql(row.get(2)?),
                    released: from_sql(row.get(3)?),
                    verified: from_sql(row.get(4)?),
                    repaired: from_sql(row.get(5)?),
                },
                handled_retry: row.get(6)?,
                handled_release: row.get(7)?,
            })
        },
    )
}
