//! What pictures say is what other commands say: a graph's lines and words together are the connections of `list`; and
//! `exposure` tells any pod from all pods that happen to be there.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod ports;

use std::{collections::BTreeMap, fs, process::Command};

use ports::Ports;
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
const TOLD: [u16; 24] = [
    1, 2, 52, 53, 54, 55, 79, 80, 81, 442, 443, 444, 5431, 5432, 5433, 8079, 8080, 8081, 8442, 8443, 8444, 9187, 9188,
    65535,
];

/// Those of [`TOLD`] that a text names.
fn ports(text: &str) -> Ports {
    ports::ports(text, &TOLD)
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

/// Nothing of what is drawn of an explanation is left out, however long names are.
#[test]
fn names_beside_gates_are_whole() {
    let namespace = "payment-services-staging-eu-central";
    let pods =
        ["recommendation-engine-batch-worker-canary-6c9f7d8b54-x2x4z", "settlement-reconciliation-database-primary-0"];
    let [from, to] = pods.map(|pod| format!("{namespace}/{pod}"));
    for format in ["svg", "html"] {
        let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
            .args(["explain", "-f", "long", &from, &format!("{to}:5432"), "-o", format])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
            .output()
            .unwrap();
        let drawn = String::from_utf8(output.stdout).unwrap();
        // html says it all in words too
        let picture = &drawn[drawn.find("<svg").unwrap()..drawn.find("</svg>").unwrap()];
        assert!(!picture.contains('\u{2026}'), "{picture}");
        let texts = picture.split("<text ").skip(1).map(|text| {
            let text = &text[text.find('>').unwrap() + 1..];
            &text[..text.find('<').unwrap()]
        });
        let written: String = texts.collect();
        let policy = "allow-reconciliation-workers-to-the-settlement-database";
        let label = "app.kubernetes.io/name=recommendation-engine-batch-worker";
        for whole in [&*from, &*to, policy, label, "pod 10.1.0.1", &format!("egress of {}", pods[0])] {
            let whole = whole.replace(' ', "");
            assert!(written.replace(' ', "").contains(&whole), "{whole} is not in {written}");
        }
    }
}
