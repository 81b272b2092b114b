//! Policy cases as files: `cases/connections/<subject>/<name>.yaml`. Entry point: [`load`].

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use policy_compiler::{
    Cluster,
    diagnostic::{Diagnostic, Kind, Severity},
    files::{self, Object},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    connection::{Connection, Evaluator, Expected, Mismatch},
    expand::{self, NamespaceLine, PodLine, ServiceLine},
    ordered::Ordered,
};

/// What a case's `reports` call a document without an object.
const UNREADABLE: &str = "unreadable document";

/// A case, its shorthand written out.
#[derive(Clone, Debug)]
pub struct Case {
    /// `<subject>/<name>`
    pub name: String,
    /// The sentence that it tests, and where it stands.
    pub tests: String,
    /// All its objects as a file with many documents.
    pub manifest: String,
    /// The same, read.
    pub objects: Vec<Object>,
    /// The same, converted.
    pub cluster: Cluster,
    /// What reading and converting found wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// What is to be found wrong, as `KIND NAMESPACE/NAME FIELD`, or `unreadable document`.
    pub reports: Vec<String>,
    /// The connections, one a line and family.
    pub connections: Vec<Connection>,
    /// It is also run with real sockets.
    pub sockets: bool,
}

/// A case's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    tests: String,
    #[serde(default)]
    namespaces: Ordered<NamespaceLine>,
    #[serde(default)]
    pods: Ordered<PodLine>,
    #[serde(default)]
    services: Ordered<ServiceLine>,
    #[serde(default)]
    objects: String,
    connections: Ordered<String>,
    #[serde(default)]
    reports: Vec<String>,
    #[serde(default)]
    sockets: bool,
}

impl Case {
    /// Reads the text of a case's file.
    ///
    /// # Errors
    /// It isn't a case.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        let file: CaseFile = serde_saphyr::from_str(text)?;
        ensure!(!file.tests.trim().is_empty(), "`tests` doesn't say what the case tests");
        ensure!(!file.connections.0.is_empty(), "there are no connections");
        let manifest = file.manifest()?;
        let parsed = files::parse(&format!("{name}.yaml"), manifest.as_bytes());
        let assembled = files::assemble([&parsed]);
        one_pod_for_each_address(&assembled.cluster)?;
        let mut connections = Vec::new();
        for (text, expected) in &file.connections.0 {
            let read = expected.parse::<Expected>();
            let read = read.and_then(|expected| Connection::all(text, expected, &assembled.cluster));
            connections.extend(read.with_context(|| format!("connection `{text}`"))?);
        }
        Ok(Self {
            name: name.to_owned(),
            tests: file.tests,
            manifest,
            objects: parsed.objects.into_iter().map(|located| located.object).collect(),
            cluster: assembled.cluster,
            diagnostics: assembled.diagnostics,
            reports: file.reports,
            connections,
            sockets: file.sockets,
        })
    }

    /// The same objects and pods without the policies, and no connections.
    ///
    /// # Errors
    /// Never for a case that was read.
    pub fn without_policies(&self) -> Result<Self> {
        let mut manifest = String::new();
        for object in self.objects.iter().filter(|object| object.kind() != Kind::NetworkPolicy) {
            let value = match object {
                Object::Namespace(object) => serde_json::to_value(object),
                Object::Node(object) => serde_json::to_value(object),
                Object::Pod(object) => serde_json::to_value(object),
                Object::Service(object) => serde_json::to_value(object),
                Object::EndpointSlice(object) => serde_json::to_value(object),
                Object::NetworkPolicy(object) => serde_json::to_value(object),
            };
            let _ = writeln!(manifest, "---\n{}", value.context("an object that was read can be written")?);
        }
        let parsed = files::parse(&format!("{}.yaml", self.name), manifest.as_bytes());
        let assembled = files::assemble([&parsed]);
        Ok(Self {
            manifest,
            objects: parsed.objects.into_iter().map(|located| located.object).collect(),
            cluster: assembled.cluster,
            diagnostics: assembled.diagnostics,
            reports: Vec::new(),
            connections: Vec::new(),
            ..self.clone()
        })
    }

    /// The folder that it lies in.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.name.split_once('/').map_or("", |(subject, _)| subject)
    }

    /// Judges every connection and returns those that come out otherwise than the case says.
    ///
    /// # Errors
    /// The evaluator's.
    pub fn check(&self, evaluator: &impl Evaluator) -> Result<Vec<Mismatch>> {
        let mut mismatches = Vec::new();
        for connection in &self.connections {
            let passes = |side: Option<_>| side.map_or(Ok(true), |side| evaluator.passes(&side));
            let egress = passes(connection.egress()).with_context(|| format!("{connection}: egress"))?;
            let ingress = passes(connection.ingress()).with_context(|| format!("{connection}: ingress"))?;
            let got = Expected::from_sides(egress, ingress);
            if got != connection.expected {
                mismatches.push(Mismatch { connection: connection.clone(), got });
            }
        }
        Ok(mismatches)
    }

    /// Errors that were to be reported and weren't, and the other way round.
    #[must_use]
    pub fn wrong_reports(&self) -> Vec<String> {
        let is_about = |diagnostic: &Diagnostic, report: &str| match &diagnostic.name {
            Some(name) => report == format!("{} {name} {}", diagnostic.kind, diagnostic.field).trim_end(),
            None => report == UNREADABLE,
        };
        let errors = || self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        let missing = self.reports.iter().filter(|report| !errors().any(|error| is_about(error, report)));
        let surplus = errors().filter(|error| !self.reports.iter().any(|report| is_about(error, report)));
        let missing = missing.map(|report| format!("not reported: {report}"));
        missing.chain(surplus.map(|error| format!("not in `reports`: {error}"))).collect()
    }
}

impl CaseFile {
    fn manifest(&self) -> Result<String> {
        let mut objects: Vec<Value> = expand::nodes()?;
        objects.extend(self.namespaces.0.iter().map(|(name, labels)| expand::namespace(name, labels)));
        objects.extend(expand::pods(&self.pods)?);
        objects.extend(expand::services(&self.services, &self.pods)?);
        let mut manifest = String::new();
        for object in objects {
            let _ = writeln!(manifest, "---\n{object}");
        }
        if !self.objects.is_empty() {
            let _ = writeln!(manifest, "---\n{}", self.objects);
        }
        Ok(manifest)
    }
}

/// Addresses are written by hand and counted up side by side; a case that means a conflict is not among them.
fn one_pod_for_each_address(cluster: &Cluster) -> Result<()> {
    for pod in cluster.pods.values().filter(|pod| !pod.ended && !pod.host_network) {
        for address in &pod.addresses {
            let holder = cluster.pod_at(*address).map_or(&pod.name, |holder| &holder.name);
            ensure!(*holder == pod.name, "{holder} and {} have the same address {address}", pod.name);
        }
    }
    Ok(())
}

/// The folder of the cases.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases/connections")
}

/// All cases, in the order of their names.
///
/// # Errors
/// A file can't be read, or isn't a case; the error names it.
pub fn load() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for subject in children(&folder())? {
        for path in children(&subject)? {
            let context = || path.display().to_string();
            let text = fs::read_to_string(&path).with_context(context)?;
            let name = format!("{}/{}", stem(&subject), stem(&path));
            cases.push(Case::read(&name, &text).with_context(context)?);
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
