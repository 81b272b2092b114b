//! The state that a question is asked of: `-f FILE|DIR|-`, with `--with` and `--without` on top. [`read`] brings it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use policy_compiler::{
    cluster::Cluster,
    diagnostic::Severity,
    files::{Gather, Gathered, distance},
    model::ObjectName,
};
use serde::Serialize;

/// Flags that say which state is meant.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// A file, a folder, or - for stdin: YAML or JSON, any mix of kinds (repeatable)
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<String>,
    /// What if these objects were applied too (repeatable)
    #[arg(long, value_name = "FILE|DIR|-")]
    pub(crate) with: Vec<String>,
    /// What if this policy were deleted (repeatable)
    #[arg(long, value_name = "[NAMESPACE/]POLICY")]
    pub(crate) without: Vec<String>,
    /// The namespace of what names none
    #[arg(short, long, default_value = "default", env = "POLICYCTL_NAMESPACE")]
    pub(crate) namespace: String,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct State {
    /// All objects.
    pub(crate) gathered: Gathered,
    /// Something in them is wrong, so that an answer may be about less than what was meant.
    pub(crate) has_errors: bool,
    /// What an answer says it was asked of.
    pub(crate) summary: Summary,
}

impl State {
    pub(crate) const fn cluster(&self) -> &Cluster {
        &self.gathered.cluster
    }
}

/// What an answer was asked of.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    source: &'static str,
    files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    with: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    pods: usize,
    policies: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ignored: BTreeMap<String, usize>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "state: {}", self.files.join(", "))?;
        if !self.with.is_empty() {
            write!(f, " with {}", self.with.join(", "))?;
        }
        if !self.without.is_empty() {
            write!(f, " without {}", self.without.join(", "))?;
        }
        let (pods, policies) = (plural(self.pods, "pod", "pods"), plural(self.policies, "policy", "policies"));
        write!(f, " ({pods}, {policies}, API defaults applied)")
    }
}

/// `1 pod`, `2 pods`
pub(crate) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Files from here on are refused: nothing that large is meant, and it would not fit in memory as objects.
const MAX_SIZE: u64 = 100_000_000;

/// Reads all of it, and tells what is wrong with it on stderr.
pub(crate) fn read(args: &Args) -> anyhow::Result<State> {
    let state = gather(args)?;
    let diagnostics = &state.gathered.diagnostics;
    for diagnostic in diagnostics.iter().take(MAX_TOLD) {
        eprintln!("{diagnostic}");
    }
    if diagnostics.len() > MAX_TOLD {
        eprintln!("warning: {} more findings are not shown", diagnostics.len() - MAX_TOLD);
    }
    if state.has_errors {
        eprintln!("warning: the answer leaves out what could not be read");
    }
    Ok(state)
}

/// Reads all of it, and tells nothing.
pub(crate) fn gather(args: &Args) -> anyhow::Result<State> {
    let mut gather = Gather::default();
    for name in &args.files {
        read_one(name, &mut gather, false)?;
    }
    for name in &args.with {
        read_one(name, &mut gather, true)?;
    }
    for name in &args.without {
        remove(&mut gather, name, &args.namespace)?;
    }
    Ok(finish(gather, args))
}

fn finish(gather: Gather, args: &Args) -> State {
    let gathered = gather.finish();
    let has_errors = gathered.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let summary = Summary {
        source: "files",
        files: args.files.clone(),
        with: args.with.clone(),
        without: args.without.clone(),
        pods: gathered.cluster.pods.len(),
        policies: gathered.cluster.policies.len(),
        ignored: gathered.ignored.clone(),
    };
    State { gathered, has_errors, summary }
}

/// How many findings are told; a folder of something else altogether has thousands.
const MAX_TOLD: usize = 50;

fn remove(gather: &mut Gather, name: &str, namespace: &str) -> anyhow::Result<()> {
    let name = match name.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new(namespace, name),
    };
    if gather.without_policy(&name) {
        return Ok(());
    }
    let text = name.to_string();
    let near = gather.policies().map(|policy| (distance(&policy.to_string(), &text), policy)).min();
    match near.filter(|(distance, _)| *distance <= 3) {
        Some((_, near)) => bail!("--without: there is no policy {name}; did you mean {near}?"),
        None => bail!("--without: there is no policy {name}"),
    }
}

fn read_one(name: &str, gather: &mut Gather, replaces: bool) -> anyhow::Result<()> {
    if name == "-" {
        let mut bytes = Vec::new();
        io::stdin().take(MAX_SIZE + 1).read_to_end(&mut bytes).context("stdin can't be read")?;
        ensure!(bytes.len() as u64 <= MAX_SIZE, "stdin holds more than {} MB; {SMALLER}", MAX_SIZE / 1_000_000);
        gather.file("stdin", &bytes, replaces);
        return Ok(());
    }
    let path = Path::new(name);
    let metadata = fs::metadata(path).with_context(|| format!("{name} can't be read"))?;
    if !metadata.is_dir() {
        return read_file(path, gather, replaces);
    }
    let mut found = Vec::new();
    list(path, &mut vec![(metadata.dev(), metadata.ino())], &mut found)?;
    ensure!(!found.is_empty(), "{name} holds no file whose name ends in .yaml, .yml or .json");
    // the order in which the agent reads them, too: of an object that is there twice the last one counts
    found.sort();
    found.iter().try_for_each(|path| read_file(path, gather, replaces))
}

const SMALLER: &str = "leave out what verdicts don't depend on: pods, namespaces, nodes, policies, services and \
                       endpointslices are enough";

fn read_file(path: &Path, gather: &mut Gather, replaces: bool) -> anyhow::Result<()> {
    let unreadable = || format!("{} can't be read", path.display());
    let file = fs::File::open(path).with_context(unreadable)?;
    let size = file.metadata().with_context(unreadable)?.len();
    let too_large = || format!("{} holds more than {} MB; {SMALLER}", path.display(), MAX_SIZE / 1_000_000);
    ensure!(size <= MAX_SIZE, too_large());
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    // a pipe says nothing of its size
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    ensure!(bytes.len() as u64 <= MAX_SIZE, too_large());
    gather.file(&path.display().to_string(), &bytes, replaces);
    Ok(())
}

/// All object files below a folder, without those whose names are hidden: as the agent reads a folder. A folder in
/// `visited` is left out, because a link may lead back up.
fn list(folder: &Path, visited: &mut Vec<(u64, u64)>, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("{} can't be read", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let metadata = fs::metadata(&path).with_context(|| format!("{} can't be read", path.display()))?;
        if metadata.is_dir() {
            let identity = (metadata.dev(), metadata.ino());
            if !visited.contains(&identity) {
                visited.push(identity);
                list(&path, visited, found)?;
            }
        } else if matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    Ok(())
}
