//! Answers about a whole cluster, port by port: `list`, `graph` and `diff`, and `reach` and `who` of ends of any kind.

use std::{cell::Cell, net::IpAddr};

use policy_compiler::reference::End;
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    config,
    generate::{Manifests, NODES, policy},
    ports::{Ports, ports},
    truth::{Connections, Open, TOLD, Truth, asked, insert, told},
    world::{World, ask, with_workloads},
};

/// More cases than elsewhere: what goes wrong in small print does so seldom.
fn many() -> Config {
    Config { cases: config().cases * 3, ..config() }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn elements<'a>(answer: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    answer[list].as_array().unwrap_or_else(|| panic!("no {list} in {answer}")).iter()
}

/// What two readings say of the same ends, where it isn't the same.
fn differences(expected: &Connections, found: &Connections) -> Vec<String> {
    let ends = expected.keys().chain(found.keys()).filter(|ends| expected.get(*ends) != found.get(*ends));
    let less = |one: &Open, other: &Open| {
        let (all, some): (Vec<_>, Vec<_>) =
            (one.0.difference(&other.0).collect(), one.1.difference(&other.1).collect());
        format!("{all:?}, for some {some:?}")
    };
    let of = |side: &Connections, ends: &(String, String)| side.get(ends).cloned().unwrap_or_default();
    let told = |ends: &(String, String)| {
        let (expected, found) = (of(expected, ends), of(found, ends));
        format!("{ends:?}: lacks {}; has too much {}", less(&expected, &found), less(&found, &expected))
    };
    ends.map(told).collect()
}

#[test]
fn the_list_and_the_reference_agree() {
    let (open, some) = (Cell::new(0), Cell::new(0));
    TestRunner::new(many())
        .run(&with_workloads(), |manifests| {
            let world = World::of(&manifests);
            let expected = Truth::new(&world, None).connections();
            open.set(open.get() + expected.len());
            some.set(some.get() + expected.values().filter(|(_, some)| !some.is_empty()).count());
            let (list, status) = world.ask(&["list"]);
            prop_assert_eq!(status, 0);
            let mut found = Connections::new();
            for element in elements(&list, "connections") {
                insert(&mut found, text(&element["source"]), text(&element["destination"]), told(element));
            }
            let wrong = differences(&expected, &found);
            prop_assert!(wrong.is_empty(), "{wrong:#?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(some.get() > 0 && some.get() < open.get(), "{} of {}", some.get(), open.get());
}

/// What a reader of the picture may conclude, by the words of its legend; and the pairs that it names as refused.
fn drawn(graph: &Value) -> (Connections, Vec<(String, String)>) {
    let nodes: Vec<&Value> = elements(graph, "nodes").collect();
    let mut connections = Connections::new();
    let mut refused = Vec::new();
    for from in &nodes {
        let anywhere = ports(text(&from["anywhere"]), &TOLD);
        let is_pod = from["outside"] == false;
        for to in &nodes {
            let alone = from["name"] == to["name"] && from["pods"].as_u64() < Some(2);
            if alone || (from["outside"] == true && to["outside"] == true) {
                continue;
            }
            let (mut all, mut some) = (Ports::new(), Ports::new());
            if to["outside"] == true && to["protected"] == false {
                all.extend(&anywhere);
            }
            for edge in elements(graph, "edges").filter(|edge| edge["to"] == to["name"]) {
                let is_from = edge["from"].as_array().unwrap().contains(&from["name"]);
                if edge["verdict"] == "Denied" {
                    if is_from {
                        refused.push((text(&from["name"]).to_owned(), text(&to["name"]).to_owned()));
                    }
                    continue;
                }
                let open = ports(text(&edge["ports"]), &TOLD);
                let everyone = edge["everyone"].as_str();
                if everyone == Some("everyone") || (everyone == Some("any pod") && is_pod) {
                    all.extend(open.intersection(&anywhere));
                }
                if is_from {
                    all.extend(open);
                    some.extend(ports(text(&edge["portsOfSome"]), &TOLD));
                }
            }
            insert(&mut connections, text(&from["name"]), text(&to["name"]), (all, some));
        }
    }
    (connections, refused)
}

#[test]
fn the_graph_and_the_reference_agree() {
    let denied = Cell::new(0);
    TestRunner::new(many())
        .run(&with_workloads(), |manifests| {
            let world = World::of(&manifests);
            let truth = Truth::new(&world, None);
            let expected = truth.connections();
            let (graph, status) = world.ask(&["graph", "--no-nodes", "--denied"]);
            prop_assert_eq!(status, 0);
            let (mut found, refused) = drawn(&graph);
            // the picture doesn't say who has an address of which family
            let is_there = |from: &str, to: &str| {
                let of = |name: &str| truth.all().find(|(known, _)| *known == name).map(|(_, ends)| ends);
                of(from).zip(of(to)).is_some_and(|(from, to)| truth.open(from, to).is_some())
            };
            found.retain(|(from, to), _| is_there(from, to));
            let wrong = differences(&expected, &found);
            prop_assert!(wrong.is_empty(), "{wrong:#?}\n{graph}");
            denied.set(denied.get() + refused.len());
            let nodes: Vec<End> = NODES.map(|node| End::Node(node.to_owned())).into();
            let mut expected = Connections::new();
            for (name, pods) in &truth.pods {
                let (all, _) = truth.open(&nodes, pods).unwrap_or_default();
                // that each pod's own node may enter is not drawn
                insert(&mut expected, "nodes", name, (all, Ports::new()));
                // nor that one pod of many may lead to itself, through a node port
                let (all, _) = truth.open(pods, &nodes).unwrap_or_default();
                insert(&mut expected, name, "nodes", (all, Ports::new()));
            }
            let (graph, _) = world.ask(&["graph"]);
            let (mut found, _) = drawn(&graph);
            found.retain(|(from, to), (all, _)| (from == "nodes" || to == "nodes") && !all.is_empty());
            found.values_mut().for_each(|(_, some)| some.clear());
            let wrong = differences(&expected, &found);
            prop_assert!(wrong.is_empty(), "{wrong:#?}\n{graph}");
            for (from, sources) in truth.all() {
                for (to, destinations) in truth.all() {
                    let is_outside = truth.outside.contains_key(from) && truth.outside.contains_key(to);
                    if is_left_open(&world, &[sources, destinations]) {
                        continue;
                    }
                    let is_refused = !is_outside && truth.open(sources, destinations) == Some(Open::default());
                    let is_drawn = refused.iter().any(|ends| *ends == (from.clone(), to.clone()));
                    prop_assert_eq!(is_refused, is_drawn, "{} -> {}: {}", from, to, graph);
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(denied.get() > 0);
}

/// Ends of any kind, as they are asked for, and whether they are whole workloads.
fn ends(world: &World, truth: &Truth<'_>) -> Vec<(String, Vec<End>)> {
    let whole = truth.pods.iter().filter(|(name, _)| !is_half_there(world, name));
    let mut ends: Vec<(String, Vec<End>)> = whole.map(|(name, pods)| (name.clone(), pods.clone())).collect();
    for pod in truth.pods.values().flatten() {
        if let End::Pod(name) = pod {
            ends.push((name.to_string(), vec![pod.clone()]));
        }
    }
    for node in world.all("Node") {
        let name = text(&node["metadata"]["name"]);
        ends.push((format!("node/{name}"), vec![End::Node(name.to_owned())]));
    }
    let pods = world.all("Pod").flat_map(|pod| pod["status"]["podIPs"].as_array().unwrap());
    let addresses = pods.map(|address| text(&address["ip"])).chain(["203.0.113.9", "10.96.0.1", "fd96::1", "9.9.9.9"]);
    for address in addresses {
        let parsed: IpAddr = address.parse().unwrap();
        let written = if parsed.is_ipv6() { format!("ip:[{address}]") } else { format!("ip:{address}") };
        ends.push((written, vec![End::Address(parsed)]));
    }
    for service in world.all("Service").filter(|service| service["spec"]["clusterIPs"][0] != "None") {
        let Some(ips) = service["spec"]["clusterIPs"].as_array() else { continue };
        let ips = ips.iter().map(|ip| End::Address(text(ip).parse().unwrap())).collect();
        let name = format!("{}/svc/{}", text(&service["metadata"]["namespace"]), text(&service["metadata"]["name"]));
        ends.push((name, ips));
    }
    ends
}

/// Workloads some of whose live pods have no address yet: what becomes of those can't be told.
fn is_half_there(world: &World, name: &str) -> bool {
    let Some((namespace, set)) = name.split_once("/sts/") else { return false };
    let mut pods = world.all("Pod").filter(|pod| {
        let of_set = pod["metadata"]["ownerReferences"][0]["name"] == set && pod["metadata"]["namespace"] == namespace;
        of_set && !matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
    });
    pods.any(|pod| pod["spec"]["hostNetwork"] != true && pod["status"]["podIPs"] == json!([]))
}

/// A Service is asked as a destination only.
fn sources(world: &World, truth: &Truth<'_>) -> Vec<(String, Vec<End>)> {
    ends(world, truth).into_iter().filter(|(name, _)| !name.contains("/svc/")).collect()
}

#[test]
fn reach_who_and_the_reference_agree() {
    TestRunner::new(many())
        .run(&(with_workloads(), any::<Index>(), any::<Index>()), |(manifests, from, to)| {
            let world = World::of(&manifests);
            let truth = Truth::new(&world, None);
            let all = sources(&world, &truth);
            for ((name, own), outgoing) in [(from.get(&all), true), (to.get(&all), false)] {
                let mut expected = Connections::new();
                let mut is_anybody_there = false;
                for (other, ends) in truth.all() {
                    let (from, to) = if outgoing { (own, ends) } else { (ends, own) };
                    if let Some(open) = truth.open(from, to) {
                        is_anybody_there = true;
                        insert(&mut expected, name, other, open);
                    }
                }
                let (command, list) = if outgoing { ("reach", "destinations") } else { ("who", "sources") };
                let (answer, status) = world.ask(&[command, name]);
                if !is_anybody_there && status == 3 {
                    continue;
                }
                prop_assert_eq!(status, 0, "{} {}", command, name);
                let mut found = Connections::new();
                for element in elements(&answer, list) {
                    insert(&mut found, name, text(&element["name"]), told(element));
                }
                let wrong = differences(&expected, &found);
                prop_assert!(wrong.is_empty(), "{command} {name}: {wrong:#?}");
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// What Kubernetes leaves open is told as such: the matrix is held against that.
fn is_left_open(world: &World, ends: &[&[End]]) -> bool {
    let is_host = |end: &End| {
        let End::Pod(name) = end else { return false };
        world.all("Pod").any(|pod| pod["metadata"]["name"] == *name.name && pod["spec"]["hostNetwork"] == true)
    };
    ends.iter().any(|ends| ends.iter().any(is_host))
}

/// One of them, a workload of several pods twice as often.
fn of_many(ends: &[(String, Vec<End>)], index: Index) -> (&str, &[End]) {
    let many = ends.iter().filter(|(_, ends)| ends.len() > 1);
    let all: Vec<_> = ends.iter().chain(many).collect();
    let (name, ends) = all[index.index(all.len())];
    (name, ends)
}

#[test]
fn can_explain_and_the_reference_agree() {
    let tried = Cell::new(0);
    TestRunner::new(many())
        .run(&(with_workloads(), vec((any::<Index>(), any::<Index>(), any::<Index>()), 6)), |(manifests, asked_for)| {
            let world = World::of(&manifests);
            let truth = Truth::new(&world, None);
            let (sources, destinations) = (sources(&world, &truth), ends(&world, &truth));
            let all: Vec<_> = asked().collect();
            for (from, to, port) in asked_for {
                let ((from, own), (to, other)) = (of_many(&sources, from), of_many(&destinations, to));
                let Some(open) = truth.open(own, other).filter(|_| !is_left_open(&world, &[own, other])) else {
                    continue;
                };
                // where some may and others may not, there is more to get wrong
                let torn: Vec<_> = all.iter().filter(|(name, _, port)| open.1.contains(&(*name, *port))).collect();
                let (protocol, number, port) = if torn.is_empty() { *port.get(&all) } else { **port.get(&torn) };
                let point = (protocol, port);
                let (is_all, is_some) = (open.0.contains(&point), open.1.contains(&point));
                let written = if number == 1 { "icmp".to_owned() } else { format!("{port}/{protocol}") };
                let target = format!("{to}:{written}");
                let (can, status) = world.ask(&["can", from, &target]);
                let expected = if is_all { ("yes", 0) } else { ("no", 1) };
                prop_assert_eq!(
                    (can["answer"].as_str(), status),
                    (Some(expected.0), expected.1),
                    "{} {}",
                    from,
                    target
                );
                let (explained, _) = world.ask(&["explain", from, &target]);
                let verdict = if is_all {
                    "Allowed"
                } else if is_some {
                    "Partly"
                } else {
                    "Denied"
                };
                prop_assert_eq!(explained["verdict"].as_str(), Some(verdict), "{} {}", from, target);
                tried.set(tried.get() + 1);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(tried.get() > 30, "{}", tried.get());
}

/// The same cluster with some of its policies left out, and others put in their place.
fn change() -> impl Strategy<Value = (Manifests, Manifests)> {
    (with_workloads(), vec(policy(), 0..3), vec(any::<bool>(), 5)).prop_map(|(before, more, kept)| {
        let mut kept = kept.into_iter();
        let mut after = before.clone();
        after.0.retain(|object| object["kind"] != "NetworkPolicy" || kept.next().unwrap_or(true));
        after.0.extend(more.into_iter().enumerate().map(|(index, mut policy)| {
            policy["metadata"]["name"] = json!(format!("new{index}"));
            policy
        }));
        (before, after)
    })
}

/// The same in either direction.
fn either_way() -> impl Strategy<Value = (Manifests, Manifests)> {
    (change(), any::<bool>())
        .prop_map(|((before, after), undone)| if undone { (after, before) } else { (before, after) })
}

#[test]
fn the_difference_and_the_reference_agree() {
    let changes = Cell::new((0, 0));
    TestRunner::new(many())
        .run(&either_way(), |(before, after)| {
            let worlds = (World::of(&before), World::of(&after));
            let (old, new) = (Truth::new(&worlds.0, Some(&worlds.1)), Truth::new(&worlds.1, Some(&worlds.0)));
            let (was, is) = (old.connections(), new.connections());
            let mut expected = [Connections::new(), Connections::new()];
            for ends in was.keys().chain(is.keys()) {
                let of = |side: &Connections| side.get(ends).cloned().unwrap_or_default();
                let (was, is) = (of(&was), of(&is));
                // more of the pods than before, or fewer
                let level = |open: &Open, port: &(&'static str, u16)| {
                    u8::from(open.0.contains(port)) * 2 + u8::from(open.1.contains(port))
                };
                let points = || asked().map(|(protocol, _, port)| (protocol, port));
                let opened: Ports = points().filter(|port| level(&is, port) > level(&was, port)).collect();
                let closed: Ports = points().filter(|port| level(&is, port) < level(&was, port)).collect();
                insert(&mut expected[0], &ends.0, &ends.1, (opened, Ports::new()));
                insert(&mut expected[1], &ends.0, &ends.1, (closed, Ports::new()));
            }
            let (folders, flags) = (worlds.0.folder.path(), worlds.1.folder.path());
            let (diff, status) = ask(&["diff", folders.to_str().unwrap(), flags.to_str().unwrap()]);
            prop_assert_eq!(status, i32::from(expected.iter().any(|changes| !changes.is_empty())), "{}", diff);
            let mut found = [Connections::new(), Connections::new()];
            for change in elements(&diff, "changes") {
                let side = &mut found[usize::from(change["change"] == "closed")];
                let ports = ports(text(&change["ports"]), &TOLD);
                insert(side, text(&change["source"]), text(&change["destination"]), (ports, Ports::new()));
            }
            for (word, (expected, found)) in ["opened", "closed"].iter().zip(expected.iter().zip(&found)) {
                let wrong = differences(expected, found);
                prop_assert!(wrong.is_empty(), "{word}: {wrong:#?}");
            }
            let (opened, closed) = changes.get();
            changes.set((opened + found[0].len(), closed + found[1].len()));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(changes.get().0 > 0 && changes.get().1 > 0, "{:?}", changes.get());
}
