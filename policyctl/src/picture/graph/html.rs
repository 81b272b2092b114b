//! A [`Graph`] as an HTML page, whose cards are walked with the arrow keys and say what leads to and from them:
//! [`page_of`].

use serde_json::{Value, json};

use super::{
    model::Graph,
    svg::{self, Words, written},
};
use crate::{
    picture::{
        markup::Markup,
        page::{Page, page},
    },
    port::summary,
};

/// The document.
pub(crate) fn page_of(graph: &Graph, words: &Words<'_>) -> String {
    let mut body = Markup::default();
    body.open("div", &[("class", &"drawing"), ("id", &"drawing")]);
    body.raw(&svg::untitled(graph, words));
    body.close();
    body.element(
        "p",
        &[("class", &"keys")],
        "Arrow keys move from card to card and show its lines alone, Enter tells them, Escape shows all.",
    );
    body.open(
        "section",
        &[("class", &"said"), ("id", &"said"), ("role", &"status"), ("aria-label", &"What leads to and from it")],
    );
    body.close();
    body.raw("<section class=\"list\" id=\"list\"></section>\n");
    page(Page {
        title: words.title,
        summary: words.summary,
        footer: words.footer,
        body,
        data: data(graph),
        script: include_str!("graph.js"),
    })
}

fn data(graph: &Graph) -> Value {
    let mut lines = Vec::new();
    for (to, card) in graph.cards.iter().enumerate() {
        for row in &card.rows {
            let mut from: Vec<String> = row.from.iter().map(|from| graph.cards[*from].name.clone()).collect();
            from.extend(row.everyone.map(|everyone| everyone.name().to_owned()));
            let what = if row.denied { written(row, usize::MAX).0 } else { row.ports.written() };
            lines.push(json!({"to": to, "from": row.from, "names": from, "what": what}));
        }
    }
    let cards: Vec<_> = graph
        .cards
        .iter()
        .map(|card| json!({"name": card.name, "protected": card.protected, "restricted": card.restricted, "anywhere": if card.says_where() { summary(&card.anywhere) } else { String::new() },
                "pods": card.pods}))
        .collect();
    json!({"cards": cards, "lines": lines})
}
