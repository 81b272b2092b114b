//! Programs on interfaces: TCX links from Linux 6.6 on, clsact filters below, always ahead of what is there. Entry
//! points: [`Attacher::attach`] and `detach`.
//!
//! What a crash leaves: a TCX link that isn't pinned yet ends with the process, which is as if the process had died
//! before it made it; one direction may be attached and the other not. Either way the next agent finds the interface
//! incomplete ([`Attached::complete`]) and attaches it again, which completes what is there. Filters need no pin.

use std::{io, os::fd::AsFd as _, path::Path};

use enforcer_abi::Direction;
use thiserror::Error;

use crate::{
    netlink::{Filter, IngressQdisc, Netlink, NetlinkError},
    object::{Programs, program_name},
    pins::{self, Pins, PinsError},
    sys::{self, Hook},
};

/// By which mechanism a program hangs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Pinned TCX links, Linux 6.6 and newer.
    Tcx,
    /// Filters of priority 1 in a clsact qdisc.
    Clsact,
}

/// Where our programs are on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// By which mechanism.
    pub mode: Mode,
    /// Other programs that see packets before ours do, and may redirect them past it.
    pub ahead: Vec<Ahead>,
}

/// A program that sees packets before ours does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Whose packets it sees first.
    pub direction: Direction,
    /// The kernel's id; `None` for classifiers other than BPF.
    pub id: Option<u32>,
    /// Its name, or the classifier's kind; empty if the kernel doesn't tell.
    pub name: String,
}

/// An interface that runs our programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its index.
    pub ifindex: u32,
    /// By which mechanism.
    pub mode: Mode,
    /// Whether both directions are attached.
    pub complete: bool,
}

/// Why an interface can't be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The interface is gone.
    #[error("interface {ifindex} is gone")]
    Gone {
        /// Its index.
        ifindex: u32,
    },
    /// An `ingress` qdisc is where clsact would have to be.
    #[error(
        "interface {ifindex} has an ingress qdisc, which excludes the clsact qdisc that kernels before 6.6 need for \
         enforcement: its pod can't be enforced while the qdisc (usually the bandwidth plugin's) is there"
    )]
    IngressQdisc {
        /// Its index.
        ifindex: u32,
    },
    /// A filter of another kind has priority 1.
    #[error(
        "interface {ifindex} has a {kind} filter of priority 1, where Sluice's own has to be: its pod can't be enforced"
    )]
    PriorityTaken {
        /// Its index.
        ifindex: u32,
        /// The classifier's kind.
        kind: String,
    },
    /// The kernel refused a link.
    #[error("the kernel refused to {action} at interface {ifindex}")]
    Link {
        /// What was tried.
        action: &'static str,
        /// Its index.
        ifindex: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pin folder failed.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The priority of our filters, the foremost that there is.
const PRIORITY: u16 = 1;
/// The handle of our filters, by which they are found again.
const HANDLE: u32 = 0x51ce;

/// Attaches one generation of programs.
pub(crate) struct Attacher<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) pins: &'a Pins,
    pub(crate) netlink: &'a mut Netlink,
    pub(crate) mode: Mode,
}

impl Attacher<'_> {
    /// Puts both programs on an interface, replacing older generations of them atomically.
    pub(crate) fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError> {
        let mut ahead = Vec::new();
        for direction in Direction::ALL {
            match self.mode {
                Mode::Tcx => self.attach_tcx(ifindex, direction)?,
                Mode::Clsact => self.attach_clsact(ifindex, direction)?,
            }
        }
        // The other mechanism's, after a change of mode: only now, so that no packet goes by unseen.
        for direction in Direction::ALL {
            match self.mode {
                Mode::Tcx => remove_filter(self.netlink, ifindex, direction)?,
                Mode::Clsact => remove_link(self.pins, ifindex, direction)?,
            }
            ahead.extend(self.ahead(ifindex, direction)?);
        }
        Ok(Attachment { mode: self.mode, ahead })
    }

    /// Replaces the programs of everything that is attached. Links of interfaces that are gone are removed.
    pub(crate) fn replace_all(&mut self) -> Result<(), AttachError> {
        for (ifindex, direction) in self.pins.links()? {
            let path = self.pins.link(ifindex, direction);
            let replaced = sys::open_pin(&path).and_then(|link| {
                if sys::link_info(link.as_fd())?.ifindex != ifindex {
                    return Err(io::Error::from_raw_os_error(libc::ENOLINK));
                }
                sys::link_update(link.as_fd(), self.programs.of(direction).as_fd())
            });
            match replaced {
                Ok(()) => {}
                Err(error) if is_gone(&error) => pins::remove(&path)?,
                Err(source) => return Err(AttachError::Link { action: "replace a program", ifindex, source }),
            }
        }
        for (ifindex, direction) in our_filters(self.netlink)? {
            let filter = (self.programs.of(direction), program_name(direction));
            match self.netlink.put_filter(ifindex, direction, (PRIORITY, HANDLE), filter) {
                Err(error) if error.errno() != Some(libc::ENODEV) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn attach_tcx(&mut self, ifindex: u32, direction: Direction) -> Result<(), AttachError> {
        let path = self.pins.link(ifindex, direction);
        let program = self.programs.of(direction).as_fd();
        if let Ok(link) = sys::open_pin(&path) {
            let is_here = sys::link_info(link.as_fd()).is_ok_and(|info| info.ifindex == ifindex);
            if is_here && sys::link_update(link.as_fd(), program).is_ok() {
                return Ok(());
            }
            // Of an interface that is gone.
            pins::remove(&path)?;
        }
        let link = sys::tcx_attach_first(program, ifindex, Hook::from(direction)).map_err(|source| {
            if is_gone(&source) {
                AttachError::Gone { ifindex }
            } else {
                AttachError::Link { action: "attach", ifindex, source }
            }
        })?;
        if let Err(error) = sys::pin(link.as_fd(), &path) {
            // At once, for a second try: the kernel would let go of it a moment later.
            let _ = sys::link_detach(link.as_fd());
            return Err(PinsError::file("could not pin", &path)(error).into());
        }
        Ok(())
    }

    fn attach_clsact(&mut self, ifindex: u32, direction: Direction) -> Result<(), AttachError> {
        let named = |error: NetlinkError| match error.errno() {
            Some(libc::ENODEV) => AttachError::Gone { ifindex },
            _ => AttachError::Netlink(error),
        };
        match self.netlink.ensure_clsact(ifindex) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(libc::EEXIST) => return Err(AttachError::IngressQdisc { ifindex }),
            Err(error) => return Err(named(error)),
        }
        let filter = (self.programs.of(direction), program_name(direction));
        let Err(error) = self.netlink.put_filter(ifindex, direction, (PRIORITY, HANDLE), filter) else {
            return Ok(());
        };
        let taken =
            self.netlink.filters(ifindex, direction).ok().and_then(|filters| {
                filters.into_iter().find(|filter| filter.priority == PRIORITY && filter.kind != "bpf")
            });
        match taken {
            Some(filter) => Err(AttachError::PriorityTaken { ifindex, kind: filter.kind }),
            None => Err(named(error)),
        }
    }

    /// Who sees packets before us: TCX programs come before all filters.
    fn ahead(&mut self, ifindex: u32, direction: Direction) -> Result<Vec<Ahead>, AttachError> {
        let refused = |source| AttachError::Link { action: "list the programs", ifindex, source };
        let own = sys::program_id(self.programs.of(direction).as_fd()).map_err(refused)?;
        let by_id = |id: u32| Ahead { direction, id: Some(id), name: sys::program_name(id).unwrap_or_default() };
        let tcx = match sys::tcx_query(ifindex, Hook::from(direction)) {
            Ok(ids) => ids,
            // No TCX in this kernel.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Vec::new(),
            Err(error) if is_gone(&error) => return Err(AttachError::Gone { ifindex }),
            Err(error) => return Err(refused(error)),
        };
        let mut ahead: Vec<Ahead> = tcx.into_iter().take_while(|&id| id != own).map(by_id).collect();
        if self.mode == Mode::Clsact {
            let filters = self.netlink.filters(ifindex, direction)?;
            ahead.extend(filters.into_iter().take_while(|filter| filter.handle != HANDLE).map(|filter| Ahead {
                direction,
                id: filter.program,
                name: filter.name.unwrap_or(filter.kind),
            }));
        }
        Ok(ahead)
    }
}

/// Takes our programs off an interface, at once, and removes their pins. An interface that is gone is fine.
pub(crate) fn detach(pins: &Pins, netlink: &mut Netlink, ifindex: u32) -> Result<(), AttachError> {
    for direction in Direction::ALL {
        remove_link(pins, ifindex, direction)?;
        remove_filter(netlink, ifindex, direction)?;
    }
    Ok(())
}

/// Takes the links of an interface off and removes their pins.
pub(crate) fn remove_links(pins: &Pins, ifindex: u32) -> Result<(), AttachError> {
    Direction::ALL.into_iter().try_for_each(|direction| remove_link(pins, ifindex, direction))
}

/// All interfaces that run programs of ours, of any generation. Pins of interfaces that are gone are removed.
pub(crate) fn attached(pins: &Pins, netlink: &mut Netlink) -> Result<Vec<Attached>, AttachError> {
    let mut hooks = Vec::new();
    for (ifindex, direction) in pins.links()? {
        let path = pins.link(ifindex, direction);
        match sys::open_pin(&path).and_then(|link| sys::link_info(link.as_fd())) {
            Ok(info) if info.ifindex == ifindex => hooks.push((ifindex, Mode::Tcx)),
            Ok(_) => pins::remove(&path)?,
            Err(error) if is_gone(&error) => {}
            Err(source) => return Err(AttachError::Link { action: "look at a link", ifindex, source }),
        }
    }
    hooks.extend(our_filters(netlink)?.into_iter().map(|(ifindex, _)| (ifindex, Mode::Clsact)));
    hooks.sort_unstable();
    Ok(hooks
        .chunk_by(|a, b| a == b)
        .map(|same| Attached { ifindex: same[0].0, mode: same[0].1, complete: same.len() == Direction::ALL.len() })
        .collect())
}

/// Removes our filters everywhere, and clsact qdiscs that hold nothing after that.
pub(crate) fn remove_filters(netlink: &mut Netlink) -> Result<(), AttachError> {
    let mut interfaces = Vec::new();
    for (ifindex, direction) in our_filters(netlink)? {
        netlink.delete_filter(ifindex, direction, (PRIORITY, HANDLE))?;
        interfaces.push(ifindex);
    }
    interfaces.dedup();
    for ifindex in interfaces {
        let mut filters = netlink.filters(ifindex, Direction::Ingress)?;
        filters.extend(netlink.filters(ifindex, Direction::Egress)?);
        if filters.is_empty() {
            netlink.delete_clsact(ifindex)?;
        }
    }
    Ok(())
}

/// Whether both our programs are on this interface, by either mechanism. Needs no lock and changes nothing.
pub(crate) fn is_complete(pins: &Path, netlink: &mut Netlink, ifindex: u32) -> Result<bool, AttachError> {
    let hooks = Direction::ALL.map(|direction| has_our_link(pins, ifindex, direction));
    if hooks == [true; 2] {
        return Ok(true);
    }
    for direction in Direction::ALL {
        if !has_our_filter(netlink, ifindex, direction)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether any of our programs is on this interface.
pub(crate) fn is_begun(pins: &Path, netlink: &mut Netlink, ifindex: u32) -> Result<bool, AttachError> {
    for direction in Direction::ALL {
        if has_our_link(pins, ifindex, direction) || has_our_filter(netlink, ifindex, direction)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_our_link(pins: &Path, ifindex: u32, direction: Direction) -> bool {
    let link = sys::open_pin(&pins::link(pins, ifindex, direction));
    link.and_then(|link| sys::link_info(link.as_fd())).is_ok_and(|info| info.ifindex == ifindex)
}

pub(crate) fn our_filters(netlink: &mut Netlink) -> Result<Vec<(u32, Direction)>, NetlinkError> {
    let mut ours = Vec::new();
    for (ifindex, qdisc) in netlink.ingress_qdiscs()? {
        if qdisc != IngressQdisc::Clsact {
            continue;
        }
        for direction in Direction::ALL {
            if has_our_filter(netlink, ifindex, direction)? {
                ours.push((ifindex, direction));
            }
        }
    }
    Ok(ours)
}

pub(crate) fn is_ours(filter: &Filter, direction: Direction) -> bool {
    (filter.priority, filter.handle) == (PRIORITY, HANDLE) && filter.name.as_deref() == Some(program_name(direction))
}

fn has_our_filter(netlink: &mut Netlink, ifindex: u32, direction: Direction) -> Result<bool, NetlinkError> {
    match netlink.filters(ifindex, direction) {
        Ok(filters) => Ok(filters.iter().any(|filter| is_ours(filter, direction))),
        // The interface or its qdisc has gone meanwhile.
        Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_filter(netlink: &mut Netlink, ifindex: u32, direction: Direction) -> Result<(), AttachError> {
    if has_our_filter(netlink, ifindex, direction)? {
        netlink.delete_filter(ifindex, direction, (PRIORITY, HANDLE))?;
    }
    Ok(())
}

fn remove_link(pins: &Pins, ifindex: u32, direction: Direction) -> Result<(), AttachError> {
    let path = pins.link(ifindex, direction);
    match sys::open_pin(&path).and_then(|link| sys::link_detach(link.as_fd())) {
        Ok(()) => {}
        Err(error) if is_gone(&error) => {}
        Err(source) => return Err(AttachError::Link { action: "detach", ifindex, source }),
    }
    Ok(pins::remove(&path)?)
}

/// No such interface, link or pin.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOLINK | libc::ENOENT))
}
