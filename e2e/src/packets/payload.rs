//! What is behind the IP headers of a test packet: TCP, UDP, SCTP, ICMP and the rest. Entry point: [`Payload::bytes`].

use std::net::IpAddr;

use anyhow::{Result, bail};
use enforcer_abi::protocol;
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, TcpHeader, UdpHeader, checksum::Sum16BitWords,
};
use serde::Deserialize;

/// What is behind the IP headers.
#[derive(Clone, Debug)]
pub enum Payload {
    /// RFC 9293
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Which flags are set.
        flags: TcpFlags,
        /// Bytes behind the header.
        data: usize,
    },
    /// RFC 768
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Bytes behind the header.
        data: usize,
    },
    /// RFC 9260
    Sctp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The chunk behind the common header.
        chunk: SctpChunk,
    },
    /// An echo request or reply, ICMP or ICMPv6.
    Echo {
        /// The identifier.
        id: u16,
        /// It is the reply.
        reply: bool,
    },
    /// Another ICMP or ICMPv6 message.
    Icmp {
        /// RFC 792 or RFC 4443
        kind: u8,
        /// RFC 792 or RFC 4443
        code: u8,
        /// What follows the checksum.
        body: Vec<u8>,
    },
    /// A protocol without ports.
    Other(u8),
}

/// The flags of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

    const fn has(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }
}

impl TryFrom<String> for TcpFlags {
    type Error = anyhow::Error;

    /// From names with spaces between, as in `syn ack`; `none` is none.
    fn try_from(text: String) -> Result<Self> {
        let mut flags = 0;
        for name in text.split_whitespace().filter(|name| *name != "none") {
            match Self::NAMES.iter().position(|known| *known == name) {
                Some(bit) => flags |= 1 << bit,
                None => bail!("`{name}` is none of TCP's flags ({})", Self::NAMES.join(", ")),
            }
        }
        Ok(Self(flags))
    }
}

/// The SCTP chunks that cases name (RFC 9260 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SctpChunk {
    /// Type 0.
    Data,
    /// Type 1: opens an association.
    Init,
    /// Type 2: the answer.
    InitAck,
}

/// The ICMP messages that cases name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IcmpName {
    /// Destination unreachable; ICMPv6 too.
    Unreachable,
    /// IPv4: unreachable, code 4; ICMPv6: packet too big.
    TooBig,
    /// Time exceeded.
    TimeExceeded,
    /// Parameter problem.
    ParameterProblem,
    /// IPv4: redirect (type 5); ICMPv6: redirect (type 137).
    Redirect,
    /// IPv4 only (type 4).
    SourceQuench,
    /// IPv4: type 10; ICMPv6: type 133.
    RouterSolicitation,
    /// IPv4: type 9; ICMPv6: type 134.
    RouterAdvertisement,
    /// ICMPv6 type 135.
    NeighbourSolicitation,
    /// ICMPv6 type 136.
    NeighbourAdvertisement,
    /// ICMPv6 type 130.
    MldQuery,
    /// ICMPv6 type 131.
    MldReport,
    /// ICMPv6 type 132.
    MldDone,
    /// ICMPv6 type 143.
    MldReportV2,
    /// IPv4 type 13.
    Timestamp,
    /// ICMPv6 type 139.
    NodeInformation,
}

impl IcmpName {
    /// Type and code.
    ///
    /// # Errors
    /// The family has no such message.
    pub fn numbers(self, v4: bool) -> Result<(u8, u8)> {
        Ok(match (self, v4) {
            (Self::Unreachable, true) => (3, 3),
            (Self::Unreachable, false) => (1, 4),
            (Self::TooBig, true) => (3, 4),
            (Self::TooBig, false) => (2, 0),
            (Self::TimeExceeded, true) => (11, 0),
            (Self::TimeExceeded, false) => (3, 0),
            (Self::ParameterProblem, true) => (12, 0),
            (Self::ParameterProblem, false) => (4, 0),
            (Self::Redirect, true) => (5, 1),
            (Self::Redirect, false) => (137, 0),
            (Self::SourceQuench, true) => (4, 0),
            (Self::RouterSolicitation, true) => (10, 0),
            (Self::RouterSolicitation, false) => (133, 0),
            (Self::RouterAdvertisement, true) => (9, 0),
            (Self::RouterAdvertisement, false) => (134, 0),
            (Self::NeighbourSolicitation, false) => (135, 0),
            (Self::NeighbourAdvertisement, false) => (136, 0),
            (Self::MldQuery, false) => (130, 0),
            (Self::MldReport, false) => (131, 0),
            (Self::MldDone, false) => (132, 0),
            (Self::MldReportV2, false) => (143, 0),
            (Self::Timestamp, true) => (13, 0),
            (Self::NodeInformation, false) => (139, 0),
            (name, v4) => bail!("{} has no {name:?}", if v4 { "ICMP" } else { "ICMPv6" }),
        })
    }
}

impl Payload {
    /// The IP protocol number.
    #[must_use]
    pub const fn protocol(&self, address: IpAddr) -> u8 {
        match self {
            Self::Tcp { .. } => protocol::TCP,
            Self::Udp { .. } => protocol::UDP,
            Self::Sctp { .. } => protocol::SCTP,
            Self::Echo { .. } | Self::Icmp { .. } if address.is_ipv4() => protocol::ICMP,
            Self::Echo { .. } | Self::Icmp { .. } => protocol::ICMPV6,
            Self::Other(number) => *number,
        }
    }

    /// Header and data, with checksums.
    ///
    /// # Errors
    /// A length does not fit its field.
    pub fn bytes(&self, source: IpAddr, destination: IpAddr) -> Result<Vec<u8>> {
        match self {
            Self::Tcp { source: from, destination: to, flags, data } => {
                tcp((*from, *to), *flags, &vec![0; *data], source, destination)
            }
            Self::Udp { source: from, destination: to, data } => {
                udp((*from, *to), &vec![0; *data], source, destination)
            }
            Self::Sctp { source: from, destination: to, chunk } => Ok(sctp(*from, *to, *chunk)),
            Self::Echo { id, reply } => {
                let echo = IcmpEchoHeader { id: *id, seq: 1 };
                Ok(match (source, destination) {
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        let kind = if *reply { Icmpv6Type::EchoReply(echo) } else { Icmpv6Type::EchoRequest(echo) };
                        Icmpv6Header::with_checksum(kind, source.octets(), destination.octets(), &[])?
                            .to_bytes()
                            .to_vec()
                    }
                    _ => {
                        let kind = if *reply { Icmpv4Type::EchoReply(echo) } else { Icmpv4Type::EchoRequest(echo) };
                        Icmpv4Header::with_checksum(kind, &[]).to_bytes().to_vec()
                    }
                })
            }
            Self::Icmp { kind, code, body } => Ok(icmp(*kind, *code, body, source, destination)),
            Self::Other(_) => Ok(vec![0; 32]),
        }
    }
}

fn tcp(ports: (u16, u16), flags: TcpFlags, data: &[u8], source: IpAddr, destination: IpAddr) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(ports.0, ports.1, 1, 0xffff);
    header.fin = flags.has(0);
    header.syn = flags.has(1);
    header.rst = flags.has(2);
    header.psh = flags.has(3);
    header.ack = flags.has(4);
    header.urg = flags.has(5);
    header.ece = flags.has(6);
    header.cwr = flags.has(7);
    header.checksum = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header.calc_checksum_ipv4_raw(from.octets(), to.octets(), data)?,
        (IpAddr::V6(from), IpAddr::V6(to)) => header.calc_checksum_ipv6_raw(from.octets(), to.octets(), data)?,
        _ => bail!("{source} and {destination} are of two families"),
    };
    Ok([header.to_bytes().as_slice(), data].concat())
}

fn udp(ports: (u16, u16), data: &[u8], source: IpAddr, destination: IpAddr) -> Result<Vec<u8>> {
    let length = u16::try_from(8 + data.len())?;
    let mut header = UdpHeader { source_port: ports.0, destination_port: ports.1, length, checksum: 0 };
    header.checksum = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header.calc_checksum_ipv4_raw(from.octets(), to.octets(), data)?,
        (IpAddr::V6(from), IpAddr::V6(to)) => header.calc_checksum_ipv6_raw(from.octets(), to.octets(), data)?,
        _ => bail!("{source} and {destination} are of two families"),
    };
    Ok([header.to_bytes().as_slice(), data].concat())
}

/// A common header and a chunk of 20 bytes (RFC 9260 sections 3.1 to 3.3). The CRC is left 0: nothing on the way checks it.
fn sctp(source: u16, destination: u16, chunk: SctpChunk) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.resize(12, 0);
    bytes.extend([chunk as u8, 0, 0, 20]);
    bytes.resize(32, 0);
    bytes
}

fn icmp(kind: u8, code: u8, body: &[u8], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut bytes = [&[kind, code, 0, 0], body].concat();
    let mut sum = Sum16BitWords::new().add_slice(&bytes);
    if let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) {
        // the pseudo header of RFC 8200 section 8.1
        let length = u32::try_from(bytes.len()).expect("a test frame is a few kilobytes");
        sum = sum
            .add_16bytes(source.octets())
            .add_16bytes(destination.octets())
            .add_4bytes(length.to_be_bytes())
            .add_2bytes([0, protocol::ICMPV6]);
    }
    // etherparse's sums are of the host's byte order
    bytes[2..4].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    bytes
}
