//! A [`Graph`] in the languages of other renderers: [`dot`], [`mermaid`].

use super::model::{Card, Graph, Row};
use crate::port::summary;

/// Where who is restricted otherwise may go, as a node of its own.
const ANYWHERE: &str = "anywhere";

/// Everybody is a node of its own.
fn everybody_of(row: &Row) -> Option<String> {
    row.everyone.map(|everyone| everyone.name().replace(' ', "_"))
}

/// Lines of all cards: who, to whom, what is written at it, and whether it is refused.
fn lines(graph: &Graph) -> Vec<(String, String, String, bool)> {
    let mut lines = Vec::new();
    for (to, card) in graph.cards.iter().enumerate() {
        for row in &card.rows {
            let what = if row.denied { "refused".to_owned() } else { row.ports.written() };
            let from = row.from.iter().map(|from| format!("c{from}")).chain(everybody_of(row));
            lines.extend(from.map(|from| (from, format!("c{to}"), what.clone(), row.denied)));
        }
        if card.says_where() {
            lines.push((format!("c{to}"), ANYWHERE.to_owned(), summary(&card.anywhere), false));
        }
    }
    lines
}

fn everybody(graph: &Graph) -> Vec<(String, &'static str)> {
    let rows = graph.cards.iter().flat_map(|card| &card.rows);
    let mut all: Vec<_> = rows.filter_map(|row| Some((everybody_of(row)?, row.everyone?.name()))).collect();
    if graph.cards.iter().any(Card::says_where) {
        all.push((ANYWHERE.to_owned(), ANYWHERE));
    }
    all.sort();
    all.dedup();
    all
}

fn label(card: &Card) -> String {
    if card.pods > 1 { format!("{} ({} pods)", card.label, card.pods) } else { card.label.clone() }
}

/// For Graphviz.
pub(crate) fn dot(graph: &Graph) -> String {
    // a quoted string of the language; what has no place in a name is left out
    let quoted = |text: &str| {
        let plain: String = text.chars().filter(|letter| !letter.is_control()).collect();
        format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
    };
    let mut text = "digraph policies {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (id, name) in everybody(graph) {
        text.push_str(&format!("  {id} [label={} shape=ellipse];\n", quoted(name)));
    }
    for (place, group) in graph.groups.iter().enumerate() {
        text.push_str(&format!("  subgraph cluster_{place} {{\n    label={};\n", quoted(&group.name)));
        for card in &group.cards {
            text.push_str(&format!("    c{card} [label={}];\n", quoted(&label(&graph.cards[*card]))));
        }
        text.push_str("  }\n");
    }
    for (from, to, what, denied) in lines(graph) {
        let style = if denied { " style=dashed" } else { "" };
        text.push_str(&format!("  {from} -> {to} [label={}{style}];\n", quoted(&what)));
    }
    text.push_str("}\n");
    text
}

/// For Mermaid.
pub(crate) fn mermaid(graph: &Graph) -> String {
    // entities are how Mermaid takes letters that it would read as its own
    let quoted = |text: &str| {
        let letter = |letter: char| match letter {
            letter if letter.is_ascii_alphanumeric() || "/-._ ,:;()".contains(letter) => letter.to_string(),
            letter if letter.is_control() => String::new(),
            letter => format!("#{};", u32::from(letter)),
        };
        format!("\"{}\"", text.chars().map(letter).collect::<String>())
    };
    let mut text = "flowchart LR\n".to_owned();
    for (id, name) in everybody(graph) {
        text.push_str(&format!("  {id}([{}])\n", quoted(name)));
    }
    for (place, group) in graph.groups.iter().enumerate() {
        text.push_str(&format!("  subgraph g{place} [{}]\n", quoted(&group.name)));
        for card in &group.cards {
            text.push_str(&format!("    c{card}[{}]\n", quoted(&label(&graph.cards[*card]))));
        }
        text.push_str("  end\n");
    }
    for (from, to, what, denied) in lines(graph) {
        let arrow = if denied { "-.->" } else { "-->" };
        text.push_str(&format!("  {from} {arrow}|{}| {to}\n", quoted(&what)));
    }
    text
}
