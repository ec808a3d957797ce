//! The state's connection to SQLite. Every statement is compiled once and kept: the same few dozen run over every row.

use std::path::Path;

use rusqlite::{CachedStatement, Connection, Params, Result, Row};

/// Statements that are kept compiled: as many as there are, and some.
const STATEMENTS: usize = 256;

/// A connection.
#[derive(Debug)]
pub(super) struct Sql(Connection);

impl Sql {
    /// Opens (and creates) a file.
    pub fn open(path: &Path) -> Result<Self> {
        Connection::open(path).map(Self::new)
    }

    /// Opens an empty database that is nowhere but in memory.
    pub fn open_in_memory() -> Result<Self> {
        Connection::open_in_memory().map(Self::new)
    }

    fn new(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Self(connection)
    }

    /// For what is done once.
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// A statement.
    pub fn prepare_cached(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.0.prepare_cached(sql)
    }

    /// Runs a statement that answers nothing; returns how many records it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    /// Runs a statement that answers with one record.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare_cached(sql)?.query_row(params, read)
    }
}
