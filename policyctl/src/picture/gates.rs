//! A connection as a line that passes two gates, the source's rules for egress and the destination's for ingress:
//! [`Crossing::draw`]. What fails stands in the gate that it closes.

use super::{
    canvas::{Canvas, MARGIN, SMALL, TEXT},
    letters::{bold_width, width, wrapped},
    markup::Markup,
    page::{Page, page},
};

/// An end of the line.
#[derive(Debug, Default)]
pub(crate) struct Card {
    pub(crate) name: String,
    /// What else is known of it.
    pub(crate) lines: Vec<String>,
}

/// One side's rules.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Whose, and in which direction.
    pub(crate) title: String,
    pub(crate) passes: bool,
    /// Why.
    pub(crate) because: String,
    /// What took part, and what failed.
    pub(crate) lines: Vec<Line>,
}

/// A line in a gate.
#[derive(Debug)]
pub(crate) enum Line {
    Plain(String),
    /// A condition that isn't met.
    Failed(String),
}

/// A connection, or many that are judged alike.
#[derive(Debug)]
pub(crate) struct Lane {
    /// What is said of all of it; nothing where the title says so already.
    pub(crate) heading: String,
    pub(crate) from: Card,
    pub(crate) to: Card,
    pub(crate) gates: [Gate; 2],
}

/// Everything that the picture of an explanation shows.
#[derive(Debug)]
pub(crate) struct Crossing {
    pub(crate) title: String,
    pub(crate) summary: Vec<String>,
    pub(crate) lanes: Vec<Lane>,
    /// What the picture leaves out.
    pub(crate) notes: Vec<String>,
    pub(crate) footer: Vec<String>,
}

const CARD: i32 = 172;
const GATE: i32 = 264;
const WIRE: i32 = 34;
/// Around what is written in a gate, and in a card.
const INSET: i32 = 14;
const STEP: i32 = 17;

impl Crossing {
    /// As SVG.
    pub(crate) fn draw(&self) -> String {
        let (canvas, y) = Canvas::new(&self.title, &self.summary);
        let mut footer = self.notes.clone();
        footer.extend(self.footer.clone());
        self.on(canvas, y, &footer)
    }

    fn on(&self, mut canvas: Canvas, mut y: i32, footer: &[String]) -> String {
        for lane in &self.lanes {
            if !lane.heading.is_empty() {
                for line in wrapped(&lane.heading, 2 * CARD + 2 * GATE + 3 * WIRE, bold) {
                    canvas.text("strong", (MARGIN, y + 16), &line);
                    y += STEP;
                }
                y += 26 - STEP;
            }
            lane.draw(&mut canvas, y);
            y = canvas.bottom() + 20;
        }
        canvas.footer(footer);
        canvas.finish(&self.title, &self.summary.join(" "))
    }

    /// As a page, with what `text` has to say.
    pub(crate) fn page(&self, text: &str) -> String {
        let mut body = Markup::default();
        // what is wider than the window is moved by arrow keys
        body.open("div", &[("class", &"drawing"), ("tabindex", &0), ("role", &"group"), ("aria-label", &"Picture")]);
        let (canvas, y) = Canvas::untitled();
        body.raw(&self.on(canvas, y, &self.notes));
        body.close();
        body.element("h2", &[], "In words");
        body.lines("pre", text.trim_end());
        page(Page {
            title: &self.title,
            summary: &self.summary,
            footer: &self.footer,
            body,
            data: serde_json::Value::Null,
            script: "",
        })
    }
}

impl Lane {
    fn draw(&self, canvas: &mut Canvas, top: i32) {
        // below what the gates are called
        let titles = self.gates.iter().map(|gate| gate.titles().len()).max().unwrap_or_default();
        let depth = 25 + rows(titles);
        let line = top + depth;
        let mut x = MARGIN;
        self.from.draw(canvas, (x, top), depth);
        x += CARD;
        let mut reached = true;
        for gate in &self.gates {
            canvas.path(if reached { "line" } else { "wait" }, &format!("M{x} {line}h{WIRE}"));
            x += WIRE;
            gate.draw(canvas, (x, top), depth, reached);
            reached &= gate.passes;
            x += GATE;
        }
        canvas.path(if reached { "line" } else { "wait" }, &format!("M{x} {line}h{}", WIRE - 7));
        let arrow = if reached { "arrow" } else { "quiet" };
        canvas.path(arrow, &format!("M{} {}l8 5l-8 5z", x + WIRE - 9, line - 5));
        self.to.draw(canvas, (x + WIRE, top), depth);
    }
}

impl Card {
    /// `depth` is that of the line that it ends.
    fn draw(&self, canvas: &mut Canvas, (x, y): (i32, i32), depth: i32) {
        let room = CARD - 2 * INSET;
        let name = wrapped(&self.name, room, bold);
        let lines: Vec<String> = self.lines.iter().flat_map(|line| wrapped(line, room, small)).collect();
        let height = (2 * depth).max(19 + rows(name.len() + lines.len()));
        canvas.rectangle("card", (x, y), (CARD, height), 6);
        let mut at = y + 23;
        for line in name {
            canvas.text("strong", (x + INSET, at), &line);
            at += STEP;
        }
        for line in lines {
            canvas.text("small quiet", (x + INSET, at + 1), &line);
            at += STEP;
        }
    }
}

impl Gate {
    fn titles(&self) -> Vec<String> {
        wrapped(&self.title, GATE - 2 * INSET, small)
    }

    fn draw(&self, canvas: &mut Canvas, (x, y): (i32, i32), depth: i32, reached: bool) {
        let text = x + INSET;
        let room = GATE - 2 * INSET;
        let mut lines: Vec<(&str, String)> = Vec::new();
        for part in &self.lines {
            let (class, text) = match part {
                Line::Plain(text) => ("small quiet", text),
                Line::Failed(text) => ("small no", text),
            };
            lines.extend(wrapped(text, room, small).into_iter().map(|text| (class, text)));
        }
        let because = wrapped(&self.because, room, bold);
        canvas.rectangle("box", (x, y), (GATE, depth + 34 + rows(lines.len() + because.len())), 6);
        self.draw_wire(canvas, (x, y + depth), reached);
        for (at, title) in (y + 18..).step_by(STEP.unsigned_abs() as usize).zip(self.titles()) {
            canvas.text("small quiet", (text, at), &title);
        }
        let mut at = y + depth + 38;
        for line in because {
            canvas.text(if self.passes { "yes strong" } else { "no strong" }, (text, at), &line);
            at += STEP;
        }
        for (class, line) in lines {
            canvas.text(class, (text, at), &line);
            at += STEP;
        }
    }

    /// The line through it, as far as it gets.
    fn draw_wire(&self, canvas: &mut Canvas, (x, line): (i32, i32), reached: bool) {
        let wire = if reached { "line" } else { "wait" };
        let centre = x + GATE / 2;
        if self.passes {
            // two posts, and the line between them
            canvas.path(wire, &format!("M{x} {line}H{}", x + GATE));
            canvas.path("gateopen", &format!("M{centre} {}v-12M{centre} {}v12", line - 6, line + 6));
            canvas.text("yes small strong", (centre + 12, line - 8), "open");
        } else {
            canvas.path(wire, &format!("M{x} {line}H{}", centre - 10));
            canvas.path("wait", &format!("M{} {line}H{}", centre + 10, x + GATE));
            canvas.path(
                "gateclosed",
                &format!("M{centre} {}v36M{} {}l10 10m0 -10l-10 10", line - 18, centre - 20, line - 5),
            );
            canvas.text("no small strong", (centre + 12, line - 8), "closed");
        }
    }
}

/// The height of so many lines of text.
fn rows(count: usize) -> i32 {
    i32::try_from(count).unwrap_or_default() * STEP
}

fn bold(text: &str) -> i32 {
    bold_width(text, TEXT)
}

fn small(text: &str) -> i32 {
    width(text, SMALL)
}
