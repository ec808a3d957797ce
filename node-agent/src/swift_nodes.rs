//! Swift's own servers as addresses that no remote may have: they do what they are asked without a login.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use onespace_stores::egress::DenyList;
use onespace_stores::swift::ring::Ring;
use tokio_util::sync::CancellationToken;

/// How often is looked for new rings.
const LOOK: Duration = Duration::from_secs(5);

/// What changes when a ring is replaced.
type Stamp = (Option<SystemTime>, u64);

/// The addresses that the rings of a folder name.
pub struct SwiftNodes {
    swift_dir: PathBuf,
    deny: DenyList,
    rings: BTreeMap<PathBuf, (Stamp, BTreeSet<IpAddr>)>,
}

impl SwiftNodes {
    /// Denies the addresses of every ring in `swift_dir`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn denied_in(deny: DenyList, swift_dir: &Path) -> std::io::Result<Self> {
        let mut nodes = Self {
            swift_dir: swift_dir.to_owned(),
            deny,
            rings: BTreeMap::new(),
        };
        nodes.look()?;
        Ok(nodes)
    }

    /// Keeps the addresses in step with the rings, until cancelled.
    pub async fn keep(mut self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                let result = self.look();
                (self, result)
            });
            let Ok((nodes, result)) = looked.await else { return };
            self = nodes;
            if let Err(error) = result {
                tracing::error!("rings cannot be looked for, their last addresses stay denied: {error}");
            }
        }
    }

    /// Reads the rings that are new. Of one that cannot be read the last addresses stay.
    fn look(&mut self) -> std::io::Result<()> {
        let mut there = BTreeSet::new();
        for entry in std::fs::read_dir(&self.swift_dir)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy());
            if !name.is_some_and(|name| name.ends_with(".ring.gz")) {
                continue;
            }
            let metadata = std::fs::metadata(&path)?;
            let stamp = (metadata.modified().ok(), metadata.len());
            there.insert(path.clone());
            if self.rings.get(&path).is_some_and(|(seen, _)| *seen == stamp) {
                continue;
            }
            let last = self.rings.remove(&path);
            let addresses = Ring::load(&path).map(|ring| ring.addresses());
            let addresses = addresses.unwrap_or_else(|error| {
                tracing::error!("the addresses of its nodes are not denied anew: {error}");
                last.map(|(_, addresses)| addresses).unwrap_or_default()
            });
            self.rings.insert(path, (stamp, addresses));
        }
        self.rings.retain(|path, _| there.contains(path));
        let all = self.rings.values().flat_map(|(_, addresses)| addresses);
        self.deny.set_hosts(all.copied().collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/rings/{name}.ring.gz"))
    }

    #[test]
    fn nodes_of_every_ring_are_denied_and_a_broken_ring_takes_none_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(format!("{name}.ring.gz"));
        let deny = DenyList::default();
        let mut nodes = SwiftNodes::denied_in(deny.clone(), folder.path()).unwrap();
        let addresses = Ring::load(&ring("v1")).unwrap().addresses();
        let denied = || addresses.iter().filter(|address| deny.denies(**address)).count();
        assert!(!addresses.is_empty());
        assert_eq!(denied(), 0);

        std::fs::write(path("container"), "not yet whole").unwrap();
        nodes.look().unwrap();
        assert_eq!(denied(), 0);
        std::fs::copy(ring("v1"), path("object-1")).unwrap();
        nodes.look().unwrap();
        assert_eq!(denied(), addresses.len());
        std::fs::write(path("object-1"), "half copied").unwrap();
        nodes.look().unwrap();
        assert_eq!(denied(), addresses.len());
        std::fs::remove_file(path("object-1")).unwrap();
        nodes.look().unwrap();
        assert_eq!(denied(), 0);
    }
}
