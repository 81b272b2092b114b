//! Which network namespaces have a process, and whose: one that has none is still being set up by whoever makes the pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use enforcer::{NetlinkError, veth::Interfaces};
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};
use rustc_hash::FxHashMap;

use crate::cgroup::Node;

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
    /// Some whose control group can't be read, or tells of several pods: they may be a pod's.
    Unknown,
}

impl Who {
    /// The UIDs of the pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, several) = match self {
            Self::Pod(uid) => (Some(uid), None),
            Self::NoPod | Self::Unknown => (None, None),
            Self::Several(uids) => (None, Some(uids)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    /// Whose processes are there, if the one's are and the other's.
    fn and(self, other: Self) -> Self {
        if self == other {
            return self;
        }
        let pods: BTreeSet<Arc<str>> = self.pods().chain(other.pods()).cloned().collect();
        if pods.is_empty() { Self::Unknown } else { Self::Several(pods) }
    }
}

/// The inhabitants of the namespaces that are `wanted`, by this one's ids for them. In a container that doesn't see the
/// node's processes there are none.
pub(crate) fn namespaces(
    interfaces: &mut Interfaces,
    wanted: &BTreeSet<i32>,
) -> Result<BTreeMap<i32, Inhabitants>, NetlinkError> {
    let node = Node::read();
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
        let who = match (&node, fs::read_to_string(process.path().join("cgroup"))) {
            (_, Err(error)) if is_over(&error) => continue,
            (Ok(node), Ok(groups)) => node.owner(&groups),
            _ => Who::Unknown,
        };
        let started = fs::read_to_string(process.path().join("stat")).ok().and_then(|stat| started(&stat));
        let started = started.unwrap_or(Duration::MAX);
        let all = match found.remove(&id) {
            Some(there) => Inhabitants { who: there.who.and(who), started: there.started.min(started) },
            None => Inhabitants { who, started },
        };
        found.insert(id, all);
    }
    Ok(found)
}

/// Whether the process has ended: before its file was opened, or since then.
fn is_over(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
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
    fn whose_several_processes_are() {
        let pod = |uid: &str| Who::Pod(uid.into());
        let several = |uids: &[&str]| Who::Several(uids.iter().map(|uid| (*uid).into()).collect());
        assert_eq!(pod("a").and(pod("a")), pod("a"));
        assert_eq!(pod("a").and(pod("b")).and(Who::NoPod), several(&["a", "b"]));
        assert_eq!(Who::NoPod.and(pod("a")), several(&["a"]));
        assert_eq!(pod("a").and(Who::Unknown), several(&["a"]), "they may be another pod's");
        assert_eq!(Who::NoPod.and(Who::NoPod), Who::NoPod);
        assert_eq!(Who::NoPod.and(Who::Unknown), Who::Unknown, "they may be a pod's after all");
    }

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
