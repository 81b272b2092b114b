//! Generated clusters as API objects in JSON, for property tests: [`cluster`]. A small vocabulary, so that things meet:
//! few labels, few ports, overlapping blocks that lie across the pods' addresses. Everything is valid; [`break_at`] makes
//! it invalid.

mod objects;
mod policy;

use std::{fmt, net::IpAddr};

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

pub(crate) use self::policy::policy;

/// The nodes; the first one's pods are compiled.
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];

/// The namespaces; the last one is never defined.
pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "c"];

/// The objects of a cluster, policies last. Prints as the manifests that it is.
#[derive(Clone, PartialEq)]
pub(crate) struct Manifests(pub(crate) Vec<Value>);

impl fmt::Debug for Manifests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|object| write!(f, "\n---\n{object}"))
    }
}

/// A cluster.
pub(crate) fn cluster() -> impl Strategy<Value = Manifests> {
    let pods = vec(objects::pod(), 1..8);
    let services = vec(objects::service(), 0..4);
    let policies = vec(policy(), 0..5);
    (objects::namespaces(), pods, services, policies).prop_map(|(namespaces, pods, services, policies)| {
        let mut all = objects::nodes();
        all.extend(namespaces);
        all.extend(pods.into_iter().enumerate().map(|(index, pod)| pod.object(index)));
        all.extend(services.into_iter().enumerate().flat_map(|(index, service)| service.objects(index)));
        all.extend(policies.into_iter().enumerate().map(|(index, mut policy)| {
            policy["metadata"]["name"] = json!(format!("p{index}"));
            policy
        }));
        Manifests(all)
    })
}

/// As one document.
pub(crate) fn document(objects: &Manifests) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects.0}).to_string()
}

/// The indices of the policies.
pub(crate) fn policies(objects: &Manifests) -> Vec<usize> {
    (0..objects.0.len()).filter(|index| objects.0[*index]["kind"] == "NetworkPolicy").collect()
}

/// Addresses worth asking about: every pod's and node's, front ends, and outside ones in and out of the blocks.
pub(crate) fn remotes(objects: &Manifests) -> Vec<IpAddr> {
    let mut found = Vec::new();
    objects.0.iter().for_each(|object| collect(object, &mut found));
    let outside = ["10.0.0.200", "10.0.9.9", "203.0.113.9", "8.8.8.8", "fd00::99", "fd00:1::1", "2001:db8::9"];
    found.extend(outside.map(|text| text.parse::<IpAddr>().expect("they are addresses")));
    found.sort();
    found.dedup();
    found
}

fn collect(value: &Value, found: &mut Vec<IpAddr>) {
    match value {
        Value::String(text) => found.extend(text.parse::<IpAddr>()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(values) => values.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// Protocols and destination ports worth asking about; the last has no ports.
pub(crate) const PORTS: [(u8, u16); 15] = [
    (6, 80),
    (6, 81),
    (6, 443),
    (6, 8080),
    (6, 9000),
    (6, 1),
    (6, 65535),
    (6, 30080),
    (6, 30081),
    (17, 53),
    (17, 80),
    (17, 30080),
    (132, 80),
    (132, 65535),
    (1, 0),
];

/// What can be done to a part of an object so that the API server refuses it.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// Another value, which fits nowhere in a policy's `spec`.
    Replace(Value),
    /// A field or key gets a name that there isn't.
    Rename,
    /// A field or key is added that there isn't.
    Add,
}

/// Any damage.
pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let replace = prop::sample::select(vec![json!("?"), json!(-7), json!([7]), json!(true), json!({"?": 1})]);
    prop_oneof![4 => replace.prop_map(Damage::Replace), 2 => Just(Damage::Rename), 1 => Just(Damage::Add)]
}

/// Damages a policy at the `place`-th of its values below `spec`, counted round and round. `false` if there is none.
pub(crate) fn break_at(policy: &mut Value, place: usize, damage: &Damage) -> bool {
    let mut count = 0;
    visit(&mut policy["spec"], &mut |_, _| {
        count += 1;
        false
    });
    if count == 0 {
        return false;
    }
    let mut left = place % count;
    visit(&mut policy["spec"], &mut |parent, key| {
        let here = left == 0;
        left = left.wrapping_sub(1);
        if here {
            apply(parent, key, damage);
        }
        here
    })
}

/// Calls `change` for every entry and element, with what it is in; stops where it says `true`.
fn visit(value: &mut Value, change: &mut impl FnMut(&mut Value, &Key) -> bool) -> bool {
    let keys: Vec<Key> = match value {
        Value::Array(values) => (0..values.len()).map(Key::Index).collect(),
        Value::Object(values) => values.keys().cloned().map(Key::Name).collect(),
        _ => Vec::new(),
    };
    for key in keys {
        if change(value, &key) {
            return true;
        }
        let inner = match &key {
            Key::Index(index) => &mut value[*index],
            Key::Name(name) => &mut value[name.as_str()],
        };
        if visit(inner, change) {
            return true;
        }
    }
    false
}

enum Key {
    Index(usize),
    Name(String),
}

fn apply(parent: &mut Value, key: &Key, damage: &Damage) {
    match (damage, key, parent) {
        (Damage::Rename, Key::Name(name), Value::Object(values)) => {
            let value = values.remove(name).expect("the key was found there");
            values.insert(format!("{name}?"), value);
        }
        (Damage::Add, Key::Name(_), Value::Object(values)) => {
            values.insert("?".to_owned(), json!("?"));
        }
        (Damage::Replace(value), Key::Name(name), Value::Object(values)) => {
            values.insert(name.clone(), value.clone());
        }
        (Damage::Replace(value), Key::Index(index), Value::Array(values)) => values[*index] = value.clone(),
        (_, Key::Index(index), Value::Array(values)) => values[*index] = json!("?"),
        _ => {}
    }
}
