//! Programs that `cargo xtask bench prog` measures beside the real one: an empty one, one for each bare primitive, and
//! the driver that puts another key into the packet before each of them. Never attached to anything.
//!
//! A test run repeats one packet, which would measure one hot key. So the driver is what is run: it writes the next
//! remote address and port into the packet, which stays as it is left between repetitions, and calls the program to be
//! measured. What the driver itself costs is measured with the empty program and subtracted.
#![no_std]
#![no_main]

mod runtime;

use core::ptr::{read_unaligned, write_unaligned};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::{classifier, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, ProgramArray, RingBuf, lpm_trie::Key},
    programs::TcContext,
};
use enforcer_abi::{Address, ClassId, Event, FlowKey, FlowValue, PeerValue};

/// The program to be measured.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// Which keys the driver writes: see [`Plan`].
#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);
/// As `PEERS`.
#[map]
static BARE_HASH: HashMap<Address, PeerValue> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);
/// As `BLOCKS`.
#[map]
static BARE_LPM: LpmTrie<Address, ClassId> = LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// As `FLOWS`.
#[map]
static BARE_LRU: LruHashMap<FlowKey, FlowValue> = LruHashMap::with_max_entries(131_072, 0);
/// As `OPENINGS`.
#[map]
static BARE_OPENINGS: LruHashMap<FlowKey, FlowValue> = LruHashMap::with_max_entries(32_768, 0);
/// As `EVENTS`.
#[map]
static BARE_RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Value of `PLAN`: key number `i` is the address `first + (i % addresses) * step` and the port `1024 + i / addresses`.
/// The order of the fields is known to `e2e`'s bench.
#[repr(C)]
struct Plan {
    /// How many keys there are.
    keys: u64,
    /// How many addresses they spread over.
    addresses: u64,
    /// The last 32 bits of the first address.
    first: u64,
    /// From one address to the next.
    step: u64,
    /// 0: keys at random; otherwise one after the other in steps of this, which has no divisor in common with `keys`.
    stride: u64,
}

/// What no program of a chain answers: go on with the next one.
const NEXT: i32 = -1;

/// A frame's ether type, in its own byte order.
const IPV4: u16 = 0x0800u16.to_be();

#[classifier]
pub(crate) fn bench_drive(mut context: TcContext) -> i32 {
    let Some(plan) = PLAN.get(0) else { return 0 };
    // a division by zero would be a panic, whose code the verifier refuses
    if plan.keys == 0 || plan.addresses == 0 {
        return 0;
    }
    let sequence = context.cb()[0].wrapping_add(1);
    context.cb_mut()[0] = sequence;
    let number = match plan.stride {
        0 => u64::from(mix(sequence)),
        stride => u64::from(sequence).wrapping_mul(stride),
    };
    let index = number % plan.keys;
    let address = (plan.first.wrapping_add((index % plan.addresses).wrapping_mul(plan.step)) & 0xffff_ffff) as u32;
    let port = ((1024 + index / plan.addresses) & 0xffff) as u16;
    let (start, end) = (context.data(), context.data_end());
    if start + 58 > end {
        return 0;
    }
    // SAFETY: all offsets are below 58, which is within the packet.
    unsafe {
        let (address_at, port_at) =
            if read_unaligned((start + 12) as *const u16) == IPV4 { (26, 34) } else { (34, 54) };
        write_unaligned((start + address_at) as *mut u32, address.to_be());
        write_unaligned((start + port_at) as *mut u16, port.to_be());
        TARGET.tail_call(&context, 0);
    }
    0
}

#[classifier]
pub(crate) fn bench_empty(_context: TcContext) -> i32 {
    NEXT
}

#[classifier]
pub(crate) fn bench_parse(context: TcContext) -> i32 {
    match parse(&context) {
        // what can't be known before, so that nothing of the key is left out
        Some(key) if key.remote.0[15] ^ key.remote.0[0] == key.protocol && key.remote_port == key.pod_port => 0,
        Some(_) => NEXT,
        None => 0,
    }
}

#[classifier]
pub(crate) fn bench_hash(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    // SAFETY: nobody writes the map while the bench runs.
    match unsafe { BARE_HASH.get(key.remote) } {
        Some(peer) if peer.class != 0 => NEXT,
        _ => 0,
    }
}

#[classifier]
pub(crate) fn bench_lpm(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    match BARE_LPM.get(Key::new(128, key.remote)) {
        Some(class) if *class != 0 => NEXT,
        _ => 0,
    }
}

#[classifier]
pub(crate) fn bench_lru(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    // SAFETY: nobody writes the map while the bench runs.
    match unsafe { BARE_LRU.get(key) } {
        Some(flow) if flow.reason == 0 => NEXT,
        _ => 0,
    }
}

#[classifier]
pub(crate) fn bench_no_flow(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    if is_new(BARE_LRU.get_ptr(key)) { NEXT } else { 0 }
}

#[classifier]
pub(crate) fn bench_no_opening(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    if is_new(BARE_OPENINGS.get_ptr(key)) { NEXT } else { 0 }
}

#[classifier]
pub(crate) fn bench_lru_insert(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    let value = FlowValue { pod: key.remote, epoch: 0, last_seen: 0, reason: 0, opener: 0, state: 0, fins: 0 };
    match BARE_OPENINGS.insert(key, value, 0) {
        Ok(()) => NEXT,
        Err(_) => 0,
    }
}

#[classifier]
pub(crate) fn bench_ring(context: TcContext) -> i32 {
    let Some(key) = parse(&context) else { return 0 };
    let Some(mut entry) = BARE_RING.reserve::<Event>(0) else { return 0 };
    entry.write(Event {
        time: 0,
        table: 0,
        class: 0,
        pod: key.remote,
        remote: key.remote,
        ifindex: key.ifindex,
        length: 0,
        port_class: 0,
        remote_port: key.remote_port,
        pod_port: key.pod_port,
        protocol: key.protocol,
        direction: 0,
        reason: 0,
        kind: 0,
        tcp_flags: 0,
        reserved: [0; 3],
    });
    entry.submit(0);
    NEXT
}

/// Whether there is no flow. Where there are few addresses, keys come again before all of them are evicted.
#[inline(always)]
fn is_new(flow: Option<*const FlowValue>) -> bool {
    // SAFETY: the look-up has just returned it; nobody else writes the map while the bench runs.
    flow.is_none_or(|flow| unsafe { (*flow).fins } == 0)
}

/// The least that finds a flow's key in a packet without options and extensions.
#[inline(always)]
fn parse(context: &TcContext) -> Option<FlowKey> {
    let (start, end) = (context.data(), context.data_end());
    if start + 58 > end {
        return None;
    }
    // SAFETY: all offsets are below 58, which is within the packet; the context is the kernel's.
    unsafe {
        let v4 = read_unaligned((start + 12) as *const u16) == IPV4;
        let (protocol_at, ports_at) = if v4 { (23, 34) } else { (20, 54) };
        let remote = if v4 {
            Address::from_v4(read_unaligned((start + 26) as *const [u8; 4]))
        } else {
            Address(read_unaligned((start + 22) as *const [u8; 16]))
        };
        Some(FlowKey {
            remote,
            ifindex: (*context.skb.skb).ifindex,
            remote_port: u16::from_be(read_unaligned((start + ports_at) as *const u16)),
            pod_port: u16::from_be(read_unaligned((start + ports_at + 2) as *const u16)),
            protocol: read_unaligned((start + protocol_at) as *const u8),
            reserved: [0; 3],
        })
    }
}

/// A number's bits well mixed (the finalizer of MurmurHash3), so that consecutive numbers are as good as random.
#[inline(always)]
const fn mix(number: u32) -> u32 {
    let mut bits = number;
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x85eb_ca6b);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
}
