//! Who may depend on whom: the arrows of the workspace go one way, and some crates must never know some others.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use cargo_metadata::{DependencyKind, Metadata, Package};

use super::Finding;
use crate::toolchain::output;

/// Each crate of the workspace with the others that it may depend on.
const ARROWS: [(&str, &[&str]); 10] = [
    ("controller", &["enforcer", "enforcer-abi", "policy-compiler"]),
    ("e2e", &["enforcer", "enforcer-abi", "oci-image", "policy-compiler"]),
    ("enforcer", &["enforcer-abi"]),
    ("enforcer-abi", &[]),
    ("enforcer-ebpf", &["enforcer-abi"]),
    ("oci-image", &[]),
    ("policy-compiler", &["enforcer-abi"]),
    ("policyctl", &["enforcer", "enforcer-abi", "policy-compiler"]),
    ("sluice-cni", &["enforcer", "enforcer-abi"]),
    // Must build before `setup` has run, so nothing that needs the BPF program.
    ("xtask", &["oci-image"]),
];

/// What a crate must not know, not even through others.
const IGNORANCE: [(&str, &[&str]); 4] = [
    ("policy-compiler", &["aya", "tokio"]),
    ("enforcer", &["k8s-openapi", "kube", "policy-compiler"]),
    ("enforcer-abi", &["k8s-openapi", "policy-compiler"]),
    // Starts with every pod, so it stays small.
    ("sluice-cni", &["kube", "policy-compiler", "tokio"]),
];

pub(super) fn check(metadata: &Metadata, root: &Path) -> Result<Vec<Finding>> {
    let members: Vec<&Package> = metadata.workspace_packages();
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut findings = Vec::new();
    for member in &members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name.as_str()) else {
            findings.push(finding(member, root, None, "no arrow of xtask/src/tidy/arrows.rs is about this crate"));
            continue;
        };
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            let builds_program =
                (member.name.as_str(), name, dependency.kind) == ("enforcer", "enforcer-ebpf", DependencyKind::Build);
            if names.contains(&name) && !allowed.contains(&name) && !builds_program {
                findings.push(finding(member, root, Some(name), &format!("must not depend on {name}")));
            }
        }
        for (_, unknown) in IGNORANCE.iter().filter(|(name, _)| *name == member.name.as_str()) {
            let linked = linked(member, root)?;
            for name in unknown.iter().filter(|name| linked.iter().any(|linked| linked == *name)) {
                let way = format!("must not know {name}: `cargo tree -p {} -i {name}` shows the way", member.name);
                findings.push(finding(member, root, Some(name), &way));
            }
        }
    }
    Ok(findings)
}

/// The names of all packages that are linked with `member`, under the features that it asks for itself: cargo's
/// metadata has those of the whole workspace together.
fn linked(member: &Package, root: &Path) -> Result<Vec<String>> {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", &member.name]);
    let listed = output(tree.current_dir(root))?;
    Ok(listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// At the line of the manifest that names `dependency`, else at its first.
fn finding(member: &Package, root: &Path, dependency: Option<&str>, message: &str) -> Finding {
    let manifest = member.manifest_path.as_std_path();
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let line = dependency
        .and_then(|name| text.lines().position(|line| line.split(['.', ' ', '=']).next() == Some(name)))
        .map_or(1, |index| index + 1);
    let file: PathBuf = manifest.strip_prefix(root).unwrap_or(manifest).to_owned();
    Finding { file, line, message: format!("{} {message}", member.name) }
}
