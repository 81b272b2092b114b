//! The state that a question is asked of, from wherever the flags say, a file for each kind of place; with `--with` and
//! `--without` on top. [`read`] brings it.

mod agent;
mod cluster;
mod files;
mod scope;
mod snapshot;
mod summary;

use anyhow::bail;
use policy_compiler::{
    cluster::Cluster,
    diagnostic::Severity,
    files::{Gather, Gathered, distance},
    model::ObjectName,
};

use self::summary::Taken;
pub(crate) use self::{
    cluster::{About, Args as ClusterArgs, Connection, connect, duration, fetch, server_version},
    files::{below, bytes},
    scope::{Scope, Scoped},
    snapshot::written,
    summary::{Summary, plural},
};
use crate::{Failure, agent::Objects, format::tell, progress::Progress};

/// Flags that say which state is meant.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// A file, a folder, or - for stdin: YAML or JSON, any mix of kinds (repeatable)
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", conflicts_with_all = ["agent", "snapshot", "cluster", "context", "kubeconfig"])]
    pub(crate) files: Vec<String>,
    /// What if these objects were applied too (repeatable)
    #[arg(long, value_name = "FILE|DIR|-")]
    pub(crate) with: Vec<String>,
    #[command(flatten)]
    pub(crate) live: Live,
}

/// Flags that say which state is meant, apart from files.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Live {
    /// The state that policyctl snapshot has put aside
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["agent", "cluster", "context", "kubeconfig"])]
    pub(crate) snapshot: Option<String>,
    /// The state that an agent enforces: the path of its socket, or its node's name
    #[arg(long, value_name = "SOCKET|NODE", conflicts_with = "cluster")]
    pub(crate) agent: Option<String>,
    /// The cluster that the kubeconfig names, as for kubectl (the default)
    #[arg(long)]
    pub(crate) cluster: bool,
    #[command(flatten)]
    pub(crate) of: ClusterArgs,
    /// What if this policy were deleted (repeatable)
    #[arg(long, value_name = "[NAMESPACE/]POLICY")]
    pub(crate) without: Vec<String>,
    /// The namespace of what names none (default: the context's, or default)
    #[arg(short, long, env = "POLICYCTL_NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Tell on stderr which state was used: where and when it was taken, and how much there is in it
    #[arg(long)]
    pub(crate) as_of: bool,
    /// Tell more: on stderr what of each kind is in the state; explain also tells the rules that took no part, what each of
    /// them failed on, and all near misses
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Where a state is to be had.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Files(&'a [String]),
    Snapshot(&'a str),
    Agent(&'a str, &'a ClusterArgs),
    Cluster(&'a ClusterArgs),
}

/// A source that has been asked.
#[derive(Debug)]
enum Opened<'a> {
    Files(&'a [String]),
    Snapshot(&'a str),
    Agent(Objects),
    Cluster(cluster::Fetched),
}

impl Args {
    fn source(&self) -> Source<'_> {
        if self.files.is_empty() { self.live.source() } else { Source::Files(&self.files) }
    }

    /// The namespace of what names none.
    pub(crate) fn namespace(&self) -> Result<String, Failure> {
        self.source().namespace(self.live.namespace.as_deref())
    }
}

impl Live {
    fn source(&self) -> Source<'_> {
        match (&self.snapshot, &self.agent) {
            (Some(name), _) => Source::Snapshot(name),
            (None, Some(name)) => Source::Agent(name, &self.of),
            (None, None) => Source::Cluster(&self.of),
        }
    }
}

impl Live {
    /// On stderr, as much of a state as is asked for.
    fn tell(&self, state: &State) {
        if self.as_of {
            tell(&state.summary.as_of());
        }
        if self.verbose {
            eprint!("{}", summary::detail(state));
        }
    }
}

impl<'a> Source<'a> {
    fn namespace(self, flag: Option<&str>) -> Result<String, Failure> {
        match (flag, self) {
            (Some(namespace), _) => Ok(namespace.to_owned()),
            (None, Source::Files(_) | Source::Snapshot(_) | Source::Agent(..)) => Ok("default".to_owned()),
            (None, Source::Cluster(args)) => cluster::namespace(args),
        }
    }

    fn open(self) -> Result<Opened<'a>, Failure> {
        Ok(match self {
            Self::Files(names) => Opened::Files(names),
            Self::Snapshot(name) => Opened::Snapshot(name),
            Self::Agent(name, args) => Opened::Agent(agent::fetch(name, args)?),
            Self::Cluster(args) => Opened::Cluster(fetch(args, &mut Progress::begin())?),
        })
    }
}

/// What is on top of a source, for a question that begins with what if.
#[derive(Clone, Copy, Debug, Default)]
struct Change<'a> {
    with: &'a [String],
    without: &'a [String],
    /// Of policies in `without`.
    namespace: &'a str,
}

impl Opened<'_> {
    fn read(&self, change: Change<'_>) -> anyhow::Result<State> {
        let mut gather = Gather::default();
        let taken = match self {
            Self::Files(names) => {
                for name in *names {
                    files::take(name, &mut gather, false)?;
                }
                Taken::Files { files: names.to_vec() }
            }
            Self::Snapshot(name) => {
                Taken::Snapshot { file: (*name).to_owned(), about: snapshot::take(name, &mut gather)? }
            }
            Self::Agent(objects) => Taken::Agent { about: agent::take(objects, &mut gather) },
            Self::Cluster(fetched) => {
                gather.unwritten("", fetched.list().as_bytes());
                Taken::Cluster { about: fetched.about.clone() }
            }
        };
        for name in change.with {
            files::take(name, &mut gather, true)?;
        }
        for name in change.without {
            remove(&mut gather, name, change.namespace)?;
        }
        Ok(finish(gather, taken, change))
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
    /// What of it is listed.
    pub(crate) scope: Scope,
}

impl State {
    pub(crate) const fn cluster(&self) -> &Cluster {
        &self.gathered.cluster
    }
}

/// Reads all of it, and tells what is wrong with it on stderr.
pub(crate) fn read(args: &Args) -> Result<State, Failure> {
    let state = gather(args)?;
    state.tell_faults();
    Ok(state)
}

/// The same, to list some of it.
pub(crate) fn read_scoped(args: &Scoped) -> Result<State, Failure> {
    let state = read(&args.state)?;
    let scope = Scope::new(&args.scope, args.state.live.namespace.as_deref());
    let pods = &state.cluster().pods;
    if !pods.is_empty() && !pods.values().any(|pod| scope.has(pod)) {
        eprintln!("warning: no pod is in {scope}, so nothing is listed");
    }
    Ok(State { scope, ..state })
}

/// Reads all of it, and tells nothing.
pub(crate) fn gather(args: &Args) -> Result<State, Failure> {
    let namespace = if args.live.without.is_empty() { String::new() } else { args.namespace()? };
    let change = Change { with: &args.with, without: &args.live.without, namespace: &namespace };
    let state = args.source().open()?.read(change).map_err(Failure::wrong_use)?;
    args.live.tell(&state);
    Ok(state)
}

/// Two states to be compared: each of its own file or folder.
pub(crate) fn pair(old: &str, new: &str, live: &Live) -> Result<(State, State), Failure> {
    let read = |name: &str| {
        let state = of_files(&[name.to_owned()]).map_err(Failure::wrong_use)?;
        live.tell(&state);
        Ok(state)
    };
    Ok((read(old)?, read(new)?))
}

/// What these files and folders hold; what is wrong with it is told on stderr.
pub(crate) fn of_files(names: &[String]) -> anyhow::Result<State> {
    let state = Opened::Files(names).read(Change::default())?;
    state.tell_faults();
    Ok(state)
}

/// Two states to be compared: one as it is, and what it would be if `with` were applied and the policies of `--without`
/// deleted.
pub(crate) fn before_and_after(live: &Live, with: &[String]) -> Result<(State, State), Failure> {
    let source = live.source();
    let namespace =
        if live.without.is_empty() { String::new() } else { source.namespace(live.namespace.as_deref())? };
    let opened = source.open()?;
    let before = opened.read(Change::default()).map_err(Failure::wrong_use)?;
    let change = Change { with, without: &live.without, namespace: &namespace };
    let after = opened.read(change).map_err(Failure::wrong_use)?;
    // what is wrong with the one is wrong with the other
    after.tell_faults();
    live.tell(&before);
    Ok((before, after))
}

impl State {
    fn tell_faults(&self) {
        let diagnostics = &self.gathered.diagnostics;
        for diagnostic in diagnostics.iter().take(MAX_TOLD) {
            tell(&diagnostic.to_string());
        }
        if diagnostics.len() > MAX_TOLD {
            eprintln!("warning: {} more findings are not shown", diagnostics.len() - MAX_TOLD);
        }
        if self.has_errors {
            eprintln!("warning: the answer leaves out what could not be read");
        }
    }
}

fn finish(gather: Gather, taken: Taken, change: Change<'_>) -> State {
    let mut gathered = gather.finish();
    if matches!(taken, Taken::Agent { .. }) {
        agent::complete(&mut gathered);
    }
    let has_errors = gathered.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let summary = Summary {
        taken,
        with: change.with.to_vec(),
        without: change.without.to_vec(),
        pods: gathered.cluster.pods.len(),
        policies: gathered.cluster.policies.len(),
        ignored: gathered.ignored.clone(),
    };
    State { gathered, has_errors, summary, scope: Scope::default() }
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
