//! One node of a cluster: its folder, its ports, its devices.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Options, Place};
use crate::ports::free_port;

/// One node: an account, a container and object servers of its own, with its own devices.
#[derive(Clone, Debug)]
pub struct Node {
    /// From 0.
    pub number: usize,
    pub(super) folder: PathBuf,
    pub(super) place: Place,
    pub(super) account: u16,
    pub(super) container: u16,
    /// Of each object server.
    pub(super) objects: Vec<u16>,
    /// Names of the devices, in the order of the object servers.
    pub(super) devices: Vec<String>,
}

impl Node {
    /// The node with this number, on free ports.
    pub(super) fn new(cluster: &Path, number: usize, options: &Options) -> Result<Self> {
        let devices = (options.object_servers * options.devices) as usize;
        Ok(Self {
            number,
            folder: cluster.join(format!("node{number}")),
            place: options.places.get(number).cloned().unwrap_or_default(),
            account: free_port()?,
            container: free_port()?,
            objects: (0..options.object_servers)
                .map(|_| free_port())
                .collect::<Result<_>>()?,
            devices: (number * devices..(number + 1) * devices)
                .map(|n| format!("d{n}"))
                .collect(),
        })
    }

    /// What an agent gets as `--swift-dir`: swift.conf, rings, container-server.conf.
    #[must_use]
    pub fn swift_dir(&self) -> PathBuf {
        self.folder.join("etc")
    }

    /// What an agent gets as `--devices`.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.folder.join("devices")
    }

    /// The names of the devices.
    #[must_use]
    pub fn device_names(&self) -> &[String] {
        &self.devices
    }

    /// The container server as the ring names it, `ip:port`.
    #[must_use]
    pub fn container_server(&self) -> String {
        format!("{}:{}", self.place.address, self.container)
    }

    pub(super) fn configuration(&self, name: &str) -> String {
        self.folder.join("etc").join(name).display().to_string()
    }

    pub(super) fn object_configurations(&self) -> Vec<String> {
        (0..self.objects.len()).map(object_configuration).collect()
    }
}

/// The file of a node's object server.
pub(super) fn object_configuration(index: usize) -> String {
    if index == 0 {
        "object-server.conf".to_owned()
    } else {
        format!("object-server-{index}.conf")
    }
}
