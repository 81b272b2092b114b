//! Objects as scenarios and benchmarks make them, for a namespace that they are applied in later
//! ([`super::Cluster::apply_in`]).

use serde_json::{Value, json};

/// A pod of one container, whose image the node has. When it is deleted, nobody waits for it.
#[must_use]
pub fn pod(name: &str, node: &str, labels: &Value, mut container: Value) -> Value {
    container["imagePullPolicy"] = json!("Never");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

/// A NetworkPolicy.
#[must_use]
pub fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// Denies everything to every pod of the namespace.
#[must_use]
pub fn deny_all() -> Value {
    policy("deny-all", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
}
