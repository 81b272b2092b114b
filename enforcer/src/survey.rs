//! What of others is on this node and judges pods' packets, too: programs at the hooks of interfaces that run ours, and
//! nftables. Looks only; may be done on any thread of the node's network namespace. Entry points: [`Survey`],
//! [`nft_names`].

use std::{io, os::fd::AsFd as _, sync::Arc};

use enforcer_abi::Direction;

use crate::{
    attach::{AttachError, is_gone, is_ours, our_filters},
    netlink::{Netlink, NetlinkError, nft},
    pins::Pins,
    sys::{self, Hook},
};

/// A BPF program of somebody else that sees a pod's packets, before ours or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherProgram {
    /// The interface.
    pub ifindex: u32,
    /// Which packets it sees.
    pub direction: Direction,
    /// The kernel's id, if it tells.
    pub id: Option<u32>,
    /// Its name, or the one that its filter was given. By id, the kernel tells only a process with `CAP_SYS_ADMIN`.
    pub name: Option<String>,
}

/// Looks for programs of others.
#[derive(Debug)]
pub struct Survey {
    pins: Arc<Pins>,
}

impl Survey {
    pub(crate) fn new(pins: Arc<Pins>) -> Self {
        Self { pins }
    }

    /// BPF programs of others on interfaces that run ours.
    pub fn programs(&self) -> Result<Vec<OtherProgram>, AttachError> {
        let mut netlink = Netlink::open()?;
        let mut hooks = self.pins.links()?;
        hooks.extend(our_filters(&mut netlink)?);
        hooks.sort_unstable();
        hooks.dedup();
        let mut found = Vec::new();
        for (ifindex, direction) in hooks {
            let refused = |source| AttachError::Link { action: "list the programs", ifindex, source };
            found.extend(self.tcx_programs(ifindex, direction).map_err(refused)?);
            found.extend(filter_programs(&mut netlink, ifindex, direction)?);
        }
        Ok(found)
    }

    /// Our own program there may be replaced at any moment, so its id is asked for before and after.
    fn tcx_programs(&self, ifindex: u32, direction: Direction) -> io::Result<Vec<OtherProgram>> {
        let before = self.own_program(ifindex, direction);
        let ids = match sys::tcx_query(ifindex, Hook::from(direction)) {
            Ok(ids) => ids,
            // No TCX in this kernel.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Vec::new(),
            Err(error) if is_gone(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        let own = [before, self.own_program(ifindex, direction)];
        let others = ids.into_iter().filter(|id| !own.contains(&Some(*id)));
        Ok(others.map(|id| OtherProgram { ifindex, direction, id: Some(id), name: sys::program_name(id) }).collect())
    }

    fn own_program(&self, ifindex: u32, direction: Direction) -> Option<u32> {
        let link = sys::open_pin(&self.pins.link(ifindex, direction)).ok()?;
        sys::link_info(link.as_fd()).ok().map(|info| info.program)
    }
}

fn filter_programs(
    netlink: &mut Netlink,
    ifindex: u32,
    direction: Direction,
) -> Result<Vec<OtherProgram>, NetlinkError> {
    let filters = match netlink.filters(ifindex, direction) {
        Ok(filters) => filters,
        // No such interface, or no clsact there.
        Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let others = filters.into_iter().filter(|filter| filter.kind == "bpf" && !is_ours(filter, direction));
    Ok(others.map(|filter| OtherProgram { ifindex, direction, id: filter.program, name: filter.name }).collect())
}

/// Tells the names of all nftables tables, and of all chains with their tables'. It takes `CAP_NET_ADMIN`, and a kernel
/// that has nftables.
pub fn nft_names(mut each: impl FnMut(&str, Option<&str>)) -> Result<(), NetlinkError> {
    nft::names(&mut each)
}
