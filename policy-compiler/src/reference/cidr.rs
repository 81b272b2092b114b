//! `ipBlock`s, by arithmetic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::networking::v1::IPBlock;

/// 'IPBlock describes a particular CIDR [...] that is allowed to the pods matched by a NetworkPolicySpec's podSelector.
/// The except entry describes CIDRs that should not be included within this rule' (IPBlock).
pub(super) fn matches(block: &IPBlock, address: IpAddr) -> bool {
    let Some(cidr) = Cidr::parse(&block.cidr) else { return false };
    let mut excepted = false;
    for text in block.except.iter().flatten() {
        // 'Except values will be rejected if they are outside the cidr range' (IPBlock.except); the API server also
        // rejects one that is the whole range. What a rejected one should have taken out isn't known.
        match Cidr::parse(text) {
            Some(except) if cidr.v6 == except.v6 && cidr.length < except.length && cidr.holds(except.bits) => {
                excepted |= except.matches(address);
            }
            _ => return false,
        }
    }
    cidr.matches(address) && !excepted
}

struct Cidr {
    v6: bool,
    /// The address, in the lowest 32 bits for IPv4.
    bits: u128,
    length: u32,
}

impl Cidr {
    fn width(&self) -> u32 {
        if self.v6 { 128 } else { 32 }
    }

    fn holds(&self, bits: u128) -> bool {
        let host = self.width() - self.length;
        host == 128 || self.bits >> host == bits >> host
    }

    fn matches(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => !self.v6 && self.holds(u32::from(v4).into()),
            IpAddr::V6(v6) => self.v6 && self.holds(u128::from(v6)),
        }
    }

    /// As `ParseCIDRSloppy` of k8s.io/utils/net, which validates NetworkPolicies: host bits may be set, numbers of
    /// IPv4 may have leading zeros, and IPv4-mapped addresses are IPv4.
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        if length.is_empty() || !length.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let length: u32 = length.parse().ok()?;
        let cidr = if address.contains(':') {
            let (head, tail) = address.rsplit_once(':')?;
            let v6: Ipv6Addr = if tail.contains('.') {
                format!("{head}:{}", strip_zeros(tail)?).parse().ok()?
            } else {
                address.parse().ok()?
            };
            match v6.to_ipv4_mapped() {
                Some(v4) if (96..=128).contains(&length) => {
                    Self { v6: false, bits: u32::from(v4).into(), length: length - 96 }
                }
                _ => Self { v6: true, bits: v6.into(), length },
            }
        } else {
            let v4: Ipv4Addr = strip_zeros(address)?.parse().ok()?;
            Self { v6: false, bits: u32::from(v4).into(), length }
        };
        (cidr.length <= cidr.width()).then_some(cidr)
    }
}

fn strip_zeros(dotted: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in dotted.split('.') {
        if part.is_empty() {
            return None;
        }
        let stripped = part.trim_start_matches('0');
        parts.push(if stripped.is_empty() { "0" } else { stripped });
    }
    Some(parts.join("."))
}
