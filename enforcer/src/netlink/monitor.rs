//! What the kernel announces by itself: interfaces that come, change and go, and addresses, in this namespace and in
//! every namespace that this one has an id for, which are those behind its veths.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::{Link, NetlinkError, failed, messages, read_link};

/// One announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// An interface of this namespace is new or has changed.
    Link(Link),
    /// An interface of this namespace is gone.
    LinkGone(u32),
    /// An address was added or removed in the namespace with this id; `None` is this one.
    Addresses(Option<i32>),
    /// Announcements were lost, because they came faster than they were read.
    Lost,
}

/// Listens. Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        const GROUPS: [u32; 3] = [
            1, // RTNLGRP_LINK
            5, // RTNLGRP_IPV4_IFADDR
            9, // RTNLGRP_IPV6_IFADDR
        ];
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            // Without CAP_NET_BROADCAST only this namespace's announcements come.
            socket.set_listen_all_namespaces(true)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            // A node that starts a hundred pods at once announces a lot; losses are noticed, but cost a full listing.
            socket.set_rx_buf_sz(1 << 20)?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(socket)
        };
        let socket = open().map_err(failed("listen for interfaces"))?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    /// What has been announced since; empty if nothing was.
    pub(crate) fn read(&mut self) -> Result<Vec<Notice>, NetlinkError> {
        let mut notices = Vec::new();
        loop {
            match self.receive(&mut notices) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(notices),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => notices.push(Notice::Lost),
                Err(error) => return Err(failed("read announcements")(error)),
            }
        }
    }

    fn receive(&mut self, into: &mut Vec<Notice>) -> io::Result<()> {
        let mut space = nix::cmsg_space!(i32);
        let fd = self.socket.as_raw_fd();
        let (length, netns, truncated) = {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let received = recvmsg::<()>(fd, &mut slices, Some(&mut space), MsgFlags::empty())?;
            let netns = received.cmsgs()?.find_map(|message| namespace_id(&message));
            (received.bytes, netns, received.flags.contains(MsgFlags::MSG_TRUNC))
        };
        if truncated {
            into.push(Notice::Lost);
            return Ok(());
        }
        for bytes in messages(&self.buffer[..length]) {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => {
                    into.extend(notice(&message, netns));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a netlink announcement could not be read");
                    into.push(Notice::Lost);
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The id of the namespace that a datagram comes from. This namespace's own datagrams carry none, even if it has an id
/// for itself.
fn namespace_id(message: &ControlMessageOwned) -> Option<i32> {
    let ControlMessageOwned::Unknown(message) = message else { return None };
    let header = message.cmsg_header;
    if header.cmsg_level != libc::SOL_NETLINK || header.cmsg_type != libc::NETLINK_LISTEN_ALL_NSID {
        return None;
    }
    message.data_bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

fn notice(message: &RouteNetlinkMessage, netns: Option<i32>) -> Option<Notice> {
    match message {
        RouteNetlinkMessage::NewLink(link) if netns.is_none() => Some(Notice::Link(read_link(link))),
        // Bridges announce ports that leave them as AF_BRIDGE links that are 'deleted'.
        RouteNetlinkMessage::DelLink(link)
            if netns.is_none() && link.header.interface_family == netlink_packet_route::AddressFamily::Unspec =>
        {
            Some(Notice::LinkGone(link.header.index))
        }
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(Notice::Addresses(netns)),
        _ => None,
    }
}
