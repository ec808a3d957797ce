//! Where a container's databases lie on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onespace_core::naming::{HashPath, partition};

use super::conf::{ConfError, ContainerServerConf, SwiftConf};
use super::container_db::{ContainerDb, DbError};
use super::ring::{Device, Ring, RingError};

/// Why this node's databases cannot be located.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// Swift's configuration.
    #[error("{0}")]
    Conf(#[from] ConfError),
    /// The container ring.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// A folder cannot be read.
    #[error("{path} cannot be read ({cause}): check the disk, and that the process may read it")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
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
    /// Account.
    pub account: String,
    /// Container.
    pub container: String,
    /// This device's index among the partition's primary devices.
    pub index: u32,
    /// How many primary devices there are.
    pub replicas: u32,
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

/// What changes whenever a database may have new rows: to see that there is nothing new costs no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// inode, modification time in nanoseconds, size of the database.
    pub database: (u64, i128, u64),
    /// Size of the pending file.
    pub pending: u64,
}

/// This node, as the container ring and Swift's configuration describe it.
#[derive(Clone, Debug)]
pub struct Node {
    devices: PathBuf,
    mount_check: bool,
    hash_path: HashPath,
    ring: Arc<Ring>,
    local: BTreeSet<String>,
}

impl Node {
    /// Reads `swift.conf`, `container-server.conf` and the container ring. `devices` is the folder of the devices;
    /// `container_servers` says which servers of the ring are this node (`ip:port`), or, if empty, those on one of
    /// this machine's addresses with the port of `container-server.conf`.
    ///
    /// # Errors
    /// When one of the files cannot be read.
    pub fn load(swift_dir: &Path, devices: &Path, container_servers: &[String]) -> Result<Self, LocateError> {
        let conf = SwiftConf::load(swift_dir)?;
        let server = ContainerServerConf::load(swift_dir)?;
        let ring = Arc::new(Ring::load(&swift_dir.join("container.ring.gz"))?);
        let local = if container_servers.is_empty() {
            let ours = |device: &&Device| device.port == server.bind_port && is_local(&device.ip);
            ring.devices().filter(ours).map(Device::server).collect()
        } else {
            container_servers.iter().cloned().collect()
        };
        Ok(Self {
            devices: devices.to_owned(),
            mount_check: server.mount_check,
            hash_path: conf.hash_path,
            ring,
            local,
        })
    }

    /// The servers of the ring that are this node, `ip:port`.
    #[must_use]
    pub fn servers(&self) -> &BTreeSet<String> {
        &self.local
    }

    /// Whether the ring has a device of this node: if not, no database will ever be found.
    #[must_use]
    pub fn is_in_ring(&self) -> bool {
        self.ring
            .devices()
            .any(|device| self.local.contains(&device.server()))
    }

    /// The databases of one container on this node's primary devices.
    #[must_use]
    pub fn container(&self, account: &str, container: &str) -> Located {
        let mut located = Located::default();
        self.add(&mut located, account, container);
        located
    }

    fn add(&self, located: &mut Located, account: &str, container: &str) {
        let hash = self.hash_path.hash(account, Some(container), None);
        let partition = partition(&hash, self.ring.part_power());
        let primaries = self.ring.primaries(partition);
        let replicas = u32::try_from(primaries.len()).unwrap_or(u32::MAX);
        for (index, device) in (0..).zip(&primaries) {
            located.ring_nodes.insert(device.server());
            if !self.local.contains(&device.server()) {
                continue;
            }
            if !self.is_there(&device.device) {
                located.unmounted.insert(device.device.clone());
                continue;
            }
            let folder = container_folder(&self.devices, &device.device, partition, &hash);
            match databases(&folder) {
                Ok(paths) => located
                    .replicas
                    .extend(paths.into_iter().map(|path| LocalReplica {
                        path,
                        server: device.server(),
                        device: device.device.clone(),
                        partition,
                        account: account.to_owned(),
                        container: container.to_owned(),
                        index,
                        replicas,
                    })),
                Err(error) => {
                    located.unreadable.insert(folder, error.to_string());
                }
            }
        }
    }

    /// The databases of all containers of an account on this node's primary devices, deleted containers included,
    /// those that Swift hides (their names begin with NUL) not. Walks the local devices; `known` remembers which
    /// file is whose, so that only new files are opened.
    #[must_use]
    pub fn account(&self, account: &str, known: &mut Identities) -> Located {
        let mut located = Located::default();
        let mut containers = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let local: Vec<&Device> = self
            .ring
            .devices()
            .filter(|device| self.local.contains(&device.server()))
            .collect();
        for device in self.ring.devices() {
            located.ring_nodes.insert(device.server());
        }
        for device in local {
            if !self.is_there(&device.device) {
                located.unmounted.insert(device.device.clone());
                continue;
            }
            let mut visit = |path: PathBuf| match known.of(&path) {
                Ok((owner, container)) => {
                    if owner == account && !container.starts_with('\0') {
                        containers.insert(container.clone());
                    }
                    seen.insert(path);
                }
                // Busy: at the next walk. Gone: so be it.
                Err(DbError::Busy(_) | DbError::Gone(_)) => {}
                Err(error) => {
                    located.unreadable.insert(path, error.to_string());
                }
            };
            if let Err((path, error)) =
                walk(&self.devices.join(&device.device).join("containers"), &mut visit)
            {
                located.unreadable.insert(path, error.to_string());
            }
        }
        if located.unmounted.is_empty() && located.unreadable.is_empty() {
            known.retain(&seen);
        }
        for container in containers {
            self.add(&mut located, account, &container);
        }
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

/// Which container a database file belongs to. That never changes: the path is a hash of the names.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    known: BTreeMap<PathBuf, (String, String)>,
}

impl Identities {
    fn of(&mut self, path: &Path) -> Result<&(String, String), DbError> {
        if !self.known.contains_key(path) {
            let info = ContainerDb::new(path).info()?;
            self.known.insert(path.to_owned(), (info.account, info.container));
        }
        self.known.get(path).ok_or_else(|| DbError::Gone(path.to_owned()))
    }

    fn retain(&mut self, seen: &BTreeSet<PathBuf>) {
        self.known.retain(|path, _| seen.contains(path));
    }
}

/// The folder of a container's database: `<devices>/<device>/containers/<partition>/<suffix>/<hash>`.
#[must_use]
pub fn container_folder(devices: &Path, device: &str, partition: u32, hash: &[u8; 16]) -> PathBuf {
    let hash = hex::encode(hash);
    let suffix = &hash[hash.len() - 3..];
    devices
        .join(device)
        .join("containers")
        .join(partition.to_string())
        .join(suffix)
        .join(&hash)
}

/// The databases in a container's folder: `<hash>.db`, or while and after sharding `<hash>_<epoch>.db`. A folder
/// that is not there has none.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn databases(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let hash = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(&hash).and_then(|rest| rest.strip_suffix(".db"));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_')) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The file of updates that are not in the database yet. A sharded container's has the plain name as well.
#[must_use]
pub fn pending_file(database: &Path) -> PathBuf {
    let name = database
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let hash = name.split(['_', '.']).next().unwrap_or_default();
    database.with_file_name(format!("{hash}.db.pending"))
}

/// How many bytes of updates wait to be committed into this database. No such file: none.
///
/// # Errors
/// When the file is there and cannot be looked at.
pub fn pending_size(database: &Path) -> io::Result<u64> {
    match std::fs::metadata(pending_file(database)) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Looks at a database without opening it.
///
/// # Errors
/// [`DbError::Gone`] if it is not there; [`DbError::Damaged`] if it cannot be looked at.
pub fn signature(database: &Path) -> Result<Signature, DbError> {
    let damaged = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => DbError::Gone(database.to_owned()),
        _ => DbError::Damaged {
            path: database.to_owned(),
            what: error.to_string(),
            remedy: "check the disk, and that the process may read it",
        },
    };
    let metadata = std::fs::metadata(database).map_err(|error| damaged(&error))?;
    let pending = pending_size(database).map_err(|error| damaged(&error))?;
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Ok(Signature {
        database: (metadata.ino(), modified, metadata.len()),
        pending,
    })
}

/// Calls `visit` for every database below `containers`.
fn walk(containers: &Path, visit: &mut dyn FnMut(PathBuf)) -> Result<(), (PathBuf, io::Error)> {
    let list = |path: &Path| entries(path).map_err(|error| (path.to_owned(), error));
    for partition in list(containers)? {
        for suffix in list(&partition.path())? {
            for hash in list(&suffix.path())? {
                let folder = hash.path();
                databases(&folder)
                    .map_err(|error| (folder, error))?
                    .into_iter()
                    .for_each(&mut *visit);
            }
        }
    }
    Ok(())
}

/// What is in a folder; nothing, if it went away or is none.
fn entries(folder: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
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

/// Whether this machine has the address: nothing can be bound to another's.
fn is_local(ip: &str) -> bool {
    ip.parse::<IpAddr>()
        .is_ok_and(|ip| UdpSocket::bind((ip, 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_folder_follows_from_its_hash() {
        let hash = HashPath {
            prefix: b"changeme".to_vec(),
            suffix: vec![b'x', 0xe9],
        }
        .hash("AUTH_test", Some("plain"), None);
        let folder = container_folder(Path::new("/srv/node"), "sdb1", 9, &hash);
        assert_eq!(
            folder,
            Path::new("/srv/node/sdb1/containers/9/a06/092586e23f9eba7fbe4ad8f3d4a15a06")
        );
        assert_eq!(databases(&folder).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_sharding_container_has_two_databases_and_one_pending_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("abc");
        std::fs::create_dir(&folder).unwrap();
        for name in [
            "abc.db",
            "abc_1795331622.82147.db",
            "abc.db.pending",
            "abc.db-journal",
            "abcd.db",
            ".lock",
            "x.tmp",
        ] {
            std::fs::write(folder.join(name), "12345").unwrap();
        }
        let found = databases(&folder).unwrap();
        assert_eq!(
            found,
            [folder.join("abc.db"), folder.join("abc_1795331622.82147.db")]
        );
        for database in &found {
            assert_eq!(pending_file(database), folder.join("abc.db.pending"));
            assert_eq!(pending_size(database).unwrap(), 5);
            assert_eq!(signature(database).unwrap().pending, 5);
        }
        std::fs::remove_file(folder.join("abc.db.pending")).unwrap();
        assert_eq!(pending_size(&found[0]).unwrap(), 0);
        assert!(matches!(
            signature(&folder.join("none.db")),
            Err(DbError::Gone(_))
        ));
    }

    #[test]
    fn only_this_machines_addresses_are_local() {
        assert!(is_local("127.0.0.1"));
        assert!(!is_local("192.0.2.1"));
        assert!(!is_local("storage.example.com"));
    }

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
