//! One shape for both address families, so that every map has one kind of key.

/// An IPv4 or IPv6 address in network byte order. IPv4 is written as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), a
/// form that never appears on the wire: the program refuses to parse an IPv6 header that carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C, align(4))]
pub struct Address(pub [u8; 16]);

impl Address {
    /// `::`, which stands for 'none' where an address is optional.
    pub const NONE: Self = Self([0; 16]);

    /// What stands for every node's IPv4 address in the front end of a node port; never an end on the wire.
    pub const NODE_PORT_V4: Self = Self::from_v4([0; 4]);

    /// What stands for every node's IPv6 address in the front end of a node port.
    pub const NODE_PORT_V6: Self = Self::NONE;

    /// The number of prefix bits that the mapping puts before an IPv4 prefix.
    pub const V4_PREFIX_LEN: u32 = 96;

    /// From the four octets of an IPv4 address.
    #[must_use]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The address under which the node ports of a node with this address are found.
    #[must_use]
    pub const fn node_port(&self) -> Self {
        if self.is_v4() { Self::NODE_PORT_V4 } else { Self::NODE_PORT_V6 }
    }

    /// Whether it stands for an IPv4 address.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        core::net::Ipv6Addr::from(address.0).to_canonical()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        core::net::IpAddr::from(*self).serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        core::net::IpAddr::deserialize(deserializer).map(Self::from)
    }
}
