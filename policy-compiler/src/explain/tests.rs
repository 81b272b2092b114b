//! Explanations of a small cluster, in words and in JSON.

use super::*;
use crate::files::{assemble, parse};

const PODS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: pay, labels: {team: payment}}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}}
- {apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
  spec: {nodeName: n1, containers: []}
  status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: wbe, namespace: shop, labels: {app: wbe}}
  spec: {nodeName: n1, containers: []}
  status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd00::2'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
  status: {podIPs: [{ip: 10.1.0.3}, {ip: 'fd00::3'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: api, namespace: pay, labels: {app: api}}
  spec: {nodeName: n2, containers: []}
  status: {podIPs: [{ip: 10.1.1.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: proxy, namespace: pay}
  spec: {nodeName: n2, hostNetwork: true, containers: []}
  status: {podIPs: [{ip: 10.0.0.2}]}
- apiVersion: v1
  kind: Service
  metadata: {name: db, namespace: shop}
  spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
  addressType: IPv4
  ports: [{port: 5432}]
  endpoints: [{addresses: [10.1.0.3]}, {addresses: [10.1.1.1]}]
";

const POLICIES: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-ingress, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: payments}}
    - podSelector: {matchLabels: {app: web}}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.0.0.0/24]}
    ports:
    - {port: sql}
  - from:
    - podSelector: {matchExpressions: [{key: app, operator: In, values: [metrics]}]}
    ports: [{port: 9187, endPort: 9190}, {port: 53, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wbe-egress, namespace: shop}
spec:
  podSelector: {matchLabels: {app: wbe}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {}}]
    ports: [{port: 5432}]
";

fn end(text: &str) -> End {
    match text.split_once('/') {
        _ if text.parse::<IpAddr>().is_ok() => End::Address(text.parse().unwrap()),
        Some(("svc", name)) => End::Service(ObjectName::new("shop", name)),
        Some((namespace, name)) => End::Pod(ObjectName::new(namespace, name)),
        None => End::Node(text.into()),
    }
}

fn ask(source: &str, destination: &str, port: Option<(Protocol, u16)>) -> Result<Vec<Explanation>, Unanswerable> {
    let assembled = assemble([&parse("k8s/pods.yaml", PODS.as_bytes()), &parse("k8s/db.yaml", POLICIES.as_bytes())]);
    assert_eq!(assembled.diagnostics, []);
    let query = Query { source: end(source), destination: end(destination), port, family: None };
    explain(&assembled.cluster, &query)
}

/// What is said of a TCP connection.
fn said(source: &str, destination: &str, port: u16) -> String {
    match ask(source, destination, Some((Protocol::Tcp, port))) {
        Ok(explanations) => render(&explanations, false),
        Err(error) => error.to_string(),
    }
}

#[test]
fn in_words() {
    for (name, source, destination, port) in [
        ("allowed", "shop/web", "shop/db", 5432),
        ("label_typo", "shop/wbe", "shop/db", 5432),
        ("both_refuse", "shop/wbe", "shop/db", 80),
        ("other_namespace", "pay/api", "shop/db", 5432),
        ("host_network", "pay/proxy", "shop/db", 5432),
        ("own_node", "n1", "shop/db", 5432),
        ("node_address", "10.0.0.1", "shop/db", 5432),
        ("block", "10.2.0.1", "shop/db", 5432),
        ("outside", "fd01::1", "shop/db", 5432),
        ("service", "shop/web", "svc/db", 80),
        ("mixed_service", "shop/wbe", "svc/db", 80),
        ("no_such_port", "shop/web", "svc/db", 81),
        ("itself", "shop/web", "shop/web", 81),
    ] {
        insta::assert_snapshot!(name, said(source, destination, port));
    }
    insta::assert_snapshot!("verbose", render(&ask("shop/wbe", "shop/db", None).unwrap(), true));
}

#[test]
fn in_json() {
    let explanations = ask("shop/wbe", "shop/db", Some((Protocol::Tcp, 5432))).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&explanations[0]).unwrap());
}

#[test]
fn what_has_no_answer_says_why() {
    #[track_caller]
    fn check(source: &str, destination: &str, expected: &str) {
        assert_eq!(said(source, destination, 80), expected);
    }
    check("shop/webb", "shop/db", "there is no pod shop/webb; did you mean shop/web?");
    check("shop/web", "shop/nobody", "there is no pod shop/nobody");
    check("n3", "shop/db", "there is no node n3; did you mean n1?");
    check("shop/web", "svc/other", "there is no Service shop/other");
    check("svc/db", "shop/web", "Service shop/db can't open a connection; name one of its pods");
    check("fd01::1", "pay/api", "fd01::1 and pay/api have no address of the same family");
}

/// A single line may be too long where the names are; nothing else.
#[test]
fn lines_stay_readable() {
    let text = said("shop/wbe", "svc/db", 80);
    let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 110).collect();
    assert_eq!(long, [""; 0], "{long:#?}");
}
