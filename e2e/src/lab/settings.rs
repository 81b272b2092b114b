//! What a lab shall be like.

use std::{fmt, str::FromStr};

use anyhow::{Error, bail};

/// How many nodes, and how they do networking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From 1 to [`Self::NODES`].
    pub nodes: u8,
    /// What connects pods.
    pub cni: Cni,
    /// How Services are translated.
    pub proxy: Proxy,
}

impl Settings {
    /// The most nodes that a lab has room for.
    pub const NODES: u8 = 8;
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes: 3, cni: Cni::default(), proxy: Proxy::default() }
    }
}

/// The CNI plugin that connects pods to their node; `host-local` gives addresses and `portmap` host ports with both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cni {
    /// A veth pair and a route for each pod.
    #[default]
    Ptp,
    /// The pods of a node are ports of a bridge, `cni0`.
    Bridge,
    /// As plugins that route do it: a veth without an address at the node's end, which answers for the pod's gateway, and
    /// pods that have their own address alone.
    Routed,
}

/// The mode of kube-proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// `nftables`
    #[default]
    Nftables,
    /// `iptables`
    Iptables,
}

impl FromStr for Cni {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "ptp" => Self::Ptp,
            "bridge" => Self::Bridge,
            "routed" => Self::Routed,
            _ => bail!("the lab's CNI plugins are ptp, bridge and routed, not {name}"),
        })
    }
}

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "nftables" => Self::Nftables,
            "iptables" => Self::Iptables,
            _ => bail!("the lab's kube-proxy has the modes nftables and iptables, not {name}"),
        })
    }
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
            Self::Routed => "routed",
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}
