//! The names of the maps, which are the names of their pins, and of the programs.

/// Hash: `u32` (interface index) to [`crate::PodEntry`].
pub const PODS: &str = "PODS";
/// Hash: [`crate::Address`] to [`crate::PeerValue`].
pub const PEERS: &str = "PEERS";
/// LPM trie: [`crate::BlockKey`] to [`crate::ClassId`].
pub const BLOCKS: &str = "BLOCKS";
/// Hash: [`crate::PortKey`] to [`crate::PortValue`].
pub const PORTS: &str = "PORTS";
/// LPM trie: [`crate::PortRangeKey`] to [`crate::PortValue`].
pub const PORT_RANGES: &str = "PORT_RANGES";
/// Hash: [`crate::RowKey`] to [`crate::RowValue`].
pub const ROWS: &str = "ROWS";
/// Hash: [`crate::FrontEndKey`] to [`crate::FrontEndValue`].
pub const FRONT_ENDS: &str = "FRONT_ENDS";
/// LRU hash: [`crate::FlowKey`] to [`crate::FlowValue`], flows that were seen in both directions.
pub const FLOWS: &str = "FLOWS";
/// LRU hash: [`crate::FlowKey`] to [`crate::FlowValue`], flows that were seen in one direction.
pub const OPENINGS: &str = "OPENINGS";
/// LRU hash, read only: the `FLOWS` of the generation before, while a larger one replaces it.
pub const PREVIOUS_FLOWS: &str = "PREVIOUS_FLOWS";
/// LRU hash: [`crate::FragmentKey`] to [`crate::FragmentValue`].
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Array of [`crate::EPOCH_CELLS`] `u64`, by [`crate::epoch_cell`]: the epoch in which the flows of an interface have to
/// be judged.
pub const EPOCHS: &str = "EPOCHS";
/// Array, per CPU: [`crate::Counters`] by [`crate::PodEntry::slot`].
pub const COUNTERS: &str = "COUNTERS";
/// Array of one [`crate::EventBudget`], per CPU.
pub const EVENT_BUDGET: &str = "EVENT_BUDGET";
/// Ring buffer of [`crate::Event`].
pub const EVENTS: &str = "EVENTS";
/// Hash: [`crate::Address`] to `u32` (1), the node's own addresses.
pub const NODE_ADDRESSES: &str = "NODE_ADDRESSES";
/// Hash: `u32` (interface index) to `u32` (1), interfaces whose packets from the node's addresses are the node's own.
pub const NODE_INTERFACES: &str = "NODE_INTERFACES";
/// Hash: [`crate::Address`] to `u32` (1), all addresses of pods and nodes; filled only where the source check needs it.
pub const ENDPOINTS: &str = "ENDPOINTS";

/// The program for packets to the pod (host side's TC egress).
pub const TO_POD: &str = "sluice_to_pod";
/// The program for packets from the pod (host side's TC ingress).
pub const FROM_POD: &str = "sluice_from_pod";
/// The program that answers, by test run, how long a jiffy is: its packet data is overwritten by `bpf_jiffies64` and
/// `bpf_ktime_get_ns`, a host-order `u64` each.
pub const CLOCK: &str = "sluice_clock";
/// The read-only global of type [`crate::Settings`].
pub const SETTINGS: &str = "SETTINGS";
