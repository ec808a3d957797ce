//! What object servers keep on disk, and what they do with a request that comes late.

use std::collections::BTreeMap;

use bytes::Bytes;
use onespace_core::timestamp::Timestamp;

/// User metadata: one value is enough to see whether it is the right one.
pub type Meta = Option<String>;

/// What is kept of a name under a storage policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// A body.
    Body {
        /// t1.
        data: Timestamp,
        /// t3.
        time: Timestamp,
        /// The bytes.
        bytes: Bytes,
        /// User metadata.
        meta: Meta,
    },
    /// A tombstone.
    Tombstone(Timestamp),
}

/// One object server.
#[derive(Clone, Debug, Default)]
pub struct Disk(pub BTreeMap<(u32, String), File>);

impl Disk {
    /// What is there.
    pub fn get(&self, policy: u32, name: &str) -> Option<&File> {
        self.0.get(&(policy, name.to_owned()))
    }

    /// A PUT; `false` = something as new is there.
    pub fn put(&mut self, policy: u32, name: &str, at: Timestamp, bytes: &Bytes, meta: &Meta) -> bool {
        let (mut time, mut meta) = (at, meta.clone());
        match self.get(policy, name) {
            Some(File::Tombstone(deleted)) if *deleted >= at => return false,
            Some(File::Body { data, .. }) if *data >= at => return false,
            // A POST that is newer than this body applies to it, too.
            Some(File::Body {
                time: posted,
                meta: newer,
                ..
            }) if *posted > at => {
                (time, meta) = (*posted, newer.clone());
            }
            _ => {}
        }
        let body = File::Body {
            data: at,
            time,
            bytes: bytes.clone(),
            meta,
        };
        self.0.insert((policy, name.to_owned()), body);
        true
    }

    /// A POST; `None` = there is no body, or a newer one. Otherwise t1 of the body.
    pub fn post(&mut self, policy: u32, name: &str, at: Timestamp, new: &Meta) -> Option<Timestamp> {
        match self.0.get_mut(&(policy, name.to_owned())) {
            Some(File::Body { data, time, meta, .. }) if *time < at => {
                *time = at;
                meta.clone_from(new);
                Some(*data)
            }
            _ => None,
        }
    }

    /// A DELETE; `false` = something as new is there.
    pub fn delete(&mut self, policy: u32, name: &str, at: Timestamp) -> bool {
        match self.get(policy, name) {
            Some(File::Tombstone(deleted)) if *deleted >= at => return false,
            Some(File::Body { data, .. }) if *data >= at => return false,
            _ => {}
        }
        self.0.insert((policy, name.to_owned()), File::Tombstone(at));
        true
    }

    /// What replication brings from another server.
    pub fn take(&mut self, policy: u32, name: &str, file: &File) {
        match file {
            File::Tombstone(at) => {
                self.delete(policy, name, *at);
            }
            File::Body {
                data,
                time,
                bytes,
                meta,
            } => {
                self.put(policy, name, *data, bytes, meta);
                if time > data {
                    self.post(policy, name, *time, meta);
                }
            }
        }
    }
}
