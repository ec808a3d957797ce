//! What is kept of a mapping as a whole: its totals, and the triggers that were acted on.

use onespace_core::mapping::{MappingId, Mode};
use onespace_core::report::Totals;
use onespace_core::timestamp::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::progress::{as_sql, from_sql};
use super::{Sql, State, StateError, deletes, objective, verified};

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

    /// Records that a `retry` trigger was acted on, in the same transaction that makes the held rows due. Returns how many
    /// they are.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn handle_retry(
        &self,
        id: &MappingId,
        token: Option<String>,
        now: Timestamp,
    ) -> Result<usize, StateError> {
        let id = id.0.clone();
        self.run(move |sql| {
            let held = sql.execute(
                "UPDATE held SET next_try = ? WHERE mapping = ?",
                params![as_sql(now.ticks()), id],
            )?;
            if token.is_some() {
                sql.execute(
                    "UPDATE mapping SET handled_retry = ? WHERE id = ?",
                    params![token, id],
                )?;
            }
            Ok(held)
        })
        .await
    }
}

pub(super) fn add_totals(sql: &Sql, mapping: &str, totals: Totals) -> Result<(), rusqlite::Error> {
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
