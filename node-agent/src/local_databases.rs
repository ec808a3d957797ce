//! The container databases under this node's devices. Every access is a short one on a thread of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use onespace_core::mapping::Mapping;
use onespace_stores::swift::client::SwiftSource;
use onespace_stores::swift::container_db::{self, ContainerDb, DbError};
use onespace_stores::swift::locate::{self, Identities, Node};
use tokio::sync::Semaphore;

use crate::databases::{Chunk, DatabaseError, Databases, Located, ReadRow, Replica, Signature};

/// Databases that are read at the same time.
const READERS: usize = 16;

/// How often all devices are walked for the containers of an account.
const WALK: Duration = Duration::from_secs(10);

/// Where Swift's configuration and devices are on this node.
#[derive(Clone, Debug)]
pub struct Place {
    /// With swift.conf, container-server.conf and the rings.
    pub swift_dir: PathBuf,
    /// Folder of the devices.
    pub devices: PathBuf,
    /// This node as the ring names it.
    pub container_servers: Vec<String>,
}

/// The databases of this node.
pub struct LocalDatabases {
    place: Place,
    source: Arc<SwiftSource>,
    readers: Arc<Semaphore>,
    node: Mutex<Option<Known>>,
    walks: Arc<Mutex<Walks>>,
}

/// The rings as they were read last.
struct Known {
    node: Arc<Node>,
    stamps: Vec<Option<SystemTime>>,
}

/// What the last walks over the devices found, by account.
#[derive(Default)]
struct Walks {
    identities: Identities,
    found: std::collections::BTreeMap<String, (Instant, locate::Located)>,
}

impl LocalDatabases {
    /// The databases at this place. Updates that wait in pending files are committed through `source`.
    ///
    /// # Errors
    /// Configuration or ring cannot be read.
    pub fn open(place: Place, source: Arc<SwiftSource>) -> Result<Self, DatabaseError> {
        let databases = Self {
            place,
            source,
            readers: Arc::new(Semaphore::new(READERS)),
            node: Mutex::new(None),
            walks: Arc::default(),
        };
        databases.node()?;
        Ok(databases)
    }

    /// This node as the ring names it.
    #[must_use]
    pub fn name(&self) -> String {
        let names = self
            .node()
            .map(|node| node.servers().iter().cloned().collect::<Vec<_>>().join(","));
        names.unwrap_or_default()
    }

    /// Configuration and ring, read anew when one of the files changed. A broken new file leaves the last good one.
    fn node(&self) -> Result<Arc<Node>, DatabaseError> {
        let Place {
            swift_dir,
            devices,
            container_servers,
        } = &self.place;
        let stamps: Vec<_> = ["swift.conf", "container-server.conf", "container.ring.gz"]
            .iter()
            .map(|file| {
                std::fs::metadata(swift_dir.join(file))
                    .and_then(|found| found.modified())
                    .ok()
            })
            .collect();
        let mut known = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Known { node, stamps: seen }) = &*known
            && *seen == stamps
        {
            return Ok(node.clone());
        }
        match (Node::load(swift_dir, devices, container_servers), &mut *known) {
            (Ok(node), known) => {
                let node = Arc::new(node);
                *known = Some(Known {
                    node: node.clone(),
                    stamps,
                });
                Ok(node)
            }
            (Err(error), Some(known)) => {
                tracing::error!("Swift's configuration cannot be read, the last good one stays: {error}");
                known.stamps = stamps;
                Ok(known.node.clone())
            }
            (Err(error), None) => Err(DatabaseError::Configuration(error.to_string())),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        replica: &Replica,
        read: impl FnOnce(&ContainerDb) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let path = replica.path.clone();
        let lost = || DatabaseError::Busy(replica.path.clone());
        let place = self.readers.clone().acquire_owned().await.map_err(|_| lost())?;
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&ContainerDb::new(path))
        });
        task.await.map_err(|_| lost())?.map_err(from_db)
    }

    /// Object servers leave their updates in the pending file: whoever asks the container server makes it commit
    /// them.
    async fn commit_pending(&self, replica: &Replica) -> Result<(), DatabaseError> {
        match locate::pending_size(&replica.path) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                return Err(DatabaseError::Damaged {
                    path: replica.path.clone(),
                    what: error.to_string(),
                });
            }
        }
        let Replica {
            server,
            device,
            partition,
            account,
            container,
            path,
            ..
        } = replica;
        self.source
            .commit_pending(server, device, *partition, account, container)
            .await
            .map_err(|error| DatabaseError::NotCommitted {
                path: path.clone(),
                what: error.to_string(),
            })
    }
}

impl Databases for LocalDatabases {
    async fn locate(&self, mapping: &Mapping) -> Result<Located, DatabaseError> {
        let node = self.node()?;
        if !node.is_in_ring() {
            return Err(not_in_ring(&node));
        }
        let (source, carved_out) = (mapping.source.clone(), mapping.carved_out.clone());
        let walks = self.walks.clone();
        let located = tokio::task::spawn_blocking(move || {
            if !source.is_account_wide() {
                return node.container(&source.account, &source.container);
            }
            let mut walks = walks.lock().unwrap_or_else(PoisonError::into_inner);
            let Walks { identities, found } = &mut *walks;
            let fresh = found
                .get(&source.account)
                .is_some_and(|(at, _)| at.elapsed() < WALK);
            if !fresh {
                let located = node.account(&source.account, identities);
                found.insert(source.account.clone(), (Instant::now(), located));
            }
            let mut located = found
                .get(&source.account)
                .map(|(_, located)| located.clone())
                .unwrap_or_default();
            located
                .replicas
                .retain(|replica| !carved_out.contains(&replica.container));
            located
        });
        let located = located
            .await
            .map_err(|error| DatabaseError::Configuration(error.to_string()))?;
        let locate::Located {
            replicas,
            unmounted,
            unreadable,
            ring_nodes,
        } = located;
        Ok(Located {
            replicas,
            unreadable: (unmounted.len() + unreadable.len()) as u64,
            ring_nodes,
        })
    }

    async fn signatures(&self, replicas: Vec<Replica>) -> Vec<(PathBuf, Result<Signature, DatabaseError>)> {
        let looked = tokio::task::spawn_blocking(move || {
            replicas
                .into_iter()
                .map(|replica| {
                    let signature = locate::signature(&replica.path).map_err(from_db);
                    (replica.path, signature)
                })
                .collect()
        });
        looked.await.unwrap_or_default()
    }

    async fn rows_after(&self, replica: &Replica, after: i64, limit: usize) -> Result<Chunk, DatabaseError> {
        self.commit_pending(replica).await?;
        self.read(replica, move |db| db.rows_after(after, limit))
            .await
            .map(from_chunk)
    }

    async fn rows_by_name(
        &self,
        replica: &Replica,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Chunk, DatabaseError> {
        let after = after.map(ToOwned::to_owned);
        self.read(replica, move |db| db.rows_by_name(after.as_deref(), limit))
            .await
            .map(from_chunk)
    }

    async fn rows_of(&self, replica: &Replica, name: &str) -> Result<Vec<ReadRow>, DatabaseError> {
        let name = name.to_owned();
        let rows = self.read(replica, move |db| db.rows_of(&name)).await?;
        Ok(rows.into_iter().map(from_row).collect())
    }

    async fn name_at(&self, replica: &Replica, rowid: i64) -> Result<Option<String>, DatabaseError> {
        self.read(replica, move |db| db.row_at(rowid)).await
    }
}

/// Without this an agent that was given a wrong address would find nothing to do and say that all is done.
fn not_in_ring(node: &Node) -> DatabaseError {
    let servers: Vec<_> = node.servers().iter().map(String::as_str).collect();
    DatabaseError::Configuration(format!(
        "the container ring has no device on this node ({}); give --container-server as the ring names it",
        match servers.as_slice() {
            [] => "no local address is in it".to_owned(),
            servers => servers.join(", "),
        }
    ))
}

fn from_chunk(chunk: container_db::Chunk) -> Chunk {
    Chunk {
        id: chunk.head.id,
        max_rowid: chunk.head.max_rowid,
        rows: chunk.rows.into_iter().map(from_row).collect(),
        complete: chunk.complete,
    }
}

fn from_row(row: container_db::ReadRow) -> ReadRow {
    match row {
        Ok(row) => ReadRow::Row(row),
        Err(damage) => ReadRow::Damaged {
            rowid: damage.rowid,
            name: damage.name,
            what: damage.what,
        },
    }
}

fn from_db(error: DbError) -> DatabaseError {
    match error {
        DbError::Busy(path) => DatabaseError::Busy(path),
        DbError::Gone(path) => DatabaseError::Gone(path),
        DbError::Damaged { path, what, remedy } => DatabaseError::Damaged {
            path,
            what: format!("{what}; {remedy}"),
        },
    }
}
