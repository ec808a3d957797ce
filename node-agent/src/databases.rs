//! The container databases of this node, as the lanes ask for them.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use onespace_core::mapping::Mapping;
use onespace_core::plan::reconcile::ContainerSays;
use onespace_core::row::RawRow;
pub use onespace_stores::swift::locate::{LocalReplica as Replica, Signature};

/// The databases of a mapping on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Each local replica.
    pub replicas: Vec<Replica>,
    /// Local devices of the ring that are not mounted, or files that could not be read.
    pub unreadable: u64,
    /// Nodes that the ring names for the mapping, `ip:port`.
    pub ring_nodes: BTreeSet<String>,
    /// Devices were not walked yet: there may be more.
    pub walking: bool,
    /// There is nothing here although there should be something; what is missing, and what to do.
    pub missing: Option<String>,
    /// No rows come into databases here, because a container server is silent; which one, and what to do.
    pub cut_off: Option<String>,
}

/// A row, or why it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRow {
    /// As it stands.
    Row(RawRow),
    /// A value in it is of the wrong type.
    Damaged {
        /// Which.
        rowid: i64,
        /// Its name, if that can be read.
        name: Option<String>,
        /// What is wrong.
        what: String,
    },
}

impl ReadRow {
    /// The row's number.
    #[must_use]
    pub fn rowid(&self) -> i64 {
        match self {
            Self::Row(row) => row.rowid,
            Self::Damaged { rowid, .. } => *rowid,
        }
    }

    /// The row's object, if its name can be read.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Row(row) => Some(&row.name),
            Self::Damaged { name, .. } => name.as_deref(),
        }
    }

    /// The name under which the row is held; its number, if the name cannot be read.
    #[must_use]
    pub fn shown_name(&self) -> String {
        self.name()
            .map_or_else(|| numbered(self.rowid()), ToOwned::to_owned)
    }
}

/// What stands for the name of a row whose name cannot be read.
#[must_use]
pub fn numbered(rowid: i64) -> String {
    format!("(row {rowid})")
}

/// Rows that were read in one short transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// `container_info.id`.
    pub id: String,
    /// The highest ROWID ever given.
    pub max_rowid: i64,
    /// In the order that was asked for.
    pub rows: Vec<ReadRow>,
    /// Fewer rows than asked for: there are no more.
    pub complete: bool,
}

/// Why a database could not be read. Every one of these is tried again at the next look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// Locked, or a crashed writer's journal lies beside it: Swift will mend it.
    #[error("{0} is busy; it is read again later")]
    Busy(PathBuf),
    /// The file went away between two looks.
    #[error("{0} is gone; it is looked for again")]
    Gone(PathBuf),
    /// Its device does not answer.
    #[error("{path}: {what}")]
    Stuck {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is not what it should be.
    #[error("{path} cannot be read: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The container server did not commit the pending file.
    #[error(
        "the container server did not commit the updates that wait for {path} ({what}); check that it runs and that --container-server names it"
    )]
    NotCommitted {
        /// The database.
        path: PathBuf,
        /// What happened.
        what: String,
    },
    /// Rings or configuration cannot be read.
    #[error("{0}")]
    Configuration(String),
}

/// Access to the databases of this node; read-only, every read short.
pub trait Databases: Send + Sync + 'static {
    /// Finds the mapping's databases.
    fn locate(&self, mapping: &Mapping) -> impl Future<Output = Result<Located, DatabaseError>> + Send;

    /// A cheap look for changes at all of these.
    fn signatures(
        &self,
        replicas: Vec<Replica>,
    ) -> impl Future<Output = Vec<(PathBuf, Result<Signature, DatabaseError>)>> + Send;

    /// Rows behind a ROWID, in ROWID order; updates that wait in the pending file are committed first.
    fn rows_after(
        &self,
        replica: &Replica,
        after: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Chunk, DatabaseError>> + Send;

    /// Live rows behind a name, in name order. A chunk never ends between two rows of one name.
    fn rows_by_name(
        &self,
        replica: &Replica,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Chunk, DatabaseError>> + Send;

    /// All rows of a name, under whatever storage policy.
    fn rows_of(
        &self,
        replica: &Replica,
        name: &str,
    ) -> impl Future<Output = Result<Vec<ReadRow>, DatabaseError>> + Send;

    /// How many live rows there are, without counting them.
    fn live_rows(&self, replica: &Replica) -> impl Future<Output = Result<u64, DatabaseError>> + Send;

    /// What every primary replica of the container says of it, this one included; none of them is changed.
    fn peers(&self, replica: &Replica) -> impl Future<Output = Vec<Option<ContainerSays>>> + Send;

    /// Whether every primary replica of the container answered, and none lists this name.
    fn peers_lack(&self, replica: &Replica, name: &str) -> impl Future<Output = bool> + Send;

    /// The storage policies of the cluster.
    fn policies(&self) -> Vec<u32>;

    /// How long Swift keeps tombstones.
    fn reclaim_age(&self) -> Duration;

    /// The name at a ROWID, if a row is there.
    fn name_at(
        &self,
        replica: &Replica,
        rowid: i64,
    ) -> impl Future<Output = Result<Option<String>, DatabaseError>> + Send;
}
