//! One end in the middle, who may enter on its left and where it may go on its right: [`Focus`]. Both are what all
//! policies together amount to, in pods that there are.

use crate::{
    command::units::Between,
    picture::{
        canvas::{Canvas, MARGIN},
        graph::svg::Words,
        markup::Markup,
        page::{Page, page},
    },
    source::plural,
};

/// Ends that may use the same ports.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) ports: Between,
    /// As they could be asked for.
    pub(crate) ends: Vec<String>,
    /// The rules that say so.
    pub(crate) by: Vec<String>,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Direction {
    /// Isolating policies, with the places where they are written.
    pub(crate) policies: Vec<String>,
    pub(crate) bundles: Vec<Bundle>,
    /// How many may not.
    pub(crate) refused: usize,
}

/// All that the picture shows.
#[derive(Debug)]
pub(crate) struct Focus {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    pub(crate) ingress: Direction,
    pub(crate) egress: Direction,
}

const SIDE: i32 = 290;
const MIDDLE: i32 = 290;
const GUTTER: i32 = 80;
const LINE: i32 = 18;
/// More ends of a bundle are counted.
const NAMED: usize = 10;

/// The document.
pub(crate) fn draw(focus: &Focus, words: &Words<'_>) -> String {
    let (canvas, top) = Canvas::new(words.title, words.summary);
    on(canvas, top, focus, words, words.footer)
}

/// As a page, with all that the picture leaves out.
pub(crate) fn page_of(focus: &Focus, words: &Words<'_>) -> String {
    let mut body = Markup::default();
    body.open("div", &[("class", &"drawing"), ("tabindex", &0), ("role", &"group"), ("aria-label", &"Picture")]);
    let (canvas, top) = Canvas::untitled();
    body.raw(&on(canvas, top, focus, words, &[]));
    body.close();
    for (title, direction) in [("Who may enter", &focus.ingress), ("Where it may go", &focus.egress)] {
        body.element("h2", &[], title);
        body.open("table", &[("class", &"details")]);
        body.open("thead", &[]);
        body.open("tr", &[]);
        for head in ["Ports", "Ends", "By"] {
            body.element("th", &[("scope", &"col")], head);
        }
        body.close();
        body.close();
        body.open("tbody", &[]);
        for bundle in &direction.bundles {
            body.open("tr", &[]);
            for cell in [bundle.ports.written(), bundle.ends.join(", "), bundle.by.join(", ")] {
                body.element("td", &[], &cell);
            }
            body.close();
        }
        body.close();
        body.close();
    }
    page(Page {
        title: words.title,
        summary: words.summary,
        footer: words.footer,
        body,
        data: serde_json::Value::Null,
        script: "",
    })
}

fn on(mut canvas: Canvas, top: i32, focus: &Focus, words: &Words<'_>, footer: &[String]) -> String {
    let left = MARGIN;
    let middle = left + SIDE + GUTTER;
    let right = middle + MIDDLE + GUTTER;
    for (x, width, text) in
        [(left, SIDE, "Who may enter"), (middle, MIDDLE, "What selects it"), (right, SIDE, "Where it may go")]
    {
        canvas.fitted("strong quiet", (x, top + 14), text, width);
    }
    let top = top + 28;
    let height = own(&mut canvas, (middle, top), focus);
    let centre = top + 20;
    for (direction, x, incoming) in [(&focus.ingress, left, true), (&focus.egress, right, false)] {
        let mut y = top;
        for bundle in &direction.bundles {
            let size = group(&mut canvas, (x, y), bundle);
            let at = y + 20;
            let (from, to) = if incoming { (x + SIDE, middle) } else { (middle + MIDDLE, x) };
            let (from_y, to_y) = if incoming { (at, centre) } else { (centre, at) };
            let half = i32::midpoint(from, to);
            canvas.path("line", &format!("M{from} {from_y}C{half} {from_y} {half} {to_y} {} {to_y}", to - 7));
            canvas.path("arrow", &format!("M{to} {to_y}l-8 -4v8z"));
            y += size + 14;
        }
        let rest = if direction.bundles.is_empty() { "nobody" } else { "nobody else" };
        let said = match direction.refused {
            0 => String::new(),
            count => format!("{rest}: {} refused at every port", plural(count, "end is", "ends are")),
        };
        canvas.fitted("small no", (x, y + 12), &said, SIDE);
        canvas.reach(x + SIDE, y + 16);
    }
    canvas.reach(0, top + height);
    canvas.footer(footer);
    canvas.finish(words.title, &words.summary.join(" "))
}

/// The end itself, with its policies.
fn own(canvas: &mut Canvas, (x, y): (i32, i32), focus: &Focus) -> i32 {
    let mut lines: Vec<(&str, String)> = focus.lines.iter().map(|line| ("small quiet", line.clone())).collect();
    for (word, direction) in [("ingress", &focus.ingress), ("egress", &focus.egress)] {
        lines.push(("", String::new()));
        if direction.policies.is_empty() {
            lines.push(("strong", format!("{word}: open")));
            lines.push(("small quiet", "no policy selects it".to_owned()));
        } else {
            lines.push(("strong", format!("{word}: isolated by")));
            lines.extend(direction.policies.iter().map(|policy| ("small", policy.clone())));
        }
    }
    let height = 40 + LINE * i32::try_from(lines.len()).unwrap_or_default() + 14;
    canvas.rectangle("card", (x, y), (MIDDLE, height), 6);
    canvas.rectangle("head", (x + 1, y + 1), (MIDDLE - 2, 38), 5);
    canvas.fitted("strong", (x + 14, y + 25), &focus.name, MIDDLE - 28);
    for (line, (class, text)) in (1..).zip(&lines) {
        canvas.fitted(class, (x + 14, y + 40 + line * LINE), text, MIDDLE - 28);
    }
    height
}

fn group(canvas: &mut Canvas, (x, y): (i32, i32), bundle: &Bundle) -> i32 {
    let more = bundle.ends.len().saturating_sub(NAMED);
    let mut lines: Vec<(&str, String)> = bundle.ends.iter().take(NAMED).map(|end| ("", end.clone())).collect();
    if more > 0 {
        lines.push(("quiet", format!("and {more} more")));
    }
    if !bundle.by.is_empty() {
        lines.push(("small quiet", format!("by {}", bundle.by.join(", "))));
    }
    let height = 40 + LINE * i32::try_from(lines.len()).unwrap_or_default();
    canvas.rectangle("card", (x, y), (SIDE, height), 6);
    canvas.rectangle("head", (x + 1, y + 1), (SIDE - 2, 28), 5);
    canvas.fitted("strong", (x + 12, y + 20), &bundle.ports.written(), SIDE - 24);
    for (line, (class, text)) in (1..).zip(&lines) {
        canvas.fitted(class, (x + 12, y + 28 + line * LINE), text, SIDE - 24);
    }
    height
}
