//! The test bed: a cluster's network on one machine. Pods, nodes and the fabric between them are network namespaces,
//! so no link of the machine itself is ever touched. Start at [`Fabric::create`], which makes [`Node`]s, which make
//! [`Pod`]s; then run [`Server`]s in pods and [`probe_all`] between them.
//!
//! Everything is a guard: dropping it removes what it made, also on a panic. SIGINT, SIGTERM and SIGHUP remove
//! everything that is left and end the process; what a killed process leaves is removed by the next one that starts.

pub mod agent;
pub mod bulk;
mod fabric;
mod namespace;
mod node;
mod pod;
mod probe;
mod process;
mod raw;
pub(crate) mod registry;
mod server;
pub mod services;
pub mod site;
mod stream;
mod tally;

pub use agent::Agent;
pub use fabric::{Fabric, OUTSIDE_V4, OUTSIDE_V6};
pub use namespace::Namespace;
pub use node::{Node, Wiring};
pub use pod::Pod;
pub use probe::{Answer, Outcome, Probe, Transport, probe, probe_all};
pub use process::Process;
pub use raw::RawSocket;
pub use registry::{Scratch, is_root};
pub use server::{Greeting, Server};
pub use site::Site;
pub use stream::Stream;
pub use tally::{Flows, Receiver, Sender, Tally};
