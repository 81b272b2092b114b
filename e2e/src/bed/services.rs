//! Services as kube-proxy translates them, written as nftables rules from Services and EndpointSlices: cluster IPs,
//! external IPs and node ports, with masquerade for hairpins and for what comes from outside, in both families.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use policy_compiler::model::{EndpointSlice, Service, ServicePort};

/// The mark of packets that must come back through this node.
const MASQUERADE: &str = "0x4000";
/// The pods' addresses (see [`super::Node`]): what comes from elsewhere is masqueraded.
const PODS: [&str; 2] = ["ip saddr 10.244.0.0/16", "ip6 saddr fd00:10:244::/48"];

/// The rules of one node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Statements that choose a front end; tried in order.
    front_ends: Vec<String>,
    /// Statements that refuse front ends without back ends.
    closed: Vec<String>,
    /// Chains by name.
    chains: BTreeMap<String, Vec<String>>,
}

impl Ruleset {
    /// The rules of the node called `node`.
    #[must_use]
    pub fn new(node: &str, services: &[Service], slices: &[EndpointSlice]) -> Self {
        let mut rules = Self::default();
        for service in services {
            for port in &service.ports {
                for v6 in [false, true] {
                    let back_ends = BackEnds::of(service, port, slices, v6);
                    rules.add(service, port, &back_ends, node, v6);
                }
            }
        }
        rules
    }

    /// As `nft -f` takes it: replaces what was there before.
    #[must_use]
    pub fn script(&self) -> String {
        let mut script = String::from("table inet sluice-services\ndelete table inet sluice-services\n");
        script.push_str("table inet sluice-services {\n");
        for (chain, statements) in &self.chains {
            let _ = writeln!(script, " chain {chain} {{\n  {}\n }}", statements.join("\n  "));
        }
        for (chain, hook) in [("from-outside", "prerouting"), ("from-here", "output")] {
            let list = self.front_ends.join("\n  ");
            let _ = writeln!(script, " chain {chain} {{\n  type nat hook {hook} priority -100;\n  {list}\n }}");
        }
        for (chain, hook) in [("closed-forward", "forward"), ("closed-output", "output"), ("closed-input", "input")] {
            let list = self.closed.join("\n  ");
            let _ = writeln!(script, " chain {chain} {{\n  type filter hook {hook} priority 0;\n  {list}\n }}");
        }
        let _ = writeln!(
            script,
            " chain way-back {{\n  type nat hook postrouting priority 100;\n  meta mark & {MASQUERADE} != 0 masquerade\n }}\n}}"
        );
        script
    }

    fn add(&mut self, service: &Service, port: &ServicePort, back_ends: &BackEnds, node: &str, v6: bool) {
        let everywhere = back_ends.usable(None);
        let here = back_ends.usable(Some(node));
        let name = format!("{}-{}-{}", service.name, port.name, if v6 { "v6" } else { "v4" })
            .replace(|character: char| !character.is_ascii_alphanumeric(), "-");
        let protocol = port.protocol.to_string().to_lowercase();
        let family = if v6 { "ip6" } else { "ip" };
        let to_port = format!("{protocol} dport {}", port.port);

        for address in service.cluster_ips.iter().filter(|address| address.is_ipv6() == v6) {
            let to = format!("{family} daddr {address} {to_port}");
            let list = if service.internal_local { &here } else { &everywhere };
            let outsider = format!(
                "{} meta mark set meta mark | {MASQUERADE}",
                PODS[usize::from(v6)].replace("saddr", "saddr !=")
            );
            self.front_end(&to, &protocol, &format!("cluster-{name}"), list, &outsider);
        }
        let marked = format!("meta mark set meta mark | {MASQUERADE}");
        let external = service.external_ips.iter().filter(|address| address.is_ipv6() == v6);
        let mut outside: Vec<String> = external.map(|address| format!("{family} daddr {address} {to_port}")).collect();
        if let Some(node_port) = port.node_port {
            let here = format!("meta nfproto {}", if v6 { "ipv6" } else { "ipv4" });
            outside.push(format!("{here} fib daddr type local {protocol} dport {node_port}"));
        }
        for to in outside {
            if service.external_local {
                // Pods of the cluster take the short way to all back ends; others get those of this node, and are seen.
                self.front_end(
                    &format!("{} {to}", PODS[usize::from(v6)]),
                    &protocol,
                    &format!("external-{name}"),
                    &everywhere,
                    &marked,
                );
                self.front_end(&to, &protocol, &format!("local-{name}"), &here, "");
            } else {
                self.front_end(&to, &protocol, &format!("external-{name}"), &everywhere, &marked);
            }
        }
    }

    /// Sends what matches `to` to one of `back_ends`, each as likely as the others; `first` goes before the choice.
    fn front_end(&mut self, to: &str, protocol: &str, chain: &str, back_ends: &[SocketAddr], first: &str) {
        if back_ends.is_empty() {
            // kube-proxy sends an ICMP error to TCP too, but one that comes while connect() still holds the socket is
            // noted and acted upon at the next one, a second later (tcp_v4_err).
            let way = if protocol == "tcp" { " with tcp reset" } else { "" };
            self.closed.push(format!("{to} reject{way}"));
            return;
        }
        self.front_ends.push(format!("{to} goto {chain}"));
        let mut choice = Vec::new();
        for (index, back_end) in back_ends.iter().enumerate() {
            let own = format!("{chain}-{index}");
            let family = if back_end.is_ipv6() { "ip6" } else { "ip" };
            let hairpin = format!("{family} saddr {} meta mark set meta mark | {MASQUERADE}", back_end.ip());
            let translate = format!("meta l4proto {protocol} dnat {family} to {back_end}");
            choice.push(format!("{index} : goto {own}"));
            self.chains.insert(own, vec![hairpin, translate]);
        }
        let choose = format!("numgen random mod {} vmap {{ {} }}", back_ends.len(), choice.join(", "));
        self.chains
            .insert(chain.to_owned(), [first.to_owned(), choose].into_iter().filter(|line| !line.is_empty()).collect());
    }
}

/// The back ends of one port of a Service in one family.
struct BackEnds {
    /// Address and port, whether it is ready, whether it serves while terminating, and its node.
    list: Vec<(SocketAddr, bool, bool, Option<std::sync::Arc<str>>)>,
}

impl BackEnds {
    fn of(service: &Service, port: &ServicePort, slices: &[EndpointSlice], v6: bool) -> Self {
        let mut list = Vec::new();
        let own = slices
            .iter()
            .filter(|slice| slice.name.namespace == service.name.namespace && slice.service == service.name.name);
        for slice in own {
            let ports = slice.ports.iter().filter(|own| own.name == port.name && own.protocol == port.protocol);
            for number in ports.map(|port| port.number) {
                for endpoint in &slice.endpoints {
                    let Some(address) = endpoint.addresses.first().filter(|address: &&IpAddr| address.is_ipv6() == v6)
                    else {
                        continue;
                    };
                    let terminating = endpoint.serving && endpoint.terminating;
                    list.push((SocketAddr::new(*address, number), endpoint.ready, terminating, endpoint.node.clone()));
                }
            }
        }
        list.sort();
        list.dedup();
        Self { list }
    }

    /// The ready ones; if there are none, those that serve while they terminate.
    fn usable(&self, node: Option<&str>) -> Vec<SocketAddr> {
        let near = || self.list.iter().filter(|(_, _, _, own)| node.is_none() || own.as_deref() == node);
        let ready: Vec<SocketAddr> = near().filter(|(_, ready, _, _)| *ready).map(|(address, ..)| *address).collect();
        if !ready.is_empty() {
            return ready;
        }
        near().filter(|(_, _, terminating, _)| *terminating).map(|(address, ..)| *address).collect()
    }
}
