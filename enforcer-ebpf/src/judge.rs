//! The pod's tables: [`judge`] answers for one direction of a flow, by at most five look-ups.

use aya_ebpf::maps::lpm_trie::Key;
use enforcer_abi::{
    Address, CHUNK_BITS, ClassId, Direction, EVERYBODY, FrontEndKey, FrontEndState, Openness, PeerFlags, PodEntry,
    PodFlags, PortKey, PortRangeKey, Reason, RowKey, RowValue, TableId, protocol,
};

use crate::{
    address::{is_still, node_port, same},
    ends::Ends,
    maps::{BLOCKS, FRONT_ENDS, PEERS, PORT_RANGES, PORTS, ROWS, field},
    report::Trace,
    verifier::{Small, forget, forget_small, low, opaque},
};

/// What is asked of the tables.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Question {
    /// May this connection be opened?
    New,
    /// May this connection, which exists, go on? A front end of which one back end is open is enough.
    Established,
    /// Is the remote open on every port of the protocol?
    AllPorts,
    /// May this connection be opened, by a rule that names the remote? What is open to everybody doesn't count.
    Named,
}

// SAFETY: `repr(u8)`.
unsafe impl Small for Question {}

const OPEN: u32 = FrontEndState::Open as u32;
const MIXED: u32 = FrontEndState::Mixed as u32;

/// The bits of `flags` for a direction are neighbours, ingress first.
const _: () = {
    assert!(PodFlags::EGRESS_ISOLATED == PodFlags::INGRESS_ISOLATED << 1);
    assert!(PodFlags::EGRESS_CLOSED == PodFlags::INGRESS_CLOSED << 1);
    assert!(PodFlags::EGRESS_RANGES == PodFlags::INGRESS_RANGES << 1);
};

/// Whether a policy isolates the pod in this direction.
#[inline(always)]
pub(crate) fn is_isolated(flags: u32, direction: Direction) -> bool {
    flags & (PodFlags::INGRESS_ISOLATED << direction as u32) != 0
}

/// Whether the pod's table of this direction could not be programmed.
#[inline(always)]
pub(crate) fn is_closed(flags: u32, direction: Direction) -> bool {
    flags & (PodFlags::INGRESS_CLOSED << direction as u32) != 0
}

/// Judges a packet that goes in `direction` between these ends. `Rule` and `NotIsolated` pass.
#[inline(never)]
pub(crate) fn judge(
    pod: *const PodEntry,
    ends: &Ends,
    direction: Direction,
    question: Question,
    trace: &mut Trace,
) -> Reason {
    forget_small(ask(pod, ends, direction, question, trace), u64::from(ends.key.ifindex))
}

#[inline(always)]
fn ask(pod: *const PodEntry, ends: &Ends, direction: Direction, question: Question, trace: &mut Trace) -> Reason {
    let flags = field!(pod, flags);
    let (table, everybody) = match direction {
        Direction::Ingress => (field!(pod, ingress_table), field!(pod, ingress_everybody)),
        Direction::Egress => (field!(pod, egress_table), field!(pod, egress_everybody)),
    };
    if is_closed(flags, direction) || field!(pod, ifindex) != ends.key.ifindex {
        return Reason::Closed;
    }
    if !is_isolated(flags, direction) {
        return Reason::NotIsolated;
    }
    if is_itself(pod, ends) {
        return Reason::Rule;
    }
    trace.table = table;
    trace.port_class = 0;
    let Some((class, peer_flags)) = classify(&ends.key.remote) else { return Reason::NoRule };
    trace.class = class;
    let protocol = ends.key.protocol;
    let port = match direction {
        Direction::Ingress => ends.key.pod_port,
        Direction::Egress => ends.key.remote_port,
    };
    if matches!(direction, Direction::Egress) && peer_flags != 0 && has_ports(protocol) {
        if matches!(question, Question::AllPorts) {
            return Reason::NoRule;
        }
        let established = matches!(question, Question::Established);
        let key = FrontEndKey { address: ends.key.remote, ..front_end_key(table, port, protocol) };
        if let Some(reason) = front_end(key, peer_flags, established) {
            return reason;
        }
    }
    let open = if matches!(question, Question::AllPorts) {
        row_openness(table, class).unwrap_or(everybody) & Openness::all_ports_bit(protocol) != 0
    } else {
        let mut answer = PortClass { class: 0, everybody: everybody & Openness::UNNAMED != 0 };
        if has_ports(protocol) {
            let ranges = flags & (PodFlags::INGRESS_RANGES << direction as u32) != 0;
            let key = port_key(table, port, protocol);
            if !find_port_class(&key, ranges, &mut answer) {
                return Reason::NoRule;
            }
        }
        let port_class = low(forget(u64::from(answer.class), class));
        trace.port_class = port_class;
        let everybody = forget_small(answer.everybody, class);
        let bit = row_bit(table, class, port_class).unwrap_or(everybody);
        bit && (matches!(question, Question::New | Question::Established) || !everybody)
    };
    if open { Reason::Rule } else { Reason::NoRule }
}

/// A key from words: the compiler would call `memset` for the reserved bytes.
#[inline(always)]
fn port_key(table: TableId, port: u16, protocol: u8) -> PortKey {
    // SAFETY: 16 bytes of integers, without padding.
    unsafe { core::mem::transmute::<[u64; 2], PortKey>([table, port_word(port, protocol)]) }
}

/// The same for a front end without an address.
#[inline(always)]
fn front_end_key(table: TableId, port: u16, protocol: u8) -> FrontEndKey {
    let zero = opaque(0);
    // SAFETY: 32 bytes of integers, without padding.
    unsafe { core::mem::transmute::<[u64; 4], FrontEndKey>([table, zero, zero, port_word(port, protocol)]) }
}

/// The last word of both: port, protocol, reserved.
#[inline(always)]
fn port_word(port: u16, protocol: u8) -> u64 {
    let [high, low] = port.to_ne_bytes();
    u64::from_ne_bytes([high, low, protocol, 0, 0, 0, 0, 0])
}

/// Whether both ends are the pod, which can't be cut off from itself. It sees itself through a Service.
#[inline(always)]
fn is_itself(pod: *const PodEntry, ends: &Ends) -> bool {
    let remote = &ends.key.remote;
    // SAFETY: `pod` points into an element of `PODS`, as the caller has checked.
    same(remote, &ends.pod)
        && unsafe { is_still(&raw const (*pod).v4, remote) || is_still(&raw const (*pod).v6, remote) }
}

#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

/// The remote's class and its [`PeerFlags`]; `None` if the entry was taken away while it was read.
#[inline(always)]
fn classify(remote: &Address) -> Option<(ClassId, u32)> {
    if let Some(peer) = PEERS.get_ptr(remote) {
        let (class, flags) = (field!(peer, class), field!(peer, flags));
        // SAFETY: the look-up has just returned it.
        return if unsafe { is_still(&raw const (*peer).address, remote) } { Some((class, flags)) } else { None };
    }
    let class = BLOCKS.get(&Key::new(u128::BITS, *remote)).map_or(EVERYBODY, |class| *class);
    Some((class, 0))
}

/// What the Services say about an address that is a front end of one, or a node's; `None` if they say nothing.
#[inline(always)]
fn front_end(mut key: FrontEndKey, peer_flags: u32, established: bool) -> Option<Reason> {
    if peer_flags & PeerFlags::FRONT_END != 0 {
        if let Some(reason) = front_end_state(&key, established) {
            return Some(reason);
        }
        if peer_flags & PeerFlags::CLUSTER_IP != 0 {
            return Some(Reason::FrontEndClosed);
        }
    }
    if peer_flags & PeerFlags::NODE != 0 {
        key.address = node_port(&key.address);
        return front_end_state(&key, established);
    }
    None
}

#[inline(always)]
fn front_end_state(key: &FrontEndKey, established: bool) -> Option<Reason> {
    let value = FRONT_ENDS.get_ptr(key)?;
    let state = field!(value, state);
    let is_current = field!(value, key.table) == key.table
        && field!(value, key.port) == key.port
        && field!(value, key.protocol) == key.protocol
        // SAFETY: the look-up has just returned it.
        && unsafe { is_still(&raw const (*value).key.address, &key.address) };
    Some(match state {
        OPEN if is_current => Reason::Rule,
        MIXED if is_current && established => Reason::Rule,
        MIXED if is_current => Reason::FrontEndMixed,
        _ => Reason::FrontEndClosed,
    })
}

struct PortClass {
    class: u32,
    /// Whether it is open to peers without a row.
    everybody: bool,
}

/// Writes the port's class, if the table names it. False if the entry was taken away while it was read.
#[inline(always)]
fn find_port_class(key: &PortKey, ranges: bool, answer: &mut PortClass) -> bool {
    if let Some(value) = PORTS.get_ptr(key) {
        let (class, everybody) = (field!(value, class), field!(value, everybody));
        *answer = PortClass { class, everybody: everybody != 0 };
        return field!(value, key.table) == key.table
            && field!(value, key.port) == key.port
            && field!(value, key.protocol) == key.protocol;
    }
    if ranges {
        let range = PortRangeKey::new(key.table, key.protocol, key.port, u16::BITS);
        // SAFETY: `PortRangeKey` is a length and 12 bytes, and so is the map's key; its alignment is the higher one.
        let range = unsafe { &*(&raw const range).cast::<Key<[u8; 12]>>() };
        if let Some(value) = PORT_RANGES.get(range) {
            let value = core::ptr::from_ref(value);
            let (class, everybody) = (field!(value, class), field!(value, everybody));
            *answer = PortClass { class, everybody: everybody != 0 };
            return field!(value, key.table) == key.table && field!(value, key.protocol) == key.protocol;
        }
    }
    true
}

/// The bit of a port class in the class's row; `None` if it has no row.
#[inline(always)]
fn row_bit(table: TableId, class: ClassId, port_class: u32) -> Option<bool> {
    if class == EVERYBODY {
        return None;
    }
    let key = RowKey { table, class, chunk: port_class / CHUNK_BITS, reserved: 0 };
    let row = ROWS.get_ptr(&key)?;
    let bits = if port_class & 64 == 0 { field!(row, bits[0]) } else { field!(row, bits[1]) };
    Some(is_row(row, &key) && (bits >> (port_class & 63)) & 1 != 0)
}

/// [`Openness`] of the class; `None` if it has no row.
#[inline(always)]
fn row_openness(table: TableId, class: ClassId) -> Option<u8> {
    if class == EVERYBODY {
        return None;
    }
    let key = RowKey { table, class, chunk: 0, reserved: 0 };
    let row = ROWS.get_ptr(&key)?;
    let open = field!(row, open);
    Some(if is_row(row, &key) { open } else { 0 })
}

/// Whether the row is still this key's.
#[inline(always)]
fn is_row(row: *const RowValue, key: &RowKey) -> bool {
    field!(row, key.table) == key.table && field!(row, key.class) == key.class && field!(row, key.chunk) == key.chunk
}
