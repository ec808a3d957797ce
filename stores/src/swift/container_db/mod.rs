//! Container databases, read while Swift writes them.
//!
//! Every read opens the file by its path (Swift replaces files by renaming), takes one short transaction, fetches
//! everything and closes: a reader that stays in a transaction makes Swift answer 503. Files are opened read-only,
//! never as immutable: locks are honoured, and what a running transaction wrote is not seen. All functions block:
//! call them where blocking is allowed.

mod info;
mod open;
mod rows;

use std::path::{Path, PathBuf};

use onespace_core::row::RawRow;

pub use self::info::{DbInfo, Header};

/// The most rows that one read returns, whatever was asked for.
pub const MAX_ROWS: usize = 10_000;

/// Why a database could not be read. Each is tried again at the next look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    /// Someone writes, or a crashed writer's journal lies beside it and waits for Swift to roll it back.
    #[error("{0} is busy; it is read again later")]
    Busy(PathBuf),
    /// It is not there any more (a handoff, a quarantine, a reclaim).
    #[error("{0} is gone; it is looked for again")]
    Gone(PathBuf),
    /// It is not a container database that can be read.
    #[error("{path} cannot be read: {what}; {remedy}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// What a database is and how far it has come, read together with rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Unique to this file; copies on other nodes have others.
    pub id: String,
    /// XOR over all rows: equal on two replicas that have equal rows.
    pub hash: String,
    /// The highest ROWID ever given; 0 = no row was ever inserted.
    pub max_rowid: i64,
}

/// A row, or why it cannot be used. One damaged row says nothing of the others.
pub type ReadRow = Result<RawRow, RowDamage>;

/// A row with a value that Swift does not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {rowid}{}: {what}", name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default())]
pub struct RowDamage {
    /// Its ROWID.
    pub rowid: i64,
    /// Its name, if that can be read.
    pub name: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// Rows read in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The database at that moment.
    pub head: Head,
    /// In the order that was asked for.
    pub rows: Vec<ReadRow>,
    /// Nothing follows after these.
    pub complete: bool,
    /// The highest ROWID that was looked at: where to go on, also when rows in between were not wanted.
    pub scanned_to: i64,
}

/// One database file. Holds nothing open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDb {
    path: PathBuf,
}

impl ContainerDb {
    /// The database in this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything about the container.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn info(&self) -> Result<DbInfo, DbError> {
        open::read(&self.path, info::info)
    }

    /// Rows behind this ROWID, in ROWID order.
    ///
    /// # Errors
    /// See [`DbError`]. A damaged row is an entry, not an error.
    pub fn rows_after(&self, rowid: i64, limit: usize) -> Result<Chunk, DbError> {
        open::read(&self.path, |db| rows::after(db, rowid, limit))
    }

    /// Tombstones behind this ROWID, in ROWID order. Looks at a bounded number of rows: go on from `scanned_to`
    /// until the chunk is complete.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn tombstones_after(&self, rowid: i64, limit: usize) -> Result<Chunk, DbError> {
        open::read(&self.path, |db| rows::tombstones_after(db, rowid, limit))
    }

    /// Live rows behind this name, in name order (UTF-8 bytes). A chunk never ends between two rows of one name,
    /// nor at a row whose name cannot be read, so that its last name is always where to go on; it may be a little
    /// longer than `limit` for that.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn rows_by_name(&self, after: Option<&str>, limit: usize) -> Result<Chunk, DbError> {
        open::read(&self.path, |db| rows::by_name(db, after, limit))
    }

    /// Every row of this name: at most one for each storage policy.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn rows_of(&self, name: &str) -> Result<Vec<ReadRow>, DbError> {
        open::read(&self.path, |db| rows::of(db, name))
    }

    /// The name in the row at this ROWID. `None`: there is no such row (any more), or its name cannot be read.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn row_at(&self, rowid: i64) -> Result<Option<String>, DbError> {
        open::read(&self.path, |db| rows::name_at(db, rowid))
    }

    /// How many objects it lists, under all storage policies, without what the pending file holds.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn live_rows(&self) -> Result<u64, DbError> {
        open::read(&self.path, info::live_rows)
    }

    /// The storage policies under which this name is alive.
    ///
    /// # Errors
    /// See [`DbError`].
    pub fn live_policies(&self, name: &str) -> Result<Vec<i64>, DbError> {
        let rows = self.rows_of(name)?;
        Ok(rows
            .iter()
            .flatten()
            .filter(|row| !row.deleted)
            .map(|row| row.policy_index)
            .collect())
    }
}
