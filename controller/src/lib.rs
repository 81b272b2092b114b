//! The agent of a node: follows a source of objects, compiles them, applies the tables, binds interfaces to pods, and
//! tells how it goes. The binary `sluice-agent` is [`agent::run`] with a command line.
//!
//! [`source`] tells what there is; [`state`] is the one task that owns the compiler and the kernel's tables; [`bind`]
//! decides which interface is which pod; [`links`] shows what the kernel shows; [`report`], [`metrics`] and [`http`] are
//! how it is seen from outside; [`engines`] tells of others that enforce policies here.
#![forbid(unsafe_code)]

pub mod agent;
pub mod bind;
mod cgroup;
pub mod cli;
pub mod cni;
mod conflist;
pub mod engines;
pub mod http;
pub mod inhabited;
pub mod links;
#[cfg(test)]
mod manifests;
pub mod metrics;
pub mod notice;
mod readable;
pub mod report;
pub mod socket;
pub mod source;
pub mod state;
pub mod timeouts;
#[cfg(test)]
mod wall_clock;
