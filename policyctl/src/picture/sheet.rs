//! What the cells of a grid look like and say: [`Sheet`], of one state ([`Sheet::matrix`]) or of two ([`Sheet::diff`]).
//! It is drawn by `sheet_svg` and `sheet_html`.

use std::collections::HashMap;

use super::{
    grid::{Grid, Level, TallyId, passes, passes_some},
    sheet_html, sheet_svg,
};
use crate::{format::Output, port::summary, source::plural};

/// How a cell looks, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Look {
    /// The class of its style: a shape as well as a colour.
    pub(crate) class: &'static str,
    /// A letter or a number in it.
    pub(crate) mark: String,
    /// What it says in words.
    pub(crate) words: String,
}

/// A grid with its looks.
#[derive(Debug)]
pub(crate) struct Sheet<'a> {
    pub(crate) grid: &'a Grid,
    pub(crate) title: &'static str,
    /// What there is to be seen, in a line or two.
    pub(crate) summary: Vec<String>,
    /// What it was asked of.
    pub(crate) footer: Vec<String>,
    pub(crate) looks: Vec<Look>,
    /// Of all rows and columns, their places in `looks`.
    pub(crate) cells: Vec<usize>,
    pub(crate) legend: Vec<Look>,
    pub(crate) opened: Vec<bool>,
}

impl<'a> Sheet<'a> {
    /// The cells of one state.
    pub(crate) fn matrix(grid: &'a Grid, wanted: &[String], footer: Vec<String>) -> Self {
        let (looks, cells) = looks(
            grid,
            |row, column| {
                let tally = grid.cell(0, row, column);
                ((tally, 0), row == column)
            },
            |(tally, _)| look(grid, tally),
        );
        let count = |level: &[Level]| {
            pairs(grid).filter(|(row, column)| level.contains(&grid.level(grid.cell(0, *row, *column)))).count()
        };
        let all = count(&[Level::Full, Level::Part, Level::Some, Level::LeftOpen, Level::Refused]);
        let summary = format!(
            "Of {}, {} may connect at every port, {} at some, {} at none.",
            plural(all, "pair", "pairs"),
            count(&[Level::Full]),
            count(&[Level::Part, Level::Some]),
            count(&[Level::Refused]),
        );
        let legend = [
            ("full", "", "every port is open"),
            ("part", "2", "so many ports are open (\u{2026} ranges of them)"),
            ("some", "2", "open to some of the pods only"),
            ("refused", "E", "refused by egress of the client"),
            ("refused", "I", "refused by ingress of the server"),
            ("refused", "B", "refused by both"),
            ("refused", "EI", "refused by the one or the other"),
            ("leftopen", "", "left open by Kubernetes"),
            ("self", "=", "the pod itself"),
            ("none", "", "no such connection"),
        ];
        let title = "Who may connect to whom";
        let opened = grid.opened(wanted);
        let summary = vec![summary];
        Self { grid, title, summary, footer, legend: used(&legend, &looks), looks, cells, opened }
    }

    /// The cells of two states, the older one first.
    pub(crate) fn diff(grid: &'a Grid, wanted: &[String], footer: Vec<String>) -> Self {
        let (looks, cells) = looks(
            grid,
            |row, column| ((grid.cell(0, row, column), grid.cell(1, row, column)), row == column),
            |pair| changed(grid, pair),
        );
        let count = |classes: &[&str]| {
            let size = grid.rows.len();
            pairs(grid).filter(|(row, column)| classes.contains(&looks[cells[row * size + column]].class)).count()
        };
        let both = match count(&["both"]) {
            0 => String::new(),
            both => format!(", {both} both"),
        };
        let summary = format!(
            "{} opened, {} closed{both}; {} as before.",
            plural(count(&["opened"]), "pair", "pairs"),
            count(&["closed"]),
            count(&["wasfull", "waspart", "wasrefused"]),
        );
        let legend = [
            ("opened", "+", "something is open that was not"),
            ("closed", "\u{2212}", "something is no longer open"),
            ("both", "\u{b1}", "one port opened, another one closed"),
            ("wasfull", "", "unchanged: every port is open"),
            ("waspart", "", "unchanged: some ports are open"),
            ("wasrefused", "", "unchanged: refused"),
            ("self", "=", "the pod itself"),
            ("none", "", "no such connection"),
        ];
        let opened = grid.opened(wanted);
        let summary = vec![summary];
        Self {
            grid,
            title: "What the change opens and closes",
            summary,
            footer,
            legend: used(&legend, &looks),
            looks,
            cells,
            opened,
        }
    }

    /// In a format that is a picture.
    pub(crate) fn drawn(&self, output: Output) -> Vec<(Output, String)> {
        vec![(
            output,
            match output {
                Output::Html => sheet_html::write(self),
                _ => sheet_svg::draw(self),
            },
        )]
    }

    /// The look of a cell.
    pub(crate) fn look(&self, row: usize, column: usize) -> &Look {
        &self.looks[self.cells[row * self.grid.rows.len() + column]]
    }

    /// What a row holds, in a word or two.
    pub(crate) fn holds(&self, row: usize) -> String {
        let rows = &self.grid.rows;
        let group = &self.grid.groups[rows[row].group];
        let count = rows[row].children.len();
        match (self.grid.is_leaf(row), rows[row].parent.is_none()) {
            (true, _) if rows[row].pods < 2 => String::new(),
            (false, true) if group.outside => plural(count, "end", "ends"),
            _ => plural(rows[row].pods, "pod", "pods"),
        }
    }
}

/// Those of a legend that occur.
fn used(legend: &[(&'static str, &'static str, &str)], looks: &[Look]) -> Vec<Look> {
    let is_used = |class: &str, mark: &str| {
        let same = |look: &Look| look.class == class && (class != "refused" || look.mark == mark);
        looks.iter().any(same)
    };
    let used = legend.iter().filter(|(class, mark, _)| is_used(class, mark));
    used.map(|(class, mark, words)| Look { class, mark: (*mark).to_owned(), words: (*words).to_owned() }).collect()
}

/// All pairs of leaves.
fn pairs(grid: &Grid) -> impl Iterator<Item = (usize, usize)> + '_ {
    let leaves = || (0..grid.rows.len()).filter(|row| grid.is_leaf(*row));
    leaves().flat_map(move |row| leaves().map(move |column| (row, column)))
}

/// The looks that there are, each once, and which one each cell has.
fn looks(
    grid: &Grid,
    of: impl Fn(usize, usize) -> ((TallyId, TallyId), bool),
    look: impl Fn((TallyId, TallyId)) -> Look,
) -> (Vec<Look>, Vec<usize>) {
    let mut looks: Vec<Look> = Vec::new();
    let mut places: HashMap<Look, usize> = HashMap::new();
    let mut known: HashMap<((TallyId, TallyId), bool), usize> = HashMap::new();
    let mut cells = Vec::with_capacity(grid.rows.len() * grid.rows.len());
    for row in 0..grid.rows.len() {
        for column in 0..grid.rows.len() {
            let key = of(row, column);
            let place = *known.entry(key).or_insert_with(|| {
                let mut look = look(key.0);
                if key.1 && look.class == "none" {
                    look = Look { class: "self", mark: "=".to_owned(), words: "itself".to_owned() };
                }
                *places.entry(look.clone()).or_insert_with(|| {
                    looks.push(look);
                    looks.len() - 1
                })
            });
            cells.push(place);
        }
    }
    (looks, cells)
}

fn look(grid: &Grid, tally: TallyId) -> Look {
    let (class, mark) = match grid.level(tally) {
        Level::None => ("none", String::new()),
        Level::Full => ("full", String::new()),
        Level::Part => ("part", number(&grid.ports(tally, passes))),
        Level::Some => ("some", number(&grid.ports(tally, passes_some))),
        Level::LeftOpen => ("leftopen", String::new()),
        Level::Refused => ("refused", grid.letters(tally).to_owned()),
    };
    Look { class, mark, words: grid.words(tally) }
}

/// How many ports; an ellipsis if they are ranges.
fn number(ports: &[Option<policy_compiler::reach::PortRange>]) -> String {
    let written = summary(ports);
    let ranges = ports.iter().flatten().any(|range| range.first != range.last);
    if ranges || ports.len() > 99 || written == "all ports" { "\u{2026}".to_owned() } else { ports.len().to_string() }
}

fn changed(grid: &Grid, (old, new): (TallyId, TallyId)) -> Look {
    // 2 open between all pods, 1 between some, 0 between none
    let level = |flags: u8| match flags {
        flags if passes(flags & !16) => 2,
        flags if flags & super::grid::PASSES != 0 => 1,
        _ => 0,
    };
    let pairs = || grid.tallies.get(old).iter().zip(grid.tallies.get(new)).zip(&grid.probes);
    let moved = |opened: bool| -> Vec<_> {
        let is = |old: u8, new: u8| if opened { level(new) > level(old) } else { level(new) < level(old) };
        pairs().filter(|((old, new), _)| is(**old, **new)).map(|(_, probe)| *probe).collect()
    };
    let (opened, closed) = (moved(true), moved(false));
    let (class, mark) = match (opened.is_empty(), closed.is_empty()) {
        (false, false) => ("both", "\u{b1}"),
        (false, true) => ("opened", "+"),
        (true, false) => ("closed", "\u{2212}"),
        (true, true) => (
            match grid.level(new) {
                Level::None => "none",
                Level::Full => "wasfull",
                Level::Refused | Level::LeftOpen => "wasrefused",
                Level::Part | Level::Some => "waspart",
            },
            "",
        ),
    };
    let mut words = Vec::new();
    for (word, ports) in [("opened", &opened), ("closed", &closed)] {
        if !ports.is_empty() {
            words.push(format!("{word}: {}", summary(ports)));
        }
    }
    let unchanged = words.is_empty();
    words.push(format!("{}: {}", if unchanged { "unchanged" } else { "now" }, grid.words(new)));
    Look { class, mark: mark.to_owned(), words: words.join("; ") }
}
