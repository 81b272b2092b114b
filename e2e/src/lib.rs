//! Scenarios on a test bed of network namespaces, and the runners of the policy cases.
#![forbid(unsafe_code)]

pub mod bed;
pub mod connections;
pub mod figures;
pub mod http;
pub mod kind;
pub mod lab;
pub mod moment;
pub mod packets;
pub mod portable;
pub mod report;
pub mod wait;
