//! The `__sk_buff` that a test run takes: [`Context`].

/// What a packet's `__sk_buff` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The interface it is seen at.
    pub ifindex: u32,
    /// The interface it arrived by, 0 if the node made it.
    pub ingress_ifindex: u32,
    /// Segments of a GSO packet.
    pub gso_segs: u32,
    /// Bytes of payload in each.
    pub gso_size: u32,
    /// The first word of `cb`, which programs of one chain hand on to each other.
    pub cb: u32,
}

/// Size of the kernel's `struct __sk_buff`, and the offsets of what a test run may set in it (`linux/bpf.h`).
mod skb {
    pub(super) const SIZE: usize = 192;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const CB: usize = 48;
    pub(super) const GSO_SEGS: usize = 164;
    pub(super) const GSO_SIZE: usize = 176;
}

impl Context {
    /// As a test run takes it.
    #[must_use]
    pub fn bytes(self) -> [u8; 192] {
        let mut bytes = [0; skb::SIZE];
        for (offset, value) in [
            (skb::INGRESS_IFINDEX, self.ingress_ifindex),
            (skb::IFINDEX, self.ifindex),
            (skb::CB, self.cb),
            (skb::GSO_SEGS, self.gso_segs),
            (skb::GSO_SIZE, self.gso_size),
        ] {
            bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}
