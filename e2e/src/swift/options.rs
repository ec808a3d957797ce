//! What kind of cluster.

use std::path::PathBuf;

/// Whether objects are encrypted at rest, and who can read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// They are not.
    #[default]
    Off,
    /// They are; the internal endpoint decrypts.
    On,
    /// They are, and someone forgot the middleware in the internal endpoint: it hands out ciphertext.
    EndpointCannotDecrypt,
}

/// How objects of a storage policy are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Whole copies, as many as the cluster has replicas.
    Replicated,
    /// Fragments, each on a device of its own; any `data` of them give the object back.
    ErasureCoded {
        /// Fragments that hold the data.
        data: u32,
        /// Fragments more than that.
        parity: u32,
    },
}

/// A storage policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePolicy {
    /// Its name.
    pub name: String,
    /// How objects are kept.
    pub scheme: Scheme,
}

impl StoragePolicy {
    /// A policy that keeps whole copies.
    #[must_use]
    pub fn replicated(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            scheme: Scheme::Replicated,
        }
    }

    /// A policy that keeps fragments.
    #[must_use]
    pub fn erasure_coded(name: &str, data: u32, parity: u32) -> Self {
        Self {
            name: name.to_owned(),
            scheme: Scheme::ErasureCoded { data, parity },
        }
    }
}

/// Where a node's servers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Their address; this process can reach it.
    pub address: String,
    /// What is put before a command so that it runs there, such as `nsenter`.
    pub enter: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            enter: Vec::new(),
        }
    }
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes, each with an account, a container and object servers of its own, and its own devices.
    pub nodes: u32,
    /// Replicas of every ring, but for those of erasure-coded policies.
    pub replicas: f64,
    /// Devices of each object server; the container and account servers of a node use all of its devices.
    pub devices: u32,
    /// Object servers of each node, each with devices of its own.
    pub object_servers: u32,
    /// The storage policies; the first is the default one.
    pub policies: Vec<StoragePolicy>,
    /// Rings have 2^this partitions.
    pub part_power: u32,
    /// After how many seconds tombstones are forgotten; absent: Swift's own seven days.
    pub reclaim_age: Option<u32>,
    /// Encryption at rest.
    pub encryption: Encryption,
    /// `swift_hash_path_prefix`.
    pub hash_prefix: String,
    /// `swift_hash_path_suffix`.
    pub hash_suffix: String,
    /// Where the nodes' servers run; the nodes beyond the end, and so mostly all, on 127.0.0.1.
    pub places: Vec<Place>,
    /// Where to keep it; it stays there. Object files need room in extended attributes, which not every file
    /// system has. Absent: a temporary folder in memory.
    pub folder: Option<PathBuf>,
}

impl Options {
    /// Three nodes and three replicas; two devices on each node, so that handoffs have a place.
    #[must_use]
    pub fn three_nodes() -> Self {
        Self {
            nodes: 3,
            replicas: 3.0,
            devices: 2,
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            replicas: 1.0,
            devices: 1,
            object_servers: 1,
            policies: vec![StoragePolicy::replicated("gold")],
            part_power: 6,
            reclaim_age: None,
            encryption: Encryption::Off,
            hash_prefix: "onespace-prefix".to_owned(),
            hash_suffix: "onespace-suffix".to_owned(),
            places: Vec::new(),
            folder: None,
        }
    }
}
