//! A [`Graph`] as an SVG picture: [`draw`].

use std::collections::BTreeSet;

use super::{
    layout::{Layout, Plan},
    model::{Card, Graph, Row, Start},
};
use crate::{
    picture::{
        canvas::{Canvas, MARGIN, SMALL},
        letters::width,
        markup::Attribute,
    },
    port::summary,
    source::plural,
};

const CARD: i32 = 232;
/// Around the cards of a box.
const PAD: i32 = 12;
const BOX: i32 = CARD + 2 * PAD;
const GUTTER: i32 = 96;
const TITLE: i32 = 28;
const HEAD: i32 = 28;
const ROW: i32 = 20;
const BETWEEN: i32 = 10;

/// A box that is drawn: the outside may be there twice, where lines begin and where they end.
struct Drawn {
    group: usize,
    cards: Vec<usize>,
    /// It is drawn for where lines begin at it, or end in it; both for all but the outside.
    begins: bool,
    ends: bool,
}

struct Drawing<'a> {
    graph: &'a Graph,
    size: Size,
    boxes: Vec<Drawn>,
    layout: Layout,
    top: i32,
}

/// Where there are so many lines that nobody can follow one, rows say where theirs begin, and lines are faint.
#[derive(Clone, Copy)]
struct Size {
    dense: bool,
}

/// More lines than these are not followed by eye.
const FOLLOWED: usize = 48;

impl Size {
    fn row(self, row: &Row, card: usize) -> i32 {
        if self.dense && row.from.iter().any(|from| *from != card) { ROW + 14 } else { ROW }
    }

    fn card(self, graph: &Graph, place: usize, drawn: &Drawn) -> i32 {
        let card = &graph.cards[place];
        let rows: i32 = rows_of(card, drawn).iter().map(|row| self.row(row, place)).sum();
        let rows = rows + if drawn.begins && card.says_where() { ROW } else { 0 };
        HEAD + rows + if rows > 0 { 4 } else { 0 }
    }

    fn of(self, graph: &Graph, drawn: &Drawn) -> i32 {
        let cards = drawn.cards.iter().map(|card| self.card(graph, *card, drawn) + BETWEEN).sum::<i32>();
        TITLE + cards - BETWEEN + PAD
    }
}

/// What it is called and what it says of itself.
pub(crate) struct Words<'a> {
    pub(crate) title: &'a str,
    pub(crate) summary: &'a [String],
    pub(crate) footer: &'a [String],
}

/// Draws it.
pub(crate) fn draw(graph: &Graph, words: &Words<'_>) -> String {
    let (canvas, top) = Canvas::new(words.title, words.summary);
    on(canvas, top, graph, words, words.footer)
}

/// The same, for a page that says what it is.
pub(crate) fn untitled(graph: &Graph, words: &Words<'_>) -> String {
    let (canvas, top) = Canvas::untitled();
    on(canvas.interactive(), top, graph, words, &[])
}

fn on(mut canvas: Canvas, top: i32, graph: &Graph, words: &Words<'_>, footer: &[String]) -> String {
    let boxes = boxes(graph);
    let size = Size { dense: lines(graph) > FOLLOWED };
    let layout = Layout::new(&plan(graph, &boxes, size));
    let drawing = Drawing { graph, size, boxes, layout, top };
    for place in 0..drawing.boxes.len() {
        drawing.frame(&mut canvas, place);
    }
    // below the cards, so that no name is struck through
    for (to, card) in graph.cards.iter().enumerate() {
        for (place, row) in card.rows.iter().enumerate() {
            for start in graph.bundled(to, row) {
                drawing.line(&mut canvas, start, to, place, row);
            }
        }
    }
    for place in 0..drawing.boxes.len() {
        for card in &drawing.boxes[place].cards {
            drawing.card(&mut canvas, place, *card);
        }
    }
    legend(&mut canvas, graph);
    canvas.footer(footer);
    canvas.finish(words.title, &words.summary.join(" "))
}

fn boxes(graph: &Graph) -> Vec<Drawn> {
    let starts: BTreeSet<usize> =
        graph.cards.iter().flat_map(|card| card.rows.iter().flat_map(|row| row.from.iter().copied())).collect();
    let mut boxes = Vec::new();
    for (group, found) in graph.groups.iter().enumerate() {
        if !found.outside {
            boxes.push(Drawn { group, cards: found.cards.clone(), begins: true, ends: true });
            continue;
        }
        let begin: Vec<_> = found.cards.iter().copied().filter(|card| starts.contains(card)).collect();
        let end: Vec<_> = found.cards.iter().copied().filter(|card| !graph.cards[*card].rows.is_empty()).collect();
        if !begin.is_empty() {
            boxes.push(Drawn { group, cards: begin, begins: true, ends: false });
        }
        if !end.is_empty() {
            boxes.push(Drawn { group, cards: end, begins: false, ends: true });
        }
    }
    boxes
}

fn rows_of<'a>(card: &'a Card, drawn: &Drawn) -> &'a [Row] {
    if drawn.ends { &card.rows } else { &[] }
}

fn plan(graph: &Graph, boxes: &[Drawn], size: Size) -> Plan {
    let begin = |group: usize| boxes.iter().position(|drawn| drawn.group == group && drawn.begins);
    let end = |group: usize| boxes.iter().position(|drawn| drawn.group == group && drawn.ends);
    let mut links = BTreeSet::new();
    for card in &graph.cards {
        for from in card.rows.iter().flat_map(|row| &row.from) {
            if let (Some(from), Some(to)) = (begin(graph.cards[*from].group), end(card.group))
                && from != to
            {
                links.insert((from, to));
            }
        }
    }
    let only = |begins: bool| {
        let is = |place: &usize| boxes[*place].begins == begins && boxes[*place].ends != begins;
        (0..boxes.len()).filter(is).collect()
    };
    Plan {
        heights: boxes.iter().map(|drawn| size.of(graph, drawn)).collect(),
        links,
        first: only(true),
        last: only(false),
    }
}

impl Drawing<'_> {
    fn corner(&self, place: usize) -> (i32, i32) {
        let (column, top) = self.layout.places[place];
        (MARGIN + i32::try_from(column).unwrap_or_default() * (BOX + GUTTER), self.top + top)
    }

    fn top_of(&self, place: usize, card: usize) -> i32 {
        let drawn = &self.boxes[place];
        let above = drawn.cards.iter().take_while(|other| **other != card);
        let above: i32 = above.map(|other| self.size.card(self.graph, *other, drawn) + BETWEEN).sum();
        self.corner(place).1 + TITLE + above
    }

    fn frame(&self, canvas: &mut Canvas, place: usize) {
        let drawn = &self.boxes[place];
        let (x, y) = self.corner(place);
        canvas.rectangle("box", (x, y), (BOX, self.size.of(self.graph, drawn)), 8);
        let group = &self.graph.groups[drawn.group];
        let quiet = if group.outside { "strong quiet" } else { "strong" };
        canvas.fitted(quiet, (x + PAD, y + 19), &group.name, BOX - 2 * PAD);
    }

    fn card(&self, canvas: &mut Canvas, place: usize, card: usize) {
        let drawn = &self.boxes[place];
        let (x, y) = (self.corner(place).0 + PAD, self.top_of(place, card));
        let found = &self.graph.cards[card];
        let attributes: [Attribute<'_>; 5] = [
            ("class", &"node"),
            ("data-card", &card),
            ("tabindex", &-1),
            ("role", &"button"),
            ("aria-label", &found.name),
        ];
        let shown = if canvas.is_interactive() { &attributes[..] } else { &[] };
        canvas.markup.open("g", shown);
        canvas.rectangle("card", (x, y), (CARD, self.size.card(self.graph, card, drawn)), 5);
        let right = self.heading(canvas, (x, y), found);
        let name =
            if found.folded && !self.graph.groups[found.group].outside { "all workloads" } else { &*found.label };
        canvas.fitted("strong", (x + 22, y + 19), name, right - x - 26);
        let mut top = y + HEAD;
        for row in rows_of(found, drawn) {
            canvas.path("rule", &format!("M{x} {top}h{CARD}"));
            let (what, class) = written(row, card);
            canvas.fitted(class, (x + 12, top + 14), &what, CARD - 24);
            if self.size.row(row, card) > ROW {
                let from: Vec<_> =
                    self.graph.bundled(card, row).into_iter().filter(|start| *start != Start::Card(card)).collect();
                let names: Vec<_> = from.into_iter().map(|start| self.graph.name(start)).collect();
                let said = if names.is_empty() { String::new() } else { format!("from {}", names.join(", ")) };
                canvas.fitted("small quiet", (x + 12, top + 28), &said, CARD - 24);
            }
            top += self.size.row(row, card);
        }
        if drawn.begins && found.says_where() {
            canvas.path("rule", &format!("M{x} {top}h{CARD}"));
            let said = format!("may go anywhere: {}", summary(&found.anywhere));
            canvas.fitted("small", (x + 12, top + 14), &said, CARD - 24);
        }
        canvas.markup.close();
    }

    /// Signs for what policies do to a card, and how many pods it is; where that begins.
    fn heading(&self, canvas: &mut Canvas, (x, y): (i32, i32), card: &Card) -> i32 {
        let mut right = x + CARD - 8;
        if card.restricted {
            canvas.path("barred", &format!("M{} {}v12M{} {}h-7", right, y + 9, right - 2, y + 15));
            right -= 14;
        }
        if !self.graph.groups[card.group].outside {
            shield(canvas, (x + 13, y + 14), card.protected);
        }
        if card.pods > 1 {
            let pods = plural(card.pods, "pod", "pods");
            canvas.text("small quiet end", (right, y + 19), &pods);
            right -= width(&pods, SMALL);
        }
        right
    }

    /// From a card or a box to a row; in lanes through the columns between them.
    fn line(&self, canvas: &mut Canvas, start: Start, to: usize, place: usize, row: &Row) {
        let group = match start {
            Start::Card(card) if card == to => return,
            Start::Card(card) => self.graph.cards[card].group,
            Start::Group(group) => group,
        };
        let find = |group: usize, begins: bool| {
            self.boxes.iter().position(|drawn| drawn.group == group && if begins { drawn.begins } else { drawn.ends })
        };
        let (Some(from), Some(end)) = (find(group, true), find(self.graph.cards[to].group, false)) else { return };
        let (start_x, start_y, own) = match start {
            Start::Card(card) => (PAD, self.top_of(from, card) + HEAD / 2, CARD),
            Start::Group(_) => (0, self.corner(from).1 + TITLE / 2, BOX),
        };
        let above: i32 = self.graph.cards[to].rows.iter().take(place).map(|row| self.size.row(row, to)).sum();
        let end_y = self.top_of(end, to) + HEAD + above + ROW / 2;
        let (from_column, to_column) = (self.layout.places[from].0, self.layout.places[end].0);
        let (left, right) = (self.corner(from).0 + start_x, self.corner(from).0 + start_x + own);
        let target = self.corner(end).0 + PAD;
        let (class, faint, arrow) =
            if row.denied { ("denied", "denied faint", "deniedarrow") } else { ("line", "line faint", "arrow") };
        let mut path;
        let tip;
        if from_column == to_column {
            // beside the column and back
            let far = right.max(target + CARD) + 26 + ((end_y - start_y).abs() / 12).min(50);
            tip = (target + CARD, -1);
            path = format!("M{right} {start_y}C{far} {start_y} {far} {end_y} {} {end_y}", tip.0 + 7);
        } else {
            let forwards = from_column < to_column;
            let mut at = (if forwards { right } else { left }, start_y);
            tip = if forwards { (target, 1) } else { (target + CARD, -1) };
            path = format!("M{} {}", at.0, at.1);
            let mut lanes: Vec<(usize, i32)> = self
                .layout
                .lanes
                .get(&(from, forwards))
                .into_iter()
                .flatten()
                .map(|(column, y)| (*column, *y))
                .collect();
            lanes.retain(|(column, _)| (from_column.min(to_column) + 1..from_column.max(to_column)).contains(column));
            if !forwards {
                lanes.reverse();
            }
            for (column, y) in lanes {
                let x = MARGIN + i32::try_from(column).unwrap_or_default() * (BOX + GUTTER);
                let (enter, leave) = if forwards { (x, x + BOX) } else { (x + BOX, x) };
                curve(&mut path, at, (enter, self.top + y));
                path.push_str(&format!("H{leave}"));
                at = (leave, self.top + y);
            }
            curve(&mut path, at, (tip.0 - 7 * tip.1, end_y));
        }
        let from = match start {
            Start::Card(card) => card.to_string(),
            Start::Group(group) => {
                self.graph.groups[group].cards.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
        };
        let attributes: [Attribute<'_>; 3] = [("class", &"link"), ("data-from", &from), ("data-to", &to)];
        let shown = if canvas.is_interactive() { &attributes[..] } else { &[] };
        canvas.markup.open("g", shown);
        canvas.path(if self.size.dense { faint } else { class }, &path);
        canvas.path(arrow, &format!("M{} {end_y}l{} -4v8z", tip.0, -8 * tip.1));
        canvas.markup.close();
    }
}

fn curve(path: &mut String, (x, y): (i32, i32), (end_x, end_y): (i32, i32)) {
    let middle = i32::midpoint(x, end_x);
    path.push_str(&format!("C{middle} {y} {middle} {end_y} {end_x} {end_y}"));
}

/// A shield, filled if something is refused.
fn shield(canvas: &mut Canvas, (x, y): (i32, i32), filled: bool) {
    let class = if filled { "shield" } else { "noshield" };
    canvas.path(class, &format!("M{x} {}l5 2v4q0 4 -5 6q-5 -2 -5 -6v-4z", y - 6));
}

/// What a row says, and how.
pub(crate) fn written(row: &Row, card: usize) -> (String, &'static str) {
    if row.denied {
        return ("refused at every port".to_owned(), "small no");
    }
    let mut what = row.ports.written_of("some pods");
    if let Some(everyone) = row.everyone {
        what.push_str(&format!(" \u{b7} {}", everyone.name()));
    }
    if row.from.contains(&card) {
        what.push_str(" \u{b7} each other");
    }
    (what, "small")
}

fn legend(canvas: &mut Canvas, graph: &Graph) {
    let (mut x, y) = (MARGIN, canvas.bottom() + 34);
    let mut say = |canvas: &mut Canvas, text: &str, sign: &dyn Fn(&mut Canvas, i32)| {
        sign(canvas, x);
        canvas.text("small", (x + 24, y), text);
        x += 24 + width(text, SMALL) + 28;
    };
    say(canvas, "some connections are refused on entry", &|canvas, x| shield(canvas, (x + 9, y - 4), true));
    say(canvas, "nothing is", &|canvas, x| shield(canvas, (x + 9, y - 4), false));
    if graph.cards.iter().any(|card| card.restricted) {
        say(canvas, "egress is restricted", &|canvas, x| {
            canvas.path("barred", &format!("M{} {}v12M{} {}h-7", x + 14, y - 10, x + 12, y - 4));
        });
    }
    if graph.cards.iter().flat_map(|card| &card.rows).any(|row| row.denied) {
        say(canvas, "refused at every port", &|canvas, x| canvas.path("denied", &format!("M{x} {}h20", y - 4)));
    }
    let said = [
        "A row of a card is a set of ports and who may enter there: \u{201c}everyone\u{201d} is any pod and the world.",
        "Whose egress is not restricted may go anywhere; what two ends may do because of that alone has no line.",
    ];
    for (line, said) in (1..).zip(said) {
        canvas.text("small quiet", (MARGIN, y + 4 + 17 * line), said);
    }
}

/// How many lines there are.
fn lines(graph: &Graph) -> usize {
    let rows = graph.cards.iter().enumerate().flat_map(|(to, card)| card.rows.iter().map(move |row| (to, row)));
    rows.map(|(to, row)| graph.bundled(to, row).iter().filter(|start| **start != Start::Card(to)).count()).sum()
}
