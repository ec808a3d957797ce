//! Which addresses a remote must not be dialled at.
//!
//! A policy names its endpoint and its proxy, so whoever may write policies could send an agent to addresses that
//! only the agent can reach. The list is therefore checked on the address that is dialled: after the name was
//! resolved, and on literal addresses in the configuration.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use ipnet::{IpNet, Ipv4Net};

/// The networks and hosts that no remote may be dialled at. Empty = everything may be dialled. Clones share the hosts.
#[derive(Clone, Debug, Default)]
pub struct DenyList {
    networks: Arc<[IpNet]>,
    hosts: Arc<RwLock<BTreeSet<IpAddr>>>,
}

/// A remote's host has only addresses that this program must not dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "every address of the host is one that --deny-remote or --deny-swift-nodes forbids; use another endpoint or proxy"
)]
pub struct AddressDenied;

impl DenyList {
    /// A list of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            networks: networks.into_iter().map(as_dialled).collect(),
            hosts: Arc::default(),
        }
    }

    /// Whether this is that list, or a clone of it.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.networks, &other.networks) && Arc::ptr_eq(&self.hosts, &other.hosts)
    }

    /// From now on these hosts, and no others beside the networks, must not be dialled.
    pub fn set_hosts(&self, hosts: BTreeSet<IpAddr>) {
        *self.hosts.write().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    /// Whether this address must not be dialled, in whichever form it is written.
    #[must_use]
    pub fn denies(&self, address: IpAddr) -> bool {
        let reached = reached_by_dialling(address);
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let mut networks = self.networks.iter();
        hosts.contains(&reached)
            || hosts.contains(&address)
            || networks.any(|network| network.contains(&address) || network.contains(&reached))
    }

    /// Those of the addresses that may be dialled; at least one.
    ///
    /// # Errors
    /// None may.
    pub fn permitted(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Vec<IpAddr>, AddressDenied> {
        let mut any = false;
        let permitted: Vec<IpAddr> = addresses
            .into_iter()
            .inspect(|_| any = true)
            .filter(|address| !self.denies(*address))
            .collect();
        if any && permitted.is_empty() {
            Err(AddressDenied)
        } else {
            Ok(permitted)
        }
    }

    /// Checks the host of a URL where it is a literal address (those are dialled without a resolver). A name passes:
    /// it is checked when it is resolved.
    ///
    /// # Errors
    /// The literal address is denied.
    pub fn check_literal(&self, host: &str) -> Result<(), AddressDenied> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => self.permitted([address]).map(drop),
            Err(_) => Ok(()),
        }
    }
}

/// A network of IPv4 addresses that is written in IPv6 (`::ffff:10.0.0.0/104`) is that IPv4 network: such addresses are
/// dialled as what they are.
fn as_dialled(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let address = v6.network().to_ipv4_mapped();
    let prefix = v6.prefix_len().checked_sub(96);
    let v4 = address
        .zip(prefix)
        .map(|(address, prefix)| Ipv4Net::new(address, prefix));
    match v4 {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => network,
    }
}

/// Where a connection to this address ends up: IPv4 that is embedded in IPv6 is that IPv4 address, and the
/// unspecified address is this machine.
fn reached_by_dialling(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(v6) => match v6.segments() {
            // NAT64, 64:ff9b::/96
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            _ => IpAddr::V6(v6),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Resolves names with the system's resolver and drops the addresses that are denied.
#[derive(Clone)]
pub struct DenyingResolver {
    deny: DenyList,
}

impl DenyingResolver {
    /// A resolver that answers with permitted addresses only.
    #[must_use]
    pub fn new(deny: DenyList) -> Self {
        Self { deny }
    }

    /// The permitted addresses of a name.
    ///
    /// # Errors
    /// The name cannot be resolved, or all of its addresses are denied (then the error's source is [`AddressDenied`]).
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, std::io::Error> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        self.deny
            .permitted(found.map(|socket| socket.ip()))
            .map_err(|denied| std::io::Error::new(std::io::ErrorKind::PermissionDenied, denied))
    }
}

impl fmt::Debug for DenyingResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenyingResolver").finish_non_exhaustive()
    }
}

impl ResolveDns for DenyingResolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.resolve(name).await.map_err(ResolveDnsError::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback_and_link_local() -> DenyList {
        DenyList::new(
            ["127.0.0.0/8", "::1/128", "169.254.0.0/16"].map(|network| network.parse::<IpNet>().unwrap()),
        )
    }

    #[test]
    fn an_address_is_denied_in_every_form_that_reaches_it() {
        let deny = loopback_and_link_local();
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "0.0.0.0",
            "::",
            "169.254.169.254",
        ] {
            assert!(deny.denies(address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::0a00:0001"] {
            assert!(!deny.denies(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_network_of_ipv4_addresses_that_is_written_in_ipv6_is_denied_as_such() {
        let deny = DenyList::new(["::ffff:10.0.0.0/104".parse::<IpNet>().unwrap()]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::0a01:0203"] {
            assert!(deny.denies(address.parse().unwrap()), "{address}");
        }
        assert!(!deny.denies("11.1.2.3".parse().unwrap()));
    }

    #[test]
    fn hosts_are_denied_in_every_clone_and_only_as_long_as_they_are_named() {
        let deny = loopback_and_link_local();
        let clone = deny.clone();
        let denied = |address: &str| clone.denies(address.parse().unwrap());
        assert!(!denied("10.0.0.1"));
        deny.set_hosts(BTreeSet::from(["10.0.0.1".parse().unwrap()]));
        assert!(denied("10.0.0.1") && denied("::ffff:10.0.0.1") && denied("64:ff9b::0a00:0001"));
        assert!(denied("127.0.0.1") && !denied("10.0.0.2"));
        deny.set_hosts(BTreeSet::from(["10.0.0.2".parse().unwrap()]));
        assert!(!denied("10.0.0.1") && denied("10.0.0.2"));
    }

    #[test]
    fn a_literal_in_a_url_is_checked_and_a_name_is_left_to_the_resolver() {
        let deny = loopback_and_link_local();
        assert_eq!(deny.check_literal("127.0.0.1"), Err(AddressDenied));
        assert_eq!(deny.check_literal("[::1]"), Err(AddressDenied));
        assert_eq!(deny.check_literal("10.1.2.3"), Ok(()));
        assert_eq!(deny.check_literal("localhost"), Ok(()));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_denied_addresses_only_is_denied() {
        let denying = DenyingResolver::new(loopback_and_link_local());
        for name in ["localhost", "127.1", "2130706433"] {
            let error = denying.resolve(name).await.unwrap_err();
            assert!(
                error
                    .get_ref()
                    .is_some_and(<dyn std::error::Error + Send + Sync>::is::<AddressDenied>),
                "{name}: {error}"
            );
        }
        let open = DenyingResolver::new(DenyList::default());
        assert!(!open.resolve("localhost").await.unwrap().is_empty());
    }

    #[test]
    fn of_several_addresses_the_permitted_ones_are_dialled() {
        let deny = loopback_and_link_local();
        let addresses: Vec<IpAddr> = ["127.0.0.1", "10.0.0.1"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(
            deny.permitted(addresses),
            Ok(vec!["10.0.0.1".parse::<IpAddr>().unwrap()])
        );
    }
}
