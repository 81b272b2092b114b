//! `policyctl matrix`: who may speak to whom, as a grid; the machine interface of conformance tests too.

use std::{collections::HashMap, io, net::IpAddr};

use policy_compiler::{
    explain::{End, Family},
    model::Protocol,
    reach::{PortRange, Reach, Seat, Sort, port_ranges, ports_in_use},
};
use serde_json::json;

use crate::{
    Failure, Outcome, Status,
    end::Member,
    format::{self, Answer, Output, Table},
    picture::{
        grid::{self, Asked},
        sheet::Sheet,
    },
    port::{Wanted, summary},
    progress::Progress,
    source::{self, State},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
A row for each client, a column for each server:
  . allowed   E refused by egress   I by ingress   B by both
  = itself    ~ left open by Kubernetes            - no such connection";

/// Flags of `matrix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state: source::Scoped,
    #[command(flatten)]
    format: format::Args,
    /// The ports to ask about, such as TCP/80,UDP/53 (default: every named port of a pod)
    #[arg(long, value_delimiter = ',', value_name = "PORT,...")]
    ports: Vec<String>,
    /// An outside address that takes part as ip/NAME (repeatable)
    #[arg(long, value_name = "NAME=ADDRESS")]
    ip: Vec<String>,
    /// Leave the nodes out
    #[arg(long)]
    no_nodes: bool,
    /// In a picture that is folded: open this namespace or workload (repeatable)
    #[arg(long, value_name = "NAMESPACE|WORKLOAD")]
    expand: Vec<String>,
}

/// An end of the matrix.
pub(super) struct Participant {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) ips: Vec<IpAddr>,
    pub(super) seats: Vec<Seat>,
}

/// Answers.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut ports = args.ports.iter().map(|text| port(text)).collect::<Result<Vec<_>, _>>()?;
    let addresses = args.ip.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    let state = source::read_scoped(&args.state)?;
    if args.format.output.is_picture() {
        return picture(args, &state, &ports, &addresses);
    }
    if ports.is_empty() {
        ports = ports_in_use(state.cluster());
    }
    let reach = Reach::new(state.cluster());
    let ends = participants(&state, &reach, &addresses, !args.no_nodes)?;
    let mut grids = Vec::new();
    let mut progress = Progress::begin();
    for family in families(&ends) {
        let seats: Vec<_> = ends.iter().map(|end| end.seats.iter().find(|seat| seat.family == family)).collect();
        for (protocol, number) in &ports {
            grids.push(Grid {
                family,
                protocol: *protocol,
                port: *number,
                rows: rows(&reach, &seats, (*protocol, *number), &mut progress),
            });
        }
    }
    drop(progress);
    let answer = answer(&ends, &grids, &state, args.format.output);
    answer.print(&args.format)?;
    format::ended(&state, Status::Answered)
}

/// Draws it: at all ports at once, if none are named, and with the outside.
fn picture(args: &Args, state: &State, ports: &[(Protocol, u16)], addresses: &[(String, IpAddr)]) -> Outcome {
    let reach = Reach::new(state.cluster());
    let one = |(protocol, port): &(Protocol, u16)| Some(PortRange { protocol: *protocol, first: *port, last: *port });
    let probes: Vec<_> = match ports {
        [] => port_ranges(state.cluster()).into_iter().map(Some).chain([None]).collect(),
        ports => ports.iter().map(one).collect(),
    };
    let asked = if ports.is_empty() { "every port".to_owned() } else { format!("ports {}", summary(&probes)) };
    let mut others = grid::outside(&[state.cluster()], !args.no_nodes);
    let named =
        addresses.iter().map(|(name, address)| Member { name: format!("ip/{name}"), end: End::Address(*address) });
    others.extend(named.map(|member| ("addresses", member)));
    let grid = grid::Grid::new(&[Asked { state, reach: &reach, others }], probes);
    grid.check(&args.expand).map_err(Failure::no_answer)?;
    let sheet = Sheet::matrix(&grid, &args.expand, vec![format!("asked of {asked}"), state.summary.to_string()]);
    Answer { special: sheet.drawn(args.format.output), ..Answer::default() }.print(&args.format)?;
    format::ended(state, Status::Answered)
}

/// The families that the cluster itself has.
pub(super) fn families(ends: &[Participant]) -> Vec<Family> {
    let has = |family| ends.iter().any(|end| end.kind != "IP" && end.seats.iter().any(|seat| seat.family == family));
    Family::ALL.into_iter().filter(|family| has(*family)).collect()
}

/// The verdicts at one port.
struct Grid {
    family: Family,
    protocol: Protocol,
    port: u16,
    rows: Vec<String>,
}

/// A row of letters for each client. Pods of one sort are judged once for all of them.
pub(super) fn rows(
    reach: &Reach<'_>,
    seats: &[Option<&Seat>],
    port: (Protocol, u16),
    progress: &mut Progress,
) -> Vec<String> {
    let mut sorts: HashMap<Sort, usize> = HashMap::new();
    let sort = |seat: &Option<&Seat>, sorts: &mut HashMap<Sort, usize>| {
        let next = sorts.len();
        seat.and_then(Seat::sort).map(|sort| *sorts.entry(sort).or_insert(next))
    };
    let sorted: Vec<_> = seats.iter().map(|seat| sort(seat, &mut sorts)).collect();
    let mut known: Vec<Option<char>> = vec![None; sorts.len() * sorts.len()];
    let mut cell = |row: usize, column: usize| {
        let (Some(from), Some(to)) = (seats[row], seats[column]) else { return '-' };
        let place = sorted[row].zip(sorted[column]).map(|(from, to)| from * sorts.len() + to);
        if let Some(letter) = place.and_then(|place| known[place]) {
            return letter;
        }
        let letter = reach.judge(from, to, Some(port)).letter();
        // two pods that share an address are one to each other, but not to the rest of their sort
        if let Some(place) = place.filter(|_| letter != '=') {
            known[place] = Some(letter);
        }
        letter
    };
    let all = 0..seats.len();
    let mut row = |row: usize| {
        progress.tell(|| format!("{row} of {} clients judged at port {}", seats.len(), port.1));
        all.clone().map(|column| if row == column { '=' } else { cell(row, column) }).collect()
    };
    all.clone().map(&mut row).collect()
}

/// Everybody who takes part.
pub(super) fn participants(
    state: &State,
    reach: &Reach<'_>,
    addresses: &[(String, IpAddr)],
    nodes: bool,
) -> Result<Vec<Participant>, Failure> {
    let cluster = state.cluster();
    let pods = cluster.pods.values().filter(|pod| state.scope.has(pod)).map(|pod| &pod.name);
    let pods = pods.map(|name| (name.to_string(), "Pod", End::Pod(name.clone())));
    let nodes =
        cluster.nodes.keys().filter(|_| nodes).map(|name| (format!("node/{name}"), "Node", End::Node(name.clone())));
    let outside = addresses.iter().map(|(name, address)| (format!("ip/{name}"), "IP", End::Address(*address)));
    let mut ends = Vec::new();
    for (id, kind, end) in pods.chain(nodes).chain(outside) {
        // a pod that has ended or has no address yet takes part without any connection
        let seats = reach.seats(&end).unwrap_or_default();
        let ips = match &end {
            End::Node(name) => cluster.nodes[name].addresses.clone(),
            End::Address(address) => vec![*address],
            _ => seats.iter().map(|seat| seat.party.ip).collect(),
        };
        ends.push(Participant { id, kind, ips, seats });
    }
    let mut ids: Vec<_> = ends.iter().map(|end| &end.id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|two| two[0] == two[1]) {
        return Err(Failure::wrong_use(anyhow::anyhow!("{} is there twice; name each --ip differently", twice[0])));
    }
    Ok(ends)
}

fn answer(ends: &[Participant], grids: &[Grid], state: &State, output: Output) -> Answer {
    let mut answer = Answer { kind: "Matrix", list: "ends", ..Answer::default() };
    let element = |end: &Participant| json!({"id": end.id, "kind": end.kind, "ips": end.ips});
    answer.set("ends", ends.iter().map(element).collect::<Vec<_>>());
    let mut families = serde_json::Map::new();
    for grid in grids {
        let list = families.entry(format!("{:?}", grid.family)).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({"protocol": grid.protocol, "port": grid.port, "rows": grid.rows}));
        }
    }
    answer.set("families", families);
    answer.names = ends.iter().map(|end| end.id.clone()).collect();
    // each of these may be much larger than the matrix itself
    match output {
        Output::Text | Output::Wide => answer.text = text(ends, grids, format::width(io::stdout())),
        Output::Csv | Output::Md => answer.table = Some(table(ends, grids)),
        _ => {}
    }
    answer.footer = format!("{HELP}\n{}\n", state.summary);
    answer
}

/// Grids with their heads written downwards; equal ones once. On a terminal that is too narrow, some columns after the
/// others.
fn text(ends: &[Participant], grids: &[Grid], terminal: Option<usize>) -> String {
    let mut told: Vec<(String, &Vec<String>)> = Vec::new();
    for grid in grids {
        let name = format!("{}/{} over {:?}", grid.protocol, grid.port, grid.family);
        match told.iter_mut().find(|(_, rows)| **rows == grid.rows) {
            Some((names, _)) => names.push_str(&format!(", {name}")),
            None => told.push((name, &grid.rows)),
        }
    }
    let width = ends.iter().map(|end| end.id.chars().count()).max().unwrap_or_default();
    let heads: Vec<Vec<char>> = ends.iter().map(|end| end.id.chars().collect()).collect();
    let room = terminal.map_or(usize::MAX, |terminal| terminal.saturating_sub(width + 2).max(LEAST_COLUMNS));
    let mut text = String::new();
    for (name, rows) in told {
        for (number, heads) in heads.chunks(room).enumerate() {
            let first = number * room;
            let part = if heads.len() < ends.len() {
                format!(", servers {} to {} of {}", first + 1, first + heads.len(), ends.len())
            } else {
                String::new()
            };
            text.push_str(&format!("{name}{part}\n"));
            let height = heads.iter().map(Vec::len).max().unwrap_or_default();
            for line in 0..height {
                // the heads stand on the grid
                let letter =
                    |head: &Vec<char>| (line + head.len()).checked_sub(height).map_or(' ', |index| head[index]);
                let line: String = heads.iter().map(letter).collect();
                text.push_str(format!("{:width$}  {line}", "").trim_end());
                text.push('\n');
            }
            for (end, row) in ends.iter().zip(rows) {
                let row: String = row.chars().skip(first).take(heads.len()).collect();
                text.push_str(&format!("{:width$}  {row}\n", end.id));
            }
            text.push('\n');
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// So many columns there are at least, whatever the terminal is like.
const LEAST_COLUMNS: usize = 10;

/// A line for each connection, for `csv` and `md`.
fn table(ends: &[Participant], grids: &[Grid]) -> Table {
    let mut rows = Vec::new();
    for grid in grids {
        for (from, row) in ends.iter().zip(&grid.rows) {
            for (to, letter) in ends.iter().zip(row.chars()).filter(|(_, letter)| !matches!(letter, '=' | '-')) {
                rows.push(vec![
                    from.id.clone(),
                    to.id.clone(),
                    format!("{:?}", grid.family),
                    grid.protocol.to_string(),
                    grid.port.to_string(),
                    letter.to_string(),
                ]);
            }
        }
    }
    // text is the grid
    Table { head: vec!["SOURCE", "DESTINATION", "FAMILY", "PROTOCOL", "PORT", "VERDICT"], narrow: 0, rows }
}

/// A port of `--ports`.
pub(super) fn port(text: &str) -> Result<(Protocol, u16), Failure> {
    match Wanted::parse(text).map_err(Failure::wrong_use)? {
        Wanted::Range(range) if range.first == range.last => Ok((range.protocol, range.first)),
        _ => Err(Failure::wrong_use(anyhow::anyhow!("--ports takes numbers, such as TCP/80,UDP/53; {text:?} is none"))),
    }
}

/// An address of `--ip`.
pub(super) fn address(text: &str) -> Result<(String, IpAddr), Failure> {
    let parsed = text.split_once('=').and_then(|(name, address)| Some((name.to_owned(), address.parse().ok()?)));
    let wrong = || Failure::wrong_use(anyhow::anyhow!("--ip is NAME=ADDRESS; {text:?} is none"));
    parsed.filter(|(name, _): &(String, IpAddr)| !name.is_empty()).ok_or_else(wrong)
}
