//! The pod that a process belongs to, by its control group. Kubelets name a pod's group after its UID, whatever their
//! driver: `/kubepods/besteffort/podUID/CONTAINER` (cgroupfs), `kubepods-besteffort-podUID.slice` with underscores
//! (systemd), in version 1 and 2 alike. Entry point: [`Node::owner`].

use std::{fs, io};

use crate::inhabited::Who;

/// The length of a static pod's UID.
const STATIC: usize = 32;

/// Where the node itself is in the hierarchies. It may be a container of a pod of another cluster, whose UID is then in
/// the path of each process.
#[derive(Debug, Default)]
pub(crate) struct Node {
    groups: String,
}

impl Node {
    /// That of the first process that this one sees. Where it sees the node's processes, that is the node's own.
    pub(crate) fn read() -> io::Result<Self> {
        Ok(Self { groups: fs::read_to_string("/proc/1/cgroup")? })
    }

    /// Whose a process is, from the content of its `/proc/PID/cgroup`. Hierarchies of version 1 that don't agree say
    /// nothing. A static pod's UID is the hash of its file.
    pub(crate) fn owner(&self, groups: &str) -> Who {
        let (mut found, mut is_readable) = (None::<String>, false);
        for (hierarchy, path) in groups.lines().filter_map(hierarchy) {
            is_readable = true;
            let node = self.groups.lines().filter_map(self::hierarchy).find(|(other, _)| *other == hierarchy);
            let mut node = node.map_or("", |(_, path)| path).split('/');
            // Of what comes below the node's the outermost: below its own group a pod may name others as it likes.
            let below = path.split('/').skip_while(|component| node.next() == Some(*component));
            match (&found, below.filter_map(uid).next()) {
                (Some(other), Some(uid)) if *other != uid => return Who::Unknown,
                (None, uid) => found = uid,
                _ => {}
            }
        }
        match found {
            Some(uid) => Who::Pod(uid.into()),
            None if is_readable => Who::NoPod,
            None => Who::Unknown,
        }
    }
}

/// What tells a hierarchy from others, and the path in it: hierarchy:controllers:path (cgroups(7)); a path may hold colons.
fn hierarchy(line: &str) -> Option<(&str, &str)> {
    let colon = line.match_indices(':').nth(1)?.0;
    Some((&line[..colon], &line[colon + 1..]))
}

/// Whether a UID is a static pod's: the hash of its file.
pub(crate) fn is_static(uid: &str) -> bool {
    uid.len() == STATIC
}

/// The UID that one component of a path names.
fn uid(component: &str) -> Option<String> {
    let name = match component.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => component.strip_prefix("pod")?,
    };
    let uid = name.replace('_', "-");
    let is_uid = uid.len() == 36 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let is_hash = is_static(&uid) && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_uid || is_hash).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c9d6d1f-2b11-4e5e-8f3a-4a8c37a70f0e";

    fn pod(uid: &str) -> Who {
        Who::Pod(uid.into())
    }

    #[track_caller]
    fn check(groups: &str, expected: &Who) {
        check_within("0::/init.scope\n", groups, expected);
    }

    #[track_caller]
    fn check_within(node: &str, groups: &str, expected: &Who) {
        assert_eq!(Node { groups: node.into() }.owner(groups), *expected, "{groups} within {node}");
    }

    #[test]
    fn both_drivers_and_versions() {
        let slice = UID.replace('-', "_");
        check(&format!("0::/kubepods/besteffort/pod{UID}/4711"), &pod(UID));
        check(&format!("0::/../../pod{UID}/4711"), &pod(UID));
        check(&format!("3:cpu,cpuacct:/lab/n1/kubepods/pod{UID}/1\n2:pids:/lab/n1/kubepods/pod{UID}/1\n"), &pod(UID));
        let systemd = "0::/kubepods.slice/kubepods-burstable.slice";
        check(&format!("{systemd}/kubepods-burstable-pod{slice}.slice/cri-containerd-1.scope"), &pod(UID));
        check(&format!("{systemd}/kubepods-pod{slice}.slice/cri-o:1"), &pod(UID));
        let hash = "0f3be7e0f2a1c9d8b7a6f5e4d3c2b1a0";
        check(&format!("0::/kubepods/burstable/pod{hash}/1"), &pod(hash));
    }

    #[test]
    fn what_is_no_pod() {
        check("0::/", &Who::NoPod);
        check("0::/system.slice/containerd.service", &Who::NoPod);
        check("0::/kubepods/besteffort/podman/1", &Who::NoPod);
        check("0::/user.slice/user-pod.slice", &Who::NoPod);
    }

    #[test]
    fn what_cannot_be_read_may_be_anybodys() {
        check("", &Who::Unknown);
        check("garbage", &Who::Unknown);
    }

    #[test]
    fn hierarchies_that_disagree_say_nothing() {
        let other = UID.replace('0', "1");
        check(&format!("2:cpu:/kubepods/pod{UID}/1\n1:pids:/kubepods/pod{other}/1"), &Who::Unknown);
        check(&format!("0::/kubepods/pod{UID}/1/pod{other}"), &pod(UID));
        // In one hierarchy a pod's, in another none's: the container runtime fills them one after the other.
        check(&format!("2:cpu:/kubepods/pod{UID}/1\n1:pids:/"), &pod(UID));
        check(&format!("2:cpu:/\n1:pids:/kubepods/pod{UID}/1"), &pod(UID));
    }

    /// Version 1 shows whole paths to a container, unless it was told not to.
    #[test]
    fn the_pod_that_a_node_runs_in_is_no_pod_of_the_node() {
        let outer = UID.replace('0', "1");
        let node = format!("3:cpu:/kubepods/pod{outer}/4711\n2:pids:/kubepods/pod{outer}/4711/init.scope\n");
        let inner =
            |rest: &str| format!("3:cpu:/kubepods/pod{outer}/4711{rest}\n2:pids:/kubepods/pod{outer}/4711{rest}\n");
        let within = |groups: String, who: &Who| check_within(&node, &groups, who);
        within(inner(&format!("/kubelet/kubepods/pod{UID}/1")), &pod(UID));
        within(inner(&format!("/kubelet/kubepods/pod{UID}/1/pod{outer}")), &pod(UID));
        within(inner("/kubelet"), &Who::NoPod);
        within(node.clone(), &Who::NoPod);
        // beside the node in its pod
        within(format!("3:cpu:/kubepods/pod{outer}/4712\n2:pids:/kubepods/pod{outer}/4712"), &Who::NoPod);
        within(format!("3:cpu:/kubepods/pod{UID}/1\n2:pids:/kubepods/pod{UID}/1"), &pod(UID));
    }
}
