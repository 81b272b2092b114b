//! Who reaches whom: asked with real sockets, held against what the policies say, shown as a grid.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use e2e::bed::{Outcome, Probe, Transport, probe_all};
use policy_compiler::model::ObjectName;

use crate::{
    screen::{Screen, Style},
    stage::{FrontEnd, Stage, front_ends},
};

/// The width of a family's column.
const CELL: usize = 7;

/// One connection that was tried.
struct Cell {
    row: usize,
    column: usize,
    family: usize,
    observed: Outcome,
    expected: Outcome,
}

/// What was observed, for every client and every front end in both families.
pub(crate) struct Matrix {
    clients: Vec<ObjectName>,
    front_ends: Vec<FrontEnd>,
    cells: Vec<Cell>,
    took: Duration,
}

impl Matrix {
    /// Tries every connection at once. A pod's connections to itself are left out: they never leave it.
    pub(crate) fn observe(stage: &Stage) -> Result<Self> {
        let manifests = stage.manifests()?;
        let front_ends = front_ends(&manifests)?;
        let clients: Vec<ObjectName> = manifests.pods.clone();
        let mut cells = Vec::new();
        let mut probes = Vec::new();
        for (row, client) in clients.iter().enumerate() {
            for (column, front_end) in front_ends.iter().enumerate().filter(|(_, front_end)| front_end.pod != *client) {
                for (family, address) in front_end.addresses.iter().enumerate() {
                    let to = SocketAddr::new(*address, front_end.port);
                    let from = stage.pod(client)?.namespace();
                    let expected = if manifests.allow(client, to)? { Outcome::Open } else { Outcome::Dropped };
                    probes.push(Probe { from, source: None, transport: Transport::Tcp, to, expected });
                    cells.push(Cell { row, column, family, observed: Outcome::Dropped, expected });
                }
            }
        }
        let start = Instant::now();
        for (cell, answer) in cells.iter_mut().zip(probe_all(&probes)?) {
            cell.observed = answer.outcome;
        }
        Ok(Self { clients, front_ends, cells, took: start.elapsed() })
    }

    /// How many connections did not do what the policies say.
    pub(crate) fn wrong(&self) -> usize {
        self.cells.iter().filter(|cell| cell.observed != cell.expected).count()
    }

    /// How many connections do something else than before.
    pub(crate) fn changed(&self, before: &Self) -> usize {
        self.cells.iter().filter(|cell| before.at(cell.row, cell.column, cell.family) != Some(cell.observed)).count()
    }

    /// Prints the grid, with what changed since `before` marked, and how it compares with the policies.
    pub(crate) fn show(&self, screen: Screen, before: Option<&Self>) {
        let heads: String = self
            .front_ends
            .iter()
            .map(|front_end| format!("{:<width$}", front_end.label, width = 2 * CELL + 2))
            .collect();
        let families = format!("{:<CELL$}{:<CELL$}  ", "IPv4", "IPv6").repeat(self.front_ends.len());
        screen.line(&format!("{:<12}{}", "from \\ to", screen.paint(Style::Heading, heads.trim_end())));
        screen.line(&screen.paint(Style::Faint, &format!("{:<12}{}", "", families.trim_end())));
        for (row, client) in self.clients.iter().enumerate() {
            let mut line = format!("{:<12}", client.name);
            for column in 0..self.front_ends.len() {
                for family in 0..2 {
                    line.push_str(&self.cell(screen, row, column, family, before));
                }
                line.push_str("  ");
            }
            screen.line(line.trim_end());
        }
        if before.is_none() {
            let legend =
                "open: a connection came about, data went both ways   drop: silence   -: not tried, it is itself";
            screen.line(&screen.paint(Style::Faint, legend));
        }
        self.judge(screen, before);
    }

    fn cell(&self, screen: Screen, row: usize, column: usize, family: usize, before: Option<&Self>) -> String {
        let Some(cell) = self.find(row, column, family) else {
            return screen.paint(Style::Faint, &format!("{:<CELL$}", "-"));
        };
        let changed = before.is_some_and(|before| before.at(row, column, family) != Some(cell.observed));
        let (word, style) = match cell.observed {
            Outcome::Open => ("open", Style::Good),
            Outcome::Refused => ("refuse", Style::Bad),
            Outcome::Dropped => ("drop", Style::Bad),
        };
        let (mark, mark_style) = match (cell.observed == cell.expected, changed) {
            (false, _) => ("!", Style::Bad),
            (true, true) => ("*", Style::Changed),
            (true, false) => ("", Style::Plain),
        };
        let blank = CELL.saturating_sub(word.len() + mark.len());
        format!("{}{}{}", screen.paint(style, word), screen.paint(mark_style, mark), " ".repeat(blank))
    }

    fn judge(&self, screen: Screen, before: Option<&Self>) {
        let tried = format!("{} connections tried at once, {:.1} s", self.cells.len(), self.took.as_secs_f64());
        let changed = before.map_or(String::new(), |before| match self.changed(before) {
            0 => ", none changed".to_owned(),
            count => format!(", {count} changed (*)"),
        });
        match self.wrong() {
            0 => screen.good(&format!("{tried}{changed}, every one as the policies say")),
            count => screen.bad(&format!("{tried}{changed}, {count} not as the policies say (!)")),
        }
    }

    fn find(&self, row: usize, column: usize, family: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| (cell.row, cell.column, cell.family) == (row, column, family))
    }

    fn at(&self, row: usize, column: usize, family: usize) -> Option<Outcome> {
        self.find(row, column, family).map(|cell| cell.observed)
    }
}
