//! Opening a database for one short read, and what SQLite's errors mean here.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::DbError;

/// How long to wait for a writer. Swift's own transactions take milliseconds.
const BUSY: Duration = Duration::from_millis(700);

/// The longest value that is ever read: a container's metadata, at most. A damaged file may claim more than there is
/// memory.
const MAX_VALUE: i32 = 16 << 20;

const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');

const MEND: &str = "check the disk; Swift's container auditor quarantines damaged databases and replication brings them back";
const RIGHTS: &str = "run as root, as Swift's user, or with CAP_DAC_READ_SEARCH";

/// What a read function found wrong.
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Content(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Opens the database, lets `read` fetch everything it wants in one transaction, and closes it again.
pub(super) fn read<T>(
    path: &Path,
    read: impl FnOnce(&Transaction<'_>) -> Result<T, ReadError>,
) -> Result<T, DbError> {
    // SQLite tells no reason for a file that it cannot open.
    std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DbError::Gone(path.to_owned()),
        std::io::ErrorKind::PermissionDenied => damaged(path, error.to_string(), RIGHTS),
        _ => damaged(path, error.to_string(), MEND),
    })?;
    let found = || {
        let mut connection = connect(path)?;
        let transaction = connection.transaction()?;
        let result = read(&transaction);
        // Nothing was written: ending it either way is the same.
        transaction.finish()?;
        result
    };
    found().map_err(|error| match error {
        ReadError::Content(what) => damaged(path, what, MEND),
        ReadError::Sqlite(error) => classify(path, &error),
    })
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    // A URI, so that mode=ro is certain; every byte that means something in a URI is encoded.
    let uri = format!(
        "file:{}?mode=ro",
        percent_encode(path.as_os_str().as_bytes(), PATH)
    );
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE)?;
    Ok(connection)
}

fn damaged(path: &Path, what: String, remedy: &'static str) -> DbError {
    DbError::Damaged {
        path: path.to_owned(),
        what,
        remedy,
    }
}

fn classify(path: &Path, error: &rusqlite::Error) -> DbError {
    match error.sqlite_error_code() {
        // Read-only is what a hot journal looks like from here: only a writer may roll it back.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::ReadOnly
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged,
        ) => DbError::Busy(path.to_owned()),
        Some(ErrorCode::CannotOpen) if !path.exists() => DbError::Gone(path.to_owned()),
        _ => damaged(path, error.to_string(), MEND),
    }
}
