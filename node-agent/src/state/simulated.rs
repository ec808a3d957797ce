//! States of simulated agents: kept in memory, lost and full at a word.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::sql::Sql;
use super::{State, StateError, Worker, prepare};

impl State {
    /// A state that is kept in memory, on the caller's thread: simulated time stands still while it works.
    ///
    /// # Errors
    /// [`StateError`] when SQLite cannot be used.
    pub fn in_memory() -> Result<Self, StateError> {
        let connection = Sql::open_in_memory()?;
        prepare(&connection, Path::new(":memory:"))?;
        Ok(Self {
            worker: Worker::Caller(Arc::new(Mutex::new(connection))),
        })
    }

    /// Forgets everything, as a state directory that is lost. A state on a disk is never forgotten this way.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn lose_everything(&self) -> Result<(), StateError> {
        if matches!(self.worker, Worker::Thread { .. }) {
            return Err(StateError::Sql(
                "only a state in memory can be lost at a word".into(),
            ));
        }
        self.run(|sql| {
            let tables: Vec<String> = sql
                .prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for table in tables {
                sql.execute(&format!("DELETE FROM {table}"), [])?;
            }
            Ok(())
        })
        .await
    }

    /// Takes no more records, as a disk that is full does, or takes them again.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn refuse_records(&self, refuse: bool) -> Result<(), StateError> {
        self.run(move |sql| sql.connection().pragma_update(None, "query_only", refuse))
            .await
    }
}
