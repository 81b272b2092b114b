//! Which network namespaces have a process: one that has none is still being set up by whoever makes the pod.

use std::{collections::BTreeSet, fs, path::PathBuf};

use enforcer::{NetlinkError, veth::Interfaces};
use rustc_hash::FxHashSet;

/// The namespaces, by this one's ids for them, that some process in sight is in. In a container that doesn't see the
/// node's processes that is none.
pub(crate) fn namespaces(interfaces: &mut Interfaces) -> Result<BTreeSet<i32>, NetlinkError> {
    let mut seen = FxHashSet::<PathBuf>::default();
    let mut found = BTreeSet::new();
    // processes that end meanwhile, and those that may not be looked at, are as good as none
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(namespace) = fs::read_link(process.path().join("ns/net")) else { continue };
        if seen.insert(namespace) {
            found.extend(interfaces.namespace_of(pid)?);
        }
    }
    Ok(found)
}
