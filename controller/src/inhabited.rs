//! Which network namespaces have a process, and whose: one that has none is still being set up by whoever makes the pod.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::PathBuf,
    sync::Arc,
};

use enforcer::{NetlinkError, veth::Interfaces};
use rustc_hash::FxHashMap;

use crate::cgroup;

/// Who is in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inhabitants {
    /// Processes of the pod with this UID, and nobody else as far as is seen.
    Pod(Arc<str>),
    /// Processes of no pod, or of several.
    Others,
}

/// The namespaces, by this one's ids for them, that some process in sight is in. In a container that doesn't see the
/// node's processes that is none.
pub(crate) fn namespaces(interfaces: &mut Interfaces) -> Result<BTreeMap<i32, Inhabitants>, NetlinkError> {
    let mut ids = FxHashMap::<PathBuf, Option<i32>>::default();
    let mut found = BTreeMap::new();
    // processes that end meanwhile, and those that may not be looked at, are as good as none
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(namespace) = fs::read_link(process.path().join("ns/net")) else { continue };
        let id = match ids.get(&namespace) {
            Some(id) => *id,
            None => {
                let id = interfaces.namespace_of(pid)?;
                ids.insert(namespace, id);
                id
            }
        };
        let Some(id) = id else { continue };
        let pod = fs::read_to_string(process.path().join("cgroup")).ok().and_then(|groups| cgroup::pod_of(&groups));
        let who = pod.map_or(Inhabitants::Others, |uid| Inhabitants::Pod(uid.into()));
        match found.entry(id) {
            Entry::Vacant(entry) => _ = entry.insert(who),
            Entry::Occupied(mut entry) if *entry.get() != who => _ = entry.insert(Inhabitants::Others),
            Entry::Occupied(_) => {}
        }
    }
    Ok(found)
}
