//! A pod: a namespace with `eth0`, whose other end its node holds.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Namespace, Node, Wiring, namespace::Entrance};

/// Interface indexes of the nodes' ends. Far from the small numbers that interfaces get in new namespaces: a veth
/// whose two ends have one index in their two namespaces is taken for no veth by some of the kernel's own checks
/// (`linkwatch_urgent_event`), and comes up a second later.
static NEXT_INDEX: AtomicU32 = AtomicU32::new(2000);

/// A pod. When it is dropped, its veth is gone at once, as after a CNI plugin's DEL: a namespace that goes away takes its
/// end along some time later, and until then the node's routes to it would be in the next pod's way.
#[derive(Debug)]
pub struct Pod {
    name: String,
    namespace: Namespace,
    node: Entrance,
    addresses: Vec<IpAddr>,
    host_interface: String,
    host_index: u32,
}

impl Pod {
    pub(crate) fn create(node: &Node, name: &str, addresses: &[IpAddr]) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        let host_index = NEXT_INDEX.fetch_add(1, Ordering::Relaxed);
        let host_interface = format!("veth{host_index}");
        let entrance = node.namespace().entrance()?;
        node.namespace().ip(&host_side(node, &namespace, &host_interface, host_index, addresses))?;
        if node.wiring() == Wiring::Routed {
            // So that the host side answers for the pod's gateway, and at once.
            node.namespace().sysctl(&format!("ipv4/conf/{host_interface}/proxy_arp"), "1")?;
            node.namespace().sysctl(&format!("ipv4/neigh/{host_interface}/proxy_delay"), "0")?;
        }
        namespace.ip(&pod_side(node, addresses))?;
        namespace.wait_until_running("eth0")?;
        node.namespace().wait_until_running(&host_interface)?;
        let (name, addresses) = (name.to_owned(), addresses.to_vec());
        Ok(Self { name, namespace, node: entrance, addresses, host_interface, host_index })
    }

    /// As given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its sockets and processes are.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// As given.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its IPv4 address, if it has one.
    #[must_use]
    pub fn v4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// Its IPv6 address, if it has one.
    #[must_use]
    pub fn v6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }

    /// The node's end of its veth, in the node's namespace.
    #[must_use]
    pub fn host_interface(&self) -> &str {
        &self.host_interface
    }

    /// The index of [`Self::host_interface`].
    #[must_use]
    pub fn host_index(&self) -> u32 {
        self.host_index
    }

    /// Opens a TCP connection from the pod. The socket may be used anywhere.
    ///
    /// # Errors
    /// If it is refused, or not answered in time.
    pub fn connect(&self, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
        self.namespace.run(|| {
            TcpStream::connect_timeout(&to, timeout).with_context(|| format!("{} could not connect to {to}", self.name))
        })
    }

    /// Opens a UDP socket in the pod. The socket may be used anywhere.
    ///
    /// # Errors
    /// If the address is not the pod's, or taken.
    pub fn bind_udp(&self, at: SocketAddr) -> Result<UdpSocket> {
        self.namespace.run(|| UdpSocket::bind(at).with_context(|| format!("{} could not bind {at}", self.name)))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = self.node.delete_link(&self.host_interface) {
            eprintln!("{error:#}");
        }
    }
}

fn host_side(node: &Node, pod: &Namespace, link: &str, index: u32, addresses: &[IpAddr]) -> Vec<String> {
    let mut lines = vec![format!("link add {link} index {index} type veth peer name eth0 netns {}", pod.name())];
    match node.wiring() {
        // A pod that reaches itself through its Service comes back by the port that it left by.
        Wiring::Bridge => lines.extend([
            format!("link set {link} master cni0 up"),
            format!("link set {link} type bridge_slave hairpin on"),
        ]),
        Wiring::PointToPoint => {
            lines.push(format!("link set {link} up"));
            for address in addresses {
                let gateway = gateway(node, *address);
                let length = full_length(*address);
                lines.push(format!("addr add {gateway}/{length} dev {link}{}", nodad(*address)));
                lines.push(format!("route add {address}/{length} dev {link}"));
            }
        }
        Wiring::Routed => {
            lines.push(format!("link set {link} up"));
            for address in addresses {
                if address.is_ipv6() {
                    lines.push(format!("addr add {}/64 dev {link} nodad", gateway(node, *address)));
                }
                lines.push(format!("route add {address}/{} dev {link}", full_length(*address)));
            }
        }
    }
    lines
}

fn pod_side(node: &Node, addresses: &[IpAddr]) -> Vec<String> {
    let mut lines = vec!["link set eth0 up".to_owned()];
    for address in addresses {
        let gateway = gateway(node, *address);
        let length = match node.wiring() {
            Wiring::PointToPoint | Wiring::Routed => full_length(*address),
            Wiring::Bridge if address.is_ipv4() => 24,
            Wiring::Bridge => 64,
        };
        lines.push(format!("addr add {address}/{length} dev eth0{}", nodad(*address)));
        // A link-local IPv6 gateway is on the link without being told.
        if node.wiring() == Wiring::PointToPoint || (node.wiring() == Wiring::Routed && address.is_ipv4()) {
            lines.push(format!("route add {gateway}/{length} dev eth0"));
        }
        lines.push(format!("route add {} via {gateway} dev eth0", everywhere(*address)));
    }
    lines
}

fn gateway(node: &Node, address: IpAddr) -> IpAddr {
    let [v4, v6] = node.pod_gateways();
    if address.is_ipv4() { v4 } else { v6 }
}

fn everywhere(like: IpAddr) -> &'static str {
    if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Duplicate address detection would keep a new IPv6 address silent for a second.
fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "" } else { " nodad" }
}
