//! The folders with mapping and credential files: looked at again and again, loaded whole or not at all.
//!
//! In a pod the folder is a symlink that is swapped, so paths are resolved at every look. What changed is seen by the
//! index alone; a set that does not match its index is a swap under way, or broken, and the last good one stays.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use onespace_core::load::{Files, LoadError, LoadedSet, Shards, load_index};
use onespace_core::loader::{Lacking, Loader};

/// No file of a set is larger than a ConfigMap can be.
const LARGEST: u64 = 4 << 20;

/// Why a set was not loaded. The last good one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{path} cannot be read ({cause}); write the set with `onespace render`, or mount the ConfigMaps")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// No answer.
    #[error("the folder of the mapping files does not answer: look at what it is mounted from")]
    Hangs,
    /// Whoever reads them ended.
    #[error("reading the mapping files broke off and is tried again: report this with the log")]
    Interrupted,
    /// Nobody can read them.
    #[error("no thread can be started to read the mapping files ({cause}): raise the limit of processes")]
    NoThread {
        /// What the system says.
        cause: String,
    },
    /// The set is not whole.
    #[error("{0}")]
    Load(#[from] LoadError),
}

/// The folders.
#[derive(Clone, Debug)]
pub struct Folders {
    /// With `index.json`.
    pub mappings: PathBuf,
    /// With the credential shards.
    pub credentials: PathBuf,
}

impl Folders {
    /// The index as it is now.
    ///
    /// # Errors
    /// [`FilesError`] when it cannot be read.
    pub fn index(&self) -> Result<Vec<u8>, FilesError> {
        read(&resolved(&self.mappings), "index.json")
    }

    /// Reads and loads the set that this index names; of its files only those that `loader` does not know from the set before.
    ///
    /// # Errors
    /// [`FilesError`]: nothing of it is to be used.
    pub fn load(&self, index: Vec<u8>, loader: &mut Loader) -> Result<LoadedSet, FilesError> {
        let Lacking {
            mappings: of_mappings,
            credentials: of_credentials,
        } = loader.lacking(&load_index(&index)?);
        let (mappings, credentials) = (resolved(&self.mappings), resolved(&self.credentials));
        let shards = |folder: &Path, shards: Vec<String>| {
            let shards = shards.into_iter().map(|shard| {
                let bytes = read(folder, &format!("{shard}.json"))?;
                Ok((shard, bytes.into()))
            });
            shards.collect::<Result<Shards, FilesError>>()
        };
        let credentials = shards(&credentials, of_credentials)?;
        let mappings = shards(&mappings, of_mappings)?;
        Ok(loader.load(&Files {
            index,
            mappings,
            credentials,
        })?)
    }
}

/// One and the same folder for all files of a set, even if a symlink on the way is swapped meanwhile.
fn resolved(folder: &Path) -> PathBuf {
    let data = folder.join("..data");
    let folder = if data.exists() { data } else { folder.to_owned() };
    folder.canonicalize().unwrap_or(folder)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, FilesError> {
    let path = folder.join(name);
    let unreadable = |cause: String| FilesError::Unreadable {
        path: path.clone(),
        cause,
    };
    let file = std::fs::File::open(&path).map_err(|error| unreadable(error.to_string()))?;
    let mut content = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut content)
        .map_err(|error| unreadable(error.to_string()))?;
    if content.len() as u64 > LARGEST {
        return Err(unreadable(format!("it has more than {LARGEST} bytes")));
    }
    Ok(content)
}
