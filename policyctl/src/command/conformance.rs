//! `policyctl conformance`: the matrix of each case held against the one that is expected, cell by cell. Expectations
//! may be an earlier answer, or what another engine says of the same objects.

mod case;
mod expected;

use std::{collections::BTreeMap, net::IpAddr};

use policy_compiler::{
    files::distance,
    model::Protocol,
    reach::{Reach, Seat, ports_in_use},
};
use serde_json::{Value, json};

use self::{
    case::Case,
    expected::{Agreement, Expected, ExpectedEnd, ExpectedGrid},
};
use super::{
    checks::{self, Check},
    matrix,
};
use crate::{
    Failure, Outcome, Status,
    format::{self, Answer, Table},
    progress::Progress,
    source::{self, plural},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
A case is a folder with objects and a file expected.json (or .yaml), which is what matrix -o json writes; or a file
with objects and, as one of its documents, such a matrix. Its ends, ports and families are what is asked about. Where
another engine says less than policyctl, its letters may be
  X  refused, by whichever side   ?  not known
Where Kubernetes leaves a connection open, every verdict is right.

Exit status:
  0 all verdicts are as expected   1 one differs
  2 wrong use, a case without expectations, or files that can't be read   3 an end that is not in the objects";

/// Flags of `conformance`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of cases, or single ones
    #[arg(value_name = "DIR", required = true)]
    cases: Vec<String>,
    #[command(flatten)]
    format: format::Args,
    /// All that differs, of every case
    #[arg(short, long)]
    verbose: bool,
    /// Write what is found down as what is expected: where something else is, and where nothing is
    #[arg(long)]
    write: bool,
    /// The ports to write down where nothing is yet (default: every named port of a pod)
    #[arg(long, value_delimiter = ',', value_name = "PORT,...", requires = "write")]
    ports: Vec<String>,
    /// An outside address to write down as ip/NAME where nothing is yet (repeatable)
    #[arg(long, value_name = "NAME=ADDRESS", requires = "write")]
    ip: Vec<String>,
}

/// A connection that is not as it is expected.
struct Disagreement {
    client: String,
    server: String,
    family: String,
    protocol: Protocol,
    port: u16,
    expected: char,
    found: char,
}

/// What came out of a case.
#[derive(Default)]
struct Compared {
    /// So many connections were compared.
    connections: usize,
    left_open: usize,
    disagreements: Vec<Disagreement>,
    /// Ends that are expected and aren't there, each with its nearest name.
    unknown: Vec<String>,
    /// Pods and nodes that nothing is expected of.
    not_asked: Vec<String>,
    /// Expectations were written down.
    is_written: bool,
    /// The objects are only a part of what was meant.
    has_errors: bool,
}

/// A case and how it went; an error is input that can't be used.
struct Judged {
    case: Case,
    compared: anyhow::Result<Compared>,
}

/// Compares: 0 all as expected, 1 something differs.
pub(crate) fn run(args: &Args) -> Outcome {
    let ports = args.ports.iter().map(|text| matrix::port(text)).collect::<Result<Vec<_>, _>>()?;
    let addresses = args.ip.iter().map(|text| matrix::address(text)).collect::<Result<Vec<_>, _>>()?;
    let mut cases = Vec::new();
    for name in &args.cases {
        cases.extend(case::find(name).map_err(Failure::wrong_use)?);
    }
    let mut progress = Progress::begin();
    let mut judged: Vec<Judged> = Vec::new();
    let count = cases.len();
    for case in cases {
        progress.tell(|| format!("{} of {count} cases compared", judged.len()));
        let compared = judge(&case, args.write, &ports, &addresses);
        judged.push(Judged { case, compared });
    }
    drop(progress);
    answer(&judged, args.verbose).print(&args.format)?;
    Ok(judged.iter().map(Judged::status).max().unwrap_or(Status::Answered))
}

impl Judged {
    fn status(&self) -> Status {
        match &self.compared {
            Err(_) => Status::BadInput,
            Ok(compared) if !compared.unknown.is_empty() => Status::NoAnswer,
            Ok(compared) if compared.has_errors => Status::BadInput,
            Ok(compared) if compared.is_written || compared.disagreements.is_empty() => Status::Answered,
            Ok(_) => Status::Denied,
        }
    }

    /// What is wrong, in one line; `None` if all is as it is expected.
    fn failure(&self) -> Option<String> {
        match &self.compared {
            Err(error) => Some(format!("{error:#}")),
            Ok(compared) if !compared.unknown.is_empty() => Some(compared.unknown.join("; ")),
            Ok(compared) if compared.has_errors => Some("some of its objects can't be read".to_owned()),
            Ok(compared) if compared.is_written || compared.disagreements.is_empty() => None,
            Ok(compared) => {
                Some(format!("{} of {} connections differ", compared.disagreements.len(), compared.connections))
            }
        }
    }
}

fn judge(
    case: &Case,
    writes: bool,
    ports: &[(Protocol, u16)],
    addresses: &[(String, IpAddr)],
) -> anyhow::Result<Compared> {
    anyhow::ensure!(!case.objects.is_empty(), "there are no objects beside {}", case.path.display());
    let before = match &case.expected {
        Ok(Some(expected)) => Some(expected.clone()),
        Ok(None) => None,
        Err(error) => anyhow::bail!("{error:#}"),
    };
    anyhow::ensure!(writes || before.is_some(), "nothing is expected of it yet; --write writes down what is found");
    let state = source::of_files(&case.objects)?;
    let reach = Reach::new(state.cluster());
    let outside = before.as_ref().map_or_else(|| addresses.to_vec(), Expected::addresses);
    let all = matrix::participants(&state, &reach, &outside, true).map_err(|Failure(_, error)| error)?;
    let is_new = before.is_none();
    let mut expected = before.unwrap_or_else(|| {
        let ports = if ports.is_empty() { ports_in_use(state.cluster()) } else { ports.to_vec() };
        nothing_yet(&all, &ports)
    });
    let there: BTreeMap<&str, &matrix::Participant> = all.iter().map(|end| (&*end.id, end)).collect();
    let ends: Vec<_> = expected.ends.iter().map(|end| there.get(&*end.id).copied()).collect();
    let ids: Vec<String> = expected.ends.iter().map(|end| end.id.clone()).collect();
    let asked: Vec<_> = all.iter().filter(|end| !ids.contains(&end.id)).map(|end| end.id.clone()).collect();
    let mut compared = Compared { has_errors: state.has_errors, not_asked: asked, ..Compared::default() };
    for (end, id) in ends.iter().zip(&ids) {
        if end.is_none() {
            compared.unknown.push(unknown(id, there.keys().copied()));
        }
    }
    let mut progress = Progress::begin();
    for (family, grid) in expected.grids() {
        let seats = ends.iter().map(|end| (*end)?.seats.iter().find(|seat| seat.family == family));
        let seats: Vec<Option<&Seat>> = seats.collect();
        let found = matrix::rows(&reach, &seats, (grid.protocol, grid.port), &mut progress);
        if is_new {
            grid.rows.clone_from(&found);
        }
        let is_there = |at: usize| ends[at].is_some();
        compared.compare(grid, &format!("{family:?}"), &found, &ids, &is_there);
    }
    drop(progress);
    if writes && compared.unknown.is_empty() && !compared.has_errors && (is_new || !compared.disagreements.is_empty()) {
        case.write(&expected)?;
        compared.is_written = true;
    }
    Ok(compared)
}

impl Compared {
    /// Compares the verdicts at one port, and puts what is found where something else is expected.
    fn compare(
        &mut self,
        grid: &mut ExpectedGrid,
        family: &str,
        found: &[String],
        ids: &[String],
        is_there: &dyn Fn(usize) -> bool,
    ) {
        let (protocol, port) = (grid.protocol, grid.port);
        for (client, (row, found)) in grid.rows.iter_mut().zip(found).enumerate() {
            let mut cell = |(server, (expected, found)): (usize, (char, char))| {
                if !is_there(client) || !is_there(server) {
                    return expected;
                }
                let agreement = Agreement::of(expected, found);
                self.connections += usize::from(agreement != Agreement::NotAsked);
                self.left_open += usize::from(agreement == Agreement::LeftOpen);
                if agreement != Agreement::Differs {
                    return expected;
                }
                let (client, server, family) = (ids[client].clone(), ids[server].clone(), family.to_owned());
                self.disagreements.push(Disagreement { client, server, family, protocol, port, expected, found });
                found
            };
            *row = row.chars().zip(found.chars()).enumerate().map(&mut cell).collect();
        }
    }
}

/// Everybody at these ports, without verdicts.
fn nothing_yet(all: &[matrix::Participant], ports: &[(Protocol, u16)]) -> Expected {
    let end =
        |end: &matrix::Participant| ExpectedEnd { id: end.id.clone(), kind: end.kind.to_owned(), ips: end.ips.clone() };
    // no verdict is like this, so each is put in
    let rows = vec![" ".repeat(all.len()); all.len()];
    let grid =
        |(protocol, port): &(Protocol, u16)| ExpectedGrid { protocol: *protocol, port: *port, rows: rows.clone() };
    let grids: Vec<_> = ports.iter().map(grid).collect();
    let families = matrix::families(all).into_iter().map(|family| (format!("{family:?}"), grids.clone()));
    Expected {
        api_version: "policyctl/v1".to_owned(),
        kind: "Matrix".to_owned(),
        ends: all.iter().map(end).collect(),
        families: families.collect(),
    }
}

fn unknown<'a>(id: &str, there: impl Iterator<Item = &'a str>) -> String {
    let near = there.map(|other| (distance(other, id), other)).min().filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, near)) => format!("there is no {id}; is it {near}?"),
        None => format!("there is no {id}"),
    }
}

/// So many disagreements of a case are told without `-v`.
const TOLD: usize = 10;

fn answer(judged: &[Judged], verbose: bool) -> Answer {
    let mut answer = Answer { kind: "ConformanceReport", list: "cases", ..Answer::default() };
    let width = judged.iter().map(|one| one.case.name.chars().count()).max().unwrap_or_default();
    let mut rows = Vec::new();
    let (mut connections, mut left_open, mut failed) = (0, 0, 0);
    for one in judged {
        let failure = one.failure();
        failed += usize::from(failure.is_some());
        let says = failure.clone().unwrap_or_else(|| one.success());
        let word = if failure.is_some() { "FAILED" } else { "ok" };
        answer.text.push_str(&format!("{word:<6}  {:<width$}  {says}\n", one.case.name));
        let Ok(compared) = &one.compared else { continue };
        connections += compared.connections;
        left_open += compared.left_open;
        answer.text.push_str(&compared.text(verbose));
        rows.extend(compared.disagreements.iter().map(|differs| differs.row(&one.case.name)));
    }
    let mut counted = plural(connections, "connection", "connections") + " compared";
    if left_open > 0 {
        counted.push_str(&format!(", {left_open} of them left open by Kubernetes"));
    }
    if connections > 0 {
        let but = if rows.is_empty() { String::new() } else { format!(" but {}", rows.len()) };
        counted.push_str(&format!(", all{but} as expected"));
    }
    answer.text.push_str(&format!("\n{}, {failed} failed; {counted}\n", plural(judged.len(), "case", "cases")));
    answer.set("cases", judged.iter().map(Judged::json).collect::<Vec<_>>());
    answer.set("failed", failed);
    answer.set("connections", connections);
    answer.set("disagreements", rows.len());
    answer.names = judged.iter().filter(|one| one.failure().is_some()).map(|one| one.case.name.clone()).collect();
    let checks: Vec<_> = judged.iter().map(Judged::check).collect();
    answer.special = checks::special(&checks);
    let head = vec!["CASE", "SOURCE", "DESTINATION", "FAMILY", "PROTOCOL", "PORT", "EXPECTED", "FOUND"];
    // text has its own lines
    answer.table = Some(Table { head, narrow: 0, rows });
    answer
}

impl Judged {
    fn success(&self) -> String {
        let Ok(compared) = &self.compared else { return String::new() };
        let open = match compared.left_open {
            0 => String::new(),
            some => format!(", {some} left open by Kubernetes"),
        };
        let connections = plural(compared.connections, "connection", "connections");
        if compared.is_written {
            return format!("{connections}, written to {}", self.case.path.display());
        }
        format!("{connections}{open}")
    }

    fn json(&self) -> Value {
        let empty = Compared::default();
        let compared = self.compared.as_ref().unwrap_or(&empty);
        json!({
            "name": self.case.name, "path": self.case.path.display().to_string(), "passed": self.failure().is_none(),
            "error": self.compared.as_ref().err().map(|error| format!("{error:#}")),
            "written": compared.is_written, "connections": compared.connections, "leftOpen": compared.left_open,
            "unknown": compared.unknown, "notAsked": compared.not_asked,
            "disagreements": compared.disagreements.iter().map(Disagreement::json).collect::<Vec<_>>(),
        })
    }

    fn check(&self) -> Check {
        let lines = self.compared.iter().flat_map(|compared| &compared.disagreements).map(Disagreement::text);
        Check {
            class: self.case.path.display().to_string(),
            name: self.case.name.clone(),
            failure: self.failure(),
            detail: [self.case.path.display().to_string()].into_iter().chain(lines).collect::<Vec<_>>().join("\n"),
        }
    }
}

impl Compared {
    fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        if !self.is_written {
            let told = if verbose { usize::MAX } else { TOLD };
            for differs in self.disagreements.iter().take(told) {
                text.push_str(&format!("          {}\n", differs.text()));
            }
            let more = self.disagreements.len().saturating_sub(told);
            if more > 0 {
                text.push_str(&format!("          and {more} more (-v tells all)\n"));
            }
        }
        if let [first, rest @ ..] = &*self.not_asked {
            let names = match (rest, verbose) {
                ([], _) | (_, true) => self.not_asked.join(", "),
                (rest, false) => format!("{first} and {} more", rest.len()),
            };
            text.push_str(&format!("          nothing is expected of {names}\n"));
        }
        text
    }
}

impl Disagreement {
    fn text(&self) -> String {
        let Self { client, server, family, protocol, port, .. } = self;
        let (expected, found) = (expected::word(self.expected), expected::word(self.found));
        format!("{client} -> {server}  {protocol}/{port} over {family}: expected {expected}, found {found}")
    }

    fn row(&self, case: &str) -> Vec<String> {
        vec![
            case.to_owned(),
            self.client.clone(),
            self.server.clone(),
            self.family.clone(),
            self.protocol.to_string(),
            self.port.to_string(),
            expected::name(self.expected).to_owned(),
            expected::name(self.found).to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "client": self.client, "server": self.server, "family": self.family, "protocol": self.protocol,
            "port": self.port, "expected": expected::name(self.expected), "found": expected::name(self.found),
        })
    }
}
