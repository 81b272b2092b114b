//! What a picture of a cluster shows: [`Graph`]. Boxes hold cards (workloads, or a namespace that is folded); each card
//! has a row for each set of ports that somebody may enter at, with those who may.
//!
//! That everybody may enter, and that somebody may go everywhere, is said and not drawn as a line from each to each:
//! lines are for what policies single out. Where there is no line, a connection is let through at the ports at which the
//! one may go everywhere (all, if its egress is not restricted) and the other lets everybody in.

use std::collections::BTreeMap;

use policy_compiler::reach::PortRange;

use crate::{
    command::units::Between,
    picture::grid::{Grid, Level, PASSES, is_left_open, passes, passes_some},
};

/// A box.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// The nodes, or the outside of the cluster.
    pub(crate) outside: bool,
    pub(crate) cards: Vec<usize>,
    /// No card of it is left out.
    pub(crate) whole: bool,
}

/// A workload, a namespace that is folded, or an end outside of the cluster.
#[derive(Debug)]
pub(crate) struct Card {
    /// As it is called alone.
    pub(crate) name: String,
    /// As it is called in its box.
    pub(crate) label: String,
    /// In [`Graph::groups`].
    pub(crate) group: usize,
    /// A namespace whose workloads are not shown.
    pub(crate) folded: bool,
    pub(crate) pods: usize,
    /// Some connection to it is refused by its own rules.
    pub(crate) protected: bool,
    /// Some connection from it is.
    pub(crate) restricted: bool,
    /// The ports at which its own rules let it go everywhere, if they restrict others.
    pub(crate) anywhere: Ports,
    pub(crate) rows: Vec<Row>,
}

impl Card {
    /// It has something to say of where it may go.
    pub(crate) const fn says_where(&self) -> bool {
        self.restricted && !self.anywhere.is_empty()
    }
}

/// Who may enter at which ports.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) ports: Between,
    /// Whoever is not named.
    pub(crate) everyone: Option<Everyone>,
    /// Cards, in their order.
    pub(crate) from: Vec<usize>,
    /// These are refused.
    pub(crate) denied: bool,
}

/// All of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Everyone {
    /// Every pod.
    Pods,
    /// Every pod, the nodes and the world.
    World,
}

impl Everyone {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pods => "any pod",
            Self::World => "everyone",
        }
    }
}

/// Everything that the picture shows.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) groups: Vec<Group>,
    pub(crate) cards: Vec<Card>,
}

/// Those that were asked.
pub(crate) type Ports = Vec<Option<PortRange>>;

/// More cards than these fold to namespaces.
const LEGIBLE: usize = 40;

impl Graph {
    /// Of a grid; `denied` adds who is refused altogether.
    pub(crate) fn new(grid: &Grid, wanted: &[String], denied: bool) -> Self {
        let mut opened = grid.opened_up_to(wanted, LEGIBLE);
        for (row, opened) in opened.iter_mut().enumerate() {
            // pods are in their workload's card unless they are wanted
            let wanted_parts = wanted.contains(&grid.rows[row].name);
            *opened &= grid.rows[row].parent.is_none() || wanted_parts;
            // nodes are one
            let group = &grid.groups[grid.rows[row].group];
            *opened &= !(group.outside && group.name == "nodes");
        }
        let rows = grid.visible(&opened);
        let mut graph = Self { groups: Vec::new(), cards: Vec::new() };
        let sides = Sides::new(grid, &rows);
        for (place, row) in rows.iter().enumerate() {
            let found = &grid.rows[*row];
            let group = &grid.groups[found.group];
            if graph.groups.last().is_none_or(|last| last.name != group.name || last.outside != group.outside) {
                graph.groups.push(Group {
                    name: group.name.clone(),
                    outside: group.outside,
                    cards: Vec::new(),
                    whole: true,
                });
            }
            let own = graph.groups.len() - 1;
            graph.groups[own].cards.push(graph.cards.len());
            graph.cards.push(Card {
                name: found.name.clone(),
                label: if found.label.is_empty() { found.name.clone() } else { found.label.clone() },
                group: own,
                folded: found.parent.is_none(),
                pods: found.pods,
                protected: sides.any(place, |from, to| to == place && from != to, REFUSED_IN),
                restricted: sides.any(place, |from, to| from == place && from != to, REFUSED_OUT),
                anywhere: sides.lets_out(place),
                rows: Vec::new(),
            });
        }
        for to in 0..graph.cards.len() {
            graph.cards[to].rows = graph.rows(&sides, to, denied);
        }
        graph
    }

    /// Leaves out what is not listed and has no line to or from what is. What is said of everybody stays true of them.
    pub(crate) fn keep(&mut self, listed: impl Fn(&Card) -> bool) {
        let listed: Vec<bool> =
            (0..self.cards.len()).map(|card| !self.is_outside(card) && listed(&self.cards[card])).collect();
        let mut kept = listed.clone();
        for (to, card) in self.cards.iter_mut().enumerate() {
            if !listed[to] {
                card.rows.iter_mut().for_each(|row| row.from.retain(|from| listed[*from]));
                kept[to] |= card.rows.iter().any(|row| !row.from.is_empty());
                card.rows.retain(|row| !row.from.is_empty() || row.everyone.is_some());
            }
            card.rows.iter().flat_map(|row| &row.from).for_each(|from| kept[*from] = true);
        }
        let places: Vec<usize> =
            (0..kept.len()).map(|card| kept[..card].iter().filter(|kept| **kept).count()).collect();
        let mut card = 0..;
        self.cards.retain(|_| card.next().is_some_and(|card: usize| kept[card]));
        let rows = self.cards.iter_mut().flat_map(|card| &mut card.rows);
        rows.flat_map(|row| &mut row.from).for_each(|from| *from = places[*from]);
        for group in &mut self.groups {
            let all = group.cards.len();
            group.cards.retain(|card| kept[*card]);
            group.whole = group.cards.len() == all;
            group.cards.iter_mut().for_each(|card| *card = places[*card]);
        }
        let filled: Vec<bool> = self.groups.iter().map(|group| !group.cards.is_empty()).collect();
        let count = |group: usize| filled[..group].iter().filter(|filled| **filled).count();
        self.cards.iter_mut().for_each(|card| card.group = count(card.group));
        self.groups.retain(|group| !group.cards.is_empty());
    }

    fn is_outside(&self, card: usize) -> bool {
        self.groups[self.cards[card].group].outside
    }

    fn is_nodes(&self, card: usize) -> bool {
        self.is_outside(card) && self.groups[self.cards[card].group].name == "nodes"
    }

    fn rows(&self, sides: &Sides<'_>, to: usize, denied: bool) -> Vec<Row> {
        let pods: Vec<_> = (0..self.cards.len()).filter(|card| !self.is_outside(*card)).collect();
        let world: Vec<_> = (0..self.cards.len()).filter(|card| self.is_outside(*card)).collect();
        // what is outside refuses nobody, but for the back ends of node ports
        let is_free = self.is_outside(to) && !self.cards[to].protected;
        let (any_pod, all_world) = if is_free {
            (sides.grid.probes.clone(), Vec::new())
        } else {
            (sides.let_in(&pods, to), sides.let_in(&world, to))
        };
        let mut rows = Vec::new();
        if !is_free && !any_pod.is_empty() {
            let is_all = all_world == any_pod && !world.is_empty();
            let everyone = Some(if is_all { Everyone::World } else { Everyone::Pods });
            let ports = Between { all: any_pod.clone(), some: Vec::new() };
            rows.push(Row { ports, everyone, from: Vec::new(), denied: false });
        }
        let covers_world = rows.iter().any(|row| row.everyone == Some(Everyone::World));
        let mut singled: BTreeMap<(Ports, Ports), Vec<usize>> = BTreeMap::new();
        let mut refused = Vec::new();
        for from in 0..self.cards.len() {
            if (self.is_outside(from) && self.is_outside(to)) || sides.grid.level(sides.cell(from, to)) == Level::None {
                continue;
            }
            let mut open = sides.open(from, to);
            // who may go everywhere and is let in with everybody needs no line
            let is_everybody = !self.is_outside(from) || covers_world;
            let goes = |probe: &Option<PortRange>| self.cards[from].anywhere.contains(probe);
            open.all.retain(|probe| !(is_everybody && goes(probe) && any_pod.contains(probe)));
            if self.is_nodes(from) {
                // each pod's own node may always enter
                open.some.clear();
            }
            if !open.is_empty() {
                singled.entry((open.all, open.some)).or_default().push(from);
            } else if sides.open(from, to).is_empty()
                && sides.grid.level(sides.cell(from, to)) == Level::Refused
                && !self.is_nodes(from)
            {
                refused.push(from);
            }
        }
        for ((all, some), from) in singled {
            // who is restricted may use what everybody may
            match rows.iter_mut().find(|row| row.ports.all == all && some.is_empty()) {
                Some(row) => row.from = from,
                None => rows.push(Row { ports: Between { all, some }, everyone: None, from, denied: false }),
            }
        }
        if denied && !refused.is_empty() {
            rows.push(Row { ports: Between::default(), everyone: None, from: refused, denied: true });
        }
        rows
    }

    /// Who has a line to a row: boxes instead of cards, where all of their cards have one.
    pub(crate) fn bundled(&self, to: usize, row: &Row) -> Vec<Start> {
        let mut starts = Vec::new();
        for (place, group) in self.groups.iter().enumerate() {
            let others: Vec<_> = group.cards.iter().copied().filter(|card| *card != to).collect();
            if others.len() > 1 && group.whole && others.iter().all(|card| row.from.contains(card)) {
                starts.push(Start::Group(place));
            } else {
                starts.extend(group.cards.iter().copied().filter(|card| row.from.contains(card)).map(Start::Card));
            }
        }
        starts
    }

    /// What a line begins at, in words.
    pub(crate) fn name(&self, start: Start) -> String {
        match start {
            Start::Card(card) => self.cards[card].name.clone(),
            Start::Group(group) if self.groups[group].outside => self.groups[group].name.clone(),
            Start::Group(group) => format!("all of {}", self.groups[group].name),
        }
    }
}

/// What a line begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Start {
    Card(usize),
    Group(usize),
}

const REFUSED_OUT: u8 = 2 | 8;
const REFUSED_IN: u8 = 4 | 8;

/// The verdicts between rows that are shown.
struct Sides<'a> {
    grid: &'a Grid,
    rows: &'a [usize],
}

impl<'a> Sides<'a> {
    const fn new(grid: &'a Grid, rows: &'a [usize]) -> Self {
        Self { grid, rows }
    }

    fn cell(&self, from: usize, to: usize) -> usize {
        self.grid.cell(0, self.rows[from], self.rows[to])
    }

    /// Whether some port of a pair has one of these.
    fn any(&self, place: usize, wanted: impl Fn(usize, usize) -> bool, flags: u8) -> bool {
        (0..self.rows.len()).flat_map(|other| [(place, other), (other, place)]).any(|(from, to)| {
            wanted(from, to) && self.grid.tallies.get(self.cell(from, to)).iter().any(|own| own & flags != 0)
        })
    }

    /// The ports at which the rules of `to` let all of these in, whatever their own rules say.
    fn let_in(&self, from: &[usize], to: usize) -> Ports {
        let lets = |probe: usize| {
            from.iter().all(|from| {
                let flags = self.grid.tallies.get(self.cell(*from, to));
                flags.get(probe).is_none_or(|flags| flags & REFUSED_IN == 0 && !is_left_open(*flags))
            })
        };
        let probes = self.grid.probes.iter().enumerate();
        probes.filter(|(place, _)| !from.is_empty() && lets(*place)).map(|(_, probe)| *probe).collect()
    }

    /// The ports at which the rules of `from` let it go to everything.
    fn lets_out(&self, from: usize) -> Ports {
        let lets = |probe: usize| {
            (0..self.rows.len()).all(|to| {
                let flags = self.grid.tallies.get(self.cell(from, to));
                flags.get(probe).is_none_or(|flags| flags & REFUSED_OUT == 0 && !is_left_open(*flags))
            })
        };
        let probes = self.grid.probes.iter().enumerate();
        probes.filter(|(place, _)| lets(*place)).map(|(_, probe)| *probe).collect()
    }

    fn open(&self, from: usize, to: usize) -> Between {
        let cell = self.cell(from, to);
        let all = |flags: u8| passes(flags) || (is_left_open(flags) && flags & !16 == PASSES);
        let some = |flags: u8| passes_some(flags) || (is_left_open(flags) && flags & PASSES != 0 && !all(flags));
        Between { all: self.grid.ports(cell, all), some: self.grid.ports(cell, some) }
    }
}
