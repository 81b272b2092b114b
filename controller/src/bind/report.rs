//! What an administrator should know of interfaces and pods, in sentences.

use std::{fmt, net::IpAddr};

use policy_compiler::model::ObjectName;

/// What an administrator should know. Told once, until it is no longer so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// Held for longer than [`PATIENCE`](super::PATIENCE), because no pod of this node has an address behind it.
    Unknown {
        /// The interface's name.
        interface: String,
        /// What the kernel shows behind it.
        addresses: Vec<IpAddr>,
    },
    /// It shows the address of a pod that is bound to another interface, and is held.
    SecondClaim {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
        /// The pod's interface.
        bound: String,
    },
    /// It shows the address of a pod that it didn't show at first, and is held.
    Late {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
    },
    /// It shows addresses of several pods, and is held.
    Ambiguous {
        /// The interface's name.
        interface: String,
        /// Some of the pods.
        pods: Vec<ObjectName>,
    },
    /// The CNI plugin made it for a pod of which the source has told nothing for longer than [`PATIENCE`](super::PATIENCE).
    Awaited {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
    },
    /// Another interface of a pod's namespace, which is not enforced.
    Secondary {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
        /// The pod's interface.
        bound: String,
    },
    /// No veth of this node has shown the pod's address for longer than [`PATIENCE`](super::PATIENCE), so its packets can't be seen.
    NoInterface {
        /// The pod.
        pod: ObjectName,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { interface, addresses } => {
                let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let shown = if shown.is_empty() { "nothing".into() } else { shown.join(", ") };
                write!(
                    f,
                    "interface {interface} is held: it shows {shown}, which is no address of a pod of this node; if it is \
                     no pod's, give the agent --exclude-interface {interface}"
                )
            }
            Self::SecondClaim { interface, pod, bound } => {
                write!(f, "interface {interface} is held: it shows an address of {pod}, whose interface is {bound}")
            }
            Self::Late { interface, pod } => {
                write!(
                    f,
                    "interface {interface} is held: it shows an address of {pod}, which a process behind it may have \
                     added, and no process of {pod} is seen there"
                )
            }
            Self::Ambiguous { interface, pods } => {
                let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
                write!(f, "interface {interface} is held: it shows addresses of several pods: {}", pods.join(", "))
            }
            Self::Awaited { interface, pod } => {
                write!(f, "interface {interface} is held: it was made for {pod}, which is not known on this node")
            }
            Self::Secondary { interface, pod, bound } => {
                write!(
                    f,
                    "interface {interface} is not enforced: it is another one of {pod}, whose interface is {bound}"
                )
            }
            Self::NoInterface { pod } => {
                write!(f, "{pod} can't be enforced: no veth of this node shows its address")
            }
        }
    }
}
