//! Which interface leads to which addresses, from the kernel alone: no CNI, no container runtime is asked and no
//! namespace is entered. Entry points: [`Interfaces`] to ask, [`Watcher`] to be told.
//!
//! Addresses behind a veth are a proposal, not a proof: a pod with `CAP_NET_ADMIN` writes that list itself.

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use crate::netlink::{AddressFilter, Link, Monitor, Netlink, NetlinkError, Notice};

impl Link {
    /// Whether it is the host's end of a veth pair whose other end is in another namespace, as a pod's is.
    #[must_use]
    pub fn leads_elsewhere(&self) -> bool {
        self.kind == "veth" && self.netns.is_some()
    }

    /// Whether it leads to another namespace in a way that shows no packets here (netkit in L3 mode, ipvlan, macvlan…).
    #[must_use]
    pub fn hides_packets(&self) -> bool {
        self.kind == "netkit"
    }
}

/// Asks about interfaces and addresses of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Interfaces {
    netlink: Netlink,
}

impl Interfaces {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.netlink.links()
    }

    /// The host's ends of veth pairs that lead to other namespaces.
    pub fn veths(&mut self) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().filter(Link::leads_elsewhere).collect())
    }

    /// The addresses of global scope at the other end of a veth, sorted; empty if the other end or its namespace is
    /// gone.
    pub fn addresses_behind(&mut self, veth: &Link) -> Result<Vec<IpAddr>, NetlinkError> {
        let (Some(netns), Some(peer)) = (veth.netns, veth.peer) else { return Ok(Vec::new()) };
        let filter = AddressFilter { netns: Some(netns), ifindex: Some(peer) };
        match self.netlink.addresses(&filter) {
            Ok(addresses) => {
                let mut addresses: Vec<IpAddr> = addresses.into_iter().map(|(_, address)| address).collect();
                addresses.sort_unstable();
                addresses.dedup();
                Ok(addresses)
            }
            // No such namespace id any more, or no such interface in it.
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// This namespace's own addresses of global scope, with their interfaces.
    pub fn own_addresses(&mut self) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
        self.netlink.addresses(&AddressFilter { netns: None, ifindex: None })
    }

    /// The id ([`Link::netns`]) of the namespace that a process is in; `None` if this namespace has none for it, or the
    /// process is gone.
    pub fn namespace_of(&mut self, pid: u32) -> Result<Option<i32>, NetlinkError> {
        match self.netlink.namespace_id(pid) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(None),
            other => other,
        }
    }

    /// The id ([`Link::netns`]) of the namespace that an open file stands for; `None` if this namespace has none for it,
    /// as before any interface of this one has led there.
    pub fn namespace_at(&mut self, file: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
        self.netlink.namespace_id_of_file(file)
    }

    /// The interfaces that default routes lead through.
    pub fn default_route_links(&mut self) -> Result<Vec<u32>, NetlinkError> {
        self.netlink.default_route_links()
    }

    /// The veths that may be pods': without the node's uplinks and without what is excluded.
    pub fn candidates(&mut self, exclusions: &Exclusions) -> Result<Vec<Link>, NetlinkError> {
        let mut uplinks = self.default_route_links()?;
        uplinks.extend(
            self.own_addresses()?
                .into_iter()
                .filter(|(_, address)| exclusions.node_addresses.contains(address))
                .map(|(ifindex, _)| ifindex),
        );
        let mut veths = self.veths()?;
        veths.retain(|veth| !uplinks.contains(&veth.ifindex) && !exclusions.excludes_name(&veth.name));
        Ok(veths)
    }
}

/// Which veths are none of Sluice's business.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exclusions {
    /// Names, as `--exclude-interface` gives them; one that ends in `*` excludes all that begin so.
    pub names: Vec<String>,
    /// The node's addresses as the cluster knows them. An interface that has one of them is an uplink; a gateway
    /// address that a plugin puts on a pod's veth is not among them.
    pub node_addresses: Vec<IpAddr>,
}

impl Exclusions {
    /// Whether an interface of this name is excluded.
    #[must_use]
    pub fn excludes_name(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
    }
}

/// Something about interfaces or addresses has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new or has changed.
    Link(Link),
    /// An interface is gone.
    Gone {
        /// Its index.
        ifindex: u32,
    },
    /// Addresses were added or removed in a namespace behind a veth.
    AddressesBehind {
        /// [`Link::netns`]
        netns: i32,
    },
    /// Addresses of this namespace were added or removed.
    OwnAddresses,
    /// Changes were lost: list everything again.
    Lost,
}

/// Tells of changes as they happen. Readable ([`AsFd`], or [`AsRawFd`] for tokio's `AsyncFd`) when there is one. Open it before listing, so that nothing
/// falls in between.
#[derive(Debug)]
pub struct Watcher {
    monitor: Monitor,
}

impl Watcher {
    /// Watches the calling thread's network namespace and those behind its veths.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { monitor: Monitor::open()? })
    }

    /// All changes since the last call, without those that a later one of them makes superfluous.
    pub fn read(&mut self) -> Result<Vec<Change>, NetlinkError> {
        let mut changes: Vec<Change> = self.monitor.read()?.into_iter().map(Change::from).collect();
        if changes.contains(&Change::Lost) {
            return Ok(vec![Change::Lost]);
        }
        // Of what is said twice the last one counts.
        let mut seen = rustc_hash::FxHashSet::default();
        changes.reverse();
        changes.retain(|change| seen.insert(change.subject()));
        changes.reverse();
        Ok(changes)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Change {
    fn subject(&self) -> (u8, i64) {
        match self {
            Self::Link(link) => (0, link.ifindex.into()),
            Self::Gone { ifindex } => (0, (*ifindex).into()),
            Self::AddressesBehind { netns } => (1, (*netns).into()),
            Self::OwnAddresses => (2, 0),
            Self::Lost => (3, 0),
        }
    }
}

impl From<Notice> for Change {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Link(link) => Self::Link(link),
            Notice::LinkGone(ifindex) => Self::Gone { ifindex },
            Notice::Addresses(Some(netns)) => Self::AddressesBehind { netns },
            Notice::Addresses(None) => Self::OwnAddresses,
            Notice::Lost => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_excluded_whole_or_by_their_beginning() {
        let exclusions = Exclusions { names: vec!["eth0".into(), "lxc*".into()], ..Exclusions::default() };
        for (name, excluded) in [("eth0", true), ("eth01", false), ("lxc", true), ("lxc42", true), ("alxc", false)] {
            assert_eq!(exclusions.excludes_name(name), excluded, "{name}");
        }
    }
}
