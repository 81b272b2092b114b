//! What kind and its nodes are told: the cluster, the plugins' configuration, the ways between nodes.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::lab::Proxy;

/// Where a node's runtime looks for the plugins' configuration.
pub(super) const CONFLIST: &str = "/etc/cni/net.d/10-sluice-e2e.conflist";

/// A node, as its object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Also that of its container.
    pub(super) name: String,
    /// One of each family.
    addresses: Vec<IpAddr>,
    /// The ranges of its pods, one of each family.
    ranges: Vec<String>,
}

/// The configuration of kind, which reads JSON as YAML. Ranges are kind's own.
pub(super) fn cluster(proxy: Proxy) -> String {
    json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            "ipFamily": "dual",
            // kind's own enforces policies since 0.24.
            "disableDefaultCNI": true,
            "kubeProxyMode": proxy.to_string(),
        },
        "nodes": [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}],
    })
    .to_string()
}

/// All nodes of a list, if each has its addresses and ranges in both families.
pub(super) fn nodes(list: &Value) -> Result<Vec<Node>> {
    let items = list["items"].as_array().context("there are no nodes")?;
    ensure!(!items.is_empty(), "there are no nodes");
    items.iter().map(node).collect()
}

fn node(object: &Value) -> Result<Node> {
    let name = object["metadata"]["name"].as_str().context("a node has no name")?.to_owned();
    let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
    let addresses =
        addresses.filter(|entry| entry["type"] == "InternalIP").filter_map(|entry| entry["address"].as_str());
    let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    let ranges = object["spec"]["podCIDRs"].as_array().into_iter().flatten();
    let ranges: Vec<String> = ranges.filter_map(|range| range.as_str().map(str::to_owned)).collect();
    let has_both =
        |is_v6: &dyn Fn(usize) -> bool, count: usize| (0..count).any(is_v6) && (0..count).any(|index| !is_v6(index));
    ensure!(has_both(&|index| addresses[index].is_ipv6(), addresses.len()), "{name} lacks an address of a family");
    ensure!(has_both(&|index| is_v6(&ranges[index]), ranges.len()), "{name} lacks a range of a family for its pods");
    Ok(Node { name, addresses, ranges })
}

fn is_v6(range: &str) -> bool {
    range.contains(':')
}

/// The ways from a node to the others' pods, as `ip route` takes them.
pub(super) fn routes(from: &Node, nodes: &[Node]) -> Vec<String> {
    let others = nodes.iter().filter(|node| node.name != from.name);
    let way = |node: &Node, range: &String| {
        let gateway = node.addresses.iter().find(|address| address.is_ipv6() == is_v6(range))?;
        Some(format!("{range} via {gateway}"))
    };
    others.flat_map(|node| node.ranges.iter().filter_map(move |range| way(node, range))).collect()
}

/// The reference plugins, as the lab has them. Nothing is masqueraded, or policies would see nodes in place of pods.
pub(super) fn conflist(node: &Node) -> Value {
    let ranges: Vec<Value> = node.ranges.iter().map(|range| json!([{"subnet": range}])).collect();
    let routes: Vec<Value> =
        node.ranges.iter().map(|range| json!({"dst": if is_v6(range) { "::/0" } else { "0.0.0.0/0" }})).collect();
    let ptp = json!({"type": "ptp", "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}});
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.0.0", "name": "sluice-e2e", "plugins": [ptp, portmap]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, number: u8) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("172.18.0.{number}")},
                {"type": "InternalIP", "address": format!("fc00:f853::{number}")},
                {"type": "Hostname", "address": name},
            ]},
        })
    }

    #[test]
    fn kind_is_told_to_leave_its_own_plugin_out() {
        let expected = r#"{"apiVersion":"kind.x-k8s.io/v1alpha4","kind":"Cluster","networking":{"disableDefaultCNI":true,"ipFamily":"dual","kubeProxyMode":"nftables"},"nodes":[{"role":"control-plane"},{"role":"worker"},{"role":"worker"}]}"#;
        assert_eq!(cluster(Proxy::Nftables), expected);
    }

    #[test]
    fn nodes_know_the_ways_to_each_other() {
        let nodes = nodes(&json!({"items": [object("one", 1), object("two", 2)]})).expect("they are whole");
        let expected = ["10.244.2.0/24 via 172.18.0.2", "fd00:10:244:2::/64 via fc00:f853::2"];
        assert_eq!(routes(&nodes[0], &nodes), expected);
    }

    #[test]
    fn plugins_take_from_the_ranges_of_their_node() {
        let node = node(&object("one", 1)).expect("it is whole");
        let list = conflist(&node);
        assert_eq!(list["plugins"][0]["type"], "ptp");
        assert_eq!(list["plugins"][0]["ipMasq"], Value::Null);
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]));
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
    }

    #[test]
    fn a_node_without_ranges_is_waited_for() {
        let mut young = object("young", 3);
        young["spec"] = json!({"podCIDRs": ["10.244.3.0/24"]});
        let error = nodes(&json!({"items": [object("one", 1), young]})).expect_err("it has no IPv6 range");
        assert_eq!(error.to_string(), "young lacks a range of a family for its pods");
        nodes(&json!({"items": []})).expect_err("there are none");
    }
}
