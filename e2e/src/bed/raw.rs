//! Whole frames on an interface of a namespace, for what no ordinary socket sends.

use std::{
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket},
};

use super::Namespace;

/// A packet socket on one interface (packet(7)): sends frames as they are, receives all that arrive or leave.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
    /// The interface's hardware address.
    pub hardware_address: [u8; 6],
}

impl RawSocket {
    /// Opens one.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.run(|| {
            // The kernel's list is the only maker of link addresses that needs no unsafe code.
            let link = getifaddrs()
                .context("cannot list interfaces")?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .with_context(|| format!("no interface {interface} in {}", namespace.name()))?;
            let hardware_address = link.addr().with_context(|| format!("{interface} has no hardware address"))?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .context("cannot open a packet socket")?;
            bind(socket.as_raw_fd(), &link).with_context(|| format!("cannot bind to {interface}"))?;
            Ok(Self { socket, hardware_address })
        })
    }

    /// Sends a frame, the Ethernet header included.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("cannot send a frame")?;
        Ok(())
    }

    /// The next frame for which `wanted` holds, or `None` if none comes in time. Frames that this socket itself sent
    /// don't come back.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&self, patience: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let mut frame = vec![0; 1 << 17];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).context("at most 24 days")?;
            let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut waiting, left).context("cannot wait for a frame")? == 0 {
                return Ok(None);
            }
            let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT).context("cannot receive")?;
            if wanted(&frame[..length]) {
                return Ok(Some(frame[..length].to_vec()));
            }
        }
    }
}
