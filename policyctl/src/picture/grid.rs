//! Who may speak to whom as a grid that folds: [`Grid`]. Rows are namespaces, their workloads, and the pods of those
//! workloads whose pods are not judged alike; what is said of a row is what can be said of all that it holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use policy_compiler::{
    cluster::Cluster,
    explain::End,
    reach::{Cell, PortRange, Reach, Sort},
};

use thiserror::Error;

use crate::{
    command::units::{self, Unit},
    end::{self, Member},
    port::{representative, summary},
    source::State,
};

/// What became of a port between the pods of two rows; several of these where they differ.
pub(crate) const PASSES: u8 = 1;
const EGRESS: u8 = 2;
const INGRESS: u8 = 4;
const BOTH: u8 = 8;
/// Beside what this engine does.
const LEFT_OPEN: u8 = 16;

/// A [`Tally`] by its place in [`Tallies`]; 0 is the one of no connection at all.
pub(crate) type TallyId = usize;

/// What became of each port that was asked; empty where there is no connection.
pub(crate) type Tally = Rc<[u8]>;

/// All tallies that there are, each once.
#[derive(Debug)]
pub(crate) struct Tallies {
    list: Vec<Tally>,
    places: HashMap<Tally, TallyId>,
    merged: HashMap<(TallyId, TallyId), TallyId>,
}

impl Tallies {
    fn new() -> Self {
        let nothing: Tally = Rc::from([]);
        Self { list: vec![nothing.clone()], places: HashMap::from([(nothing, 0)]), merged: HashMap::new() }
    }

    pub(crate) fn get(&self, id: TallyId) -> &[u8] {
        &self.list[id]
    }

    fn intern(&mut self, tally: Vec<u8>) -> TallyId {
        let tally: Tally = tally.into();
        if let Some(place) = self.places.get(&tally) {
            return *place;
        }
        self.list.push(tally.clone());
        self.places.insert(tally, self.list.len() - 1);
        self.list.len() - 1
    }

    fn merge(&mut self, one: TallyId, other: TallyId) -> TallyId {
        match (one.min(other), one.max(other)) {
            (0, other) => other,
            (one, other) if one == other => one,
            pair => {
                if let Some(known) = self.merged.get(&pair) {
                    return *known;
                }
                let both = self.list[pair.0].iter().zip(&*self.list[pair.1]).map(|(one, other)| one | other).collect();
                let merged = self.intern(both);
                self.merged.insert(pair, merged);
                merged
            }
        }
    }
}

/// A row, and a column.
#[derive(Debug)]
pub(crate) struct Row {
    /// As it is called alone.
    pub(crate) name: String,
    /// As it is called below its namespace.
    pub(crate) label: String,
    /// Its place in [`Grid::groups`].
    pub(crate) group: usize,
    /// The row that it folds into.
    pub(crate) parent: Option<usize>,
    /// The rows that fold into it.
    pub(crate) children: Vec<usize>,
    pub(crate) pods: usize,
}

/// Rows of one namespace, of the nodes or of the outside.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Nothing in it is a pod.
    pub(crate) outside: bool,
    /// The row that all others fold into.
    pub(crate) root: usize,
}

/// Everything that the picture of a matrix shows.
#[derive(Debug)]
pub(crate) struct Grid {
    pub(crate) groups: Vec<Group>,
    pub(crate) rows: Vec<Row>,
    /// A row after the other; of each state that was asked.
    pub(crate) cells: Vec<Vec<TallyId>>,
    pub(crate) tallies: Tallies,
    pub(crate) probes: Vec<Option<PortRange>>,
}

/// A state that is asked.
pub(crate) struct Asked<'a> {
    pub(crate) state: &'a State,
    pub(crate) reach: &'a Reach<'a>,
    /// Ends that are no pods, with the group that they are in.
    pub(crate) others: Vec<(&'static str, Member)>,
}

/// Nodes, and the outside as far as policies of these clusters tell it apart.
pub(crate) fn outside(clusters: &[&Cluster], nodes: bool) -> Vec<(&'static str, Member)> {
    let world = end::world(clusters).into_iter().map(|member| ("world", member));
    let node = |name: &Arc<str>| Member { name: format!("node/{name}"), end: End::Node(name.clone()) };
    let mut names: BTreeSet<&Arc<str>> = clusters.iter().flat_map(|cluster| cluster.nodes.keys()).collect();
    if !nodes {
        names.clear();
    }
    names.into_iter().map(|name| ("nodes", node(name))).chain(world).collect()
}

/// There is nothing to open.
#[derive(Debug, Error)]
#[error("--expand: there is no namespace or workload {0}")]
pub(crate) struct NoSuchRow(String);

/// What is called so, and its pods or addresses.
struct Leaf {
    row: usize,
    unit: Unit,
}

impl Grid {
    /// Asks states at the same ports; rows are those that are in all of them.
    pub(crate) fn new(asked: &[Asked<'_>], probes: Vec<Option<PortRange>>) -> Self {
        let mut grid =
            Self { groups: Vec::new(), rows: Vec::new(), cells: Vec::new(), tallies: Tallies::new(), probes };
        let mut units: Vec<BTreeMap<(bool, String, String), Unit>> = asked.iter().map(units_of).collect();
        let kept: Vec<_> =
            units[0].keys().filter(|key| units.iter().all(|all| all.contains_key(*key))).cloned().collect();
        let mut leaves: Vec<Vec<Leaf>> = asked.iter().map(|_| Vec::new()).collect();
        for key in kept {
            let own: Vec<Unit> = units.iter_mut().filter_map(|all| all.remove(&key)).collect();
            grid.add(key, own, asked, &mut leaves);
        }
        for (asked, leaves) in asked.iter().zip(&leaves) {
            let cells = grid.judge(asked.reach, leaves);
            grid.cells.push(cells);
        }
        grid
    }

    /// Adds a unit to its group: as one row, or one with a row for each sort of its pods.
    fn add(
        &mut self,
        (outside, group, name): (bool, String, String),
        own: Vec<Unit>,
        asked: &[Asked<'_>],
        leaves: &mut [Vec<Leaf>],
    ) {
        if self.groups.last().is_none_or(|last| last.name != group || last.outside != outside) {
            let root = self.row(group.clone(), String::new(), None, 0);
            self.groups.push(Group { name: group.clone(), outside, root });
            self.rows[root].group = self.groups.len() - 1;
        }
        let root = self.groups[self.groups.len() - 1].root;
        let label = name.strip_prefix(&format!("{group}/")).unwrap_or(&name).to_owned();
        let pods = if outside { 0 } else { own.iter().map(|unit| unit.members.len()).max().unwrap_or_default() };
        let row = self.row(name.clone(), label, Some(root), pods);
        self.rows[root].pods += pods;
        let members: Vec<String> = own[0].members.iter().map(|member| member.name.clone()).collect();
        let sorts: Vec<_> = own.iter().zip(asked).map(|(unit, asked)| sorts_of(unit, asked.reach)).collect();
        // pods that all states judge alike
        let mut alike: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        let same = own.iter().all(|unit| unit.members.iter().map(|member| &member.name).eq(&members));
        if same && !outside {
            for member in 0..members.len() {
                alike.entry(sorts.iter().map(|sorts| sorts[member]).collect()).or_default().push(member);
            }
        }
        if alike.len() < 2 {
            for (leaves, unit) in leaves.iter_mut().zip(own) {
                leaves.push(Leaf { row, unit });
            }
            return;
        }
        for places in alike.values() {
            let first = members[places[0]].rsplit('/').next().unwrap_or_default();
            let more = if places.len() > 1 { format!(" and {} more", places.len() - 1) } else { String::new() };
            let label = format!("{first}{more}");
            let part = self.row(format!("{}{more}", members[places[0]]), label, Some(row), places.len());
            for ((leaves, unit), asked) in leaves.iter_mut().zip(&own).zip(asked) {
                let members = places.iter().map(|place| unit.members[*place].clone()).collect();
                leaves.push(Leaf { row: part, unit: Unit::new(unit.name.clone(), members, asked.reach) });
            }
        }
    }

    fn row(&mut self, name: String, label: String, parent: Option<usize>, pods: usize) -> usize {
        let group = self.groups.len().saturating_sub(1);
        self.rows.push(Row { name, label, group, parent, children: Vec::new(), pods });
        let row = self.rows.len() - 1;
        if let Some(parent) = parent {
            self.rows[parent].children.push(row);
        }
        row
    }

    fn judge(&mut self, reach: &Reach<'_>, leaves: &[Leaf]) -> Vec<TallyId> {
        let size = self.rows.len();
        let mut cells = vec![0; size * size];
        // workloads of the same sorts of pods are judged once
        let mut known: HashMap<(Vec<Sort>, Vec<Sort>), TallyId> = HashMap::new();
        let sorts: Vec<Option<Vec<Sort>>> =
            leaves.iter().map(|leaf| leaf.unit.seats.iter().map(|seat| seat.sort()).collect()).collect();
        for (from, own) in leaves.iter().zip(&sorts) {
            for (to, other) in leaves.iter().zip(&sorts) {
                let outside = |leaf: &Leaf| self.groups[self.rows[leaf.row].group].outside;
                if outside(from) && outside(to) {
                    continue;
                }
                let place = from.row * size + to.row;
                let key = own.clone().zip(other.clone()).filter(|_| from.row != to.row);
                if let Some(tally) = key.as_ref().and_then(|key| known.get(key)) {
                    cells[place] = *tally;
                    continue;
                }
                cells[place] = self.tallies.intern(judged(reach, &from.unit, &to.unit, &self.probes));
                if let Some(key) = key {
                    known.insert(key, cells[place]);
                }
            }
        }
        self.fold(&mut cells);
        cells
    }

    /// What rows are that others fold into; those are behind them.
    fn fold(&mut self, cells: &mut [TallyId]) {
        let size = self.rows.len();
        let Self { rows, tallies, .. } = self;
        let parents: Vec<_> = (0..size).rev().filter(|row| !rows[*row].children.is_empty()).collect();
        for parent in &parents {
            for column in 0..size {
                let merge = |all, child: &usize| tallies.merge(all, cells[child * size + column]);
                cells[parent * size + column] = rows[*parent].children.iter().fold(0, merge);
            }
        }
        for row in 0..size {
            for parent in &parents {
                let merge = |all, child: &usize| tallies.merge(all, cells[row * size + child]);
                cells[row * size + parent] = rows[*parent].children.iter().fold(0, merge);
            }
        }
    }

    /// The cell of a state.
    pub(crate) fn cell(&self, state: usize, row: usize, column: usize) -> TallyId {
        self.cells[state][row * self.rows.len() + column]
    }

    /// Whether it holds nothing that folds into it.
    pub(crate) fn is_leaf(&self, row: usize) -> bool {
        self.rows[row].children.is_empty()
    }

    /// The ports of a tally for which this holds.
    pub(crate) fn ports(&self, tally: TallyId, holds: impl Fn(u8) -> bool) -> Vec<Option<PortRange>> {
        let flags = self.tallies.get(tally).iter();
        flags.zip(&self.probes).filter(|(flags, _)| holds(**flags)).map(|(_, probe)| *probe).collect()
    }

    /// Which rows are opened so that the picture stays legible: pods, else workloads, else namespaces that are wanted.
    pub(crate) fn opened(&self, wanted: &[String]) -> Vec<bool> {
        self.opened_up_to(wanted, LEGIBLE)
    }

    /// The same, where so many rows are still legible.
    pub(crate) fn opened_up_to(&self, wanted: &[String], legible: usize) -> Vec<bool> {
        let workloads = |row: usize| self.rows[row].parent.is_none();
        let leaves = (0..self.rows.len()).filter(|row| self.is_leaf(*row)).count();
        let units = self.rows.iter().filter(|row| row.parent.is_some_and(workloads)).count();
        let is_wanted = |row: usize| {
            let is = |row: usize| wanted.contains(&self.rows[row].name);
            let parents = std::iter::successors(Some(row), |row| self.rows[*row].parent);
            // and what is around it
            parents.into_iter().any(is) || (0..self.rows.len()).any(|below| is(below) && self.is_below(below, row))
        };
        let open = |row: usize| {
            let only = self.rows[row].children.len() == 1;
            !self.is_leaf(row)
                && (leaves <= legible || (workloads(row) && (units <= legible || only)) || is_wanted(row))
        };
        (0..self.rows.len()).map(open).collect()
    }

    /// Whether all that is wanted is there.
    ///
    /// # Errors
    /// Something is not.
    pub(crate) fn check(&self, wanted: &[String]) -> Result<(), NoSuchRow> {
        match wanted.iter().find(|name| !self.rows.iter().any(|row| row.name == **name)) {
            Some(name) => Err(NoSuchRow(name.clone())),
            None => Ok(()),
        }
    }

    fn is_below(&self, row: usize, above: usize) -> bool {
        std::iter::successors(self.rows[row].parent, |row| self.rows[*row].parent).any(|parent| parent == above)
    }

    /// The rows that are seen.
    pub(crate) fn visible(&self, opened: &[bool]) -> Vec<usize> {
        let is_open = |row: usize| {
            let mut parents = std::iter::successors(self.rows[row].parent, |parent| self.rows[*parent].parent);
            parents.all(|parent| opened[parent])
        };
        (0..self.rows.len()).filter(|row| is_open(*row) && !opened[*row]).collect()
    }
}

/// So many rows are still read.
const LEGIBLE: usize = 60;

/// Pods first, then nodes and the outside.
fn units_of(asked: &Asked<'_>) -> BTreeMap<(bool, String, String), Unit> {
    let mut units = BTreeMap::new();
    for unit in units::pods(asked.state, asked.reach).into_iter().filter(|unit| unit.is_listed(asked.state)) {
        let namespace = unit.members.iter().find_map(|member| match &member.end {
            End::Pod(name) => Some(name.namespace.to_string()),
            _ => None,
        });
        units.insert((false, namespace.unwrap_or_default(), unit.name.clone()), unit);
    }
    for (group, member) in &asked.others {
        let unit = Unit::new(member.name.clone(), vec![member.clone()], asked.reach);
        if !unit.is_empty() {
            units.insert((true, (*group).to_owned(), unit.name.clone()), unit);
        }
    }
    units
}

/// For each member the number of its sort among those of the unit.
fn sorts_of(unit: &Unit, reach: &Reach<'_>) -> Vec<usize> {
    let mut known: Vec<Vec<Option<Sort>>> = Vec::new();
    let mut sort = |member: &Member| {
        let seats = reach.seats(&member.end).unwrap_or_default();
        let sorts: Vec<_> = seats.iter().map(|seat| seat.sort()).collect();
        known.iter().position(|other| *other == sorts).unwrap_or_else(|| {
            known.push(sorts);
            known.len() - 1
        })
    };
    unit.members.iter().map(&mut sort).collect()
}

fn judged(reach: &Reach<'_>, from: &Unit, to: &Unit, probes: &[Option<PortRange>]) -> Vec<u8> {
    let pairs = units::pairs(from, to);
    if pairs.is_empty() {
        return Vec::new();
    }
    let flag = |cell| match cell {
        Cell::Allowed | Cell::Itself => PASSES,
        Cell::Egress => EGRESS,
        Cell::Ingress => INGRESS,
        Cell::Both => BOTH,
        Cell::Undefined => LEFT_OPEN,
    };
    let of = |probe: &Option<PortRange>| {
        let port = representative(*probe);
        pairs.iter().fold(0, |all, (from, to)| {
            all | match reach.judge(from, to, port) {
                Cell::Undefined => LEFT_OPEN | flag(reach.enforced(from, to, port)),
                cell => flag(cell),
            }
        })
    };
    probes.iter().map(of).collect()
}

/// What a tally amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// No such connection.
    None,
    /// Nothing passes.
    Refused,
    /// Kubernetes leaves all of it open.
    LeftOpen,
    /// Something passes between some pods.
    Some,
    /// Some ports pass between all pods.
    Part,
    /// Everything passes.
    Full,
}

/// Between all pods, of what Kubernetes doesn't leave open.
pub(crate) const fn passes(flags: u8) -> bool {
    flags == PASSES
}

/// Between some pods only.
pub(crate) const fn passes_some(flags: u8) -> bool {
    flags & PASSES != 0 && flags != PASSES && flags & LEFT_OPEN == 0
}

/// Kubernetes leaves it open.
pub(crate) const fn is_left_open(flags: u8) -> bool {
    flags & LEFT_OPEN != 0
}

impl Grid {
    pub(crate) fn level(&self, tally: TallyId) -> Level {
        let flags = self.tallies.get(tally);
        let any = |holds: fn(u8) -> bool| flags.iter().any(|flags| holds(*flags));
        if flags.is_empty() {
            Level::None
        } else if flags.iter().all(|flags| passes(*flags)) {
            Level::Full
        } else if any(passes) {
            Level::Part
        } else if any(passes_some) {
            Level::Some
        } else if any(is_left_open) {
            Level::LeftOpen
        } else {
            Level::Refused
        }
    }

    /// The sides that refuse what is refused, in letters: `E`, `I`, `B`, or `EI` where it is now one, now the other.
    pub(crate) fn letters(&self, tally: TallyId) -> &'static str {
        let flags = self.tallies.get(tally).iter().fold(0, |all, flags| all | flags) & (EGRESS | INGRESS | BOTH);
        match (flags & INGRESS == 0, flags & EGRESS == 0, flags & BOTH == 0) {
            (true, true, false) => "B",
            (true, false, _) => "E",
            (false, true, _) => "I",
            (false, false, _) => "EI",
            (true, true, true) => "",
        }
    }

    /// In words.
    pub(crate) fn words(&self, tally: TallyId) -> String {
        if self.tallies.get(tally).is_empty() {
            return "no such connection".to_owned();
        }
        let refused = |by: u8| move |flags: u8| flags & (PASSES | LEFT_OPEN) == 0 && flags == by;
        let mixed = |flags: u8| flags & (PASSES | LEFT_OPEN) == 0 && !matches!(flags, EGRESS | INGRESS | BOTH);
        let parts = [
            ("open", self.ports(tally, passes)),
            ("open to some pods only", self.ports(tally, passes_some)),
            ("left open by Kubernetes", self.ports(tally, is_left_open)),
            ("refused by egress", self.ports(tally, refused(EGRESS))),
            ("refused by ingress", self.ports(tally, refused(INGRESS))),
            ("refused by both sides", self.ports(tally, refused(BOTH))),
            ("refused by egress or ingress", self.ports(tally, mixed)),
        ];
        let mut said: Vec<_> = parts.into_iter().filter(|(_, ports)| !ports.is_empty()).collect();
        if let [(what, _)] = &*said {
            return format!("{what}: all ports that were asked");
        }
        // what is left over need not be spelt out
        let rest = said.pop();
        let words = said.iter().map(|(what, ports)| format!("{what}: {}", summary(ports)));
        words.chain(rest.map(|(what, _)| format!("{what}: all other ports"))).collect::<Vec<_>>().join("; ")
    }
}
