//! The reference against sentences of the documentation. Most of what it must say is in `cases/`.

use super::*;
use crate::files::parse;

const PODS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}}
- {apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web}}
  spec: {nodeName: n1, containers: []}
  status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
  status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd00::2'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: agent, namespace: shop, labels: {app: web}}
  spec: {nodeName: n1, hostNetwork: true, containers: []}
  status: {podIP: 10.0.0.1}
- apiVersion: v1
  kind: Pod
  metadata: {name: done, namespace: shop, labels: {app: web}}
  spec: {nodeName: n1, containers: []}
  status: {podIP: 10.1.0.9, phase: Failed}
- apiVersion: v1
  kind: Service
  metadata: {name: db, namespace: shop}
  spec: {clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
  addressType: IPv4
  ports: [{port: 5432}]
  endpoints: [{addresses: [10.1.0.2]}]
";

fn end(text: &str) -> End {
    match text.split_once('/') {
        _ if text.parse::<IpAddr>().is_ok() => End::Address(text.parse().unwrap()),
        Some((namespace, name)) => End::Pod(ObjectName::new(namespace, name)),
        None => End::Node(text.to_owned()),
    }
}

/// One policy of namespace shop with this spec, and connections as `source destination port/protocol` with what becomes
/// of them.
#[track_caller]
fn check(spec: &str, expected: &[(&str, Option<Verdict>)]) {
    let policy = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {spec}}}"
    );
    let mut objects = Objects::default();
    for text in [PODS, &policy] {
        let parsed = parse("f", text.as_bytes());
        assert_eq!(parsed.diagnostics, []);
        parsed.objects.iter().for_each(|located| objects.put(&located.object));
    }
    for (connection, expected) in expected {
        let [source, destination, port] = connection.split(' ').collect::<Vec<_>>()[..] else { panic!("{connection}") };
        let (port, protocol) = port.split_once('/').unwrap_or((port, "6"));
        let connection = Connection {
            source: end(source),
            destination: end(destination),
            protocol: protocol.parse().unwrap(),
            port: port.parse().unwrap(),
            ipv6: false,
        };
        assert_eq!(objects.judge(&connection), *expected, "{spec}: {connection:?}");
    }
}

use Verdict::{Allowed, RefusedByBoth, RefusedByEgress, RefusedByIngress};

#[test]
fn ingress_is_isolated_alone_unless_there_are_egress_rules() {
    check(
        "{podSelector: {}}",
        &[
            ("shop/web shop/db 80", Some(RefusedByIngress)),
            ("shop/web 1.1.1.1 80", Some(Allowed)),
            ("1.1.1.1 shop/db 80", Some(RefusedByIngress)),
            ("n1 shop/db 80", Some(Allowed)),
            ("n2 shop/db 80", Some(RefusedByIngress)),
            ("10.0.0.1 shop/db 80", Some(RefusedByIngress)),
            ("shop/agent shop/db 80", Some(Allowed)),
            ("shop/web shop/agent 80", Some(Allowed)),
            ("shop/web shop/web 80", Some(Allowed)),
            ("shop/web shop/done 80", None),
            ("shop/web shop/nobody 80", None),
        ],
    );
    check("{egress: []}", &[("shop/web 1.1.1.1 80", Some(Allowed)), ("shop/web shop/db 80", Some(RefusedByIngress))]);
    check(
        "{egress: [{to: [{podSelector: {}}]}]}",
        &[("shop/web shop/db 80", Some(RefusedByIngress)), ("shop/web 1.1.1.1 80", Some(RefusedByEgress))],
    );
    check(
        "{policyTypes: [Egress]}",
        &[("shop/web shop/db 80", Some(RefusedByEgress)), ("1.1.1.1 shop/db 80", Some(Allowed))],
    );
    check("{policyTypes: [Egress, Ingress]}", &[("shop/web shop/db 80", Some(RefusedByBoth))]);
    check("{policyTypes: [Wrong], ingress: [{}], egress: [{}]}", &[("shop/web shop/db 80", Some(RefusedByBoth))]);
}

#[test]
fn ports_and_protocols() {
    check(
        "{ingress: [{ports: [{port: sql}, {port: 100, endPort: 102}, {protocol: UDP}]}]}",
        &[
            ("shop/web shop/db 5432", Some(Allowed)),
            ("shop/web shop/db 5432/132", Some(RefusedByIngress)),
            ("shop/db shop/web 5432", Some(RefusedByIngress)),
            ("shop/web shop/db 100", Some(Allowed)),
            ("shop/web shop/db 102", Some(Allowed)),
            ("shop/web shop/db 103", Some(RefusedByIngress)),
            ("shop/web shop/db 7/17", Some(Allowed)),
            ("shop/web shop/db 0/1", Some(RefusedByIngress)),
        ],
    );
    check("{ingress: [{}]}", &[("shop/web shop/db 0/1", Some(Allowed))]);
}

#[test]
fn a_service_is_its_back_ends() {
    check(
        "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: sql}]}]}",
        &[
            ("shop/web 10.96.0.1 80", Some(Allowed)),
            ("shop/web 10.96.0.1 81", Some(RefusedByEgress)),
            ("shop/web 10.0.0.2 30080", Some(Allowed)),
            ("shop/web 10.0.0.2 30081", Some(RefusedByEgress)),
            ("shop/web shop/db 80", Some(RefusedByEgress)),
        ],
    );
    check(
        "{policyTypes: [Ingress, Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}, {to: [{podSelector: {}}]}]}",
        &[
            ("shop/web 10.96.0.1 80", Some(RefusedByIngress)),
            ("shop/db 10.96.0.1 80", Some(Allowed)),
            ("shop/web 10.96.0.1 0/1", Some(Allowed)),
        ],
    );
    check(
        "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}",
        &[("shop/web 10.96.0.1 80", Some(RefusedByEgress))],
    );
}
