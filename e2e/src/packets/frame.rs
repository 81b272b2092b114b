//! Builds Ethernet frames, well-formed ones and broken ones. Entry point: [`Packet::build`].
//!
//! etherparse writes the headers it knows; what it would refuse to write (lengths that lie, a jumbogram, cut headers) is
//! done here on the bytes.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpAuthHeader, IpFragOffset, IpNumber,
    Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader, VlanId,
};
use serde::Deserialize;

use super::payload::Payload;

/// The Ethernet header's length.
pub const ETHERNET: usize = 14;

/// A packet between two addresses.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Of the IP header.
    pub source: IpAddr,
    /// Of the IP header; same family as `source`.
    pub destination: IpAddr,
    /// What is unusual about its IP header.
    pub ip: IpShape,
    /// What is behind the IP header.
    pub payload: Payload,
    /// What is wrong with its bytes.
    pub damage: Damage,
}

/// What is unusual about an IP header.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct IpShape {
    /// An 802.1Q tag in line, with this VLAN.
    pub vlan: Option<u16>,
    /// TTL or hop limit; 64 unless told.
    pub hop_limit: Option<u8>,
    /// IPv4: bytes of options, a multiple of 4 up to 40.
    pub options: usize,
    /// IPv4: the identification outside of fragments.
    pub id: u16,
    /// IPv4: the flag DF.
    pub dont_fragment: bool,
    /// It is a fragment.
    pub fragment: Option<Fragment>,
    /// IPv6: extension headers before the fragment header.
    pub extensions: Vec<Extension>,
    /// IPv6: extension headers after the fragment header.
    pub after_fragment: Vec<Extension>,
    /// The total length (IPv4) or payload length (IPv6) that the header claims.
    pub length: Option<u16>,
}

/// A fragment's place in its packet.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// The identification, which all fragments of a packet share.
    pub id: u32,
    /// In bytes, a multiple of 8.
    #[serde(default)]
    pub offset: u16,
    /// More fragments follow.
    #[serde(default)]
    pub more: bool,
}

/// An IPv6 extension header (RFC 8200 section 4).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Extension {
    /// Hop-by-hop options, 8 bytes of padding.
    HopByHop,
    /// Hop-by-hop options with the jumbo payload option (RFC 2675), as BIG TCP writes it. The payload length is 0.
    Jumbo,
    /// A routing header, type 0 with no segments left, 24 bytes.
    Routing,
    /// Destination options, 16 bytes.
    Destination,
    /// An authentication header (RFC 4302) with 12 bytes of ICV.
    Auth,
    /// Mobility (RFC 6275), 8 bytes.
    Mobility,
}

impl Extension {
    const fn number(self) -> IpNumber {
        match self {
            Self::HopByHop | Self::Jumbo => IpNumber(0),
            Self::Routing => IpNumber(43),
            Self::Destination => IpNumber(60),
            Self::Auth => IpNumber(51),
            Self::Mobility => IpNumber(135),
        }
    }

    /// Its bytes, before `next` and `behind` bytes.
    fn bytes(self, next: IpNumber, behind: usize) -> Result<Vec<u8>> {
        // PadN (RFC 8200 section 4.2) to the end of the header
        let pad = |length: u8| {
            let mut options = vec![1, length - 2];
            options.resize(length.into(), 0);
            options
        };
        let content = match self {
            Self::HopByHop => pad(6),
            Self::Jumbo => {
                let length = u32::try_from(behind + 8).context("a jumbogram's length has 32 bits")?;
                [&[0xc2, 4], length.to_be_bytes().as_slice()].concat()
            }
            Self::Routing => vec![0; 22],
            Self::Destination => pad(14),
            Self::Mobility => vec![0; 6],
            Self::Auth => return Ok(IpAuthHeader::new(next, 7, 1, &[0; 12])?.to_bytes().to_vec()),
        };
        Ok(Ipv6RawExtHeader::new_raw(next, &content)?.to_bytes().to_vec())
    }
}

/// What is wrong with a packet's bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Damage {
    /// Bytes to overwrite, by their offset from the IP header.
    pub ip: BTreeMap<usize, u8>,
    /// Bytes to overwrite, by their offset from the header behind the IP headers.
    pub transport: BTreeMap<usize, u8>,
    /// How many bytes of the frame are left after the IP header's start.
    pub keep: Option<usize>,
    /// How many bytes of the frame are left after the transport header's start.
    pub keep_transport: Option<usize>,
}

/// A frame and where its headers begin.
#[derive(Clone, Debug)]
pub struct Frame {
    /// As on the wire, the Ethernet header included.
    pub bytes: Vec<u8>,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the header behind the IP headers begins.
    pub transport: usize,
}

impl Packet {
    /// The frame.
    ///
    /// # Errors
    /// The addresses are of two families, or a number does not fit its field.
    pub fn build(&self) -> Result<Frame> {
        let (ether_type, headers, payload) = self.packet()?;
        let mut bytes = link(ether_type, self.ip.vlan)?;
        let network = bytes.len();
        bytes.extend(headers);
        let transport = bytes.len();
        bytes.extend(payload);
        for (offset, value) in self
            .damage
            .ip
            .iter()
            .map(|(at, value)| (network + at, value))
            .chain(self.damage.transport.iter().map(|(at, value)| (transport + at, value)))
        {
            *bytes.get_mut(offset).with_context(|| format!("the frame has no byte {offset} to damage"))? = *value;
        }
        let keep =
            [self.damage.keep.map(|keep| network + keep), self.damage.keep_transport.map(|keep| transport + keep)];
        bytes.truncate(keep.into_iter().flatten().min().unwrap_or(bytes.len()));
        Ok(Frame { bytes, network, transport })
    }

    /// The packet without its Ethernet header, as an ICMP error quotes it.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_quoted(&self) -> Result<Vec<u8>> {
        let frame = self.build()?;
        Ok(frame.bytes[frame.network..].to_vec())
    }

    /// Ether type, IP headers, payload.
    fn packet(&self) -> Result<(EtherType, Vec<u8>, Vec<u8>)> {
        let later = self.ip.fragment.is_some_and(|fragment| fragment.offset > 0);
        let payload = if later { vec![0xff; 24] } else { self.payload.bytes(self.source, self.destination)? };
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = self.ipv4(source.octets(), destination.octets(), payload.len())?;
                Ok((EtherType::IPV4, header, payload))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let headers = self.ipv6(source.octets(), destination.octets(), payload.len())?;
                Ok((EtherType::IPV6, headers, payload))
            }
            (source, destination) => anyhow::bail!("{source} and {destination} are of two families"),
        }
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], payload: usize) -> Result<Vec<u8>> {
        let ip = &self.ip;
        ensure!(ip.extensions.is_empty() && ip.after_fragment.is_empty(), "IPv4 has no extension headers");
        let mut header = Ipv4Header::new(
            u16::try_from(payload)?,
            ip.hop_limit.unwrap_or(64),
            IpNumber(self.payload.protocol(self.source)),
            source,
            destination,
        )?;
        // no-operation (RFC 791), which every parser must step over
        let mut options = [1; 40];
        options[..ip.options].last_mut().into_iter().for_each(|last| *last = 0);
        header.options = Ipv4Options::try_from(&options[..ip.options])?;
        header.set_payload_len(payload)?;
        header.identification = ip.id;
        header.dont_fragment = ip.dont_fragment;
        if let Some(fragment) = ip.fragment {
            header.identification = u16::try_from(fragment.id)?;
            header.fragment_offset = frag_offset(fragment)?;
            header.more_fragments = fragment.more;
        }
        if let Some(length) = ip.length {
            header.total_len = length;
        }
        header.header_checksum = header.calc_header_checksum();
        Ok(header.to_bytes().to_vec())
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], payload: usize) -> Result<Vec<u8>> {
        let ip = &self.ip;
        ensure!(ip.options == 0 && ip.id == 0 && !ip.dont_fragment, "IPv6 has no options, id and DF in its header");
        // from the last header to the first, since each names the next one
        let mut next = IpNumber(self.payload.protocol(self.source));
        let mut behind: Vec<u8> = Vec::new();
        let put = |extension: &Extension, next: &mut IpNumber, behind: &mut Vec<u8>| -> Result<()> {
            let bytes = extension.bytes(*next, behind.len() + payload)?;
            behind.splice(..0, bytes);
            *next = extension.number();
            Ok(())
        };
        for extension in ip.after_fragment.iter().rev() {
            put(extension, &mut next, &mut behind)?;
        }
        if let Some(fragment) = ip.fragment {
            let header = Ipv6FragmentHeader::new(next, frag_offset(fragment)?, fragment.more, fragment.id);
            behind.splice(..0, header.to_bytes());
            next = IpNumber(44);
        }
        for extension in ip.extensions.iter().rev() {
            put(extension, &mut next, &mut behind)?;
        }
        let jumbo = ip.extensions.first() == Some(&Extension::Jumbo);
        let length = if jumbo { 0 } else { u16::try_from(behind.len() + payload)? };
        let header = Ipv6Header {
            payload_length: ip.length.unwrap_or(length),
            next_header: next,
            hop_limit: ip.hop_limit.unwrap_or(64),
            source,
            destination,
            ..Ipv6Header::default()
        };
        Ok([header.to_bytes().as_slice(), &behind].concat())
    }
}

fn frag_offset(fragment: Fragment) -> Result<IpFragOffset> {
    ensure!(fragment.offset.is_multiple_of(8), "a fragment's offset is a multiple of 8");
    Ok(IpFragOffset::try_new(fragment.offset / 8)?)
}

/// An Ethernet header, with a VLAN tag if asked for.
fn link(ether_type: EtherType, vlan: Option<u16>) -> Result<Vec<u8>> {
    let outer = if vlan.is_some() { EtherType::VLAN_TAGGED_FRAME } else { ether_type };
    let (source, destination) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut bytes = Ethernet2Header { source, destination, ether_type: outer }.to_bytes().to_vec();
    if let Some(vlan) = vlan {
        let tag = SingleVlanHeader { vlan_id: VlanId::try_new(vlan)?, ether_type, ..SingleVlanHeader::default() };
        bytes.extend(tag.to_bytes());
    }
    Ok(bytes)
}

/// An ARP request of one address for another.
///
/// # Errors
/// An address is not IPv4.
pub fn arp(sender: IpAddr, target: IpAddr, vlan: Option<u16>) -> Result<Frame> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
        anyhow::bail!("ARP is of IPv4, not of {sender} and {target}")
    };
    let packet = ArpPacket::from(ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: [2, 0, 0, 0, 0, 1],
        sender_ipv4: sender.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    });
    let mut bytes = link(EtherType::ARP, vlan)?;
    let network = bytes.len();
    bytes.extend(packet.to_bytes());
    Ok(Frame { bytes, network, transport: network })
}

/// A frame of a protocol that is neither IP nor ARP.
///
/// # Errors
/// The VLAN does not fit.
pub fn foreign(ether_type: u16, vlan: Option<u16>) -> Result<Frame> {
    let mut bytes = link(EtherType(ether_type), vlan)?;
    let network = bytes.len();
    bytes.resize(network + 46, 0);
    Ok(Frame { bytes, network, transport: network })
}
