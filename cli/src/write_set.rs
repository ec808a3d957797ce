//! Writing a set of files so that at no time a reader can load a mixture of two sets.
//!
//! Credentials first, then mappings, then the index, each file by renaming a complete one into place. Until the new
//! index is there, the old one does not match what was changed already, so nobody loads; afterwards everything
//! matches. What no index names any more goes last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use onespace_core::load::{Files, Shards};
use onespace_core::mapping::SHARDS;

/// Why the files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system says no.
    #[error("{path} cannot be {what}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another process writes here.
    #[error("another `onespace render` is writing to {path}: wait until it has ended")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Mappings and credentials in one folder would overwrite each other.
    #[error("{path} cannot hold both mappings and credentials: give two folders")]
    OneFolder {
        /// The folder.
        path: PathBuf,
    },
}

/// The two folders, locked against another writer.
#[derive(Debug)]
pub struct Folders {
    mappings: PathBuf,
    credentials: PathBuf,
    _lock: File,
}

impl Folders {
    /// Creates what is missing of the folders and locks them.
    ///
    /// # Errors
    /// When they cannot be created, or another process writes there.
    pub fn open(mappings: &Path, credentials: &Path) -> Result<Self, WriteError> {
        create_folder(mappings, 0o755)?;
        create_folder(credentials, 0o700)?;
        let real = |path: &Path| fs::canonicalize(path).map_err(failed(path, "found"));
        if real(mappings)? == real(credentials)? {
            return Err(WriteError::OneFolder {
                path: mappings.to_owned(),
            });
        }
        let path = mappings.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed(&path, "opened"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                mappings: mappings.to_owned(),
                credentials: credentials.to_owned(),
                _lock: lock,
            }),
            Err(fs::TryLockError::WouldBlock) => Err(WriteError::Busy {
                path: mappings.to_owned(),
            }),
            Err(fs::TryLockError::Error(source)) => Err(WriteError::Io {
                path,
                what: "locked",
                source,
            }),
        }
    }

    /// The files as they are now; what cannot be read counts as absent.
    #[must_use]
    pub fn previous(&self) -> Files {
        let read = |folder: &Path| -> Shards {
            shards()
                .filter_map(|shard| Some((shard.clone(), fs::read(file(folder, &shard)).ok()?.into())))
                .collect()
        };
        Files {
            index: fs::read(self.mappings.join("index.json")).unwrap_or_default(),
            mappings: read(&self.mappings),
            credentials: read(&self.credentials),
        }
    }

    /// Replaces the set.
    ///
    /// # Errors
    /// When a file cannot be written. Then no reader loads what is there, and writing again completes it.
    pub fn write(&self, files: &Files) -> Result<(), WriteError> {
        write_shards(&self.credentials, &files.credentials, 0o600)?;
        write_shards(&self.mappings, &files.mappings, 0o644)?;
        replace(&self.mappings, "index.json", &files.index, 0o644)?;
        sync(&self.mappings)?;
        remove_others(&self.mappings, &files.mappings)?;
        remove_others(&self.credentials, &files.credentials)
    }
}

fn shards() -> impl Iterator<Item = String> {
    (0..SHARDS).map(|number| format!("{number:02}"))
}

fn file(folder: &Path, shard: &str) -> PathBuf {
    folder.join(format!("{shard}.json"))
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { path, what, source }
}

fn create_folder(path: &Path, mode: u32) -> Result<(), WriteError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed(path, "created"))
}

fn write_shards(folder: &Path, shards: &Shards, mode: u32) -> Result<(), WriteError> {
    for (shard, bytes) in shards {
        replace(folder, &format!("{shard}.json"), bytes, mode)?;
    }
    sync(folder)
}

/// Writes a complete file beside its place and renames it. The mode holds before the first byte is written.
fn replace(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let path = folder.join(name);
    let new = folder.join(format!(".{name}.new"));
    let unchanged = fs::read(&path).is_ok_and(|old| old == bytes)
        && fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == mode);
    if unchanged {
        return Ok(());
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new, "removed")(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(&new)
        .map_err(failed(&new, "created"))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed(&new, "protected"))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed(&new, "written"))?;
    fs::rename(&new, &path).map_err(failed(&path, "replaced"))
}

/// Makes renames durable in the order in which they were done.
fn sync(folder: &Path) -> Result<(), WriteError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder, "synced"))
}

fn remove_others(folder: &Path, kept: &Shards) -> Result<(), WriteError> {
    for shard in shards().filter(|shard| !kept.contains_key(shard)) {
        let path = file(folder, &shard);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&path, "removed")(error));
            }
            _ => {}
        }
    }
    Ok(())
}
