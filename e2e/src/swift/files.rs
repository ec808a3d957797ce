//! The files of a cluster: folders, configuration, rings.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::node::{Node, object_configuration};
use super::{Scheme, Swift, config};
use crate::tools::tool;

impl Swift {
    /// Writes everything that the servers read.
    pub(super) fn write_files(&self) -> Result<()> {
        for name in ["etc", "log", "cache", "bin", "rsync"] {
            std::fs::create_dir_all(self.path.join(name))?;
        }
        let folder = self.path.display().to_string();
        let (options, ports) = (&self.options, &self.ports);
        let files = [
            ("etc/swift.conf", config::swift_conf(options)),
            (
                "etc/proxy-server.conf",
                config::public_proxy(options, ports, &folder),
            ),
            (
                "etc/internal-endpoint.conf",
                config::internal_endpoint(options, ports, &folder),
            ),
            (
                "etc/internal-client.conf",
                config::internal_client(ports, &folder),
            ),
            (
                "etc/object-expirer.conf",
                config::cluster_daemon("object-expirer", ports, &folder),
            ),
            (
                "etc/container-reconciler.conf",
                config::cluster_daemon("container-reconciler", ports, &folder),
            ),
            ("run.py", include_str!("run.py").to_owned()),
            ("bin/rsync", config::RSYNC.to_owned()),
        ];
        for (name, text) in files {
            std::fs::write(self.path.join(name), latin1(&text)).with_context(|| name)?;
        }
        std::fs::set_permissions(
            self.path.join("bin/rsync"),
            std::fs::Permissions::from_mode(0o755),
        )?;
        for node in &self.nodes {
            self.write_node(node)?;
        }
        self.make_rings()
    }

    fn write_node(&self, node: &Node) -> Result<()> {
        for device in node.device_names() {
            std::fs::create_dir_all(node.devices().join(device))?;
        }
        for name in ["etc", "cache"] {
            std::fs::create_dir_all(node.folder.join(name))?;
        }
        let (cluster, folder) = (self.path.display().to_string(), node.folder.display().to_string());
        let server = |kind, port| {
            let address = &node.place.address;
            config::storage_server(&self.options, kind, (address, port), &cluster, &folder)
        };
        let mut files = vec![
            ("account-server.conf".to_owned(), server("account", node.account)),
            (
                "container-server.conf".to_owned(),
                server("container", node.container),
            ),
        ];
        for (index, port) in node.objects.iter().enumerate() {
            files.push((object_configuration(index), server("object", *port)));
        }
        for (name, text) in files {
            std::fs::write(node.swift_dir().join(&name), latin1(&text)).with_context(|| name)?;
        }
        let shared = ["swift.conf".to_owned()].into_iter().chain(self.ring_files());
        for name in shared {
            link(&self.path.join("etc").join(&name), &node.swift_dir().join(&name))?;
        }
        for port in [node.account, node.container] {
            link(&node.devices(), &self.path.join("rsync").join(port.to_string()))?;
        }
        Ok(())
    }

    fn ring_files(&self) -> impl Iterator<Item = String> {
        let more = (1..self.options.policies.len()).map(|index| format!("object-{index}.ring.gz"));
        ["account", "container", "object"]
            .map(|name| format!("{name}.ring.gz"))
            .into_iter()
            .chain(more)
    }

    fn make_rings(&self) -> Result<()> {
        let policy = |ring: &str| {
            let index = ring.strip_prefix("object-").and_then(|index| index.parse().ok());
            &self.options.policies[index.unwrap_or(0_usize)]
        };
        let replicas = |ring: &str| match policy(ring).scheme {
            Scheme::ErasureCoded { data, parity } if ring.starts_with("object") => f64::from(data + parity),
            _ => self.options.replicas,
        };
        let per_server = self.options.devices as usize;
        let servers = self.options.object_servers as usize;
        let ring = |file: String| {
            let name = file.trim_end_matches(".ring.gz");
            let port = |node: &Node, at: usize| match name {
                "account" => node.account,
                "container" => node.container,
                _ => node.objects[at / per_server],
            };
            let devices: Vec<_> = self
                .nodes
                .iter()
                .flat_map(|node| node.devices.iter().enumerate().map(move |(at, name)| (node, at, name)))
                .map(|(node, at, name)| {
                    json!({"region": 1, "zone": node.number * servers + at / per_server + 1, "ip": node.place.address,
                           "port": port(node, at), "device": name, "weight": 100})
                })
                .collect();
            json!({"path": self.path.join("etc").join(&file), "partPower": self.options.part_power,
                   "replicas": replicas(name), "devices": devices})
        };
        make_rings(&json!(self.ring_files().map(ring).collect::<Vec<_>>()))
    }
}

/// A link at `at` to `target`, in place of whatever is there.
fn link(target: &std::path::Path, at: &std::path::Path) -> Result<()> {
    if at.is_symlink() {
        std::fs::remove_file(at)?;
    }
    symlink(target, at).with_context(|| at.display().to_string())
}

/// Bytes beyond ASCII in a hash prefix are written as Swift reads them: latin-1.
pub(super) fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}

/// Makes rings with Swift's own builder; `rings.py` says what a ring's description is.
///
/// # Errors
/// The builder refused.
pub fn make_rings(rings: &serde_json::Value) -> Result<()> {
    let mut child = Command::new(tool("venv/bin/python")?)
        .args(["-W", "ignore", "-c", include_str!("rings.py")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rings.to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "the ring builder failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
