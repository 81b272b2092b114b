//! What must hold on every cluster: reference, explanations and tables agree, and nothing that is broken allows more.
//! Clusters are generated as API objects and read as a file is, so that everything from text to verdict takes part.

mod fixes;
#[path = "../generate/mod.rs"]
mod generate;
mod judges;

use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use policy_compiler::{Cluster, files, manifest};

use generate::{Damage, Manifests, break_at, cluster, damage, document, policies};
use judges::Judges;

/// `PROPTEST_CASES` asks for more, or fewer, than 256.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}

#[test]
fn generated_objects_are_valid() {
    TestRunner::new(config())
        .run(&cluster(), |objects| {
            let parsed = files::parse("f.json", document(&objects).as_bytes());
            let assembled = files::assemble([&parsed]);
            let errors: Vec<_> = assembled
                .diagnostics
                .iter()
                .filter(|found| found.severity == policy_compiler::diagnostic::Severity::Error)
                .collect();
            prop_assert_eq!(errors, Vec::<&policy_compiler::diagnostic::Diagnostic>::new());
            prop_assert!(parsed.ignored.is_empty());
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// What is read of objects, whatever is wrong with them, is what is read of them as they are written again.
fn written_again(objects: &Manifests) -> Result<(), TestCaseError> {
    let read = |text: &str| {
        let mut cluster = files::assemble([&files::parse("f.json", text.as_bytes())]).cluster;
        cluster.origins.clear();
        cluster
    };
    let cluster = read(&document(objects));
    let events = cluster.events_since(&Cluster::default());
    let lines: Vec<String> = events.iter().filter_map(manifest::of).map(|object| object.to_string()).collect();
    prop_assert_eq!(lines.len(), events.len());
    prop_assert_eq!(read(&lines.join("\n")), cluster);
    Ok(())
}

#[test]
fn objects_are_written_as_they_were_read() {
    TestRunner::new(config())
        .run(&cluster(), |objects| written_again(&objects))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn objects_are_written_as_they_were_read_though_damaged() {
    TestRunner::new(config())
        .run(&damaged(), |(_, broken, _)| written_again(&broken))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn reference_and_tables_agree() {
    let denials = Cell::new(0);
    TestRunner::new(config())
        .run(&cluster(), |objects| {
            let judges = Judges::of(&objects);
            for question in judges.questions() {
                let reference = judges.reference(&question);
                denials.set(denials.get() + u32::from(!reference));
                prop_assert_eq!(judges.tables(&question), Some(reference), "{:?}", question);
            }
            Ok(())
        })
        .unwrap();
    assert!(denials.get() > 0, "a test without denials proves nothing");
}

#[test]
fn reference_and_explanations_agree() {
    TestRunner::new(config())
        .run(&cluster(), |objects| {
            let judges = Judges::of(&objects);
            for connection in judges.connections() {
                prop_assert_eq!(judges.explained(&connection), judges.judged(&connection), "{:?}", connection);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

fn damaged() -> impl Strategy<Value = (Manifests, Manifests, Damage)> {
    let with_policies = cluster().prop_filter("no policy", |objects| !policies(objects).is_empty());
    (with_policies, any::<prop::sample::Index>(), any::<usize>(), damage()).prop_map(
        |(objects, which, place, damage)| {
            let mut broken = objects.clone();
            let index = *which.get(&policies(&objects));
            break_at(&mut broken.0[index], place, &damage);
            (objects, broken, damage)
        },
    )
}

#[test]
fn garbage_in_a_policy_never_allows_more() {
    TestRunner::new(config())
        .run(&damaged(), |(objects, broken, _)| {
            let (before, after) = (Judges::of(&objects), Judges::of(&broken));
            for question in before.questions() {
                let was = before.reference(&question);
                prop_assert!(was || !after.reference(&question), "reference: {:?}", question);
                prop_assert!(was || after.tables(&question) != Some(true), "tables: {:?}", question);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn reference_and_tables_agree_on_garbage() {
    TestRunner::new(config())
        .run(&damaged(), |(_, broken, _)| Judges::of(&broken).agree())
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn damage_is_always_reported() {
    TestRunner::new(config())
        .run(&damaged(), |(objects, broken, _)| {
            if objects != broken {
                let assembled = files::assemble([&files::parse("f.json", document(&broken).as_bytes())]);
                let error = |found: &policy_compiler::diagnostic::Diagnostic| {
                    found.severity == policy_compiler::diagnostic::Severity::Error
                        && found.place.is_some()
                        && found.field.starts_with("spec")
                };
                prop_assert!(assembled.diagnostics.iter().any(error), "{:?}", assembled.diagnostics);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
