//! A veth as the kernel shows it, and whether it is to be left alone.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::{
    cgroup,
    inhabited::{Inhabitants, Who},
};

/// One veth of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// The id of the namespace that the other end is in; `None` while both ends are in the node's own.
    pub namespace: Option<i32>,
    /// The addresses of the other end.
    pub addresses: Vec<IpAddr>,
    /// The addresses of this end.
    pub own: Vec<IpAddr>,
    /// Whether a default route leads out of it.
    pub uplink: bool,
    /// The processes in the namespace of the other end, where somebody wants to know; `None` if there is none.
    pub inhabitants: Option<Inhabitants>,
}

impl Link {
    /// Whether no process is in the namespace of the other end yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespace.is_some() && self.inhabitants.is_none()
    }

    /// The UID of the pod whose processes alone are there.
    #[must_use]
    pub fn pod(&self) -> Option<&Arc<str>> {
        match &self.inhabitants.as_ref()?.who {
            Who::Pod(uid) => Some(uid),
            Who::NoPod | Who::Several(_) | Who::Unknown => None,
        }
    }

    /// Whether processes of other pods are there and none of this one's. Of a static pod only the name is known to the API.
    /// Processes of no pod beside them change nothing: a runtime's are for a moment, whenever it carries something out.
    #[must_use]
    pub fn is_of_another(&self, uid: &str) -> bool {
        let mut pods = self.inhabitants.iter().flat_map(|inhabitants| inhabitants.who.pods()).peekable();
        pods.peek().is_some() && pods.all(|pod| !cgroup::is_static(pod) && **pod != *uid)
    }

    /// Whether a process of this pod is there, or of a static pod, of which only the name is known to the API.
    #[must_use]
    pub fn has_process_of(&self, uid: &str) -> bool {
        let pods = self.inhabitants.iter().flat_map(|inhabitants| inhabitants.who.pods());
        pods.into_iter().any(|pod| **pod == *uid || cgroup::is_static(pod))
    }

    /// Whether a pod's process is there, or one that may be a pod's.
    #[must_use]
    pub fn has_pods(&self) -> bool {
        self.inhabitants.as_ref().is_some_and(|inhabitants| inhabitants.who != Who::NoPod)
    }

    /// Whether the processes there are no pod's.
    #[must_use]
    pub fn is_no_pods(&self) -> bool {
        self.inhabitants.as_ref().is_some_and(|inhabitants| inhabitants.who == Who::NoPod)
    }
}

/// Why a veth is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// `--exclude-interface` names it.
    Excluded,
    /// A default route leads out of it.
    Uplink,
    /// It has this address, which is the node's.
    NodeAddress(IpAddr),
    /// Its other end is in the node's own network namespace.
    BothEndsHere,
    /// The processes behind it are no pod's.
    NoPod,
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("--exclude-interface names it"),
            Self::Uplink => f.write_str("a default route leads out of it"),
            Self::NodeAddress(address) => write!(f, "it has the node's address {address}"),
            Self::BothEndsHere => f.write_str("both its ends are in the node's namespace"),
            Self::NoPod => f.write_str("the processes behind it are no pod's"),
        }
    }
}

/// What is never touched.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    /// Names; a trailing `*` matches any ending.
    pub names: Vec<String>,
    /// The addresses of the Node object. Others that an interface of the node may have don't count: plugins like ptp
    /// give the gateway's address to the host's end of every veth.
    pub node_addresses: Vec<IpAddr>,
}

impl Exclusions {
    /// Why `link` is to be left alone, if it is.
    #[must_use]
    pub fn untouched(&self, link: &Link) -> Option<Untouched> {
        if self.names.iter().any(|pattern| matches(pattern, &link.name)) {
            return Some(Untouched::Excluded);
        }
        if link.uplink {
            return Some(Untouched::Uplink);
        }
        if let Some(address) = link.own.iter().find(|address| self.node_addresses.contains(address)) {
            return Some(Untouched::NodeAddress(*address));
        }
        link.namespace.is_none().then_some(Untouched::BothEndsHere)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}
