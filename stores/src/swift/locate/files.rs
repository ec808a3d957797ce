//! The files of a container on a device: their names, and what can be seen without opening them.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::swift::container_db::DbError;

/// What changes whenever a database may have new rows: to see that there is nothing new costs no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// inode, modification time in nanoseconds, size of the database.
    pub database: (u64, i128, u64),
    /// Size of the pending file.
    pub pending: u64,
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

/// What is in a folder; nothing, if it went away or is none.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use onespace_core::naming::HashPath;

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
}
