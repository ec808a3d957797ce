//! How a proxy answers a read when its object servers do not agree.

use bytes::Bytes;
use onespace_core::timestamp::Timestamp;
use onespace_stores::source::Primaries;

use super::{Cluster, File, Meta};
use crate::dice::Dice;

/// An answer.
#[derive(Clone, Debug)]
pub enum Said {
    /// Status 200.
    Found {
        /// t1.
        data: Timestamp,
        /// t3.
        time: Timestamp,
        /// The body.
        bytes: Bytes,
        /// User metadata.
        meta: Meta,
    },
    /// Status 404, with the newest tombstone that was met.
    Absent(Option<Timestamp>),
    /// Status 503.
    Unavailable,
}

impl Cluster {
    /// A GET or HEAD through a proxy: the first object server that has the object answers, or (`newest`) the newest
    /// of all. A body that is older than a tombstone that was met does not count.
    pub fn read(&self, dice: &mut Dice, policy: u32, name: &str, newest: bool) -> Said {
        let mut tombstone = None;
        let mut found: Option<&File> = None;
        let mut answered = false;
        for index in dice.shuffled(self.nodes.len()) {
            let node = &self.nodes[index];
            if !node.up {
                continue;
            }
            answered = true;
            match node.disk.get(policy, name) {
                None => {}
                Some(File::Tombstone(at)) => tombstone = tombstone.max(Some(*at)),
                Some(body @ File::Body { data, .. }) => {
                    let better = match found {
                        Some(File::Body { data: other, .. }) => data > other,
                        _ => true,
                    };
                    if better {
                        found = Some(body);
                    }
                    if !newest && Some(*data) > tombstone {
                        break;
                    }
                }
            }
        }
        match found {
            _ if !answered => Said::Unavailable,
            Some(File::Body {
                data,
                time,
                bytes,
                meta,
            }) if Some(*data) > tombstone => Said::Found {
                data: *data,
                time: *time,
                bytes: bytes.clone(),
                meta: meta.clone(),
            },
            _ => Said::Absent(tombstone),
        }
    }

    /// Asks each object server directly.
    pub fn primaries(&self, policy: u32, name: &str) -> Primaries {
        let up = || self.nodes.iter().filter(|node| node.up);
        let has = up().any(|node| matches!(node.disk.get(policy, name), Some(File::Body { .. })));
        match has {
            true => Primaries::SomeHave,
            false if up().count() < self.nodes.len() => Primaries::Unknown,
            false => Primaries::AllLack,
        }
    }
}
