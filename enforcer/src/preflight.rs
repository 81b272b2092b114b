//! What must be there before anything is loaded, each refusal with the way out. Entry point: [`check`].

use std::{io, os::unix::fs::MetadataExt as _, path::Path};

use aya::util::KernelVersion;
use thiserror::Error;

use crate::sys;

/// The oldest kernel that has all that the program uses.
const FLOOR: KernelVersion = KernelVersion::new(5, 10, 0);

/// Why Sluice can't run here.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// `uname` is older than the floor.
    #[error("the kernel is {found}, and Sluice needs 5.10 or newer: boot a newer kernel on this node")]
    OldKernel {
        /// As `uname -r` says.
        found: String,
    },
    /// The process may not do what enforcement takes.
    #[error(
        "the process lacks {missing}: run it as root, or, in a container, with privileged: true or these capabilities"
    )]
    Capabilities {
        /// Names of capabilities.
        missing: String,
    },
    /// Capabilities in a user namespace don't reach the kernel's BPF.
    #[error(
        "the process is root in a user namespace only, which the kernel grants neither BPF nor a view of the node's \
         interfaces: run it in the node's own, in a pod with hostUsers: true"
    )]
    UserNamespace,
    /// `/proc/self/status` could not be read.
    #[error("/proc/self/status could not be read to learn the process's capabilities: is /proc mounted?")]
    Proc(#[source] io::Error),
    /// The pin folder is not on a BPF file system.
    #[error(
        "{path} is not on a BPF file system, where maps and links outlive the agent: run `mount -t bpf bpf \
         /sys/fs/bpf`, or, in a container, mount the host's /sys/fs/bpf"
    )]
    NoBpfFs {
        /// The pin folder.
        path: String,
    },
}

/// Checks kernel, capabilities and the file system of `pin_dir`.
pub fn check(pin_dir: &Path) -> Result<(), PreflightError> {
    check_kernel()?;
    let status = std::fs::read_to_string("/proc/self/status").map_err(PreflightError::Proc)?;
    check_capabilities(&status)?;
    check_user_namespace(Path::new("/proc/self/ns/user"))?;
    check_file_system(pin_dir)
}

fn check_user_namespace(own: &Path) -> Result<(), PreflightError> {
    /// `PROC_USER_INIT_INO` (include/linux/proc_ns.h)
    const INITIAL: u64 = 0xEFFF_FFFD;
    match std::fs::metadata(own) {
        Ok(namespace) if namespace.ino() != INITIAL => Err(PreflightError::UserNamespace),
        // a kernel without user namespaces has no such file
        _ => Ok(()),
    }
}

fn check_kernel() -> Result<(), PreflightError> {
    match KernelVersion::current() {
        Ok(version) if version < FLOOR => Err(PreflightError::OldKernel { found: sys::release() }),
        // A kernel that doesn't say its version in the usual form is left to prove itself.
        _ => Ok(()),
    }
}

/// Whether TCX links are there (6.6).
pub(crate) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// What enforcement takes, and the capability that stands for it where it is a finer one than `CAP_SYS_ADMIN`
/// (include/uapi/linux/capability.h).
fn check_capabilities(status: &str) -> Result<(), PreflightError> {
    const SYS_ADMIN: u32 = 21;
    const NEEDED: [(&str, u32, bool); 4] = [
        ("CAP_BPF", 39, true),
        ("CAP_PERFMON", 38, true),
        ("CAP_NET_ADMIN", 12, false),
        // To hear of addresses behind veths (NETLINK_LISTEN_ALL_NSID).
        ("CAP_NET_BROADCAST", 11, false),
    ];
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|&(_, bit, admin_will_do)| !(has(bit) || admin_will_do && has(SYS_ADMIN)))
        .map(|(name, ..)| name)
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::Capabilities { missing: missing.join(", ") }) }
}

/// The nearest folder above `pin_dir` that is there decides.
fn check_file_system(pin_dir: &Path) -> Result<(), PreflightError> {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match nix::sys::statfs::statfs(existing) {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC => Ok(()),
        _ => Err(PreflightError::NoBpfFs { path: pin_dir.display().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(effective: u64, expected: Option<&str>) {
        let status = format!("Name:\tx\nCapEff:\t{effective:016x}\nCapBnd:\t0\n");
        let missing = match check_capabilities(&status) {
            Ok(()) => None,
            Err(PreflightError::Capabilities { missing }) => Some(missing),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(missing.as_deref(), expected);
    }

    #[test]
    fn capabilities() {
        check(u64::MAX, None);
        check(0, Some("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_BROADCAST"));
        check(1 << 21 | 1 << 12 | 1 << 11, None);
        check(1 << 39 | 1 << 38 | 1 << 12 | 1 << 11, None);
        check(1 << 39 | 1 << 38, Some("CAP_NET_ADMIN, CAP_NET_BROADCAST"));
    }

    #[test]
    fn the_node_has_the_first_user_namespace() {
        check_user_namespace(Path::new("/proc/self/ns/user")).unwrap();
        check_user_namespace(Path::new("/proc/none")).unwrap();
        let error = check_user_namespace(Path::new("/proc/self/ns/net")).unwrap_err();
        assert!(error.to_string().contains("hostUsers: true"), "{error}");
    }

    #[test]
    fn pins_need_a_bpf_file_system() {
        let error = check_file_system(Path::new("/tmp/sluice/none")).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    }
}
