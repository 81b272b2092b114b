//! Addresses and prefixes as the API server reads them, canonical.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address; an IPv4 address mapped into IPv6 is that IPv4 address. `None` if it is none that a pod, a node or a
/// front end can have.
pub(super) fn unicast(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    let usable = match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_loopback() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    };
    usable.then_some(address)
}

/// A prefix as `netutils.ParseCIDRSloppy` of the API server reads it, which NetworkPolicies have been validated by
/// since there are any: host bits are cleared, and numbers may have leading zeros (they stay decimal). A prefix of
/// IPv4-mapped addresses is the IPv4 prefix, as Go's `IPNet.Contains` has it.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = decimal(length, 128)?;
    if address.contains(':') {
        let address = sloppy_v6(address)?;
        match address.to_ipv4_mapped() {
            Some(v4) if length >= 96 => Some(Ipv4Net::new(v4, u8::try_from(length - 96).ok()?).ok()?.trunc().into()),
            _ => Some(Ipv6Net::new(address, u8::try_from(length).ok()?).ok()?.trunc().into()),
        }
    } else {
        Some(Ipv4Net::new(sloppy_v4(address)?, u8::try_from(length).ok()?).ok()?.trunc().into())
    }
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?, 255)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// Leading zeros are only in question in a dotted tail.
fn sloppy_v6(text: &str) -> Option<Ipv6Addr> {
    match text.rsplit_once(':') {
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", sloppy_v4(tail)?).parse().ok(),
        _ => text.parse().ok(),
    }
}

/// Digits only; no sign, not empty.
fn decimal(text: &str, max: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(prefix(text).map(|prefix| prefix.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn prefixes_are_read_as_the_api_server_reads_them() {
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("10.1.2.3/8", Some("10.0.0.0/8"));
        check("010.0.0.08/08", Some("10.0.0.0/8"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("2001:DB8::1/32", Some("2001:db8::/32"));
        check("::/0", Some("::/0"));
        check("::ffff:10.1.2.3/104", Some("10.0.0.0/8"));
        check("::ffff:010.1.2.3/104", Some("10.0.0.0/8"));
        check("::ffff:a01:203/128", Some("10.1.2.3/32"));
        check("::ffff:0:0/96", Some("0.0.0.0/0"));
        check("::ffff:0:0/95", Some("::fffe:0:0/95"));
    }

    #[test]
    fn what_is_no_prefix_is_none() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "fe80::%eth0/64",
            "::/129",
            "g::/8",
            "a/8",
            "10.0.0.0/255.0.0.0",
            "999999999999.0.0.0/8",
            "::1.2.3/8",
            "٣.0.0.0/8",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn an_address_that_nobody_can_have_is_none() {
        for text in ["", "0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255", "10.0.0.1/32"]
        {
            assert_eq!(unicast(text), None, "{text}");
        }
        assert_eq!(unicast("::ffff:10.0.0.1"), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(unicast("::ffff:127.0.0.1"), None);
    }
}
