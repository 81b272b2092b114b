//! What becomes of API objects, valid and not.

use serde_json::{Value, json};

use super::*;
use crate::model::{Peer, Policy, PortMatch, Rule};

/// A policy with this spec: what is reported, and what the policy says in short.
#[track_caller]
fn check(spec: &Value, reported: &[&str], expected: &str) {
    let object = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
    let mut diagnostics = Vec::new();
    let policy = network_policy(&serde_json::from_value(object).unwrap(), &mut diagnostics).unwrap();
    let found: Vec<_> = diagnostics.iter().map(|found| format!("{} {}", found.severity, found.field)).collect();
    assert_eq!(found, reported, "{diagnostics:#?}");
    assert_eq!(shortly(&policy), expected);
}

fn shortly(policy: &Policy) -> String {
    let rules = |rules: &Option<Vec<Rule>>| match rules {
        None => "open".to_owned(),
        Some(rules) => format!("[{}]", rules.iter().map(rule).collect::<Vec<_>>().join(", ")),
    };
    let subject = &policy.subject.pods.requirements;
    format!("{subject:?} in {} out {}", rules(&policy.ingress), rules(&policy.egress)).replace('"', "")
}

fn rule(rule: &Rule) -> String {
    let peers = rule.peers.as_ref().map(|peers| peers.iter().map(peer).collect::<Vec<_>>().join(" "));
    let ports = rule.ports.as_ref().map(|ports| ports.iter().map(port).collect::<Vec<_>>().join(" "));
    format!("{}:{}", peers.as_deref().unwrap_or("*"), ports.as_deref().unwrap_or("*"))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Nobody => "nobody".to_owned(),
        Peer::Block { cidr, except } => except.iter().fold(cidr.to_string(), |text, except| format!("{text}-{except}")),
        Peer::Pods(pods) => format!("{:?}/{:?}", pods.namespaces, pods.pods.requirements),
    }
}

fn port(port: &PortMatch) -> String {
    match port {
        PortMatch::All(protocol) => format!("{protocol}"),
        PortMatch::Range { protocol, first, last } => format!("{protocol}/{first}-{last}"),
        PortMatch::Named(protocol, name) => format!("{protocol}/{name}"),
        PortMatch::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn directions_default_as_the_api_server_has_them() {
    check(&json!({}), &[], "[] in [] out open");
    check(&json!({"ingress": [{}]}), &[], "[] in [*:*] out open");
    check(&json!({"egress": []}), &[], "[] in [] out open");
    check(&json!({"egress": [{}]}), &[], "[] in [] out [*:*]");
    check(&json!({"egress": [{}], "policyTypes": []}), &[], "[] in [] out [*:*]");
    check(&json!({"egress": [{}], "policyTypes": ["Ingress"]}), &[], "[] in [] out open");
    check(&json!({"ingress": [{}], "policyTypes": ["Egress"]}), &[], "[] in open out []");
    check(&json!({"policyTypes": ["Egress", "Ingress"]}), &[], "[] in [] out []");
}

#[test]
fn a_policy_type_that_is_none_isolates_both_ways() {
    let rules = json!([{}]);
    let spec = |types: Value| json!({"policyTypes": types, "ingress": rules, "egress": rules});
    check(&spec(json!(["ingress"])), &["error spec.policyTypes[0]"], "[] in [] out []");
    check(&spec(json!(["Ingress", ""])), &["error spec.policyTypes[1]"], "[] in [*:*] out []");
    check(&spec(json!(["Ingress", "Egress", "Egress"])), &["error spec.policyTypes"], "[] in [*:*] out [*:*]");
}

#[test]
fn nil_and_empty_lists_are_everybody() {
    for empty in [json!({}), json!({"from": null, "ports": null}), json!({"from": [], "ports": []})] {
        check(&json!({"ingress": [empty]}), &[], "[] in [*:*] out open");
    }
    let both = |peer: Value| json!({"ingress": [{"from": [peer]}]});
    check(&both(json!({"podSelector": {}})), &[], "[] in [Name(shop)/[]:*] out open");
    let any = "[] in [Labels(Selector { requirements: [] })/[]:*] out open";
    check(&both(json!({"namespaceSelector": {}})), &[], any);
    check(&both(json!({"namespaceSelector": {"matchLabels": {}}, "podSelector": {"matchExpressions": []}})), &[], any);
    check(&both(json!({})), &["error spec.ingress[0].from[0]"], "[] in [nobody:*] out open");
}

#[test]
fn selectors_are_canonical_or_unusable() {
    let subject = |selector: Value| json!({"podSelector": selector, "ingress": [{}]});
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    check(
        &subject(json!({
            "matchLabels": {"b": "", "a": "x"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["x", "x"]},
                {"key": "example.com/c", "operator": "NotIn", "values": ["y", "x"]},
            ],
        })),
        &[],
        "[In(a, [x]), In(b, []), NotIn(example.com/c, [x, y])] in [*:*] out open",
    );
    let at = |field: &str| format!("error spec.podSelector{field}");
    let whole = at("");
    for (selector, field) in [
        (expression("a", "In", json!([])), ".matchExpressions[0].values"),
        (expression("a", "NotIn", Value::Null), ".matchExpressions[0].values"),
        (expression("a", "Exists", json!(["x"])), ".matchExpressions[0].values"),
        (expression("a", "DoesNotExist", json!(["x"])), ".matchExpressions[0].values"),
        (expression("a", "exists", Value::Null), ".matchExpressions[0].operator"),
        (expression("", "Exists", Value::Null), ".matchExpressions[0].key"),
        (expression("-a", "Exists", Value::Null), ".matchExpressions[0].key"),
        (expression("A.b/c/d", "Exists", Value::Null), ".matchExpressions[0].key"),
        (expression("UPPER/a", "Exists", Value::Null), ".matchExpressions[0].key"),
        (expression("a", "In", json!(["x", "y z"])), ".matchExpressions[0].values[1]"),
        (json!({"matchLabels": {"a": "-x"}}), ".matchLabels[a]"),
        (json!({"matchLabels": {"a": "x".repeat(64)}}), ".matchLabels[a]"),
    ] {
        check(&subject(selector), &[&at(field), &whole], "[] in [] out open");
    }
    check(
        &json!({"ingress": [{"from": [{"podSelector": expression("a", "?", Value::Null)}, {"podSelector": {}}]}]}),
        &["error spec.ingress[0].from[0].podSelector.matchExpressions[0].operator"],
        "[] in [nobody Name(shop)/[]:*] out open",
    );
}

#[test]
fn blocks_are_canonical_or_unusable() {
    let block =
        |cidr: &str, except: Value| json!({"egress": [{"to": [{"ipBlock": {"cidr": cidr, "except": except}}]}]});
    check(
        &block("10.0.0.0/8", json!(["10.2.0.0/16", "10.1.0.0/16", "10.1.2.0/24", "10.1.0.0/16"])),
        &[],
        "[] in [] out [10.0.0.0/8-10.1.0.0/16-10.2.0.0/16:*]",
    );
    check(
        &block("10.1.2.3/8", json!([])),
        &["warning spec.egress[0].to[0].ipBlock.cidr"],
        "[] in [] out [10.0.0.0/8:*]",
    );
    check(&block("2001:DB8:0::/32", json!(["2001:db8:1::/48"])), &[], "[] in [] out [2001:db8::/32-2001:db8:1::/48:*]");
    let nobody = "[] in [] out [nobody:*]";
    check(&block("10.0.0.0", json!([])), &["error spec.egress[0].to[0].ipBlock.cidr"], nobody);
    for except in ["10.0.0.0/8", "0.0.0.0/0", "11.0.0.0/16", "2001:db8::/64", "10.1.0.0", ""] {
        let except = json!(["10.1.0.0/16", except]);
        check(&block("10.0.0.0/8", except), &["error spec.egress[0].to[0].ipBlock.except[1]"], nobody);
    }
    check(
        &json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]}),
        &["error spec.egress[0].to[0]"],
        nobody,
    );
}

#[test]
fn ports_are_valid_or_nothing() {
    let ports = |ports: Value| json!({"ingress": [{"ports": ports}]});
    check(
        &ports(json!([
            {}, {"protocol": "UDP"}, {"port": 80}, {"port": 80, "endPort": 90, "protocol": "SCTP"}, {"port": "http"},
            {"port": 7, "endPort": 7},
        ])),
        &[],
        "[] in [*:TCP UDP TCP/80-80 SCTP/80-90 TCP/http TCP/7-7] out open",
    );
    for (port, field) in [
        (json!({"port": 0}), "port"),
        (json!({"port": 65536}), "port"),
        (json!({"port": -1}), "port"),
        (json!({"port": "80"}), "port"),
        (json!({"port": "HTTP"}), "port"),
        (json!({"port": ""}), "port"),
        (json!({"port": "a--b"}), "port"),
        (json!({"port": 80, "endPort": 79}), "endPort"),
        (json!({"port": 80, "endPort": 65536}), "endPort"),
        (json!({"endPort": 80}), "endPort"),
        (json!({"port": "http", "endPort": 80}), "endPort"),
        (json!({"port": 80, "protocol": "tcp"}), "protocol"),
        (json!({"protocol": ""}), "protocol"),
    ] {
        let reported = format!("error spec.ingress[0].ports[0].{field}");
        check(&ports(json!([port])), &[&reported], "[] in [*:nothing] out open");
    }
}

/// Any other kind: what is reported, and the object as `Debug` has it.
#[track_caller]
fn check_kind<T: serde::de::DeserializeOwned, U: std::fmt::Debug>(
    convert: fn(&T, &mut Vec<Diagnostic>) -> Option<U>,
    object: Value,
    reported: &[&str],
    expected: &[&str],
) {
    let mut diagnostics = Vec::new();
    let converted = convert(&serde_json::from_value(object).unwrap(), &mut diagnostics);
    let found: Vec<_> = diagnostics.iter().map(|found| format!("{} {}", found.severity, found.field)).collect();
    assert_eq!(found, reported, "{diagnostics:#?}");
    let converted = format!("{converted:?}").replace('"', "");
    for part in expected {
        assert!(converted.contains(part), "{part} is not in {converted}");
    }
}

#[test]
fn pods() {
    let pod_with = |spec: Value, status: Value| json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    let port = |name: &str, number: i32| json!({"name": name, "containerPort": number});
    check_kind(
        pod,
        pod_with(
            json!({
                "nodeName": "n", "hostNetwork": true,
                "containers": [{"name": "c", "ports": [port("http", 80), {"containerPort": 9}]}],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                    {"name": "i", "ports": [port("init", 1)]},
                ],
            }),
            json!({"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:DB8::1"}], "phase": "Running"}),
        ),
        &[],
        &[
            "namespace: default",
            "uid: default/p",
            "addresses: [10.0.0.1, 2001:db8::1]",
            "node: Some(n)",
            "host_network: true",
            "ended: false",
            "ports: [NamedPort { name: dns, protocol: Udp, number: 53 }, NamedPort { name: http, protocol: Tcp, number: 80 }]",
        ],
    );
    check_kind(
        pod,
        pod_with(json!({"containers": []}), json!({"podIP": "::ffff:10.0.0.1", "phase": "Succeeded"})),
        &[],
        &["addresses: [10.0.0.1]", "ended: true"],
    );
    check_kind(
        pod,
        pod_with(
            json!({"containers": [{"name": "c", "ports": [port("UP", 80), port("a", 0), {"name": "b", "containerPort": 1, "protocol": "x"}]}]}),
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "::"}, {"ip": "x"}]}),
        ),
        &[
            "error status.podIPs[1]",
            "error status.podIPs[2]",
            "error status.podIPs[3]",
            "error spec.containers[0].ports[0].name",
            "error spec.containers[0].ports[1].containerPort",
            "error spec.containers[0].ports[2].protocol",
        ],
        &["addresses: [10.0.0.1]", "ports: []"],
    );
    check_kind(pod, json!({"metadata": {}}), &["error metadata.name"], &["None"]);
}

#[test]
fn namespaces_and_nodes() {
    check_kind(
        namespace,
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "b", "bad key": "x"}, "annotations": {"sluice.dev/forwards": "true", "sluice.dev/audit": "yes"}}}),
        &[
            "warning metadata.labels[bad key]",
            "error metadata.labels[kubernetes.io/metadata.name]",
            "error metadata.annotations[sluice.dev/audit]",
        ],
        &["kubernetes.io/metadata.name: a", "forwards: true", "audit: false"],
    );
    check_kind(
        node,
        json!({"metadata": {"name": "n"}, "status": {"addresses": [
            {"type": "Hostname", "address": "10.0.0.9"}, {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "ExternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "nowhere"},
        ]}}),
        &["error status.addresses[3].address"],
        &["addresses: [10.0.0.1]"],
    );
}

#[test]
fn services() {
    let with = |spec: Value| {
        json!({
            "metadata": {"name": "s", "namespace": "shop"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [
                {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"ip": "198.51.100.3", "ipMode": "VIP"},
                {"hostname": "example.com"},
            ]}},
        })
    };
    check_kind(
        service,
        with(json!({
            "type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "externalIPs": ["198.51.100.3", "198.51.100.4"], "internalTrafficPolicy": "Local",
            "ports": [{"port": 80, "nodePort": 30080, "name": "x"}, {"port": 0}, {"port": 1, "protocol": "UDP"}],
        })),
        &["error spec.ports[1].port"],
        &[
            "cluster_ips: [10.96.0.1, fd00::1]",
            "external_ips: [198.51.100.3, 198.51.100.4, 198.51.100.1]",
            "ServicePort { name: x, protocol: Tcp, port: 80, node_port: Some(30080) }",
            "ServicePort { name: , protocol: Udp, port: 1, node_port: None }",
            "internal_local: true",
            "external_local: false",
        ],
    );
    let nothing = &["cluster_ips: []", "external_ips: []", "node_port: None"][..];
    check_kind(
        service,
        with(json!({"clusterIP": "None", "externalIPs": ["198.51.100.4"], "ports": [{"port": 80}]})),
        &[],
        nothing,
    );
    check_kind(
        service,
        with(json!({"type": "ExternalName", "externalIPs": ["198.51.100.4"], "ports": [{"port": 80, "nodePort": 1}]})),
        &[],
        nothing,
    );
    check_kind(service, with(json!({"clusterIP": "10.96.0.1"})), &[], &["cluster_ips: [10.96.0.1]"]);
    check_kind(service, with(json!({"clusterIP": "x"})), &["error spec.clusterIPs[0]"], &["cluster_ips: []"]);
}

#[test]
fn endpoint_slices() {
    let with = |address_type: &str, ports: Value, endpoints: Value| {
        json!({
            "metadata": {"name": "e", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": address_type, "ports": ports, "endpoints": endpoints,
        })
    };
    check_kind(
        endpoint_slice,
        with(
            "IPv4",
            json!([{"port": 80}, {"name": "x"}, {"name": "y", "port": 53, "protocol": "UDP"}]),
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "terminating": true}, "nodeName": "n"}, {"addresses": ["fd00::1"]}, {"addresses": []}]),
        ),
        &["error ports[1].port", "error endpoints[2].addresses[0]", "error endpoints[3].addresses"],
        &[
            "service: s",
            "EndpointPort { name: , protocol: Tcp, number: 80 }",
            "EndpointPort { name: y, protocol: Udp, number: 53 }",
            "Endpoint { addresses: [10.0.0.1], ready: true, serving: true, terminating: false, node: None }",
            "Endpoint { addresses: [10.0.0.2], ready: false, serving: true, terminating: true, node: Some(n) }",
        ],
    );
    check_kind(endpoint_slice, with("FQDN", json!([]), json!([{"addresses": ["example.com"]}])), &[], &["None"]);
    check_kind(endpoint_slice, with("IPv5", json!([]), json!([])), &["error addressType"], &["None"]);
    check_kind(endpoint_slice, json!({"metadata": {"name": "e"}, "addressType": "IPv4"}), &[], &["None"]);
}
