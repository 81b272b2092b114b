//! Qdiscs and filters: the hooks of kernels before 6.6.

use std::os::fd::{AsRawFd as _, OwnedFd};

use enforcer_abi::Direction;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::{Netlink, NetlinkError, failed};

/// The qdisc that holds an interface's ingress (and, if it is clsact, egress) filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IngressQdisc {
    /// Ours or anybody's: it holds filters of both directions.
    Clsact,
    /// The older one, which excludes clsact and has no hook towards the pod.
    Ingress,
}

/// A filter at a clsact hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) priority: u16,
    pub(crate) handle: u32,
    /// The classifier's kind.
    pub(crate) kind: String,
    /// The name given with a BPF filter.
    pub(crate) name: Option<String>,
    /// The kernel's id of a BPF filter's program.
    pub(crate) program: Option<u32>,
}

/// `ETH_P_ALL`
const ALL_PROTOCOLS: u16 = 3;

/// `tcm_info`: the priority, and the protocol in network byte order.
fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be())
}

fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_EGRESS,
        Direction::Egress => TcHandle::MIN_INGRESS,
    };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

fn message(ifindex: u32) -> TcMessage {
    TcMessage::with_index(ifindex.cast_signed())
}

impl Netlink {
    /// The ingress qdiscs of all interfaces.
    pub(crate) fn ingress_qdiscs(&mut self) -> Result<Vec<(u32, IngressQdisc)>, NetlinkError> {
        let answers = self
            .dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))
            .map_err(failed("list the qdiscs"))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| {
                let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = answer else { return None };
                let kind = match kind(&qdisc)? {
                    "clsact" => IngressQdisc::Clsact,
                    "ingress" => IngressQdisc::Ingress,
                    _ => return None,
                };
                Some((qdisc.header.index.cast_unsigned(), kind))
            })
            .collect())
    }

    /// Adds a clsact qdisc, or finds the one that is there. Fails with `EEXIST` where an ingress qdisc is.
    pub(crate) fn ensure_clsact(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let mut request = message(ifindex);
        request.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        request.header.parent = TcHandle::CLSACT;
        request.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let action = "add a clsact qdisc";
        match self.request(RouteNetlinkMessage::NewQueueDiscipline(request), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                if self.ingress_qdiscs()?.contains(&(ifindex, IngressQdisc::Clsact)) {
                    Ok(())
                } else {
                    Err(failed(action)(error))
                }
            }
            Err(error) => Err(failed(action)(error)),
        }
    }

    /// Removes the clsact qdisc with all its filters.
    pub(crate) fn delete_clsact(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let mut request = message(ifindex);
        request.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        request.header.parent = TcHandle::CLSACT;
        request.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        self.request(RouteNetlinkMessage::DelQueueDiscipline(request), 0)
            .map(drop)
            .map_err(failed("remove a clsact qdisc"))
    }

    /// The filters of one clsact hook, in the order in which they run.
    pub(crate) fn filters(&mut self, ifindex: u32, direction: Direction) -> Result<Vec<Filter>, NetlinkError> {
        let mut request = message(ifindex);
        request.header.parent = parent(direction);
        let answers = self.dump(RouteNetlinkMessage::GetTrafficFilter(request)).map_err(failed("list the filters"))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewTrafficFilter(filter) => read_filter(&filter),
                _ => None,
            })
            .collect())
    }

    /// Adds a direct-action BPF filter, or replaces the program of the one with this priority and handle, atomically.
    pub(crate) fn put_filter(
        &mut self,
        ifindex: u32,
        direction: Direction,
        (priority, handle): (u16, u32),
        (program, name): (&OwnedFd, &str),
    ) -> Result<(), NetlinkError> {
        let mut request = message(ifindex);
        request.header.parent = parent(direction);
        request.header.handle = handle.into();
        request.header.info = info(priority);
        request.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
        request.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.request(RouteNetlinkMessage::NewTrafficFilter(request), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(failed("add a filter"))
    }

    /// Removes one filter; one that is gone already is fine.
    pub(crate) fn delete_filter(
        &mut self,
        ifindex: u32,
        direction: Direction,
        (priority, handle): (u16, u32),
    ) -> Result<(), NetlinkError> {
        let mut request = message(ifindex);
        request.header.parent = parent(direction);
        request.header.handle = handle.into();
        request.header.info = info(priority);
        request.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
        match self.request(RouteNetlinkMessage::DelTrafficFilter(request), 0) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
                Err(failed("remove a filter")(error))
            }
            _ => Ok(()),
        }
    }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

/// Answers without a handle describe a priority, not a filter.
fn read_filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let mut filter = Filter { priority, handle, kind: kind(message)?.to_owned(), name: None, program: None };
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name.clone()),
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
                _ => {}
            }
        }
    }
    (handle != 0).then_some(filter)
}
