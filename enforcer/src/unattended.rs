//! What can be done while no agent runs: hold an interface by the programs that an agent has left pinned, and clear away
//! pins of interfaces that are gone. Entry point: [`Unattended::lock`].
//!
//! No entry is written here. An interface that runs the programs without one is held, which is all that is wanted, and
//! which slot of the counters an entry has is for the agent to know. An entry that lies there already is of an interface
//! that had this index before, unless our programs are on this one; left in place, it would enforce that pod's tables, as
//! its flows would pass as this one's.

use std::{io, path::Path};

use enforcer_abi::map;
use thiserror::Error;

use crate::{
    attach::{self, AttachError, Attacher, Mode},
    epochs::Epochs,
    netlink::{Netlink, NetlinkError},
    object::Programs,
    pins::{Pins, PinsError},
    preflight, sys,
};

/// Why an interface can't be held without an agent.
#[derive(Debug, Error)]
pub enum UnattendedError {
    /// The pin folder failed, or there is none.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// No programs are pinned.
    #[error("no programs are pinned below {path}: the agent has not finished its first start on this node")]
    NoPrograms {
        /// The pin folder.
        path: String,
    },
    /// A map could not be written.
    #[error("could not {action} of interface {ifindex}, which are of one that had this index before")]
    Former {
        /// What was tried.
        action: &'static str,
        /// Its index.
        ifindex: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The interface refuses the programs.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The pins, locked: no agent has them, and none gets them while this value lives.
#[derive(Debug)]
pub struct Unattended {
    pins: Pins,
    netlink: Netlink,
}

impl Unattended {
    /// For the calling thread's network namespace; `None` if an agent, or another caller of this, has the lock.
    pub fn lock(pin_dir: &Path) -> Result<Option<Self>, UnattendedError> {
        let Some(pins) = Pins::open_unattended(pin_dir)? else { return Ok(None) };
        Ok(Some(Self { pins, netlink: Netlink::open()? }))
    }

    /// Puts the pinned programs on an interface, which holds it; one that runs them already stays as it is.
    pub fn hold(&mut self, ifindex: u32) -> Result<(), UnattendedError> {
        if attach::is_complete(self.pins.root(), &mut self.netlink, ifindex)? {
            return Ok(());
        }
        let layouts = self.pins.layouts()?;
        let none = || UnattendedError::NoPrograms { path: self.pins.root().display().to_string() };
        let programs = layouts.iter().find_map(|layout| Programs::open(layout).ok()).ok_or_else(none)?;
        if !attach::is_begun(self.pins.root(), &mut self.netlink, ifindex)? {
            for layout in layouts {
                forget(&layout, ifindex)?;
            }
        }
        let mode = if preflight::has_tcx() { Mode::Tcx } else { Mode::Clsact };
        Attacher { programs: &programs, pins: &self.pins, netlink: &mut self.netlink, mode }.attach(ifindex)?;
        Ok(())
    }

    /// Removes the pins of interfaces that are gone.
    pub fn clear(&mut self) -> Result<(), UnattendedError> {
        attach::attached(&self.pins, &mut self.netlink)?;
        Ok(())
    }
}

/// Whose interface had this index before was another pod's, and so are its entry and its flows.
fn forget(layout: &Path, ifindex: u32) -> Result<(), UnattendedError> {
    let removed = sys::delete_from_pin(&layout.join(map::PODS), &ifindex).map(drop);
    // flows that no entry is asked about: the fast path goes by the interface's index alone
    let raised = Epochs::open(&layout.join(map::EPOCHS)).and_then(|mut epochs| epochs.raise(&[ifindex])).map(drop);
    for (action, result) in [("remove the entry", removed), ("end the flows", raised)] {
        match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(UnattendedError::Former { action, ifindex, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether both programs are on an interface of the calling thread's network namespace, by either mechanism.
pub fn is_attached(pin_dir: &Path, ifindex: u32) -> Result<bool, UnattendedError> {
    Ok(attach::is_complete(pin_dir, &mut Netlink::open()?, ifindex)?)
}
