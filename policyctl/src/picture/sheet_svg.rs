//! A [`Sheet`] as an SVG picture: [`draw`].

use super::{
    canvas::{Canvas, MARGIN, SMALL, TEXT},
    letters::{bold_width, width},
    sheet::{Look, Sheet},
};

/// A cell's height and width.
const CELL: i32 = 22;
/// Names have at most this.
const NAME: i32 = 190;
const NAMESPACE: i32 = 140;
const GAP: i32 = 8;

/// Where things are.
struct Layout {
    rows: Vec<usize>,
    /// The width of namespaces' names, and of those below them.
    groups: i32,
    names: i32,
    left: i32,
    top: i32,
}

/// Draws it.
pub(crate) fn draw(sheet: &Sheet<'_>) -> String {
    let (mut canvas, begin) = Canvas::new(sheet.title, &sheet.summary);
    let rows = sheet.grid.visible(&sheet.opened);
    let names = rows.iter().map(|row| width(&label(sheet, *row), TEXT)).max().unwrap_or_default().min(NAME);
    let groups = rows.iter().map(|row| bold_width(group(sheet, *row), TEXT)).max().unwrap_or_default().min(NAMESPACE);
    let left = MARGIN + groups + GAP + names + GAP;
    let layout = Layout { rows, groups, names, left, top: begin + groups + GAP + names + GAP };
    heads(&mut canvas, sheet, &layout);
    for (line, row) in layout.rows.iter().enumerate() {
        for (place, column) in layout.rows.iter().enumerate() {
            let at = (layout.left + CELL * offset(place), layout.top + CELL * offset(line));
            let look = sheet.look(*row, *column);
            let title = format!("{} to {}: {}", sheet.grid.rows[*row].name, sheet.grid.rows[*column].name, look.words);
            cell(&mut canvas, look, at, Some(&title));
        }
    }
    separators(&mut canvas, sheet, &layout);
    legend(&mut canvas, &sheet.legend);
    canvas.footer(&sheet.footer);
    canvas.finish(sheet.title, &sheet.summary.join(" "))
}

fn offset(place: usize) -> i32 {
    i32::try_from(place).unwrap_or(i32::MAX / CELL)
}

/// `deploy/web x2`, or what a namespace that is folded holds.
fn label(sheet: &Sheet<'_>, row: usize) -> String {
    let found = &sheet.grid.rows[row];
    match (found.parent.is_none(), found.pods) {
        (true, _) => sheet.holds(row),
        (false, 0 | 1) => found.label.clone(),
        (false, pods) => format!("{} \u{d7}{pods}", found.label),
    }
}

fn group<'a>(sheet: &'a Sheet<'_>, row: usize) -> &'a str {
    &sheet.grid.groups[sheet.grid.rows[row].group].name
}

fn heads(canvas: &mut Canvas, sheet: &Sheet<'_>, layout: &Layout) {
    let (left, top) = (layout.left, layout.top);
    let side = layout.groups + GAP + layout.names;
    canvas.text("quiet small end", (left - GAP, top - GAP - 12), "from \u{2193}");
    canvas.text("quiet small end", (left - GAP, top - GAP - 26), "to \u{2192}");
    let mut before = None;
    for (place, row) in layout.rows.iter().enumerate() {
        let along = CELL * offset(place) + CELL - 7;
        let name = label(sheet, *row);
        let quiet = if sheet.grid.rows[*row].parent.is_none() { "quiet small" } else { "" };
        canvas.fitted(&format!("end {quiet}"), (left - GAP, top + along), &name, layout.names);
        canvas.upwards(quiet, (left + along, top - GAP), &name, layout.names);
        let own = sheet.grid.rows[*row].group;
        if before != Some(own) {
            let class = if sheet.grid.groups[own].outside { "strong quiet" } else { "strong" };
            canvas.fitted(class, (left - GAP - side, top + along), group(sheet, *row), layout.groups);
            canvas.upwards(class, (left + along, top - GAP - layout.names - GAP), group(sheet, *row), layout.groups);
        }
        before = Some(own);
    }
    let end = CELL * offset(layout.rows.len());
    canvas.reach(left + end, top + end);
}

/// Thin lines between all cells, stronger ones between namespaces.
fn separators(canvas: &mut Canvas, sheet: &Sheet<'_>, layout: &Layout) {
    let (left, top) = (layout.left, layout.top);
    let side = layout.groups + GAP + layout.names + GAP;
    let end = CELL * offset(layout.rows.len());
    let (mut thin, mut thick) = (String::new(), String::new());
    let mut before = None;
    for (place, row) in layout.rows.iter().map(Some).chain([None]).enumerate() {
        let own = row.map(|row| sheet.grid.rows[*row].group);
        let at = CELL * offset(place);
        let is_folded = |row: Option<&usize>| row.is_some_and(|row| sheet.grid.rows[*row].parent.is_none());
        let last = place.checked_sub(1).and_then(|last| layout.rows.get(last));
        if own != before && is_folded(last) && is_folded(row) {
            thin.push_str(&format!("M{} {}H{}", left - side, top + at, left + end));
            thin.push_str(&format!("M{} {}V{}", left + at, top - side, top + end));
        } else if own != before || row.is_none() {
            thick.push_str(&format!("M{} {}H{}", left - side, top + at, left + end));
            thick.push_str(&format!("M{} {}V{}", left + at, top - side, top + end));
        } else {
            thin.push_str(&format!("M{left} {}h{end}M{} {top}v{end}", top + at, left + at));
        }
        before = own;
    }
    canvas.path("rule", &thin);
    canvas.path("thick", &thick);
}

/// A cell: its shape says the same as its colour.
fn cell(canvas: &mut Canvas, look: &Look, (x, y): (i32, i32), title: Option<&str>) {
    canvas.markup.open("g", &[]);
    if let Some(title) = title {
        canvas.markup.element("title", &[], title);
    }
    let (inner, size) = ((x + 2, y + 2), CELL - 4);
    match look.class {
        "refused" | "wasrefused" => canvas
            .markup
            .empty("rect", &[("class", &"ground"), ("x", &x), ("y", &y), ("width", &CELL), ("height", &CELL)]),
        "part" | "waspart" => {
            canvas.path(look.class, &format!("M{} {}v{size}h{size}z", inner.0, inner.1));
        }
        "some" => canvas.rectangle("some", (inner.0, y + CELL - 8), (size, 6), 0),
        "leftopen" => canvas.markup.empty(
            "rect",
            &[("fill", &"url(#hatch)"), ("x", &inner.0), ("y", &inner.1), ("width", &size), ("height", &size)],
        ),
        "self" | "none" => canvas.rectangle(look.class, (x, y), (CELL, CELL), 0),
        class => canvas.rectangle(class, inner, (size, size), 2),
    }
    if !look.mark.is_empty() {
        let class = match look.class {
            "opened" | "closed" | "both" => "mark inverse strong",
            "refused" | "self" => "mark quiet",
            _ => "mark",
        };
        let dy = if look.class == "some" { 11 } else { 15 };
        canvas.text(class, (x + CELL / 2, y + dy), &look.mark);
    }
    canvas.markup.close();
}

/// Signs and their meaning, as many beside each other as there is room for.
fn legend(canvas: &mut Canvas, legend: &[Look]) {
    let room = canvas.right().max(560);
    let (mut x, mut y) = (MARGIN, canvas.bottom() + 20);
    let wide = legend.iter().map(|look| CELL + 6 + width(&look.words, SMALL) + 20).max().unwrap_or_default();
    for look in legend {
        if x > MARGIN && x + wide > room {
            (x, y) = (MARGIN, y + CELL + 6);
        }
        canvas.rectangle("rule", (x, y), (CELL, CELL), 0);
        cell(canvas, look, (x, y), None);
        canvas.text("small", (x + CELL + 6, y + 15), &look.words);
        x += wide;
    }
    canvas.reach(0, y + CELL);
}
