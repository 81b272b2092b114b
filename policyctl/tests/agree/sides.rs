//! Answers about one side of a connection: `exposure` and `effective`.

use std::{cell::Cell, collections::BTreeSet, net::IpAddr};

use policy_compiler::{
    files::{Gather, parse},
    model::ObjectName,
    reference::{End, Objects},
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    config,
    generate::{Manifests, NAMESPACES, document, policies},
    ports::{Ports, ports},
    truth::{TOLD, Truth, asked},
    world::{World, with_workloads},
};

/// Values that labels may have: those that selectors name, and one that none does.
const VALUES: [Option<&str>; 5] = [None, Some("web"), Some("db"), Some(""), Some("else")];

/// Names of namespaces that may come: those that selectors name, and one that none does.
const LATER: [&str; 3] = ["web", "db", "later"];

/// The addresses that the next pod will have, if it is beside those that there are.
fn next_addresses(manifests: &Manifests) -> Vec<IpAddr> {
    let mut gather = Gather::default();
    gather.file("f.json", document(manifests).as_bytes(), false);
    gather.finish().assume_addresses()
}

fn read(objects: &mut Objects, manifest: &Value) {
    let text = manifest.to_string();
    parse("f.json", text.as_bytes()).objects.iter().for_each(|located| objects.put(&located.object));
}

/// Labels of `app` and `tier`, and sometimes of a key that only namespaces should have.
fn labels() -> Vec<Value> {
    let mut all = Vec::new();
    for app in VALUES {
        for tier in VALUES {
            let pairs = [("app", app), ("tier", tier)];
            let labels: serde_json::Map<_, _> =
                pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect();
            all.push(labels.into());
        }
    }
    for name in ["a", "b", "web", "db", "", "else"] {
        all.push(json!({"kubernetes.io/metadata.name": name}));
    }
    all
}

/// The cluster with one more pod, and with one more namespace if it is of one that isn't there.
fn with_stranger(
    objects: &Objects,
    addresses: &[IpAddr],
    (namespace, of): (&str, Option<&Value>),
    labels: &Value,
) -> Objects {
    let mut objects = objects.clone();
    if let Some(of) = of {
        let metadata = json!({"name": namespace, "labels": of});
        read(&mut objects, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
    }
    read(
        &mut objects,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "stranger", "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"podIPs": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
        }),
    );
    objects
}

/// Leaves the ports at which a pod's own rules let these addresses pass, all of those that are of its families.
fn retain_open(
    ports: &mut Ports,
    objects: &Objects,
    (pod, families): (&ObjectName, (bool, bool)),
    ingress: bool,
    addresses: &[IpAddr],
) {
    let own = |address: &&IpAddr| if address.is_ipv6() { families.1 } else { families.0 };
    let number = |name: &str| asked().find(|(known, ..)| *known == name).unwrap().1;
    ports.retain(|(protocol, port)| {
        let protocol = number(protocol);
        addresses.iter().filter(own).all(|address| {
            let verdict = if ingress {
                objects.may_receive(pod, *address, protocol, *port)
            } else {
                objects.may_send(pod, *address, protocol, *port)
            };
            verdict.unwrap()
        })
    });
}

fn families(pod: &Value) -> (bool, bool) {
    let ips = pod["status"]["podIPs"].as_array().unwrap();
    let has = |v6| ips.iter().any(|ip| ip["ip"].as_str().unwrap().contains(':') == v6);
    (has(false), has(true))
}

/// What was said of any pod, of the own namespace and of all, is true of every pod that could come, and of no more: at
/// every other port there is one that is refused.
#[test]
fn exposure_and_the_reference_agree() {
    let (open, shut) = (Cell::new(0), Cell::new(0));
    // each of them tries a thousand pods
    let few = Config { cases: config().cases.div_ceil(4), ..config() };
    TestRunner::new(few)
        .run(&(with_workloads(), any::<Index>()), |(manifests, which)| {
            let world = World::of(&manifests);
            let (exposure, status) = world.ask(&["exposure"]);
            prop_assert_eq!(status, 0);
            let workloads = exposure["workloads"].as_array().unwrap();
            if workloads.is_empty() {
                return Ok(());
            }
            let workload = which.get(workloads);
            let name = workload["name"].as_str().unwrap();
            let own_namespace = name.split_once('/').unwrap().0;
            let truth = Truth::new(&world, None);
            let members: Vec<(&ObjectName, (bool, bool))> = truth.pods[name]
                .iter()
                .filter_map(|end| {
                    let End::Pod(pod) = end else { return None };
                    let object = world.all("Pod").find(|object| object["metadata"]["name"] == *pod.name)?;
                    Some((pod, families(object))).filter(|_| object["spec"]["hostNetwork"] != true)
                })
                .collect();
            let addresses = next_addresses(&manifests);
            let mut strangers: Vec<(bool, Objects)> = Vec::new();
            for labels in labels() {
                for namespace in NAMESPACES {
                    let stranger = with_stranger(&world.objects, &addresses, (namespace, None), &labels);
                    strangers.push((namespace == own_namespace, stranger));
                }
                for name in LATER {
                    for of in labels_of_namespaces() {
                        strangers.push((false, with_stranger(&world.objects, &addresses, (name, Some(&of)), &labels)));
                    }
                }
            }
            for (direction, ingress) in [("ingress", true), ("egress", false)] {
                let mut expected = [asked_ports(), asked_ports()];
                let mut some = [Ports::new(), Ports::new()];
                for (pod, families) in &members {
                    let mut of_pod = [asked_ports(), asked_ports()];
                    for (is_own, objects) in &strangers {
                        for of_pod in &mut of_pod[usize::from(!is_own)..] {
                            retain_open(of_pod, objects, (pod, *families), ingress, &addresses);
                        }
                    }
                    for place in 0..2 {
                        expected[place].retain(|port| of_pod[place].contains(port));
                        some[place].extend(&of_pod[place]);
                    }
                }
                for (place, field) in ["ownNamespace", "anyNamespace"].iter().enumerate() {
                    let told = &workload[direction][field];
                    let of = |field: &str| ports(told[field].as_str().unwrap(), &TOLD);
                    let partly: Ports = some[place].difference(&expected[place]).copied().collect();
                    prop_assert_eq!(&of("ports"), &expected[place], "{} {} {}", name, direction, field);
                    prop_assert_eq!(&of("portsOfSome"), &partly, "{} {} {}", name, direction, field);
                    open.set(open.get() + expected[place].len());
                    shut.set(shut.get() + asked().count() - expected[place].len());
                }
                let isolated = members.iter().filter(|(pod, _)| is_isolated(&world, pod, ingress)).count();
                let protected = match isolated {
                    0 => "no",
                    all if all == members.len() => "yes",
                    _ => "some",
                };
                prop_assert_eq!(&workload[direction]["protected"], protected, "{} {}", name, direction);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(open.get() > 0 && shut.get() > 0, "{} open, {} shut", open.get(), shut.get());
}

fn asked_ports() -> Ports {
    asked().map(|(name, _, port)| (name, port)).collect()
}

/// Namespaces that may come: those with the labels that selectors tell apart.
fn labels_of_namespaces() -> Vec<Value> {
    labels().into_iter().filter(|labels| labels.get("kubernetes.io/metadata.name").is_none()).step_by(3).collect()
}

/// Whether a policy isolates a pod: with its rules taken away, all that remains is refused.
fn is_isolated(world: &World, pod: &ObjectName, ingress: bool) -> bool {
    let mut objects = world.objects.clone();
    for policy in &mut objects.policies {
        let spec = policy.spec.as_mut().unwrap();
        // types that were implied by rules stay
        let mut types = spec.policy_types.clone().unwrap_or_default();
        if types.is_empty() {
            types.push("Ingress".to_owned());
            types.extend(spec.egress.as_ref().filter(|rules| !rules.is_empty()).map(|_| "Egress".to_owned()));
        }
        spec.policy_types = Some(types);
        (spec.ingress, spec.egress) = (None, None);
    }
    let address = "8.8.4.4".parse().unwrap();
    let verdict =
        if ingress { objects.may_receive(pod, address, 6, 77) } else { objects.may_send(pod, address, 6, 77) };
    verdict == Some(false)
}

/// What `effective` lists are the rules of the policies that isolate the pod, all of them; and to a peer belong as many
/// pods as the reference takes for it.
#[test]
fn effective_and_the_reference_agree() {
    let counted = Cell::new(0);
    TestRunner::new(config())
        .run(&(with_workloads(), any::<Index>()), |(manifests, which)| {
            let world = World::of(&manifests);
            let is_judged = |pod: &&Value| {
                let is_live = !matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
                is_live && pod["spec"]["hostNetwork"] != true && families(pod) != (false, false)
            };
            let pods: Vec<&Value> = world.all("Pod").filter(is_judged).collect();
            if pods.is_empty() {
                return Ok(());
            }
            let name = name_of(pods[which.index(pods.len())]);
            let (effective, status) = world.ask(&["effective", &name.to_string()]);
            prop_assert_eq!(status, 0);
            for (direction, ingress) in [("ingress", true), ("egress", false)] {
                let told = &effective[direction];
                prop_assert_eq!(told["isolated"].as_bool(), Some(is_isolated(&world, &name, ingress)), "{}", name);
                let mut isolating = BTreeSet::new();
                let mut rules: BTreeSet<(String, u64)> = BTreeSet::new();
                for place in policies(&manifests) {
                    let policy = &manifests.0[place];
                    if !is_isolated(&only(&world, policy), &name, ingress) {
                        continue;
                    }
                    isolating.insert(name_of(policy).to_string());
                    for (index, rule) in policy["spec"][direction].as_array().into_iter().flatten().enumerate() {
                        let origin = format!("{} {direction}[{index}]", name_of(policy));
                        let peers =
                            rule[if ingress { "from" } else { "to" }].as_array().filter(|peers| !peers.is_empty());
                        let counts: Vec<u64> = match peers {
                            None => vec![pods.len() as u64],
                            Some(peers) => peers.iter().map(|peer| matching(&world, policy, peer, &pods)).collect(),
                        };
                        rules.extend(counts.into_iter().map(|count| (origin.clone(), count)));
                    }
                }
                let policies = told["policies"].as_array().unwrap().iter();
                let policies: BTreeSet<String> = policies.map(|policy| policy.as_str().unwrap().to_owned()).collect();
                prop_assert_eq!(policies, isolating, "{} {}", name, direction);
                let mut found = BTreeSet::new();
                for rule in effective["rules"].as_array().unwrap().iter().filter(|rule| rule["direction"] == direction)
                {
                    for origin in rule["by"].as_array().unwrap() {
                        let origin = origin.as_str().unwrap().split(" (").next().unwrap().to_owned();
                        found.insert((origin, rule["pods"].as_u64().unwrap()));
                    }
                }
                counted.set(counted.get() + found.len());
                prop_assert_eq!(found, rules, "{} {}", name, direction);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(counted.get() > 10, "{}", counted.get());
}

fn name_of(object: &Value) -> ObjectName {
    let text = |field: &str| object["metadata"][field].as_str().unwrap();
    ObjectName::new(text("namespace"), text("name"))
}

/// The cluster with one policy alone.
fn only(world: &World, policy: &Value) -> World {
    let mut manifests = world.manifests.clone();
    manifests.0.retain(|object| object["kind"] != "NetworkPolicy");
    manifests.0.push(policy.clone());
    World::of(&manifests)
}

/// How many of the pods are this peer of a policy: those that may enter a pod of its namespace which a policy of this
/// peer alone selects.
fn matching(world: &World, policy: &Value, peer: &Value, pods: &[&Value]) -> u64 {
    let namespace = policy["metadata"]["namespace"].as_str().unwrap();
    let alone = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"probe": "yes"}}, "ingress": [{"from": [peer]}]},
    });
    let mut objects = only(world, &alone).objects;
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace, "labels": {"probe": "yes"}},
        "spec": {"containers": [{"name": "c"}]}, "status": {"podIPs": [{"ip": "10.9.9.9"}, {"ip": "fd99::9"}]},
    });
    read(&mut objects, &probe);
    let enters = |pod: &&&Value| {
        let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
        let mut addresses = ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap());
        addresses.any(|address| objects.may_receive(&ObjectName::new(namespace, "probe"), address, 6, 80) == Some(true))
    };
    pods.iter().filter(enters).count() as u64
}
