//! Every fix that is told makes the connection pass, by the reference too, and changes what it says and nothing else.

use std::cell::Cell;

use policy_compiler::{
    Cluster,
    explain::{self, Fix, NearMiss, Query, Quick, Verdict, near_misses},
    files,
    model::{ObjectName, Pod, Protocol},
    reach::{Port, port_ranges_of},
    reference::{self, Objects},
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use serde_json::{Value, json};

use super::{config, generate};
use generate::{Manifests, document};

/// A cluster, read, and as the reference has it.
struct World {
    cluster: Cluster,
    objects: Objects,
}

impl World {
    /// Of manifests and those that replace some of them.
    fn of(manifests: &Manifests, replaced: &[&Value]) -> Self {
        let more = json!({"apiVersion": "v1", "kind": "List", "items": replaced}).to_string();
        let parsed = [document(manifests), more].map(|text| files::parse("f.json", text.as_bytes()));
        let mut objects = Objects::default();
        parsed.iter().flat_map(|parsed| &parsed.objects).for_each(|located| objects.put(&located.object));
        Self { cluster: files::assemble(&parsed).cluster, objects }
    }
}

/// Pods that can be asked about.
fn pods(cluster: &Cluster) -> Vec<&Pod> {
    let judged = |pod: &&Pod| !pod.host_network && !pod.ended && !pod.addresses.is_empty();
    // of two pods that claim an address only one has it
    let owns =
        |pod: &&Pod| pod.addresses.iter().all(|address| cluster.pod_at(*address).is_some_and(|at| at.name == pod.name));
    cluster.pods.values().filter(judged).filter(owns).collect()
}

fn query(source: &ObjectName, destination: &ObjectName, port: Port) -> Query {
    let end = |name: &ObjectName| explain::End::Pod(name.clone());
    Query { source: end(source), destination: end(destination), port, family: None }
}

/// How many pairs may speak at a port where they might not before, and the other way round; but for what was asked.
fn changed(before: &Cluster, after: &Cluster, asked: (&ObjectName, &ObjectName, Port)) -> (usize, usize) {
    let ranges = port_ranges_of(&[before, after]);
    let mut ports: Vec<Port> = ranges.iter().map(|range| Some((range.protocol, range.first))).collect();
    // where a range begins with what was asked, its rest is something else
    let next = asked.2.and_then(|(protocol, port)| Some((protocol, port.checked_add(1)?)));
    ports.extend([None, asked.2, next]);
    let (old, new) = (Quick::new(before), Quick::new(after));
    let (mut opens, mut closes) = (0, 0);
    for source in before.pods.keys() {
        for destination in before.pods.keys().filter(|other| *other != source) {
            let passes =
                |quick: &Quick<'_>, port| Some(quick.passes(quick.pod(source)?, quick.pod(destination)?, port));
            let differs =
                |port: &&Port| (source, destination, **port) != asked && passes(&old, **port) != passes(&new, **port);
            let ports: Vec<_> = ports.iter().filter(differs).collect();
            opens += usize::from(ports.iter().any(|port| passes(&new, **port) == Some(true)));
            closes += usize::from(ports.iter().any(|port| passes(&new, **port) == Some(false)));
        }
    }
    (opens, closes)
}

/// Those of an effect that are between pods: an address has no slash.
fn between_pods(fix: &Fix) -> Option<(usize, usize)> {
    let all_told = fix.effect.opens == fix.effect.opened.len() && fix.effect.closes == fix.effect.closed.len();
    let is_pods = |line: &String| {
        let ends: Vec<_> = line.split(' ').filter(|part| *part != "->").take(2).collect();
        ends.iter().all(|end| end.contains('/'))
    };
    let count = |list: &[String]| list.iter().filter(|line| is_pods(line)).count();
    all_told.then(|| (count(&fix.effect.opened), count(&fix.effect.closed)))
}

#[test]
fn every_fix_works_and_says_what_else_it_does() {
    let (tried, exact) = (Cell::new(0), Cell::new(0));
    TestRunner::new(config())
        .run(&(generate::cluster(), any::<Index>(), any::<Index>(), any::<Index>()), |(manifests, from, to, port)| {
            let world = World::of(&manifests, &[]);
            let pods = pods(&world.cluster);
            if pods.len() < 2 {
                return Ok(());
            }
            let (source, destination) = (&from.get(&pods).name, &to.get(&pods).name);
            let ports = [
                (Protocol::Tcp, 80),
                (Protocol::Tcp, 8080),
                (Protocol::Tcp, 9000),
                (Protocol::Udp, 53),
                (Protocol::Sctp, 80),
            ];
            let port = Some(*port.get(&ports));
            let Ok(explanations) = explain::explain(&world.cluster, &query(source, destination, port)) else {
                return Ok(());
            };
            let near = near_misses(&world.cluster, &explanations, &|pod| vec![pod.clone()]);
            for fix in near.iter().flat_map(|near| &near.fixes) {
                check(&manifests, &world, (source, destination, port), (&explanations, &near), fix, &exact)?;
                tried.set(tried.get() + 1);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(tried.get() > 20 && exact.get() > 10, "{} fixes, {} compared in full", tried.get(), exact.get());
}

fn check(
    manifests: &Manifests,
    world: &World,
    asked: (&ObjectName, &ObjectName, Port),
    (before, near): (&[explain::Explanation], &[NearMiss]),
    fix: &Fix,
    exact: &Cell<usize>,
) -> Result<(), TestCaseError> {
    let own: Vec<&Value> = fix.objects.iter().collect();
    let alone = World::of(manifests, &own);
    let fixed = if fix.needs_other_side {
        let others = near.iter().flat_map(|near| &near.fixes).filter(|other| *other != fix);
        let mut together =
            others.map(|other| World::of(manifests, &own.iter().copied().chain(&other.objects).collect::<Vec<_>>()));
        together.find(|world| passes(world, asked, before))
    } else {
        Some(World::of(manifests, &own)).filter(|world| passes(world, asked, before))
    };
    prop_assert!(fixed.is_some(), "{:?} does not help: {:#?}", asked, fix);
    prop_assert!(!fix.effect.incomplete);
    if let Some(told) = between_pods(fix) {
        prop_assert_eq!(told, changed(&world.cluster, &alone.cluster, asked), "{:?} {:#?}", asked, fix);
        exact.set(exact.get() + 1);
    }
    Ok(())
}

/// Whether everything that was refused passes, by the explanation and by the reference.
fn passes(
    world: &World,
    (source, destination, port): (&ObjectName, &ObjectName, Port),
    before: &[explain::Explanation],
) -> bool {
    let Ok(after) = explain::explain(&world.cluster, &query(source, destination, port)) else { return false };
    let Some((protocol, number)) = port else { return false };
    after.iter().all(|explanation| explanation.verdict == Verdict::Allowed)
        && before.iter().all(|explanation| {
            let connection = reference::Connection {
                source: reference::End::Pod(source.clone()),
                destination: reference::End::Pod(destination.clone()),
                protocol: protocol.number(),
                port: number,
                ipv6: explanation.connection.family == explain::Family::IPv6,
            };
            world.objects.judge(&connection) == Some(reference::Verdict::Allowed)
        })
}
