//! Reads what the program wrote, without trusting its alignment. Entry point: [`event`].

use std::mem::offset_of;

use anyhow::{Result, bail};
use enforcer_abi::{Address, Event};

/// Reads an event out of the ring buffer's bytes.
pub(super) fn event(bytes: &[u8]) -> Result<Event> {
    if bytes.len() != size_of::<Event>() {
        bail!("an event of {} bytes, which should have {}", bytes.len(), size_of::<Event>());
    }
    Ok(Event {
        time: u64::from_ne_bytes(part(bytes, offset_of!(Event, time))),
        table: u64::from_ne_bytes(part(bytes, offset_of!(Event, table))),
        class: u64::from_ne_bytes(part(bytes, offset_of!(Event, class))),
        pod: Address(part(bytes, offset_of!(Event, pod))),
        remote: Address(part(bytes, offset_of!(Event, remote))),
        ifindex: u32::from_ne_bytes(part(bytes, offset_of!(Event, ifindex))),
        length: u32::from_ne_bytes(part(bytes, offset_of!(Event, length))),
        port_class: u32::from_ne_bytes(part(bytes, offset_of!(Event, port_class))),
        remote_port: u16::from_ne_bytes(part(bytes, offset_of!(Event, remote_port))),
        pod_port: u16::from_ne_bytes(part(bytes, offset_of!(Event, pod_port))),
        protocol: bytes[offset_of!(Event, protocol)],
        direction: bytes[offset_of!(Event, direction)],
        reason: bytes[offset_of!(Event, reason)],
        kind: bytes[offset_of!(Event, kind)],
        tcp_flags: bytes[offset_of!(Event, tcp_flags)],
        reserved: part(bytes, offset_of!(Event, reserved)),
    })
}

/// The `N` bytes from `at`.
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}
