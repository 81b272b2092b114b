//! The state that a question is asked of, from wherever the flags say, a file for each kind of place; with `--with` and
//! `--without` on top. [`read`] brings it.

mod files;

use std::{collections::BTreeMap, fmt};

use anyhow::bail;
use policy_compiler::{
    cluster::Cluster,
    diagnostic::Severity,
    files::{Gather, Gathered, distance},
    model::ObjectName,
};
use serde::Serialize;

use crate::Failure;

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
    /// The namespace of what names none (default: default)
    #[arg(short, long, env = "POLICYCTL_NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// Where a state is to be had.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Files(&'a [String]),
}

impl Args {
    /// Those that mean a file or a folder.
    pub(crate) fn of_file(name: &str) -> Self {
        Self { files: vec![name.to_owned()], with: Vec::new(), without: Vec::new(), namespace: None }
    }

    const fn source(&self) -> Source<'_> {
        Source::Files(self.files.as_slice())
    }

    /// The namespace of what names none.
    #[expect(clippy::unnecessary_wraps, reason = "a kubeconfig that says it may be unreadable")]
    pub(crate) fn namespace(&self) -> Result<String, Failure> {
        match (&self.namespace, self.source()) {
            (Some(namespace), _) => Ok(namespace.clone()),
            (None, Source::Files(_)) => Ok("default".to_owned()),
        }
    }
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
    #[serde(flatten)]
    taken: Taken,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    with: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    pods: usize,
    policies: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ignored: BTreeMap<String, usize>,
}

/// Where a state was taken from.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "source", rename_all = "camelCase")]
enum Taken {
    Files { files: Vec<String> },
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { files } => f.write_str(&files.join(", ")),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state: {}", self.taken)?;
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

/// Reads all of it, and tells what is wrong with it on stderr.
pub(crate) fn read(args: &Args) -> Result<State, Failure> {
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
pub(crate) fn gather(args: &Args) -> Result<State, Failure> {
    let mut gather = Gather::default();
    let taken = match args.source() {
        Source::Files(names) => {
            for name in names {
                files::take(name, &mut gather, false).map_err(Failure::wrong_use)?;
            }
            Taken::Files { files: names.to_vec() }
        }
    };
    for name in &args.with {
        files::take(name, &mut gather, true).map_err(Failure::wrong_use)?;
    }
    for name in &args.without {
        remove(&mut gather, name, &args.namespace()?).map_err(Failure::wrong_use)?;
    }
    Ok(finish(gather, taken, args))
}

fn finish(gather: Gather, taken: Taken, args: &Args) -> State {
    let gathered = gather.finish();
    let has_errors = gathered.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let summary = Summary {
        taken,
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
