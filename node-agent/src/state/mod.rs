//! The agent's durable state: how far each database was worked off, which rows wait, which deletes are under way.
//!
//! One SQLite file under the state directory, one thread that owns it. Whatever is queued when the thread becomes
//! free goes into one transaction, so that many small records cost one fsync; a caller goes on when its record is
//! durable.

mod adopted;
mod batches;
mod clock;
mod deletes;
mod held;
mod looks;
mod mapping;
mod objective;
mod progress;
mod reconcile;
mod seen_deletes;
mod simulated;
mod sql;
#[cfg(test)]
mod tests;
mod uploads;
mod verified;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

pub use adopted::Adopted;
pub use batches::Waiting;
pub use deletes::{Allowance, Begun, FORGOTTEN, Window};
pub use held::{Held, HeldKey, Holding, Kept};
pub use looks::Looks;
pub use mapping::{MappingState, Opened};
pub use objective::Judged;
pub use progress::{Advance, Ahead, DatabaseKey, Progress, Watermark};
pub use reconcile::{Head, Pass, Reconciling};
pub use seen_deletes::PassedDeletes;
use sql::Sql;
pub use uploads::Uploads;
pub use verified::{Assignment, Passing, Reached, Verified};

/// How many records may wait for the disk before callers wait for a place.
const QUEUE: usize = 1024;

/// How many records go into one transaction.
const BATCH: usize = 256;

/// How long a record may take. A disk that hangs would keep everyone waiting, and nobody would hear of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the tables look like: a file of an earlier version is brought up to it, one of a later version is refused.
const SCHEMA_VERSION: i64 = 2;

/// Why the state cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be opened.
    #[error("the state file {path} cannot be opened ({cause}); check --state, its free space and its owner")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: String,
    },
    /// A newer agent wrote it.
    #[error(
        "the state file {path} has version {found}, this agent knows {SCHEMA_VERSION}; run the newer agent again"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// Another agent has it open.
    #[error(
        "the state file {path} is in use; end the other agent on this node, or give this one a --state of its own"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A record could not be written or read.
    #[error("the agent's state cannot be used ({0}); free space under --state, nothing is done until then")]
    Sql(String),
    /// The disk hangs.
    #[error("the agent's state did not answer within {PATIENCE:?}: check the disk under --state")]
    Stuck,
    /// The thread is gone.
    #[error("the agent's state is closed")]
    Closed,
}

impl From<rusqlite::Error> for StateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.to_string())
    }
}

/// Runs inside the transaction (or, when none can be begun, not at all); the box it returns answers the caller once
/// the transaction is durable.
type Job = Box<dyn FnOnce(Option<&Sql>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), StateError>) + Send>;

/// A handle on the state; cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    worker: Worker,
}

#[derive(Clone, Debug)]
enum Worker {
    /// A thread of its own.
    Thread {
        jobs: mpsc::SyncSender<JobBox>,
        /// Keeps callers from blocking a runtime thread when the queue is full.
        places: Arc<tokio::sync::Semaphore>,
    },
    /// The caller's thread.
    Caller(Arc<Mutex<Sql>>),
}

struct JobBox(Job);

impl std::fmt::Debug for JobBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl State {
    /// Opens (and creates) the state in this directory.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be used.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join("state.sqlite");
        let open_error = |cause: String| StateError::Open {
            path: path.clone(),
            cause,
        };
        std::fs::create_dir_all(directory).map_err(|error| open_error(error.to_string()))?;
        let connection = Sql::open(&path).map_err(|error| open_error(error.to_string()))?;
        prepare(&connection, &path)?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("state".into())
            .spawn(move || serve(&connection, &queue))
            .map_err(|error| open_error(error.to_string()))?;
        Ok(Self {
            worker: Worker::Thread {
                jobs,
                places: Arc::new(tokio::sync::Semaphore::new(QUEUE)),
            },
        })
    }

    /// Runs a piece of work in a transaction; returns when it is durable.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sql) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StateError> {
        self.perform(|sql| in_savepoint(sql, work)).await
    }

    /// Runs a piece of work that records nothing. What it reads is durable when it returns.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sql) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StateError> {
        self.perform(|sql| work(sql).map_err(StateError::from)).await
    }

    async fn perform<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sql) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (jobs, places) = match &self.worker {
            Worker::Thread { jobs, places } => (jobs, places),
            Worker::Caller(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                return work(&connection);
            }
        };
        let recorded = async {
            let place = places.clone().acquire_owned().await;
            let place = place.map_err(|_| StateError::Closed)?;
            let (answer, done) = oneshot::channel();
            let job: Job = Box::new(move |connection| {
                let result = connection.map_or(Err(StateError::Closed), work);
                Box::new(move |committed: Result<(), StateError>| {
                    let _ = answer.send(committed.and(result));
                    // Whoever waits no longer has still a record in the queue.
                    drop(place);
                })
            });
            jobs.send(JobBox(job)).map_err(|_| StateError::Closed)?;
            done.await.map_err(|_| StateError::Closed)?
        };
        // A record that comes late comes in its order all the same, and tells of nothing that did not happen.
        tokio::time::timeout(PATIENCE, recorded)
            .await
            .unwrap_or(Err(StateError::Stuck))
    }
}

/// One record's failure undoes that record alone.
fn in_savepoint<T>(
    connection: &Sql,
    work: impl FnOnce(&Sql) -> Result<T, rusqlite::Error>,
) -> Result<T, StateError> {
    let run = |sql| connection.execute(sql, []);
    run("SAVEPOINT record")?;
    match work(connection) {
        Ok(value) => {
            run("RELEASE record")?;
            Ok(value)
        }
        Err(error) => {
            run("ROLLBACK TO record")?;
            run("RELEASE record")?;
            Err(error.into())
        }
    }
}

fn serve(connection: &Sql, queue: &mpsc::Receiver<JobBox>) {
    while let Ok(first) = queue.recv() {
        let mut replies = Vec::new();
        if let Err(error) = connection.execute("BEGIN IMMEDIATE", []) {
            (first.0)(None)(Err(error.into()));
            continue;
        }
        replies.push((first.0)(Some(connection)));
        // Some failures (a full disk) end the whole transaction: what was recorded before in it is gone.
        while replies.len() < BATCH && !connection.connection().is_autocommit() {
            match queue.try_recv() {
                Ok(job) => replies.push((job.0)(Some(connection))),
                Err(_) => break,
            }
        }
        let committed = connection.execute("COMMIT", []).map(|_| ()).map_err(|error| {
            let _ = connection.execute("ROLLBACK", []);
            StateError::from(error)
        });
        for reply in replies {
            reply(committed.clone());
        }
    }
}

fn prepare(connection: &Sql, path: &Path) -> Result<(), StateError> {
    let in_use = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => StateError::InUse {
            path: path.to_owned(),
        },
        _ => StateError::Open {
            path: path.to_owned(),
            cause: error.to_string(),
        },
    };
    let connection = connection.connection();
    connection.busy_timeout(Duration::from_secs(2)).map_err(in_use)?;
    // EXCLUSIVE keeps a second agent out; FULL makes a commit survive a power cut.
    connection
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; COMMIT;",
        )
        .map_err(in_use)?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(in_use)?;
    match found {
        0 => connection
            .execute_batch(&format!(
                "BEGIN; {SCHEMA} {deletes} {batches} {verified} {looks} {reconcile} {seen} {uploads} {objective} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;",
                deletes = deletes::SCHEMA,
                batches = batches::SCHEMA,
                verified = verified::SCHEMA,
                looks = looks::SCHEMA,
                reconcile = reconcile::SCHEMA,
                seen = seen_deletes::SCHEMA,
                uploads = uploads::SCHEMA,
                objective = objective::SCHEMA,
            ))
            .map_err(in_use),
        1 => connection
            .execute_batch(&format!("BEGIN; {FROM_1} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))
            .map_err(in_use),
        SCHEMA_VERSION => Ok(()),
        found => Err(StateError::Version {
            path: path.to_owned(),
            found,
        }),
    }
}

/// Version 1 did not know a database's file.
const FROM_1: &str = "ALTER TABLE progress ADD COLUMN file INTEGER NOT NULL DEFAULT 0;";

const SCHEMA: &str = "
CREATE TABLE mapping (
    id TEXT PRIMARY KEY, mode TEXT NOT NULL, starts_over TEXT NOT NULL,
    objects INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, deletes INTEGER NOT NULL DEFAULT 0,
    released INTEGER NOT NULL DEFAULT 0, verified INTEGER NOT NULL DEFAULT 0, repaired INTEGER NOT NULL DEFAULT 0,
    handled_retry TEXT, handled_release TEXT) WITHOUT ROWID;
CREATE TABLE progress (
    mapping TEXT NOT NULL, db TEXT NOT NULL, container TEXT NOT NULL, path TEXT NOT NULL,
    high INTEGER NOT NULL, after_name TEXT, first_pass_done INTEGER NOT NULL,
    processed INTEGER NOT NULL, processed_name TEXT, deletes INTEGER NOT NULL, seen INTEGER NOT NULL, file INTEGER NOT NULL,
    PRIMARY KEY (mapping, db)) WITHOUT ROWID;
CREATE INDEX progress_path ON progress (mapping, path);
CREATE TABLE held (
    mapping TEXT NOT NULL, db TEXT NOT NULL, name TEXT NOT NULL, container TEXT NOT NULL,
    row INTEGER NOT NULL, own INTEGER NOT NULL, counted INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    attempts INTEGER NOT NULL, since INTEGER NOT NULL, next_try INTEGER,
    PRIMARY KEY (mapping, db, name)) WITHOUT ROWID;
CREATE INDEX held_due ON held (mapping, next_try) WHERE next_try IS NOT NULL;
CREATE TABLE adopted (
    mapping TEXT NOT NULL, name BLOB NOT NULL, etag TEXT NOT NULL,
    PRIMARY KEY (mapping, name)) WITHOUT ROWID;
";
