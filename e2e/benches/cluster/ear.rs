//! Hears every packet of a protocol that arrives in a network namespace, with the kernel's own time of it: how long this
//! process had to wait for a processor doesn't count.

use std::{
    io::IoSliceMut,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use e2e::moment::Moment;
use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg,
            setsockopt, socket,
            sockopt::{RcvBufForce, ReceiveTimeout, ReceiveTimestampns},
        },
        time::{TimeSpec, TimeVal, TimeValLike as _},
    },
};

/// Room for what arrives while this process waits for a processor.
const BUFFER: usize = 32 << 20;
/// How long one waits for a packet before one says that there is none.
pub(crate) const SILENCE: Duration = Duration::from_millis(5);

/// A raw socket, opened in a namespace.
#[derive(Debug)]
pub(crate) struct Ear {
    socket: OwnedFd,
    family: AddressFamily,
}

/// A packet that arrived.
pub(crate) struct Heard<'b> {
    pub(crate) from: IpAddr,
    pub(crate) at: Moment,
    /// From the header of the protocol on.
    pub(crate) packet: &'b [u8],
}

impl Ear {
    /// Hears this protocol of this family in the namespace of the calling thread.
    pub(crate) fn open(family: AddressFamily, protocol: SockProtocol) -> Result<Self> {
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).context("no raw socket")?;
        setsockopt(&socket, RcvBufForce, &BUFFER).context("no room for packets")?;
        setsockopt(&socket, ReceiveTimestampns, &true).context("no times of packets")?;
        let silence = TimeVal::microseconds(i64::try_from(SILENCE.as_micros()).context("a short time")?);
        setsockopt(&socket, ReceiveTimeout, &silence).context("cannot set a time-out")?;
        Ok(Self { socket, family })
    }

    /// The next packet; `None`, if there is none for a moment.
    pub(crate) fn hear<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<Heard<'b>>> {
        let mut control = cmsg_space!(TimeSpec);
        let (bytes, from, at) = {
            let mut parts = [IoSliceMut::new(buffer)];
            let received =
                recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
            let received = match received {
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                received => received.context("the raw socket fails")?,
            };
            let stamp =
                received.cmsgs().context("no room for the time of a packet")?.find_map(|message| match message {
                    ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                    _ => None,
                });
            let at = Moment::after_epoch(stamp.context("a packet without a time")?);
            (received.bytes, received.address.as_ref().and_then(address), at)
        };
        let packet = buffer.get(..bytes).context("more bytes than there is room for")?;
        // Only raw sockets of IPv4 get the header of the network as well (ip(7), ipv6(7)).
        let header = match packet.first() {
            Some(first) if self.family == AddressFamily::Inet => usize::from(first & 15) * 4,
            _ => 0,
        };
        let packet = packet.get(header..).context("a packet without its header")?;
        Ok(Some(Heard { from: from.context("a packet from nowhere")?, at, packet }))
    }
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}
