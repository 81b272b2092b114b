//! NetworkPolicies.

use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::NAMESPACES;

/// A valid policy, without a name.
pub(crate) fn policy() -> impl Strategy<Value = Value> {
    let types = option::of(select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Egress", "Ingress"]),
        json!([]),
    ]));
    let rules = |peers| option::weighted(0.8, vec(rule(peers), 0..4));
    (select(NAMESPACES.to_vec()), option::weighted(0.8, selector()), types, rules("from"), rules("to")).prop_map(
        |(namespace, subject, types, ingress, egress)| {
            let spec = fields([
                ("podSelector", subject),
                ("policyTypes", types),
                ("ingress", ingress.map(Value::from)),
                ("egress", egress.map(Value::from)),
            ]);
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace}, "spec": spec,
            })
        },
    )
}

/// An object with those of the fields that there are.
fn fields<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
}

fn rule(peers_field: &'static str) -> impl Strategy<Value = Value> {
    let list = |strategy: BoxedStrategy<Value>| {
        option::weighted(0.8, vec(strategy, 0..3)).prop_map(|list| list.map(Value::from))
    };
    (list(peer().boxed()), list(port().boxed()))
        .prop_map(move |(peers, ports)| fields([(peers_field, peers), ("ports", ports)]))
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        block().prop_map(|block| json!({"ipBlock": block})),
        block().prop_map(|block| json!({"ipBlock": block})),
    ]
}

/// A selector: often empty, seldom with more than one requirement.
fn selector() -> impl Strategy<Value = Value> {
    let key = || select(vec!["app", "tier", "kubernetes.io/metadata.name"]);
    let value = || select(vec!["web", "db", "", "a", "b"]);
    let label = option::of((key(), value()));
    let expression = (key(), select(vec!["In", "NotIn", "Exists", "DoesNotExist"]), vec(value(), 1..3)).prop_map(
        |(key, operator, values)| {
            let takes_values = matches!(operator, "In" | "NotIn");
            fields([
                ("key", Some(json!(key))),
                ("operator", Some(json!(operator))),
                ("values", takes_values.then(|| json!(values))),
            ])
        },
    );
    (label, vec(expression, 0..2)).prop_map(|(label, expressions)| {
        let labels = label.map(|(key, value)| Value::from(Map::from_iter([(key.to_owned(), json!(value))])));
        fields([("matchLabels", labels), ("matchExpressions", (!expressions.is_empty()).then(|| json!(expressions)))])
    })
}

/// Prefixes that lie within and across each other and the pods' addresses, some with host bits.
const PREFIXES: [&str; 22] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.1.0/24",
    "10.0.0.0/30",
    "10.0.0.7/30",
    "10.0.0.1/32",
    "10.0.1.2/32",
    "192.168.0.0/16",
    "192.168.0.1/32",
    "203.0.113.0/24",
    "203.0.113.9/32",
    "10.96.0.0/16",
    "198.51.100.0/24",
    "::/0",
    "fd00::/16",
    "fd00::/64",
    "fd00::3/127",
    "fd00::2/128",
    "2001:db8::/32",
    "fd77::/64",
];

fn block() -> impl Strategy<Value = Value> {
    (select(PREFIXES.to_vec()), vec(any::<prop::sample::Index>(), 0..4)).prop_map(|(cidr, picks)| {
        let whole: IpNet = cidr.parse().expect("it is a prefix");
        let within: Vec<_> = PREFIXES
            .iter()
            .filter(|text| {
                text.parse::<IpNet>()
                    .is_ok_and(|inner| whole.contains(&inner) && inner.prefix_len() > whole.prefix_len())
            })
            .collect();
        let except: Vec<_> =
            if within.is_empty() { Vec::new() } else { picks.iter().map(|pick| *pick.get(&within)).collect() };
        fields([("cidr", Some(json!(cidr))), ("except", (!except.is_empty()).then(|| json!(except)))])
    })
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = || option::of(select(vec![json!("TCP"), json!("UDP"), json!("SCTP")]));
    let number = select(vec![80, 443, 8080, 53, 1, 65535]);
    let range = select(vec![(1, 65535), (79, 81), (80, 80), (80, 8080), (8000, 9000), (9000, 65535), (1, 442)]);
    prop_oneof![
        (protocol(), number).prop_map(|(protocol, port)| fields([("protocol", protocol), ("port", Some(json!(port)))])),
        (protocol(), select(vec!["http", "dns", "nobody"]))
            .prop_map(|(protocol, port)| fields([("protocol", protocol), ("port", Some(json!(port)))])),
        (protocol(), range).prop_map(|(protocol, (first, last))| {
            fields([("protocol", protocol), ("port", Some(json!(first))), ("endPort", Some(json!(last)))])
        }),
        protocol().prop_map(|protocol| fields([("protocol", protocol)])),
    ]
}
