//! What the state needs of the kernel, so that everything above it can be tested without one.

use std::time::Duration;

use enforcer::{MapMemory, Upkeep};
use enforcer_abi::{Address, Counters, Op, PodEntry};

/// A write to the kernel failed; the sentence says which and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

impl Fault {
    /// From an error and its sources, as one sentence.
    pub fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Self(text)
    }
}

/// What hangs on an interface besides our programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Programs that see packets before ours do, in words.
    pub ahead: Vec<String>,
}

/// How full a kernel map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The map's name.
    pub map: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries that fit in.
    pub max: u32,
}

/// Events that the packet program did not send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Because of the rate limit.
    pub suppressed: u64,
    /// Because the ring buffer was full.
    pub lost: u64,
}

/// The kernel's side: programs on interfaces, and the maps that they read.
pub trait Datapath: Send {
    /// Puts the programs on an interface, or makes sure that they are there and foremost.
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, Fault>;
    /// Whether an interface with the programs can have no `ingress` qdisc any more.
    fn excludes_ingress_qdisc(&self) -> bool;
    /// Takes them off. An interface that is gone is fine.
    fn detach(&mut self, ifindex: u32) -> Result<(), Fault>;
    /// Carries these out in order; every one is tried. Returns those that failed.
    fn apply(&mut self, ops: &[Op]) -> Vec<(Op, Fault)>;
    /// Whether these could be written without waiting for a map to grow.
    fn has_room(&mut self, ops: &[Op]) -> bool;
    /// Lets maps grow for about as long as `budget`; `coming` is what is to be written next.
    fn maintain(&mut self, budget: Duration, coming: &[&[Op]]) -> Result<Upkeep, Fault>;
    /// Writes the entry of an interface, in one atomic update. The slot is the datapath's to give.
    fn put_pod(&mut self, entry: PodEntry) -> Result<(), Fault>;
    /// Removes it.
    fn delete_pod(&mut self, ifindex: u32) -> Result<(), Fault>;
    /// Sets the node's own addresses, and the interfaces whose packets from them are the node's own: exactly these.
    fn set_node(&mut self, addresses: &[Address], interfaces: &[u32]) -> Result<(), Fault>;
    /// Waits until no packet is being judged by what was there before the last writes: milliseconds.
    fn wait_for_readers(&mut self) -> Result<(), Fault>;
    /// All flows of these interfaces are judged again by their next packet.
    fn raise_epoch(&mut self, interfaces: &[u32]) -> Result<u64, Fault>;
    /// What an interface's packets were judged since its entry was made.
    fn counters(&mut self, ifindex: u32) -> Result<Option<Counters>, Fault>;
    /// How full the maps are.
    fn fills(&mut self) -> Vec<Fill>;
    /// What the maps take of the kernel's memory.
    fn memory(&mut self) -> Vec<MapMemory>;
    /// Counted since the maps were made.
    fn unsent(&mut self) -> Result<Unsent, Fault>;
}
