//! What needs a kernel: root, a BPF file system (mounted if it isn't) and `ip` and `tc`. Every test lives in network
//! namespaces and a pin folder of its own, which end with it however it ends.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

mod attach;
mod clock;
mod grow;
mod lifecycle;
mod support;
mod tables;
mod veths;
