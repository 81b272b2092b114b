//! Packet cases as files: `cases/packets/<subject>/<name>.yaml`. Entry point: [`load`].

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use enforcer_abi::{Direction, Settings, SourceCheck, map};
use serde::Deserialize;

use super::{
    program::Sizes,
    step::{Arrival, Step},
};

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `<subject>/<name>`
    pub name: String,
    /// What the file says.
    pub content: CaseFile,
}

impl Case {
    /// Whether some packet comes to a pod from elsewhere than its node.
    #[must_use]
    pub fn needs_origin(&self) -> bool {
        self.content.steps.iter().any(|step| match step {
            Step::Packet(packet) => packet.direction == Direction::Ingress && packet.arrived != Arrival::NodeMade,
            _ => false,
        })
    }
}

/// A case's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// The sentence that it tests, and where it stands.
    pub tests: String,
    /// Manifests besides those of `cluster.yaml`.
    #[serde(default)]
    pub objects: String,
    /// How the program is loaded.
    #[serde(default)]
    pub settings: SettingsFile,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What is set when the program is loaded; what is left out is the default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SettingsFile {
    source_check: Option<SourceCheckName>,
    audit: bool,
    keep_established: bool,
    /// Indices of interfaces named by `--node-interface`.
    pub node_interfaces: Vec<u32>,
    /// Entries of the table of flows seen in one direction.
    openings: Option<u32>,
    /// Entries of the table of flows seen in both.
    flows: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SourceCheckName {
    Strict,
    Pods,
    Off,
}

impl SettingsFile {
    /// The program's settings for a kernel of `hz` jiffies a second.
    #[must_use]
    pub fn settings(&self, hz: u64) -> Settings {
        let defaults = Settings::defaults(hz);
        let source_check = match self.source_check {
            None => defaults.source_check,
            Some(SourceCheckName::Strict) => SourceCheck::Strict as u32,
            Some(SourceCheckName::Pods) => SourceCheck::Pods as u32,
            Some(SourceCheckName::Off) => SourceCheck::Off as u32,
        };
        Settings {
            source_check,
            audit: self.audit.into(),
            keep_established: self.keep_established.into(),
            node_interfaces: (!self.node_interfaces.is_empty()).into(),
            // no case is about the limit, and floods must not exhaust it
            event_rate: 1_000_000,
            ..defaults
        }
    }

    /// Room in the maps.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let sizes = [(map::OPENINGS, self.openings), (map::FLOWS, self.flows)];
        sizes.into_iter().filter_map(|(name, size)| Some((name, size?))).collect()
    }
}

/// The folder of the cases.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases/packets")
}

/// The manifests that every case starts from.
///
/// # Errors
/// `cluster.yaml` can't be read.
pub fn cluster() -> Result<String> {
    let path = folder().join("cluster.yaml");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// All cases, in the order of their names.
///
/// # Errors
/// A file can't be read, or isn't a case; the error names it.
pub fn load() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for subject in children(&folder())?.into_iter().filter(|path| path.is_dir()) {
        for path in children(&subject)? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let content = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
            cases.push(Case { name: format!("{}/{}", stem(&subject), stem(&path)), content });
        }
    }
    Ok(cases)
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
