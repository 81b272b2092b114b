//! Netlink: the only module that knows its messages. [`Netlink`] asks rtnetlink, [`Monitor`] listens to it; `tc` is the
//! part about qdiscs and filters; [`nft`] asks netfilter.

mod monitor;
pub(crate) mod nft;
mod tc;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use thiserror::Error;

pub(crate) use monitor::{Monitor, Notice};
pub(crate) use tc::{Filter, IngressQdisc};

/// A netlink request failed.
#[derive(Debug, Error)]
#[error("netlink: could not {action}")]
pub struct NetlinkError {
    action: &'static str,
    #[source]
    source: io::Error,
}

impl NetlinkError {
    /// The kernel's error number, if it answered with one.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| NetlinkError { action, source }
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The driver's name: `veth`, `bridge`, `netkit`…; empty for hardware.
    pub kind: String,
    /// The index of the other end, in the namespace where that is (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// The namespace where the other end is, by this namespace's id for it (`IFLA_LINK_NETNSID`); `None` if it is in
    /// this namespace.
    pub netns: Option<i32>,
    /// The bridge or bond that it belongs to.
    pub controller: Option<u32>,
    /// Set up by an administrator (`IFF_UP`).
    pub up: bool,
}

/// Addresses or routes of a namespace.
pub(crate) struct AddressFilter {
    /// In this namespace, by this namespace's id for it; `None` for this namespace itself.
    pub(crate) netns: Option<i32>,
    /// Of this interface only.
    pub(crate) ifindex: Option<u32>,
}

/// A request socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Without it the kernel ignores the filters of dumps, IFA_TARGET_NETNSID among them.
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(failed("open a socket"))?, sequence: 0 })
    }

    /// All interfaces of this namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.dump(RouteNetlinkMessage::GetLink(request)).map_err(failed("list the interfaces"))?;
        Ok(answers
            .into_iter()
            .filter_map(
                |answer| if let RouteNetlinkMessage::NewLink(link) = answer { Some(read_link(&link)) } else { None },
            )
            .collect())
    }

    /// Addresses of global scope with their interfaces.
    pub(crate) fn addresses(&mut self, filter: &AddressFilter) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
        let mut request = AddressMessage::default();
        request.header.index = filter.ifindex.unwrap_or(0);
        if let Some(netns) = filter.netns {
            request.attributes.push(AddressAttribute::TargetNetNsId(netns));
        }
        let answers = self.dump(RouteNetlinkMessage::GetAddress(request)).map_err(failed("list the addresses"))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| {
                if let RouteNetlinkMessage::NewAddress(message) = answer { read_address(&message) } else { None }
            })
            .filter(|&(ifindex, _)| filter.ifindex.is_none_or(|wanted| wanted == ifindex))
            .collect())
    }

    /// The interfaces of the default routes of the main table, next hops of multipath routes included.
    pub(crate) fn default_route_links(&mut self) -> Result<Vec<u32>, NetlinkError> {
        let mut links = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let answers = self.dump(RouteNetlinkMessage::GetRoute(request)).map_err(failed("list the routes"))?;
            for answer in answers {
                let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
                if route.header.destination_prefix_length == 0 {
                    links.extend(route_links(&route));
                }
            }
        }
        links.sort_unstable();
        links.dedup();
        Ok(links)
    }

    /// The id that this namespace has for the one that a process or thread is in, if it has one.
    pub(crate) fn namespace_id(&mut self, pid: u32) -> Result<Option<i32>, NetlinkError> {
        self.namespace_id_by(NsidAttribute::Pid(pid))
    }

    /// The same for an open file of the namespace, such as `/run/netns/NAME`.
    pub(crate) fn namespace_id_of_file(&mut self, file: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
        self.namespace_id_by(NsidAttribute::Fd(file.as_raw_fd().cast_unsigned()))
    }

    fn namespace_id_by(&mut self, which: NsidAttribute) -> Result<Option<i32>, NetlinkError> {
        let mut request = NsidMessage::default();
        request.attributes.push(which);
        let answers =
            self.request(RouteNetlinkMessage::GetNsId(request), 0).map_err(failed("ask for a namespace id"))?;
        Ok(answers.into_iter().find_map(|answer| {
            let RouteNetlinkMessage::NewNsId(message) = answer else { return None };
            message.attributes.into_iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if id >= 0 => Some(id),
                _ => None,
            })
        }))
    }

    /// A request with many answers.
    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        // EINTR says that something changed while the kernel was answering; then the answer is no snapshot.
        const TRIES: usize = 10;
        for _ in 1..TRIES {
            match self.request(message.clone(), NLM_F_DUMP) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                other => return other,
            }
        }
        self.request(message, NLM_F_DUMP)
    }

    /// Sends one message and collects the answers up to the acknowledgement.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags | if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.collect(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads one datagram and says whether it held the end of the answer.
    fn collect(&self, datagram: &[u8], into: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        const DUMP_INTERRUPTED: u16 = 0x10;
        for bytes in messages(datagram) {
            let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                Ok(message) => message,
                Err(error) => {
                    // A newer kernel may say what the library can't read; that must not hide the other messages.
                    tracing::warn!(%error, "a netlink message could not be read and was left out");
                    continue;
                }
            };
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if message.header.flags & DUMP_INTERRUPTED != 0 {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => into.push(inner),
                NetlinkPayload::Done(done) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Cuts a datagram into its messages (`struct nlmsghdr`, each aligned to 4 bytes).
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest.get(..length).filter(|message| message.len() >= 16)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        kind: String::new(),
        peer: None,
        netns: None,
        controller: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Link(peer) if *peer != 0 => link.peer = Some(*peer),
            LinkAttribute::LinkNetNsId(netns) if *netns >= 0 => link.netns = Some(*netns),
            LinkAttribute::Controller(controller) => link.controller = Some(*controller),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// `IFA_LOCAL` where there is one, which IPv4 always has: on point-to-point links `IFA_ADDRESS` is the other end's.
fn read_address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(other) if address.is_none() => address = Some(*other),
            _ => {}
        }
    }
    Some((message.header.index, address?))
}

fn route_links(route: &RouteMessage) -> Vec<u32> {
    let mut links = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => links.push(*ifindex),
            RouteAttribute::MultiPath(hops) => links.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    links
}
