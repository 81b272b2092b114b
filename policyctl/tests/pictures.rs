//! What pictures say is what other commands say: a graph's lines and words together are the connections of `list`; and
//! `exposure` tells any pod from all pods that happen to be there.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::{Value, json};

fn answer(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(args)
        .args(["-o", "json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
        .env_remove("POLICYCTL_NAMESPACE")
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Ports that something in the files begins or ends at, and their neighbours.
const TOLD: [u32; 24] = [
    1, 2, 52, 53, 54, 55, 79, 80, 81, 442, 443, 444, 5431, 5432, 5433, 8079, 8080, 8081, 8442, 8443, 8444, 9187, 9188,
    65535,
];

/// Protocol and port, of those in [`TOLD`]; 0 is a protocol without ports.
type Ports = BTreeSet<(&'static str, u32)>;

/// Reads `TCP 80,8000-8001 UDP ICMP`, and `all ports`.
fn ports(text: &str) -> Ports {
    let all = |protocol| TOLD.into_iter().map(move |port| (protocol, port));
    let mut ports = Ports::new();
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        match word {
            "all" => {
                assert_eq!(words.next(), Some("ports"));
                ports.extend(["TCP", "UDP", "SCTP"].into_iter().flat_map(all));
                ports.insert(("ICMP", 0));
            }
            "ICMP" => drop(ports.insert(("ICMP", 0))),
            protocol => {
                let protocol = ["TCP", "UDP", "SCTP"].into_iter().find(|known| *known == protocol).unwrap();
                match words.next_if(|next| next.starts_with(|first: char| first.is_ascii_digit())) {
                    None => ports.extend(all(protocol)),
                    Some(numbers) => {
                        for range in numbers.split(',') {
                            let (first, last) = range.split_once('-').unwrap_or((range, range));
                            let (first, last): (u32, u32) = (first.parse().unwrap(), last.parse().unwrap());
                            let within = TOLD.into_iter().filter(|port| (first..=last).contains(port));
                            ports.extend(within.map(|port| (protocol, port)));
                        }
                    }
                }
            }
        }
    }
    ports
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

type Connections = BTreeMap<(String, String), (Ports, Ports)>;

fn listed(state: &[&str]) -> Connections {
    let list = answer(&[&["list"], state].concat());
    let connections = list["connections"].as_array().unwrap().iter();
    connections
        .map(|found| {
            let ends = (text(&found["source"]).to_owned(), text(&found["destination"]).to_owned());
            (ends, (ports(text(&found["ports"])), ports(text(&found["portsOfSome"]))))
        })
        .collect()
}

/// What a reader of the picture may conclude, by the words of its legend.
fn drawn(state: &[&str]) -> Connections {
    let graph = answer(&[&["graph", "--no-nodes"], state].concat());
    let nodes: Vec<&Value> = graph["nodes"].as_array().unwrap().iter().collect();
    let edges: Vec<&Value> = graph["edges"].as_array().unwrap().iter().collect();
    let mut connections = Connections::new();
    for from in &nodes {
        let anywhere = ports(text(&from["anywhere"]));
        for to in &nodes {
            let (from_name, to_name) = (text(&from["name"]), text(&to["name"]));
            let alone = from_name == to_name && from["pods"].as_u64() < Some(2);
            if alone || (from["outside"] == true && to["outside"] == true) {
                continue;
            }
            let (mut all, mut some) = (Ports::new(), Ports::new());
            if to["outside"] == true {
                all.extend(&anywhere);
            }
            for edge in edges.iter().filter(|edge| edge["to"] == to["name"]) {
                let open = ports(text(&edge["ports"]));
                let everyone = edge["everyone"].as_str();
                if everyone == Some("everyone") || (everyone == Some("any pod") && from["outside"] == false) {
                    all.extend(open.intersection(&anywhere));
                }
                if edge["from"].as_array().unwrap().contains(&from["name"]) {
                    all.extend(open);
                    some.extend(ports(text(&edge["portsOfSome"])));
                }
            }
            if !(all.is_empty() && some.is_empty()) {
                connections.insert((from_name.to_owned(), to_name.to_owned()), (all, some));
            }
        }
    }
    connections
}

#[track_caller]
fn agree(state: &[&str]) {
    let (listed, drawn) = (listed(state), drawn(state));
    assert!(!listed.is_empty());
    let ends: Vec<_> = listed.keys().chain(drawn.keys()).filter(|ends| listed.get(*ends) != drawn.get(*ends)).collect();
    assert!(ends.is_empty(), "{state:?}: the graph and the list disagree about {ends:?}");
}

#[test]
fn a_graph_says_what_the_list_says() {
    for state in ["k8s", "new", "smells", "sound"] {
        agree(&["-f", state]);
    }
    agree(&["-f", "k8s", "-f", "host"]);
    agree(&["-f", "k8s", "--with", "fix.yaml"]);
    agree(&["-f", "k8s", "--without", "shop/egress-lockdown"]);
}

#[test]
fn a_focus_says_what_the_list_says() {
    let listed = listed(&["-f", "k8s"]);
    for (end, name) in
        [("shop/cache-0", "shop/cache-0"), ("shop/deploy/web", "shop/deploy/web"), ("pay/api-0", "pay/api-0")]
    {
        let focus = answer(&["graph", "-f", "k8s", "--focus", end]);
        let mut drawn = Connections::new();
        for edge in focus["edges"].as_array().unwrap() {
            for other in edge["ends"].as_array().unwrap() {
                let other = text(other).to_owned();
                let ends =
                    if edge["direction"] == "ingress" { (other, name.to_owned()) } else { (name.to_owned(), other) };
                drawn.insert(ends, (ports(text(&edge["ports"])), ports(text(&edge["portsOfSome"]))));
            }
        }
        let own: Connections = listed
            .iter()
            .filter(|((from, to), _)| from == name || to == name)
            .map(|(ends, open)| (ends.clone(), open.clone()))
            .collect();
        assert!(own == drawn, "{end}: {:?} or {:?}", own.keys(), drawn.keys());
    }
}

#[test]
fn any_pod_is_more_than_the_pods_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.json");
    let selectors = [
        (json!({}), "own"),
        (json!({"matchLabels": {"app": "server"}}), "none"),
        // all pods that are there, but not one that may come
        (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), "none"),
        (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["bad"]}]}), "none"),
        (json!({"matchExpressions": [{"key": "evil", "operator": "DoesNotExist"}]}), "none"),
    ];
    for (selector, expected) in selectors {
        for everywhere in [false, true] {
            let mut peer = json!({"podSelector": selector});
            if everywhere {
                peer["namespaceSelector"] = json!({});
            }
            let items = json!([
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}},
                {
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": "server", "namespace": "a", "labels": {"app": "server"}},
                    "spec": {"containers": [{"name": "c"}]}, "status": {"podIPs": [{"ip": "10.1.0.1"}]},
                },
                {
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"},
                    "spec": {"podSelector": {}, "ingress": [{"from": [peer], "ports": [{"port": 80}]}]},
                },
            ]);
            fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).unwrap();
            let exposure = answer(&["exposure", "-f", file.to_str().unwrap()]);
            let ingress = &exposure["workloads"][0]["ingress"];
            let (own, any) = (&ingress["ownNamespace"]["ports"], &ingress["anyNamespace"]["ports"]);
            let open = if expected == "own" { "TCP 80" } else { "" };
            assert_eq!(own, open, "{selector}, everywhere: {everywhere}");
            assert_eq!(any, if everywhere { open } else { "" }, "{selector}, everywhere: {everywhere}");
            assert_eq!(ingress["world"]["ports"], "");
            assert_eq!(ingress["protected"], "yes");
        }
    }
}
