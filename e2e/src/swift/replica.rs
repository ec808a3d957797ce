//! One replica of a container's database, as a disk failure or an operator would treat it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};

use super::Swift;
use super::files::latin1;

/// The folder of one replica of a container: `<device>/containers/<partition>/<suffix>/<hash>`.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The node that it is on.
    pub node: usize,
    /// The folder.
    pub folder: PathBuf,
}

/// Everything in a replica's folder as it was at one time.
#[derive(Clone, Debug)]
pub struct Backup {
    files: Vec<(String, Vec<u8>)>,
}

impl Swift {
    /// Every replica of a container, handoffs included, by node.
    ///
    /// # Errors
    /// A device cannot be read.
    pub fn replicas(&self, account: &str, container: &str) -> Result<Vec<Replica>> {
        let hash = self.hash(account, container);
        let mut found = Vec::new();
        for node in self.nodes() {
            for device in node.device_names() {
                let partitions = node.devices().join(device).join("containers");
                if !partitions.is_dir() {
                    continue;
                }
                for partition in std::fs::read_dir(&partitions)? {
                    let folder = partition?.path().join(&hash[29..]).join(&hash);
                    if folder.is_dir() {
                        found.push(Replica {
                            node: node.number,
                            folder,
                        });
                    }
                }
            }
        }
        Ok(found)
    }

    /// The replica of a container that is on this node.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn replica_on(&self, node: usize, account: &str, container: &str) -> Result<Replica> {
        let mut replicas = self.replicas(account, container)?;
        replicas.retain(|replica| replica.node == node);
        ensure!(
            replicas.len() == 1,
            "{} replicas of {container} on node {node}",
            replicas.len()
        );
        replicas.pop().context("there is one")
    }

    fn hash(&self, account: &str, container: &str) -> String {
        let mut hashed = latin1(&self.options.hash_prefix);
        hashed.extend(format!("/{account}/{container}").into_bytes());
        hashed.extend(latin1(&self.options.hash_suffix));
        hex::encode(Md5::digest(hashed))
    }
}

impl Replica {
    /// The database; while a container is being sharded, the newer one.
    ///
    /// # Errors
    /// There is none.
    pub fn database(&self) -> Result<PathBuf> {
        let mut databases: Vec<_> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "db"))
            .collect();
        // `<hash>.db` sorts before `<hash>_<epoch>.db`.
        databases.sort();
        databases.pop().context("no database is there")
    }

    /// Removes the folder, as if the disk had been replaced. The node's container server must be stopped, or idle.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.folder).context("a replica")
    }

    /// Copies everything in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn back_up(&self) -> Result<Backup> {
        let files = std::fs::read_dir(&self.folder)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, std::fs::read(entry.path())?))
            })
            .collect::<Result<_>>()?;
        Ok(Backup { files })
    }

    /// Puts everything back as it was. The node's container server must be stopped.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn restore(&self, backup: &Backup) -> Result<()> {
        if self.folder.exists() {
            self.remove()?;
        }
        std::fs::create_dir_all(&self.folder)?;
        for (name, content) in &backup.files {
            // By a rename, as a careful operator would: the agent may look at any time.
            let fresh = self.folder.join(format!("{name}.tmp"));
            std::fs::write(&fresh, content)?;
            std::fs::rename(&fresh, self.folder.join(name))?;
        }
        Ok(())
    }

    /// Its device's folder.
    #[must_use]
    pub fn device(&self) -> Option<&Path> {
        self.folder.ancestors().nth(4)
    }
}
