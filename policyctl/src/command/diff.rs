//! `policyctl diff`: the connections that a change opens and closes, each with the policies that cause it.

use std::collections::{BTreeMap, BTreeSet};

use policy_compiler::{
    cluster::Cluster,
    explain::{End, Quick},
    model::{ObjectName, Pod},
    reach::{PortRange, Reach, port_ranges_of},
};
use serde_json::json;

use super::units::{self, Between, Probes, Unit};
use crate::{
    Failure, Outcome, Status, end,
    format::{self, Answer, Output, Table},
    picture::{
        grid::{self, Asked},
        sheet::Sheet,
    },
    port::summary,
    progress::Progress,
    source::{self, State, plural},
};

/// Flags of `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files before the change
    #[arg(
        value_name = "OLD",
        requires = "new",
        conflicts_with_all = ["files", "snapshot", "cluster", "context", "kubeconfig", "without"]
    )]
    old: Option<String>,
    /// Files after the change
    #[arg(value_name = "NEW")]
    new: Option<String>,
    /// Instead of OLD and NEW: what if these objects were applied to the cluster, or the snapshot (repeatable)
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<String>,
    #[command(flatten)]
    live: source::Live,
    #[command(flatten)]
    format: format::Args,
    /// In a picture that is folded: open this namespace or workload (repeatable)
    #[arg(long, value_name = "NAMESPACE|WORKLOAD")]
    expand: Vec<String>,
}

/// A state with all of its units.
struct Side<'a> {
    state: &'a State,
    reach: &'a Reach<'a>,
    probes: Probes<'a, 'a>,
    quick: Quick<'a>,
    units: BTreeMap<String, Unit>,
}

impl<'a> Side<'a> {
    fn new(state: &'a State, reach: &'a Reach<'a>, ranges: &'a [Option<PortRange>], outside: &[end::Member]) -> Self {
        let world = outside.iter().map(|member| Unit::new(member.name.clone(), vec![member.clone()], reach));
        let units = units::pods(state, reach).into_iter().chain(world);
        Self {
            state,
            quick: Quick::new(state.cluster()),
            units: units.map(|unit| (unit.name.clone(), unit)).collect(),
            reach,
            probes: Probes::new(reach, ranges),
        }
    }

    fn open(&self, source: &str, destination: &str) -> Option<Between> {
        self.probes.between(self.units.get(source)?, self.units.get(destination)?)
    }
}

/// A connection that is not what it was.
struct Change {
    opened: bool,
    source: String,
    destination: String,
    probes: Vec<Option<PortRange>>,
    because: Vec<String>,
}

/// Answers: 0 no difference, 1 some.
pub(crate) fn run(args: &Args) -> Outcome {
    let (old, new) = match (&args.old, &args.new) {
        (Some(old), Some(new)) => source::pair(old, new, &args.live)?,
        _ if args.files.is_empty() && args.live.without.is_empty() => {
            let message = "say what to compare: OLD NEW, or -f NEW for what it would change in the cluster";
            return Err(Failure::wrong_use(anyhow::anyhow!(message)));
        }
        _ => source::before_and_after(&args.live, &args.files)?,
    };
    let clusters = [old.cluster(), new.cluster()];
    let outside = end::world(&clusters);
    let probes: Vec<_> = port_ranges_of(&clusters).into_iter().map(Some).chain([None]).collect();
    let reach = (Reach::new(old.cluster()), Reach::new(new.cluster()));
    let before = Side::new(&old, &reach.0, &probes, &outside);
    let after = Side::new(&new, &reach.1, &probes, &outside);
    let is_outside = |name: &str| outside.iter().any(|member| member.name == name);
    let mut changes = Vec::new();
    let mut progress = Progress::begin();
    for (done, source) in before.units.keys().filter(|name| after.units.contains_key(*name)).enumerate() {
        progress.tell(|| format!("{done} of {} clients compared", before.units.len()));
        for destination in before.units.keys().filter(|name| after.units.contains_key(*name)) {
            if !(is_outside(source) && is_outside(destination)) {
                compare(&before, &after, (source, destination), &mut changes);
            }
        }
    }
    drop(progress);
    let only = |side: &Side<'_>, other: &Side<'_>| -> Vec<String> {
        side.units.keys().filter(|name| !other.units.contains_key(*name)).cloned().collect()
    };
    let (removed, added) = (only(&before, &after), only(&after, &before));
    let mut answer = answer(&changes, &removed, &added, (&old, &new));
    if args.format.output.is_picture() {
        answer.special = picture(args, [&before, &after], probes.clone(), (&removed, &added))?;
    }
    answer.print(&args.format)?;
    let same = changes.is_empty() && removed.is_empty() && added.is_empty();
    let status = if same { Status::Answered } else { Status::Denied };
    format::ended(if old.has_errors { &old } else { &new }, status)
}

/// The grid of both states, in the format that is asked for.
fn picture(
    args: &Args,
    sides: [&Side<'_>; 2],
    probes: Vec<Option<PortRange>>,
    (removed, added): (&[String], &[String]),
) -> Result<Vec<(Output, String)>, Failure> {
    let others = grid::outside(&sides.map(|side| side.state.cluster()), true);
    let asked = sides.map(|side| Asked { state: side.state, reach: side.reach, others: others.clone() });
    let grid = grid::Grid::new(&asked, probes);
    grid.check(&args.expand).map_err(Failure::no_answer)?;
    let mut footer = Vec::new();
    for (names, only) in [(removed, "OLD"), (added, "NEW")] {
        if !names.is_empty() {
            footer.push(format!("only in {only}: {}", names.join(", ")));
        }
    }
    footer.extend([format!("old {}", sides[0].state.summary), format!("new {}", sides[1].state.summary)]);
    Ok(Sheet::diff(&grid, &args.expand, footer).drawn(args.format.output))
}

/// 2 open to all pods of both units, 1 to some, 0 to none.
fn level(between: &Between, probe: &Option<PortRange>) -> u8 {
    if between.all.contains(probe) { 2 } else { u8::from(between.some.contains(probe)) }
}

fn compare(before: &Side<'_>, after: &Side<'_>, (source, destination): (&str, &str), changes: &mut Vec<Change>) {
    let old = before.open(source, destination).unwrap_or_default();
    let new = after.open(source, destination).unwrap_or_default();
    if old == new {
        return;
    }
    for opened in [true, false] {
        let changed: Vec<_> = before
            .probes
            .ranges
            .iter()
            .filter(|probe| {
                let (old, new) = (level(&old, probe), level(&new, probe));
                if opened { new > old } else { new < old }
            })
            .copied()
            .collect();
        if !changed.is_empty() {
            let because = causes(before, after, source, destination);
            let (source, destination) = (source.to_owned(), destination.to_owned());
            changes.push(Change { opened, source, destination, probes: changed, because });
        }
    }
}

/// The policies that were added, removed or changed and isolate one of the ends in its direction; else what else changed.
fn causes(before: &Side<'_>, after: &Side<'_>, source: &str, destination: &str) -> Vec<String> {
    let mut because = Vec::new();
    for (name, ingress) in [(source, false), (destination, true)] {
        let mut policies: BTreeSet<ObjectName> = BTreeSet::new();
        for side in [before, after] {
            for pod in pods_of(side, name) {
                policies.extend(side.quick.isolating(pod, ingress).map(|(policy, _)| policy.name.clone()));
            }
        }
        for policy in policies {
            let of = |cluster: &Cluster| cluster.policies.get(&policy).cloned();
            let word = match (of(before.state.cluster()), of(after.state.cluster())) {
                (None, _) => "added",
                (_, None) => "removed",
                (old, new) if old != new => "changed",
                _ => continue,
            };
            because.push(format!("{policy} {word}"));
        }
    }
    if because.is_empty() {
        for name in [source, destination] {
            let labels = |side: &Side<'_>| -> Vec<_> { pods_of(side, name).map(|pod| pod.labels.clone()).collect() };
            if labels(before) != labels(after) {
                because.push(format!("pods of {name} changed"));
            }
        }
    }
    if because.is_empty() {
        because.push("labels of pods or namespaces changed".to_owned());
    }
    because.dedup();
    because
}

fn pods_of<'a>(side: &'a Side<'_>, name: &str) -> impl Iterator<Item = &'a Pod> {
    let members = side.units.get(name).into_iter().flat_map(|unit| &unit.members);
    members.filter_map(|member| match &member.end {
        End::Pod(name) => side.quick.pod(name),
        _ => None,
    })
}

fn answer(changes: &[Change], removed: &[String], added: &[String], (old, new): (&State, &State)) -> Answer {
    let word = |change: &Change| if change.opened { "opened" } else { "closed" };
    let count = |opened| changes.iter().filter(|change| change.opened == opened).count();
    let mut answer = Answer { kind: "Diff", list: "changes", ..Answer::default() };
    if changes.is_empty() && removed.is_empty() && added.is_empty() {
        answer.text = "no difference: the same connections are allowed\n".to_owned();
    } else {
        let connections = |count| plural(count, "connection", "connections");
        let end = if changes.is_empty() { "" } else { "\n" };
        answer.text = format!("{} opened, {} closed\n{end}", connections(count(true)), connections(count(false)));
    }
    for (names, only) in [(removed, "OLD"), (added, "NEW")] {
        for name in names {
            answer.footer.push_str(&format!("only in {only}: {name}\n"));
        }
    }
    let row = |change: &Change| {
        vec![
            word(change).to_owned(),
            change.source.clone(),
            change.destination.clone(),
            summary(&change.probes),
            change.because.join(", "),
        ]
    };
    if !changes.is_empty() {
        let head = vec!["CHANGE", "SOURCE", "DESTINATION", "PORTS", "BECAUSE OF"];
        answer.table = Some(Table { head, narrow: 5, rows: changes.iter().map(row).collect() });
    }
    let element = |change: &Change| {
        json!({
            "change": word(change), "source": change.source, "destination": change.destination,
            "ports": summary(&change.probes), "because": change.because,
        })
    };
    answer.set("changes", changes.iter().map(element).collect::<Vec<_>>());
    answer.set("onlyInOld", removed);
    answer.set("onlyInNew", added);
    answer.set("old", &old.summary);
    answer.set("new", &new.summary);
    answer.names = changes.iter().map(|change| format!("{} -> {}", change.source, change.destination)).collect();
    answer.footer.push_str(&format!("old {}\nnew {}\n", old.summary, new.summary));
    answer
}
