//! A generated cluster in a folder, which `policyctl` is asked about, and as the reference has it: [`World`].

use std::{fs, process::Command};

use policy_compiler::{files::parse, reference::Objects};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use crate::generate::{self, Manifests, document};

/// The files, and what they say.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) manifests: Manifests,
    pub(crate) objects: Objects,
}

/// A cluster some of whose pods are a StatefulSet's. What they have in common is that alone, so that what is said of
/// the workload is often said of some of its pods only.
pub(crate) fn with_workloads() -> impl Strategy<Value = Manifests> {
    (generate::cluster(), vec(option::weighted(0.7, select(vec![0, 0, 1])), 8)).prop_map(|(mut manifests, owners)| {
        let pods = manifests.0.iter_mut().filter(|object| object["kind"] == "Pod");
        for (pod, owner) in pods.zip(owners) {
            if let Some(owner) = owner {
                let name = format!("set{owner}");
                pod["metadata"]["ownerReferences"] = json!([
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": name, "controller": true}
                ]);
            }
        }
        manifests
    })
}

impl World {
    pub(crate) fn of(manifests: &Manifests) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("all.json"), document(manifests)).unwrap();
        let mut objects = Objects::default();
        let parsed = parse("f.json", document(manifests).as_bytes());
        parsed.objects.iter().for_each(|located| objects.put(&located.object));
        Self { folder, manifests: manifests.clone(), objects }
    }

    /// The answer in JSON, and the exit status.
    pub(crate) fn ask(&self, args: &[&str]) -> (Value, i32) {
        ask(&[args, &["-f", self.folder.path().to_str().unwrap()]].concat())
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.manifests.0.iter().filter(move |object| object["kind"] == kind)
    }
}

/// The answer to a question in JSON, and the exit status.
pub(crate) fn ask(args: &[&str]) -> (Value, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(args)
        .args(["-o", "json"])
        .env_remove("POLICYCTL_NAMESPACE")
        .output()
        .unwrap();
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.code().unwrap())
}
