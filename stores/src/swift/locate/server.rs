//! Which container servers of the ring are this node's.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, UdpSocket};
use std::str::FromStr;

use crate::swift::ring::{Device, Ring};

/// A container server of this node, as whoever runs the agent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerServer {
    /// None: every address of this machine.
    host: Option<String>,
    port: u16,
}

/// What was given is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no container server: write it as the ring has it, like 10.0.0.1:6201 or [fd00::1]:6201, or :6201 for every address of this machine"
)]
pub struct NoServer(String);

impl ContainerServer {
    /// One with this port at any address of this machine.
    #[must_use]
    pub fn at_any_address(port: u16) -> Self {
        Self { host: None, port }
    }

    /// The servers of the ring that this is, `ip:port` as the ring writes them. One that was named and is not in the ring is
    /// there all the same: whoever named it is to be told.
    #[must_use]
    pub fn in_ring(&self, ring: &Ring) -> BTreeSet<String> {
        let found = ring.devices().filter(|device| self.is(device));
        let mut servers: BTreeSet<String> = found.map(Device::server).collect();
        if servers.is_empty() && self.host.is_some() {
            servers.insert(self.to_string());
        }
        servers
    }

    fn is(&self, device: &Device) -> bool {
        let is_there = || match &self.host {
            None => is_local(&device.ip),
            Some(host) => is_same(host, &device.ip),
        };
        device.port == self.port && is_there()
    }
}

impl FromStr for ContainerServer {
    type Err = NoServer;

    /// An address may stand in brackets, and one of IPv6 must: else nobody knows where it ends.
    fn from_str(text: &str) -> Result<Self, NoServer> {
        let wrong = || NoServer(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match in_brackets {
            Some(address) if address.parse::<IpAddr>().is_ok() => Some(address.to_owned()),
            None if host.is_empty() => None,
            None if !host.contains([':', '[', ']', '/', ' ']) => Some(host.to_owned()),
            _ => return Err(wrong()),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for ContainerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{}:{}", host.as_deref().unwrap_or_default(), self.port),
        }
    }
}

/// Addresses are compared as such: those of IPv6 can be written in many ways. The ring may have names, too.
fn is_same(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// Whether this machine has the address: nothing can be bound to another's.
fn is_local(ip: &str) -> bool {
    ip.parse::<IpAddr>()
        .is_ok_and(|ip| UdpSocket::bind((ip, 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ip: &str, port: u16) -> Device {
        serde_json::from_value(serde_json::json!({"id": 0, "ip": ip, "port": port, "device": "d"})).unwrap()
    }

    #[test]
    fn a_server_is_found_in_the_ring_in_whichever_form_its_address_is_written() {
        for (named, ip, port, found) in [
            ("10.0.0.1:6201", "10.0.0.1", 6201, true),
            ("[10.0.0.1]:6201", "10.0.0.1", 6201, true),
            ("[fd00::1]:6201", "fd00::1", 6201, true),
            ("[FD00:0::1]:6201", "fd00::1", 6201, true),
            ("Node1.example.com:6201", "node1.example.com", 6201, true),
            (":6201", "127.0.0.1", 6201, true),
            ("10.0.0.1:6201", "10.0.0.1", 6202, false),
            ("10.0.0.1:6201", "10.0.0.2", 6201, false),
            ("[fd00::1]:6201", "fd00::2", 6201, false),
            // An address for documentation: no machine has it.
            (":6201", "192.0.2.1", 6201, false),
            (":6201", "127.0.0.1", 6202, false),
        ] {
            let server: ContainerServer = named.parse().unwrap();
            assert_eq!(server.is(&device(ip, port)), found, "{named} {ip} {port}");
        }
    }

    #[test]
    fn only_this_machines_addresses_are_local() {
        assert!(is_local("127.0.0.1"));
        assert!(!is_local("192.0.2.1"));
        assert!(!is_local("storage.example.com"));
    }

    #[test]
    fn what_is_no_server_is_refused_with_what_to_write() {
        for wrong in [
            "",
            "10.0.0.1",
            "fd00::1",
            "fd00::1:6201",
            "[fd00::1]",
            "[node]:6201",
            "[]:6201",
            "10.0.0.1:65536",
            "http://10.0.0.1:6201",
        ] {
            let error = wrong.parse::<ContainerServer>().unwrap_err().to_string();
            assert!(error.contains("[fd00::1]:6201"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_server_is_written_as_rings_write_theirs() {
        for (named, written) in [
            ("10.0.0.1:6201", "10.0.0.1:6201"),
            ("[10.0.0.1]:6201", "10.0.0.1:6201"),
            ("[fd00::1]:6201", "[fd00::1]:6201"),
            (":6201", ":6201"),
        ] {
            assert_eq!(named.parse::<ContainerServer>().unwrap().to_string(), written);
        }
    }
}
