//! The lab: a real Kubernetes cluster on one machine. A control plane (etcd, kube-apiserver, kube-controller-manager,
//! kube-scheduler) and up to eight nodes (containerd, kubelet, kube-proxy), each a [`Machine`]: a set of namespaces
//! with a file system of its own. Dual stack, CoreDNS, the reference CNI plugins. Start at [`Lab::up`]; `docs/lab.md`
//! tells the rest.
//!
//! Nothing of the machine itself is touched: no link, no address, no rule, no file outside the cache folder, and below
//! `/sys/fs/cgroup` only the lab's own group. A lab is removed when dropped, on SIGINT, SIGTERM and SIGHUP, and by the
//! next lab where its process was killed; the one of [`Lab::up_to_stay`] goes on.

pub mod api;
mod cgroups;
mod cluster;
pub mod conformance;
mod control_plane;
pub mod dns;
mod folder;
mod images;
mod kubectl;
mod machine;
mod made;
mod mounts;
mod network;
mod node;
pub mod objects;
mod pki;
mod pod;
mod programs;
mod proof;
mod settings;
pub mod sluice;
mod template;
mod usage;

pub use cluster::Lab;
pub(crate) use folder::remove;
pub use folder::{Folder, KEPT};
pub use images::{AGNHOST, BUSYBOX, PAUSE_ALSO, build as build_images};
pub use kubectl::Cluster;
pub(crate) use kubectl::output;
pub use machine::{Daemon, Machine};
pub use network::{OUTSIDE_V4, OUTSIDE_V6};
pub use node::Node;
pub use pod::Pod;
pub use programs::{Programs, Suite, Unreachable};
pub use settings::{Cni, Proxy, Settings};
pub use usage::Usage;
