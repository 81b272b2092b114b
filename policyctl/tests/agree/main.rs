//! On generated clusters, all questions agree with each other, and with the slow reading of the API's documentation,
//! [`policy_compiler::reference`]: `matrix`, `can`, `explain`, `list`, `reach`, `who`, `graph` and `diff` about
//! connections, `exposure` and `effective` about one side of them. And every fix that `explain` prints is carried out by
//! `--with` and found to work.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

#[expect(dead_code, reason = "the generator serves other tests too")]
#[path = "../../../policy-compiler/tests/generate/mod.rs"]
mod generate;
#[path = "../ports/mod.rs"]
mod ports;
mod sides;
mod truth;
mod whole;
mod world;

use std::{cell::Cell, fs};

use policy_compiler::{
    model::ObjectName,
    reference::{Connection, End, Verdict},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use generate::cluster;
use world::World;

/// Processes are slow: fewer cases than elsewhere, which `PROPTEST_CASES` still multiplies.
fn config() -> Config {
    let config = Config { failure_persistence: None, ..Config::default() };
    Config { cases: config.cases.div_ceil(8), ..config }
}

const PORTS: [(&str, u8, u16); 4] = [("TCP", 6, 80), ("TCP", 6, 8080), ("UDP", 17, 53), ("SCTP", 132, 80)];

fn end(id: &str) -> End {
    let (first, second) = id.split_once('/').unwrap();
    if first == "node" { End::Node(second.to_owned()) } else { End::Pod(ObjectName::new(first, second)) }
}

const fn letter(verdict: Verdict) -> char {
    match verdict {
        Verdict::Allowed => '.',
        Verdict::RefusedByEgress => 'E',
        Verdict::RefusedByIngress => 'I',
        Verdict::RefusedByBoth => 'B',
    }
}

/// Calls `each` with source, destination, family, index of the port and letter of every cell.
fn cells(matrix: &Value, mut each: impl FnMut(&str, &str, &str, usize, char)) {
    let ends: Vec<_> = matrix["ends"].as_array().unwrap().iter().map(|end| end["id"].as_str().unwrap()).collect();
    for (family, grids) in matrix["families"].as_object().unwrap() {
        for (port, grid) in grids.as_array().unwrap().iter().enumerate() {
            for (source, row) in ends.iter().zip(grid["rows"].as_array().unwrap()) {
                for (destination, letter) in ends.iter().zip(row.as_str().unwrap().chars()) {
                    each(source, destination, family, port, letter);
                }
            }
        }
    }
}

fn matrix(world: &World) -> Value {
    let ports = PORTS.map(|(protocol, _, port)| format!("{protocol}/{port}")).join(",");
    let (matrix, status) = world.ask(&["matrix", "--ports", &ports]);
    assert_eq!(status, 0, "{matrix}");
    matrix
}

#[test]
fn matrix_and_reference_agree() {
    let (denied, compared) = (Cell::new(0), Cell::new(0));
    TestRunner::new(config())
        .run(&cluster(), |manifests| {
            let world = World::of(&manifests);
            let mut wrong = Vec::new();
            cells(&matrix(&world), |source, destination, family, port, found| {
                let (_, protocol, number) = PORTS[port];
                let ipv6 = family == "IPv6";
                let connection =
                    Connection { source: end(source), destination: end(destination), protocol, port: number, ipv6 };
                let expected = world.objects.judge(&connection).map_or('-', letter);
                if source != destination && found != '~' && found != '=' {
                    compared.set(compared.get() + 1);
                    denied.set(denied.get() + u32::from(found != '.' && found != '-'));
                    if found != expected {
                        wrong.push(format!(
                            "{source} -> {destination} {family} {:?}: {found}, not {expected}",
                            PORTS[port]
                        ));
                    }
                }
            });
            prop_assert!(wrong.is_empty(), "{wrong:#?}");
            Ok(())
        })
        .unwrap();
    assert!(denied.get() > 0 && denied.get() < compared.get(), "{} of {}", denied.get(), compared.get());
}

#[test]
fn the_commands_agree() {
    TestRunner::new(config())
        .run(&(cluster(), any::<prop::sample::Index>()), |(manifests, index)| {
            let world = World::of(&manifests);
            let mut all = Vec::new();
            cells(&matrix(&world), |source, destination, family, port, found| {
                if family == "IPv4" && found != '-' && source != destination && found != '=' {
                    all.push((source.to_owned(), destination.to_owned(), port, found));
                }
            });
            if all.is_empty() {
                return Ok(());
            }
            let (source, destination, port, found) = &all[index.index(all.len())];
            let (protocol, _, number) = PORTS[*port];
            let target = format!("{destination}:{number}/{protocol}");
            let (can, status) = world.ask(&["can", source, &target]);
            let (explained, _) = world.ask(&["explain", source, &target]);
            // both families together
            let mut both = Vec::new();
            cells(&matrix(&world), |from, to, _, at, letter| {
                if from == source && to == destination && at == *port && letter != '-' {
                    both.push(letter);
                }
            });
            let (word, code) = if both.iter().all(|letter| *letter == '.') {
                ("yes", 0)
            } else if both.iter().all(|letter| matches!(letter, '.' | '~')) {
                ("undefined", 3)
            } else {
                ("no", 1)
            };
            prop_assert_eq!((can["answer"].as_str(), status), (Some(word), code), "{} {} {:?}", source, target, both);
            let verdict = explained["verdict"].as_str().unwrap_or_default().to_owned();
            let agrees = match &*verdict {
                "Allowed" => both.iter().all(|letter| *letter == '.'),
                "Denied" => !both.contains(&'.') && !both.contains(&'~'),
                "Partly" => both.contains(&'.') && both.iter().any(|letter| *letter != '.'),
                "Undefined" => both.contains(&'~'),
                _ => false,
            };
            prop_assert!(agrees, "explain {} {}: {}, matrix {:?}", source, target, verdict, both);
            if both.contains(&'~') || found == &'~' {
                return Ok(());
            }
            // in lists, an end is named if the port is open to all of it, or to some
            let named = |answer: &Value, list: &str, field: &str, name: &str| {
                answer[list].as_array().unwrap().iter().any(|element| element[field] == name)
            };
            let is_open = both.contains(&'.');
            let (who, _) = world.ask(&["who", &target]);
            if !source.starts_with("node/") {
                prop_assert_eq!(
                    named(&who, "sources", "name", source),
                    is_open,
                    "who {} {}: {:?}",
                    source,
                    target,
                    both
                );
            }
            if is_open && !source.starts_with("node/") && !destination.starts_with("node/") {
                let (reach, _) = world.ask(&["reach", source]);
                prop_assert!(named(&reach, "destinations", "name", destination), "reach {} {}", source, destination);
                let (list, _) = world.ask(&["list"]);
                let both = |element: &Value| element["source"] == **source && element["destination"] == **destination;
                prop_assert!(
                    list["connections"].as_array().unwrap().iter().any(both),
                    "list {} {}",
                    source,
                    destination
                );
            }
            for near in explained["nearMisses"].as_array().into_iter().flatten() {
                for fix in near["fixes"].as_array().unwrap() {
                    // what needs a fix of the other side too is tried where fixes are proven
                    if fix["needsOtherSide"] == true {
                        continue;
                    }
                    let path = world.folder.path().join("fix.txt");
                    let objects = json!({"apiVersion": "v1", "kind": "List", "items": fix["objects"]});
                    fs::write(&path, objects.to_string()).unwrap();
                    let (fixed, _) = world.ask(&["explain", source, &target, "--with", path.to_str().unwrap()]);
                    let allowed = fixed["verdict"] == "Allowed";
                    prop_assert!(allowed, "{} {}: {} after {}", source, target, fixed["verdict"], fix);
                }
            }
            Ok(())
        })
        .unwrap();
}
