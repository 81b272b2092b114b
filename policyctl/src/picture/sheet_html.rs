//! A [`Sheet`] as an HTML page, in which namespaces and workloads are opened and folded: [`write()`]. The table is built
//! by `sheet.js` from what is handed to it here; without scripts the page shows the picture.

use serde_json::json;

use super::{
    markup::Markup,
    page::{Page, page},
    sheet::Sheet,
    sheet_svg,
};

/// The document.
pub(crate) fn write(sheet: &Sheet<'_>) -> String {
    let mut body = Markup::default();
    body.open("div", &[("class", &"sheet"), ("id", &"sheet")]);
    body.raw("<noscript>");
    body.raw(&sheet_svg::draw(sheet));
    body.raw("</noscript>");
    body.close();
    body.element("p", &[("class", &"said"), ("id", &"said"), ("role", &"status")], "");
    body.open("section", &[("aria-label", &"Legend")]);
    body.open("ul", &[("class", &"legend")]);
    for look in &sheet.legend {
        body.open("li", &[]);
        let class = format!("sample {}", look.class);
        body.open("span", &[("class", &class), ("aria-hidden", &"true")]);
        body.text(&look.mark);
        body.close();
        body.text(&look.words);
        body.close();
    }
    body.close();
    body.close();
    body.element(
        "p",
        &[("class", &"keys")],
        "Arrow keys move from cell to cell, Enter opens and folds namespaces and workloads, + opens all, - folds all.",
    );
    body.raw("<section class=\"list\" id=\"list\"></section>\n");
    page(Page {
        title: sheet.title,
        summary: &sheet.summary,
        footer: &sheet.footer,
        body,
        data: data(sheet),
        script: include_str!("sheet.js"),
    })
}

fn data(sheet: &Sheet<'_>) -> serde_json::Value {
    let grid = sheet.grid;
    let rows: Vec<_> = grid
        .rows
        .iter()
        .enumerate()
        .map(|(place, row)| {
            json!({
                "name": row.name, "label": row.label, "group": row.group, "parent": row.parent,
                "children": row.children, "open": sheet.opened[place], "holds": sheet.holds(place),
            })
        })
        .collect();
    let groups: Vec<_> = grid
        .groups
        .iter()
        .map(|group| json!({"name": group.name, "outside": group.outside, "root": group.root}))
        .collect();
    let looks: Vec<_> = sheet.looks.iter().map(|look| json!([look.class, look.mark, look.words])).collect();
    // equal neighbours are counted
    let mut runs: Vec<usize> = Vec::new();
    for cell in &sheet.cells {
        match runs.len() {
            length if length > 0 && runs[length - 2] == *cell => runs[length - 1] += 1,
            _ => runs.extend([*cell, 1]),
        }
    }
    json!({"title": sheet.title, "rows": rows, "groups": groups, "looks": looks, "runs": runs})
}
