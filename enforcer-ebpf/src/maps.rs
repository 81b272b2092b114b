//! The maps, under the names of `enforcer_abi::map`. The sizes here are for a small node; the loader sets its own.
//!
//! Reading a hash while user space writes it: the kernel gives a deleted element to the next insertion at once, under
//! the reader's eyes. So values carry their own key, and whoever reads one reads what it needs first and the key last;
//! elements of another key count as not computable.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use enforcer_abi::{
    Address, ClassId, Counters, EPOCH_CELLS, EventBudget, FlowKey, FlowValue, FragmentKey, FragmentValue, FrontEndKey,
    FrontEndValue, PeerValue, PodEntry, PortKey, PortValue, RowKey, RowValue, epoch_cell,
};

use crate::count::Counted;

#[map]
pub(crate) static PODS: Counted<HashMap<u32, PodEntry>> = Counted(HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static PEERS: Counted<HashMap<Address, PeerValue>> =
    Counted(HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC));
/// The key after its length is an [`Address`]: `enforcer_abi::BlockKey`.
#[map]
pub(crate) static BLOCKS: Counted<LpmTrie<Address, ClassId>> =
    Counted(LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static PORTS: Counted<HashMap<PortKey, PortValue>> =
    Counted(HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC));
/// The key after its length is table, protocol and port: `enforcer_abi::PortRangeKey`.
#[map]
pub(crate) static PORT_RANGES: Counted<LpmTrie<[u8; 12], PortValue>> =
    Counted(LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static ROWS: Counted<HashMap<RowKey, RowValue>> =
    Counted(HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static FRONT_ENDS: Counted<HashMap<FrontEndKey, FrontEndValue>> =
    Counted(HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static FLOWS: Counted<LruHashMap<FlowKey, FlowValue>> = Counted(LruHashMap::with_max_entries(131_072, 0));
#[map]
pub(crate) static OPENINGS: Counted<LruHashMap<FlowKey, FlowValue>> = Counted(LruHashMap::with_max_entries(32_768, 0));
#[map]
pub(crate) static PREVIOUS_FLOWS: Counted<LruHashMap<FlowKey, FlowValue>> =
    Counted(LruHashMap::with_max_entries(1024, 0));
#[map]
pub(crate) static FRAGMENTS: Counted<LruHashMap<FragmentKey, FragmentValue>> =
    Counted(LruHashMap::with_max_entries(8192, 0));
#[map]
static EPOCHS: Array<u64> = Array::with_max_entries(EPOCH_CELLS, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1024, 0);
#[map]
pub(crate) static EVENT_BUDGET: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static EVENTS: Counted<RingBuf> = Counted(RingBuf::with_byte_size(1 << 20, 0));
#[map]
pub(crate) static NODE_ADDRESSES: Counted<HashMap<Address, u32>> =
    Counted(HashMap::with_max_entries(256, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static NODE_INTERFACES: Counted<HashMap<u32, u32>> =
    Counted(HashMap::with_max_entries(64, BPF_F_NO_PREALLOC));
#[map]
pub(crate) static ENDPOINTS: Counted<HashMap<Address, u32>> =
    Counted(HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC));

/// The epoch of an interface.
#[inline(always)]
pub(crate) fn epoch(ifindex: u32) -> u64 {
    // SAFETY: a `u64` of an array, which never goes away; volatile, because user space writes it.
    EPOCHS.get_ptr(epoch_cell(ifindex)).map_or(0, |epoch| unsafe { core::ptr::read_volatile(epoch) })
}

/// `bpf_jiffies64`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no argument, no memory.
    unsafe { bpf_jiffies64() }
}

/// Reads a field afresh: of a map value, because another CPU may be writing it; of a packet, so that nothing is known of
/// it from before.
macro_rules! field {
    ($value:expr, $($field:ident).+ $([$index:literal])?) => {
        // SAFETY: `$value` is a reference, or points to a map value that a look-up has just returned and the verifier has
        // checked.
        unsafe { core::ptr::read_volatile(&raw const (*$value).$($field).+ $([$index])?) }
    };
}
pub(crate) use field;
