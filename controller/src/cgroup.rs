//! The pod that a process belongs to, by its control group. Kubelets name a pod's group after its UID, whatever their
//! driver: `/kubepods/besteffort/podUID/CONTAINER` (cgroupfs), `kubepods-besteffort-podUID.slice` with underscores
//! (systemd), in version 1 and 2 alike. Entry point: [`pod_of`].

/// The length of a static pod's UID.
const STATIC: usize = 32;

/// The UID of the pod, from the content of `/proc/PID/cgroup`. `None` if it is no pod's process, and if the hierarchies of
/// version 1 don't agree. A static pod's UID is the hash of its file.
pub(crate) fn pod_of(groups: &str) -> Option<String> {
    let mut found: Option<String> = None;
    for line in groups.lines() {
        // hierarchy:controllers:path (cgroups(7)); a path may hold colons
        let Some(path) = line.splitn(3, ':').nth(2) else { continue };
        // The outermost: below its own group a pod may name others as it likes.
        let Some(uid) = path.split('/').find_map(uid) else { continue };
        match &found {
            Some(other) if *other != uid => return None,
            _ => found = Some(uid),
        }
    }
    found
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

    #[track_caller]
    fn check(groups: &str, expected: Option<&str>) {
        assert_eq!(pod_of(groups).as_deref(), expected, "{groups}");
    }

    #[test]
    fn both_drivers_and_versions() {
        let slice = UID.replace('-', "_");
        check(&format!("0::/kubepods/besteffort/pod{UID}/4711"), Some(UID));
        check(&format!("0::/../../pod{UID}/4711"), Some(UID));
        check(&format!("3:cpu,cpuacct:/lab/n1/kubepods/pod{UID}/1\n2:pids:/lab/n1/kubepods/pod{UID}/1\n"), Some(UID));
        let systemd = "0::/kubepods.slice/kubepods-burstable.slice";
        check(&format!("{systemd}/kubepods-burstable-pod{slice}.slice/cri-containerd-1.scope"), Some(UID));
        check(&format!("{systemd}/kubepods-pod{slice}.slice/cri-o:1"), Some(UID));
        let hash = "0f3be7e0f2a1c9d8b7a6f5e4d3c2b1a0";
        check(&format!("0::/kubepods/burstable/pod{hash}/1"), Some(hash));
    }

    #[test]
    fn what_is_no_pod() {
        check("", None);
        check("0::/", None);
        check("0::/system.slice/containerd.service", None);
        check("0::/kubepods/besteffort/podman/1", None);
        check("0::/user.slice/user-pod.slice", None);
    }

    #[test]
    fn hierarchies_that_disagree_say_nothing() {
        let other = UID.replace('0', "1");
        check(&format!("2:cpu:/kubepods/pod{UID}/1\n1:pids:/kubepods/pod{other}/1"), None);
        check(&format!("0::/kubepods/pod{UID}/1/pod{other}"), Some(UID));
        // In one hierarchy a pod's, in another none's: the container runtime fills them one after the other.
        check(&format!("2:cpu:/kubepods/pod{UID}/1\n1:pids:/"), Some(UID));
    }
}
