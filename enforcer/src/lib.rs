//! Loads the packet program, attaches it to the pods' veths, keeps its maps and reads what it reports. Knows nothing of
//! Kubernetes.
#![deny(unsafe_code)]

/// The eBPF object that this build carries.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice"));
