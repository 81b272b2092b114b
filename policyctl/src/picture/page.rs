//! An HTML page that stands alone: [`page`]. Style and script are in it, and its own policy forbids it the network.

use super::markup::{Markup, json_in_script};

/// What a page consists of.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) summary: &'a [String],
    pub(crate) footer: &'a [String],
    /// The picture, and what is beside it.
    pub(crate) body: Markup,
    /// What the script reads.
    pub(crate) data: serde_json::Value,
    pub(crate) script: &'static str,
}

/// Nothing is loaded and nothing is sent. The nonce only tells our own style and script from none: what keeps others out
/// is that everything is escaped.
const POLICY: &str = "default-src 'none'; style-src 'nonce-policyctl'; script-src 'nonce-policyctl'; img-src data:";

/// The document.
pub(crate) fn page(page: Page<'_>) -> String {
    let mut html = Markup::default();
    html.raw("<!DOCTYPE html>\n");
    html.open("html", &[("lang", &"en")]);
    html.open("head", &[]);
    html.raw("<meta charset=\"utf-8\">\n");
    html.raw(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n"));
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n");
    html.element("title", &[], &format!("{} \u{2013} policyctl", page.title));
    html.raw("<style nonce=\"policyctl\">\n");
    html.raw(include_str!("page.css"));
    html.raw("</style>\n");
    html.close();
    html.open("body", &[]);
    html.open("header", &[]);
    html.element("h1", &[], page.title);
    for line in page.summary {
        html.element("p", &[("class", &"summary")], line);
    }
    html.close();
    html.open("main", &[]);
    html.raw(&page.body.finish());
    html.close();
    html.open("footer", &[]);
    for line in page.footer {
        html.element("p", &[], line);
    }
    html.close();
    html.raw("<script type=\"application/json\" id=\"data\">");
    html.raw(&json_in_script(&page.data));
    html.raw("</script>\n<script nonce=\"policyctl\">\n");
    html.raw(page.script);
    html.raw("</script>\n");
    html.finish()
}
