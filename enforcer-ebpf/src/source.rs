//! Which source addresses a pod may use: [`may_use`].

use enforcer_abi::{Address, PodEntry, PodFlags, SourceCheck, protocol};

use crate::{
    address::{is_still, is_v4, same, words},
    maps::{ENDPOINTS, field},
    packet::Packet,
    settings::setting,
    verifier::forget_small,
};

const STRICT: u32 = SourceCheck::Strict as u32;
const OFF: u32 = SourceCheck::Off as u32;

/// `0.0.0.0`, which a host has before DHCP gives it an address (RFC 2131 section 4.1).
const UNSPECIFIED_V4: Address = Address::from_v4([0; 4]);
/// The ports of DHCP's client and server.
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// Whether the pod may send from the address at its end of this packet. Asked of packets to the pod as well: only
/// flows whose replies may be sent are remembered, so that a flow's address needs no second check.
#[inline(never)]
pub(crate) fn may_use(pod: *const PodEntry, packet: &Packet) -> bool {
    forget_small(is_allowed(pod, packet), packet.now)
}

#[inline(always)]
fn is_allowed(pod: *const PodEntry, packet: &Packet) -> bool {
    let check = setting!(source_check);
    if check == OFF || is_own(pod, packet) {
        return true;
    }
    let forwards = field!(pod, flags) & PodFlags::FORWARDS != 0;
    (check != STRICT || forwards) && ENDPOINTS.get_ptr(&packet.ends.pod).is_none()
}

#[inline(always)]
fn is_own(pod: *const PodEntry, packet: &Packet) -> bool {
    let address = &packet.ends.pod;
    if is_v4(address) {
        // SAFETY: `pod` points into an element of `PODS`, as the caller has checked.
        return unsafe { is_still(&raw const (*pod).v4, address) } || is_dhcp(packet);
    }
    let [first, ..] = words(address);
    let is_link_local = u32::from_be(first) & 0xffc0_0000 == 0xfe80_0000;
    // SAFETY: as above.
    is_link_local || same(address, &Address::NONE) || unsafe { is_still(&raw const (*pod).v6, address) }
}

#[inline(always)]
fn is_dhcp(packet: &Packet) -> bool {
    let key = &packet.ends.key;
    same(&packet.ends.pod, &UNSPECIFIED_V4)
        && key.protocol == protocol::UDP
        && key.pod_port == DHCP_CLIENT
        && key.remote_port == DHCP_SERVER
}
