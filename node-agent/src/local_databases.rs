//! The container databases under this node's devices. Every access is a short one on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use onespace_core::mapping::Mapping;
use onespace_core::plan::reconcile::ContainerSays;
use onespace_stores::swift::client::{Peer, SwiftSource};
use onespace_stores::swift::container_db::{self, ContainerDb, DbError};
use onespace_stores::swift::locate::{self, ContainerServer, Node, Owner, SHARDS};

use crate::databases::{Chunk, DatabaseError, Databases, Located, ReadRow, Replica, Signature};
use crate::disks::{Disks, Stuck};
use crate::servers::Servers;
use crate::walks::Walks;

/// How long a device may take to show a folder or a file's times.
const LOOK: Duration = Duration::from_secs(15);

/// How long it may take to read rows: ten thousand, each at another place of a slow disk.
const READ: Duration = Duration::from_secs(120);

/// Where Swift's configuration and devices are on this node.
#[derive(Clone, Debug)]
pub struct Place {
    /// With swift.conf, container-server.conf and the rings.
    pub swift_dir: PathBuf,
    /// Folder of the devices.
    pub devices: PathBuf,
    /// This node as the ring names it.
    pub container_servers: Vec<ContainerServer>,
}

/// The databases of this node.
pub struct LocalDatabases {
    place: Place,
    source: Arc<SwiftSource>,
    disks: Disks,
    node: Mutex<Option<Known>>,
    walks: Arc<Walks>,
    servers: Servers,
}

/// The rings as they were read last.
struct Known {
    node: Arc<Node>,
    stamps: Vec<Option<SystemTime>>,
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
            disks: Disks::default(),
            node: Mutex::new(None),
            walks: Arc::default(),
            servers: Servers::default(),
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
        let work = move || read(&ContainerDb::new(path));
        let done = self.disks.run(&replica.device, READ, work).await;
        done.map_err(|stuck| stuck_at(replica, &stuck))?.map_err(from_db)
    }

    /// Every primary replica of a container, this one included. None: rings cannot be read.
    fn peers_of(&self, replica: &Replica) -> Vec<Peer> {
        let (account, container) = replica.served_as();
        let Ok(node) = self.node() else {
            return Vec::new();
        };
        let peer = |(server, device)| Peer {
            server,
            device,
            partition: replica.partition,
            account: account.to_owned(),
            container: container.to_owned(),
        };
        node.primaries(replica.partition).into_iter().map(peer).collect()
    }

    /// Object servers leave their updates in the pending file: whoever asks the container server makes it commit
    /// them.
    async fn commit_pending(&self, replica: &Replica) -> Result<(), DatabaseError> {
        let path = replica.path.clone();
        let look = move || locate::pending_size(&path);
        let size = self.disks.run(&replica.device, LOOK, look).await;
        match size.map_err(|stuck| stuck_at(replica, &stuck))? {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                return Err(DatabaseError::Damaged {
                    path: replica.path.clone(),
                    what: error.to_string(),
                });
            }
        }
        let (account, container) = replica.served_as();
        self.source
            .commit_pending(
                &replica.server,
                &replica.device,
                replica.partition,
                account,
                container,
            )
            .await
            .map_err(|error| DatabaseError::NotCommitted {
                path: replica.path.clone(),
                what: error.to_string(),
            })
    }

    /// What is at the places that the ring gives to a container on this node.
    async fn at_places(&self, node: &Arc<Node>, account: &str, container: &str) -> AtPlaces {
        let places = node.places(account, container);
        let looks = places.local.into_iter().map(|place| {
            let (node, owner) = (node.clone(), Owner::of_names(account, container));
            let device = place.device.clone();
            async move {
                let look = move || node.look(&place, &owner);
                self.disks.run(&device, LOOK, look).await
            }
        });
        AtPlaces {
            found: futures::future::join_all(looks).await,
            ring_nodes: places.ring_nodes,
        }
    }
}

/// What was found where the ring puts a container.
struct AtPlaces {
    found: Vec<Result<locate::Located, Stuck>>,
    ring_nodes: BTreeSet<String>,
}

impl Databases for LocalDatabases {
    async fn locate(&self, mapping: &Mapping) -> Result<Located, DatabaseError> {
        let node = self.node()?;
        if !node.is_in_ring() {
            return Err(not_in_ring(&node));
        }
        let (account, container) = (&mapping.source.account, &mapping.source.container);
        let account_wide = mapping.source.is_account_wide();
        let mut accounts = BTreeSet::from([format!("{SHARDS}{account}")]);
        let mut located = Located::default();
        let mut unreadable = BTreeSet::new();
        let mut has_places = false;
        if account_wide {
            accounts.insert(account.clone());
            located.ring_nodes = node.ring_nodes();
        } else {
            let AtPlaces { found, ring_nodes } = self.at_places(&node, account, container).await;
            has_places = !found.is_empty();
            located.ring_nodes = ring_nodes;
            for found in found {
                match found {
                    Ok(found) => {
                        unreadable.extend(found.unmounted.iter().map(PathBuf::from));
                        unreadable.extend(found.unreadable.into_keys());
                        located.replicas.extend(found.replicas);
                    }
                    Err(Stuck(device)) => {
                        unreadable.insert(PathBuf::from(device));
                    }
                }
            }
        }
        let walked = self.walks.look(&node, &accounts).await;
        located.walking = walked.walking;
        let mut unseen: BTreeSet<PathBuf> = walked.stuck.iter().map(PathBuf::from).collect();
        for found in walked.found {
            unseen.extend(found.unmounted.iter().map(PathBuf::from));
            unseen.extend(found.unreadable.keys().cloned());
            let is_ours = |replica: &&Replica| {
                replica.account == *account
                    && if account_wide {
                        !mapping.carved_out.contains(&replica.container)
                    } else {
                        replica.shard.is_some() && replica.container == *container
                    }
            };
            located
                .replicas
                .extend(found.replicas.iter().filter(is_ours).cloned());
        }
        // A disk that is not there is no trouble of a container that has no shards.
        if account_wide || located.replicas.iter().any(is_sharding) {
            unreadable.extend(unseen);
        }
        if !account_wide {
            for replica in &located.replicas {
                if let Some((account, container)) = &replica.shard {
                    located
                        .ring_nodes
                        .extend(node.places(account, container).ring_nodes);
                }
            }
        }
        located.unreadable = unreadable.len() as u64;
        let servers = located.replicas.iter().map(|replica| replica.server.as_str());
        let silent = self.servers.silent(servers.collect()).await;
        located.cut_off = (!silent.is_empty()).then(|| cut_off(&silent));
        let alone = located.ring_nodes.is_subset(node.servers());
        if located.replicas.is_empty() && unreadable.is_empty() && !located.walking && (has_places || alone) {
            located.missing = Some(missing(account, (!account_wide).then_some(container)));
        }
        Ok(located)
    }

    async fn signatures(&self, replicas: Vec<Replica>) -> Vec<(PathBuf, Result<Signature, DatabaseError>)> {
        let mut devices: BTreeMap<String, Vec<Replica>> = BTreeMap::new();
        for replica in replicas {
            devices.entry(replica.device.clone()).or_default().push(replica);
        }
        let looks = devices.into_iter().map(|(device, replicas)| async move {
            let paths: Vec<_> = replicas.iter().map(|replica| replica.path.clone()).collect();
            let look = move || -> Vec<_> {
                paths
                    .into_iter()
                    .map(|path| {
                        let signature = locate::signature(&path).map_err(from_db);
                        (path, signature)
                    })
                    .collect()
            };
            match self.disks.run(&device, LOOK, look).await {
                Ok(looked) => looked,
                Err(stuck) => replicas
                    .iter()
                    .map(|replica| (replica.path.clone(), Err(stuck_at(replica, &stuck))))
                    .collect(),
            }
        });
        futures::future::join_all(looks)
            .await
            .into_iter()
            .flatten()
            .collect()
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

    async fn live_rows(&self, replica: &Replica) -> Result<u64, DatabaseError> {
        self.read(replica, ContainerDb::live_rows).await
    }

    async fn peers(&self, replica: &Replica) -> Vec<Option<ContainerSays>> {
        let peers = self.peers_of(replica);
        futures::future::join_all(peers.iter().map(|peer| self.source.container(peer))).await
    }

    async fn peers_lack(&self, replica: &Replica, name: &str) -> bool {
        let peers = self.peers_of(replica);
        let answers = futures::future::join_all(peers.iter().map(|peer| self.source.lists(peer, name))).await;
        !answers.is_empty() && answers.iter().all(|answer| *answer == Some(false))
    }

    fn policies(&self) -> Vec<u32> {
        self.source.policies()
    }

    fn reclaim_age(&self) -> Duration {
        // Rings that cannot be read stop everything else, too.
        self.node().map_or(Duration::MAX, |node| node.reclaim_age())
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

/// Whether a container has shards, or is about to have some.
fn is_sharding(replica: &Replica) -> bool {
    let file = replica.path.file_name().map(|name| name.to_string_lossy());
    replica.shard.is_some() || file.is_some_and(|name| name.contains('_'))
}

/// Without this a policy with a misspelt name would look as if all were done.
fn missing(account: &str, container: Option<&String>) -> String {
    match container {
        Some(container) => format!(
            "the ring puts {account}/{container} on this node, and there is no database of it: check source.account and \
             source.container; it is followed as soon as it is there"
        ),
        None => format!(
            "there is no container of {account}: check source.account; containers are followed as soon as they are \
             there"
        ),
    }
}

/// Without this a node whose Swift is stopped would look as if nobody wrote.
fn cut_off(servers: &[String]) -> String {
    format!(
        "this node's container server does not answer ({}), so no new rows come here: start it. The agents of other nodes do \
         this node's part, each row a slack later",
        servers.join(", ")
    )
}

fn stuck_at(replica: &Replica, stuck: &Stuck) -> DatabaseError {
    DatabaseError::Stuck {
        path: replica.path.clone(),
        what: stuck.to_string(),
    }
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
