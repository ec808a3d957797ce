//! Where a container's databases lie on this node.

mod catalogue;
mod files;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use onespace_core::naming::{HashPath, partition};

pub use self::catalogue::{Catalogue, Owner};
pub use self::files::{Signature, container_folder, databases, pending_file, pending_size, signature};
pub use self::server::{ContainerServer, NoServer};
use super::conf::{ConfError, ContainerServerConf, SwiftConf};
use super::ring::{Device, Ring, RingError};

/// Shards are containers of the account with this before its name.
pub const SHARDS: &str = ".shards_";

/// Why this node's databases cannot be located.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// Swift's configuration.
    #[error("{0}")]
    Conf(#[from] ConfError),
    /// The container ring.
    #[error("{0}")]
    Ring(#[from] RingError),
}

/// One database on this node, and its replica's part in the work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalReplica {
    /// The file: of a container that is being sharded there are two.
    pub path: PathBuf,
    /// The container server that serves it, `ip:port`, as the ring names it.
    pub server: String,
    /// Device of the ring.
    pub device: String,
    /// Partition of the ring.
    pub partition: u32,
    /// Account of the objects in it.
    pub account: String,
    /// Container of the objects in it, as users know it: of a shard, the container that was sharded.
    pub container: String,
    /// Account and container under which the container server knows it, if it is a shard.
    pub shard: Option<(String, String)>,
    /// This device's index among the partition's primary devices.
    pub index: u32,
    /// How many primary devices there are.
    pub replicas: u32,
}

impl LocalReplica {
    /// Account and container under which the container server knows it.
    #[must_use]
    pub fn served_as(&self) -> (&str, &str) {
        match &self.shard {
            Some((account, container)) => (account, container),
            None => (&self.account, &self.container),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Each local database.
    pub replicas: Vec<LocalReplica>,
    /// Local devices that should hold one and are not mounted.
    pub unmounted: BTreeSet<String>,
    /// Files and folders that could not be read, with the reason.
    pub unreadable: BTreeMap<PathBuf, String>,
    /// Servers that the ring names, `ip:port`.
    pub ring_nodes: BTreeSet<String>,
}

/// Where the ring puts a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// On this node.
    pub local: Vec<Place>,
    /// Every server that the ring names for it, `ip:port`.
    pub ring_nodes: BTreeSet<String>,
}

/// A primary place of a container on this node; whether a database is there is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `<devices>/<device>/containers/<partition>/<suffix>/<hash>`.
    pub folder: PathBuf,
    server: String,
    /// Device of the ring.
    pub device: String,
    partition: u32,
    index: u32,
    replicas: u32,
}

impl Place {
    fn replica(&self, owner: &Owner, path: PathBuf) -> LocalReplica {
        let (account, container) = owner.shown();
        LocalReplica {
            path,
            server: self.server.clone(),
            device: self.device.clone(),
            partition: self.partition,
            account: account.to_owned(),
            container: container.to_owned(),
            shard: owner
                .root
                .is_some()
                .then(|| (owner.account.clone(), owner.container.clone())),
            index: self.index,
            replicas: self.replicas,
        }
    }
}

/// This node, as the container ring and Swift's configuration describe it.
#[derive(Clone, Debug)]
pub struct Node {
    devices: PathBuf,
    mount_check: bool,
    hash_path: HashPath,
    ring: Arc<Ring>,
    local: BTreeSet<String>,
    reclaim_age: Duration,
}

impl Node {
    /// Reads `swift.conf`, `container-server.conf` and the container ring. `devices` is the folder of the devices;
    /// `container_servers` says which servers of the ring are this node, or, if empty, those on one of this machine's
    /// addresses with the port of `container-server.conf`.
    ///
    /// # Errors
    /// When one of the files cannot be read.
    pub fn load(
        swift_dir: &Path,
        devices: &Path,
        container_servers: &[ContainerServer],
    ) -> Result<Self, LocateError> {
        let conf = SwiftConf::load(swift_dir)?;
        let server = ContainerServerConf::load(swift_dir)?;
        let ring = Arc::new(Ring::load(&swift_dir.join("container.ring.gz"))?);
        let default = [ContainerServer::at_any_address(server.bind_port)];
        let ours = if container_servers.is_empty() {
            &default[..]
        } else {
            container_servers
        };
        let local = ours.iter().flat_map(|named| named.in_ring(&ring)).collect();
        Ok(Self {
            devices: devices.to_owned(),
            mount_check: server.mount_check,
            hash_path: conf.hash_path,
            ring,
            local,
            reclaim_age: server.reclaim_age,
        })
    }

    /// The servers of the ring that are this node, `ip:port`.
    #[must_use]
    pub fn servers(&self) -> &BTreeSet<String> {
        &self.local
    }

    /// How long Swift keeps tombstones.
    #[must_use]
    pub fn reclaim_age(&self) -> Duration {
        self.reclaim_age
    }

    /// Server (`ip:port`) and device of every primary replica of the containers in a partition.
    #[must_use]
    pub fn primaries(&self, partition: u32) -> Vec<(String, String)> {
        let primaries = self.ring.primaries(partition).into_iter();
        primaries
            .map(|device| (device.server(), device.device.clone()))
            .collect()
    }

    /// Whether the ring has a device of this node: if not, no database will ever be found.
    #[must_use]
    pub fn is_in_ring(&self) -> bool {
        self.ring
            .devices()
            .any(|device| self.local.contains(&device.server()))
    }

    /// Every server that the ring names, `ip:port`.
    #[must_use]
    pub fn ring_nodes(&self) -> BTreeSet<String> {
        self.ring.devices().map(Device::server).collect()
    }

    /// The ring's devices on this node.
    #[must_use]
    pub fn local_devices(&self) -> BTreeSet<String> {
        let local = |device: &&Device| self.local.contains(&device.server());
        self.ring
            .devices()
            .filter(local)
            .map(|device| device.device.clone())
            .collect()
    }

    /// Where the ring puts a container.
    #[must_use]
    pub fn places(&self, account: &str, container: &str) -> Places {
        let hash = self.hash_path.hash(account, Some(container), None);
        let partition = partition(&hash, self.ring.part_power());
        let primaries = self.ring.primaries(partition);
        let replicas = u32::try_from(primaries.len()).unwrap_or(u32::MAX);
        let place = |(index, device): (u32, &&Device)| Place {
            folder: container_folder(&self.devices, &device.device, partition, &hash),
            server: device.server(),
            device: device.device.clone(),
            partition,
            index,
            replicas,
        };
        Places {
            local: (0..)
                .zip(&primaries)
                .filter(|(_, device)| self.local.contains(&device.server()))
                .map(place)
                .collect(),
            ring_nodes: primaries.iter().map(|device| device.server()).collect(),
        }
    }

    /// What is at a place. Blocks as long as the disk does.
    #[must_use]
    pub fn look(&self, place: &Place, owner: &Owner) -> Located {
        let mut located = Located::default();
        if !self.is_there(&place.device) {
            located.unmounted.insert(place.device.clone());
            return located;
        }
        match databases(&place.folder) {
            Ok(paths) => {
                let replica = |path| place.replica(owner, path);
                located.replicas = paths.into_iter().map(replica).collect();
            }
            Err(error) => {
                located.unreadable.insert(place.folder.clone(), error.to_string());
            }
        }
        located
    }

    /// The databases of one container on this node's primary devices; its shards are not among them.
    #[must_use]
    pub fn container(&self, account: &str, container: &str) -> Located {
        let owner = Owner::of_names(account, container);
        let places = self.places(account, container);
        let mut located = Located {
            ring_nodes: places.ring_nodes,
            ..Located::default()
        };
        for place in &places.local {
            let here = self.look(place, &owner);
            located.replicas.extend(here.replicas);
            located.unmounted.extend(here.unmounted);
            located.unreadable.extend(here.unreadable);
        }
        located
    }

    /// The databases of all containers of the `wanted` accounts on one device that is a primary of theirs: deleted
    /// containers too, handoffs not (their rows reach the primaries by replication), nor what Swift hides (names
    /// that begin with NUL) or shards of that. Walks the device: `visited` counts containers, to see that it gets on.
    #[must_use]
    pub fn walk(
        &self,
        device: &str,
        wanted: &BTreeSet<String>,
        catalogue: &mut Catalogue,
        visited: &AtomicU64,
    ) -> Located {
        let mut located = Located::default();
        if !self.is_there(device) {
            located.unmounted.insert(device.to_owned());
            return located;
        }
        let containers = self.devices.join(device).join("containers");
        let mut replicas = Vec::new();
        located.unreadable = catalogue.walk(&containers, wanted, visited, &mut |owner, folder, paths| {
            if owner.shown().1.starts_with('\0') {
                return;
            }
            let places = self.places(&owner.account, &owner.container).local;
            if let Some(place) = places.iter().find(|place| place.folder == folder) {
                replicas.extend(paths.into_iter().map(|path| place.replica(owner, path)));
            }
        });
        located.replicas = replicas;
        located
    }

    /// Whether a device is there: mounted, where Swift checks that.
    fn is_there(&self, device: &str) -> bool {
        let path = self.devices.join(device);
        if self.mount_check {
            is_mount_point(&path)
        } else {
            path.is_dir()
        }
    }
}

/// Swift's own rule: another device than the folder above it, or the same inode (a root).
fn is_mount_point(path: &Path) -> bool {
    let Ok(own) = std::fs::symlink_metadata(path) else {
        return false;
    };
    let Ok(parent) = std::fs::symlink_metadata(path.join("..")) else {
        return false;
    };
    !own.is_symlink() && (own.dev() != parent.dev() || own.ino() == parent.ino())
        // How Swift is told that a device which is no mount point is meant to be one.
        || path.join(".ismount").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_folder_is_no_mounted_device() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(dir.path()));
        assert!(!is_mount_point(&dir.path().join("absent")));
        assert!(is_mount_point(Path::new("/proc")));
        std::fs::write(dir.path().join(".ismount"), "").unwrap();
        assert!(is_mount_point(dir.path()));
    }
}
