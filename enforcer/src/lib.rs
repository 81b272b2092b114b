//! Loads the packet program, attaches it to the pods' veths, keeps its maps and reads what it reports. Knows nothing of
//! Kubernetes.
//!
//! [`Enforcer`] is the kernel's half of Sluice, with one owner; [`veth`] says which interface leads to which
//! addresses; [`Clock`] turns times into the kernel's. All calls are synchronous and short; what can be waited for
//! ([`Events`], [`veth::Watcher`]) has a descriptor to poll.
#![deny(unsafe_code)]

mod attach;
mod clock;
mod enforcer;
mod epochs;
mod events;
mod grow;
mod netlink;
mod object;
mod open;
mod pins;
mod plan;
pub mod preflight;
mod reader;
mod slots;
mod survey;
mod sys;
mod table;
mod tables;
mod unattended;
pub mod veth;

pub use attach::{Ahead, AttachError, Attached, Attachment, Mode};
pub use clock::{Clock, ClockError, monotonic};
pub use enforcer::{ApplyError, ApplyFailure, Enforcer, Flow};
pub use events::{Events, EventsError, Losses, Unsent};
pub use grow::{GrowError, Upkeep};
pub use netlink::{Link, NetlinkError};
pub use object::LoadError;
pub use open::{Hooks, OpenError, Options};
pub use pins::PinsError;
pub use plan::MapSizes;
pub use reader::Reader;
pub use survey::{OtherProgram, Survey, nft_names};
pub use table::Fill;
pub use tables::{Contents, MapMemory, TableError};
pub use unattended::{Unattended, UnattendedError, is_attached};

/// The eBPF object that this build carries.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice"));

/// The same programs, which count in their map `OPERATIONS` what they ask of the others. For tests.
pub static COUNTED_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice-counted"));

/// The object of the programs that `cargo xtask bench prog` measures the packet program against.
pub static BENCH_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice-bench"));
