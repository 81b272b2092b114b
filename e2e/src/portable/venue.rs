//! The cluster that scenarios run on, as far as they need to know it: where pods may be placed, and who answers for names.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::lab::Cluster;

/// A cluster with at least one node for pods.
#[derive(Clone, Debug)]
pub struct Venue {
    cluster: Cluster,
    nodes: Vec<String>,
    names: Option<Names>,
}

/// Who answers the cluster's questions for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The addresses of the Service.
    pub(super) servers: Vec<String>,
    /// The labels of the pods behind it.
    pub(super) selector: Value,
}

impl Venue {
    /// Asks the cluster what it has.
    ///
    /// # Errors
    /// If it does not answer, or has no node for ordinary pods.
    pub fn survey(cluster: Cluster) -> Result<Self> {
        let nodes = usable(&get(&cluster, &["get", "nodes", "--output=json"])?);
        nodes
            .first()
            .context("no node of the cluster is ready for ordinary pods: each is tainted, cordoned or down")?;
        let service = ["get", "service", "kube-dns", "--namespace=kube-system", "--ignore-not-found", "--output=json"];
        let service = cluster.kubectl(&service)?;
        let names = serde_json::from_str(&service).ok().and_then(|service: Value| names(&service));
        Ok(Self { cluster, nodes, names })
    }

    /// The cluster itself.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The nodes that pods are placed on.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// The node of most pods.
    pub(super) fn near(&self) -> &str {
        &self.nodes[0]
    }

    /// Another one, if there is one.
    pub(super) fn far(&self) -> &str {
        self.nodes.get(1).unwrap_or(&self.nodes[0])
    }

    /// `None` where the Service `kube-system/kube-dns` is not, or has no pods of its own.
    pub(super) fn names(&self) -> Option<&Names> {
        self.names.as_ref()
    }
}

fn get(cluster: &Cluster, arguments: &[&str]) -> Result<Value> {
    serde_json::from_str(&cluster.kubectl(arguments)?).context("kubectl prints no JSON")
}

/// The Linux nodes that are ready and that a pod without tolerations may run on.
fn usable(list: &Value) -> Vec<String> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_usable = |node: &&Value| {
        let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        let repels = |taint: &Value| taint["effect"] != "PreferNoSchedule";
        let system = &node["metadata"]["labels"]["kubernetes.io/os"];
        items(&node["status"]["conditions"]).iter().any(is_ready)
            && !items(&node["spec"]["taints"]).iter().any(repels)
            && node["spec"]["unschedulable"] != true
            && (system.is_null() || system == "linux")
    };
    let nodes = items(&list["items"]);
    nodes.iter().filter(is_usable).filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

fn names(service: &Value) -> Option<Names> {
    let addresses = service["spec"]["clusterIPs"].as_array()?;
    let servers: Vec<String> = addresses.iter().filter_map(|address| address.as_str().map(str::to_owned)).collect();
    let selector = service["spec"]["selector"].clone();
    (selector.is_object() && !servers.is_empty()).then_some(Names { servers, selector })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str, spec: &Value, system: &str) -> Value {
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/os": system}},
            "spec": spec,
            "status": {"conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]},
        })
    }

    #[test]
    fn pods_go_where_they_may() {
        let taint = |effect: &str| json!({"taints": [{"key": "a", "effect": effect}]});
        let list = json!({"items": [
            node("control", "True", &taint("NoSchedule"), "linux"),
            node("worker", "True", &json!({}), "linux"),
            node("slow", "True", &taint("PreferNoSchedule"), "linux"),
            node("gone", "Unknown", &json!({}), "linux"),
            node("cordoned", "True", &json!({"unschedulable": true}), "linux"),
            node("windows", "True", &json!({}), "windows"),
        ]});
        assert_eq!(usable(&list), ["worker", "slow"]);
        assert!(usable(&json!({})).is_empty());
    }

    #[test]
    fn names_are_answered_by_pods_that_a_policy_can_select() {
        let selector = json!({"k8s-app": "kube-dns"});
        let service = json!({"spec": {"clusterIPs": ["10.0.0.10", "fd00::10"], "selector": selector}});
        let found = names(&service).expect("it is one");
        assert_eq!(found, Names { servers: vec!["10.0.0.10".into(), "fd00::10".into()], selector });
        assert_eq!(names(&json!({"spec": {"clusterIPs": ["10.0.0.10"]}})), None);
    }
}
