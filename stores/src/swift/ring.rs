//! Rings: which devices hold a partition. Reads versions 1 and 2 of `*.ring.gz`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

/// The largest ring that is read, unpacked. One of 2^24 partitions and three replicas has 100 MB.
const MAX_BYTES: u64 = 512 << 20;

const REMEDY: &str = "copy the ring from the node where swift-ring-builder made it";

/// What is wrong with a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The file cannot be opened.
    #[error("the ring {path} cannot be read ({cause}): {REMEDY}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The content is not a ring.
    #[error("the ring {path} is damaged ({what}): {REMEDY}")]
    Malformed {
        /// The file, or nothing if there was none.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It has a version that is not known.
    #[error(
        "the ring {path} has format version {version}: write it with `swift-ring-builder BUILDER write_ring --format-version 1`"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
}

/// A device that a ring places partitions on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Device {
    /// Its number in the ring.
    pub id: u32,
    /// The node's address.
    pub ip: String,
    /// The server's port.
    pub port: u16,
    /// The node's address for replication.
    #[serde(default)]
    pub replication_ip: Option<String>,
    /// The device's name, a folder below the server's devices.
    pub device: String,
    /// Region.
    #[serde(default = "one")]
    pub region: u32,
    /// Zone.
    #[serde(default)]
    pub zone: u32,
}

fn one() -> u32 {
    1
}

impl Device {
    /// `ip:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn server(&self) -> String {
        if self.ip.contains(':') {
            format!("[{}]:{}", self.ip, self.port)
        } else {
            format!("{}:{}", self.ip, self.port)
        }
    }
}

/// A ring in memory: as large as the file unpacked.
#[derive(Clone, Debug)]
pub struct Ring {
    part_power: u8,
    devices: BTreeMap<u32, Device>,
    /// The assignments as they stand in the file, row after row, each as long as there are partitions but the last.
    table: Vec<u8>,
    id_bytes: usize,
    big_endian: bool,
}

#[derive(Deserialize)]
struct Header {
    part_shift: u32,
    #[serde(default)]
    devs: Vec<Option<Device>>,
    #[serde(default)]
    byteorder: Option<String>,
    #[serde(default)]
    dev_id_bytes: Option<usize>,
    replica_count: f64,
}

impl Ring {
    /// Reads a ring from a file.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn load(path: &Path) -> Result<Self, RingError> {
        let content = std::fs::read(path).map_err(|error| RingError::Unreadable {
            path: path.to_owned(),
            cause: error.to_string(),
        })?;
        Self::parse(&content).map_err(|error| match error {
            RingError::Malformed { what, .. } => RingError::Malformed {
                path: path.to_owned(),
                what,
            },
            RingError::Version { version, .. } => RingError::Version {
                path: path.to_owned(),
                version,
            },
            other @ RingError::Unreadable { .. } => other,
        })
    }

    /// Reads a ring from the bytes of a file.
    ///
    /// # Errors
    /// When they are not a whole ring.
    pub fn parse(content: &[u8]) -> Result<Self, RingError> {
        let mut bytes = Vec::new();
        GzDecoder::new(content)
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| malformed(format!("it does not unpack: {error}")))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(malformed(format!(
                "it unpacks to more than {} MiB",
                MAX_BYTES >> 20
            )));
        }
        Self::parse_unpacked(bytes)
    }

    /// Reads a ring from the bytes that a file unpacks to.
    ///
    /// # Errors
    /// When they are not a whole ring.
    pub fn parse_unpacked(bytes: Vec<u8>) -> Result<Self, RingError> {
        let Some(&[b'R', b'1', b'N', b'G', high, low]) = bytes.get(..6) else {
            return Err(malformed("it does not begin with R1NG".to_owned()));
        };
        match u16::from_be_bytes([high, low]) {
            1 => Self::version_1(bytes),
            2 => Self::version_2(bytes),
            version => Err(RingError::Version {
                path: PathBuf::new(),
                version,
            }),
        }
    }

    fn version_1(mut bytes: Vec<u8>) -> Result<Self, RingError> {
        let length = bytes
            .get(6..10)
            .and_then(|length| length.try_into().ok())
            .map(u32::from_be_bytes);
        let end = length
            .map(|length| 10 + length as usize)
            .filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(|| malformed("its description is cut off".to_owned()))?;
        let header: Header = json("its description", &bytes[10..end])?;
        // Rings of old were written on the machines that read them, and those are little-endian.
        let big_endian = header.byteorder.as_deref() == Some("big");
        bytes.drain(..end);
        Self::assemble(&header, header.devs.clone(), bytes, 2, big_endian)
    }

    fn version_2(mut bytes: Vec<u8>) -> Result<Self, RingError> {
        // The last two numbers are where the index begins, unpacked and packed.
        let index_at = bytes.len().checked_sub(16).and_then(|at| number(&bytes, at));
        let (index, _) = index_at
            .and_then(|at| blob(&bytes, at))
            .ok_or_else(|| malformed("it has no index".to_owned()))?;
        let index: BTreeMap<String, serde_json::Value> = json("its index", index)?;
        let section = |name: &str| {
            let at = index
                .get(name)
                .and_then(|entry| usize::try_from(entry.get(1)?.as_u64()?).ok());
            at.and_then(|at| blob(&bytes, at))
                .ok_or_else(|| malformed(format!("its section {name} is missing or cut off")))
        };
        let header: Header = json("its metadata", section("swift/ring/metadata")?.0)?;
        let devices = json("its devices", section("swift/ring/devices")?.0)?;
        let (table, at) = section("swift/ring/assignments")?;
        let length = table.len();
        let id_bytes = header.dev_id_bytes.unwrap_or(2);
        bytes.drain(..at);
        bytes.truncate(length);
        Self::assemble(&header, devices, bytes, id_bytes, true)
    }

    fn assemble(
        header: &Header,
        devices: Vec<Option<Device>>,
        mut table: Vec<u8>,
        id_bytes: usize,
        big_endian: bool,
    ) -> Result<Self, RingError> {
        let part_power = 32_u32
            .checked_sub(header.part_shift)
            .filter(|power| (0..=32).contains(power));
        let part_power = part_power
            .and_then(|power| u8::try_from(power).ok())
            .ok_or_else(|| malformed(format!("part_shift is {}", header.part_shift)))?;
        if ![1, 2, 4].contains(&id_bytes) {
            return Err(malformed(format!("device ids have {id_bytes} bytes")));
        }
        table.shrink_to_fit();
        let devices = devices
            .into_iter()
            .flatten()
            .map(|device| (device.id, device))
            .collect();
        let ring = Self {
            part_power,
            devices,
            table,
            id_bytes,
            big_endian,
        };
        ring.check(header.replica_count)?;
        Ok(ring)
    }

    /// Every partition is assigned as often as announced, and only to devices that are there.
    fn check(&self, announced: f64) -> Result<(), RingError> {
        if self.table.is_empty() || !self.table.len().is_multiple_of(self.id_bytes) {
            return Err(malformed("its assignments are missing or cut off".to_owned()));
        }
        // Version 1 announces the number of rows, version 2 the fraction itself.
        let replicas = self.replica_count();
        if (replicas - announced).abs() > 0.01 && (replicas.ceil() - announced).abs() > 0.01 {
            return Err(malformed(format!(
                "it announces {announced} replicas and has {replicas}"
            )));
        }
        if replicas < 1.0 {
            return Err(malformed(format!(
                "it has {replicas} replicas: some partitions are nowhere"
            )));
        }
        let entries = self.table.len() / self.id_bytes;
        let unknown = (0..entries)
            .filter_map(|entry| self.entry(entry))
            .find(|id| !self.devices.contains_key(id));
        match unknown {
            Some(id) => Err(malformed(format!(
                "it assigns partitions to device {id}, which it does not have"
            ))),
            None => Ok(()),
        }
    }

    /// The ring has 2^this partitions.
    #[must_use]
    pub fn part_power(&self) -> u8 {
        self.part_power
    }

    /// Replicas of a partition; a fraction where not every partition has the last one.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // at most 2^29 entries
    pub fn replica_count(&self) -> f64 {
        (self.table.len() / self.id_bytes) as f64 / 2_f64.powi(i32::from(self.part_power))
    }

    /// Every device of the ring.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The addresses of its nodes, those for replication included. A name in the place of an address is left out.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let all = self
            .devices()
            .flat_map(|device| std::iter::once(&device.ip).chain(&device.replication_ip));
        all.filter_map(|address| address.parse().ok()).collect()
    }

    /// The devices that hold this partition, in the order of replicas, each once. A device's place in this list is
    /// its replica's index, as it is for Swift itself. Empty only for a partition that the ring does not have.
    #[must_use]
    pub fn primaries(&self, partition: u32) -> Vec<&Device> {
        let partitions = 1_u64 << self.part_power;
        let mut found: Vec<&Device> = Vec::new();
        if u64::from(partition) >= partitions {
            return found;
        }
        let mut at = u64::from(partition);
        while let Some(id) = usize::try_from(at).ok().and_then(|at| self.entry(at)) {
            if let Some(device) = self.devices.get(&id)
                && found.iter().all(|other| other.id != id)
            {
                found.push(device);
            }
            at += partitions;
        }
        found
    }

    fn entry(&self, at: usize) -> Option<u32> {
        let start = at.checked_mul(self.id_bytes)?;
        let bytes = self.table.get(start..start.checked_add(self.id_bytes)?)?;
        let fold = |id: u32, byte: &u8| id << 8 | u32::from(*byte);
        Some(if self.big_endian {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        })
    }
}

fn malformed(what: String) -> RingError {
    RingError::Malformed {
        path: PathBuf::new(),
        what,
    }
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, RingError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(format!("{what} cannot be understood: {error}")))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
    usize::try_from(u64::from_be_bytes(number)).ok()
}

/// The bytes of a section, and where they begin.
fn blob(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let start = at.checked_add(8)?;
    Some((bytes.get(start..start.checked_add(number(bytes, at)?)?)?, start))
}
