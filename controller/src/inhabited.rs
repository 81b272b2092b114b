//! Which network namespaces have a process, and whose: one that has none is still being set up by whoever makes the pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use enforcer::{NetlinkError, veth::Interfaces};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};
use rustc_hash::FxHashMap;

use crate::cgroup;

/// The processes in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhabitants {
    /// Whose they are.
    pub who: Who,
    /// When the first of them was started, since the boot; in hundredths of a second.
    pub started: Duration,
}

/// Whose processes are in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Those of the pod with this UID, and nobody else's as far as is seen.
    Pod(Arc<str>),
    /// Those of no pod.
    NoPod,
    /// Those of several pods, or of a pod and others: the pods' UIDs.
    Several(BTreeSet<Arc<str>>),
}

impl Who {
    /// The UIDs of the pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, several) = match self {
            Self::Pod(uid) => (Some(uid), None),
            Self::NoPod => (None, None),
            Self::Several(uids) => (None, Some(uids)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

/// The inhabitants of the namespaces that are `wanted`, by this one's ids for them. In a container that doesn't see the
/// node's processes there are none.
pub(crate) fn namespaces(
    interfaces: &mut Interfaces,
    wanted: &BTreeSet<i32>,
) -> Result<BTreeMap<i32, Inhabitants>, NetlinkError> {
    let mut ids = FxHashMap::<PathBuf, Option<i32>>::default();
    let mut found = BTreeMap::<i32, Inhabitants>::new();
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
        let Some(id) = id.filter(|id| wanted.contains(id)) else { continue };
        let pod = fs::read_to_string(process.path().join("cgroup")).ok().and_then(|groups| cgroup::pod_of(&groups));
        let who = pod.map_or(Who::NoPod, |uid| Who::Pod(uid.into()));
        let started = fs::read_to_string(process.path().join("stat")).ok().and_then(|stat| started(&stat));
        let started = started.unwrap_or(Duration::MAX);
        let there = found.entry(id).or_insert_with(|| Inhabitants { who: who.clone(), started });
        there.started = there.started.min(started);
        if there.who != who {
            there.who = Who::Several(there.who.pods().chain(who.pods()).cloned().collect());
        }
    }
    Ok(found)
}

/// The time since the boot, in which the start of a process is told.
pub(crate) fn since_boot() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); the second one is a name in parentheses that may hold anything.
fn started(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: u64 = rest.split(' ').nth(19)?.parse().ok()?;
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    Some(Duration::from_millis(ticks * 1000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process() {
        let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
        let stat = "4711 (a) b (c)) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 10";
        assert_eq!(started(stat), Some(Duration::from_millis(123_456 * 1000 / per_second)));
        assert_eq!(started("4711 (x"), None);
        let own = started(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let age = since_boot().unwrap() - own;
        assert!(age < since_boot().unwrap(), "{age:?}");
    }
}
