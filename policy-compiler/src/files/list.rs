//! Lists in YAML as `kubectl get -o yaml` prints them, element by element: [`split`]. What would be one large document
//! never lies in memory as a whole, and a broken element takes no other with it.

use super::{
    kinds::{self, Said},
    plain,
    yaml::Chunk,
};
use crate::diagnostic::Kind;

/// A document that is a list.
pub(super) struct Split<'a> {
    /// What its elements are if they don't say themselves.
    pub(super) kind: Option<Kind>,
    rest: Chunk<'a>,
    indent: usize,
}

/// Takes a document apart, if it says in plain words that it is a list: `items:` on a line of its own, its elements
/// below it. Not where elements may refer to each other: an alias means what a whole document says.
pub(super) fn split(chunk: Chunk<'_>) -> Option<Split<'_>> {
    if !chunk.text.contains("\nitems:") || chunk.text.starts_with('%') || has_reference(chunk.text) {
        return None;
    }
    let mut header = String::new();
    let mut items: Option<(usize, u32)> = None;
    let mut end = None;
    let mut offset = 0;
    for (line, content) in (chunk.line..).zip(chunk.text.split_inclusive('\n')) {
        let is_key = !content.starts_with([' ', '-', '#', '\r', '\n']) || content.starts_with("---");
        if is_key && items.is_some() && end.is_none() {
            end = Some(offset);
        }
        offset += content.len();
        if is_key && content.trim_end() == "items:" {
            if items.is_some() {
                return None;
            }
            items = Some((offset, line + 1));
        } else if items.is_none() || end.is_some() {
            header.push_str(content);
        }
    }
    let (begin, line) = items?;
    let rest = Chunk { line, text: &chunk.text[begin..end.unwrap_or(chunk.text.len())] };
    let first = rest.text.lines().find(|line| !line.trim_start().is_empty() && !line.trim_start().starts_with('#'))?;
    let indent = first.len() - first.trim_start_matches(' ').len();
    if !is_element(first, indent) {
        return None;
    }
    let node = plain::read(Chunk { line: chunk.line, text: &header })?;
    match kinds::recognise(&node, None) {
        Said::List(kind) => Some(Split { kind, rest, indent }),
        _ => None,
    }
}

/// Whether a line begins an element of a list that is indented so far.
fn is_element(line: &str, indent: usize) -> bool {
    let bytes = line.as_bytes();
    bytes.get(indent) == Some(&b'-')
        && bytes[..indent].iter().all(|byte| *byte == b' ')
        && matches!(bytes.get(indent + 1), None | Some(b' ' | b'\r' | b'\n'))
}

/// Whether there may be an anchor or an alias: `&name` or `*name` where a value begins.
fn has_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = |index: usize| {
        let before = index.checked_sub(1).map_or(b'\n', |before| bytes[before]);
        let is_name = bytes.get(index + 1).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_');
        is_name && matches!(before, b' ' | b'\n' | b'[' | b'{' | b',')
    };
    text.match_indices(['&', '*']).any(|(index, _)| begins(index))
}

impl<'a> Iterator for Split<'a> {
    type Item = Chunk<'a>;

    /// The text of an element: a list of its own with this one element.
    fn next(&mut self) -> Option<Chunk<'a>> {
        let Chunk { line, text } = self.rest;
        if text.is_empty() {
            return None;
        }
        let mut end = 0;
        let mut lines = 0;
        let mut begun = false;
        for content in text.split_inclusive('\n') {
            if is_element(content, self.indent) && std::mem::replace(&mut begun, true) {
                break;
            }
            end += content.len();
            lines += 1;
        }
        self.rest = Chunk { line: line.saturating_add(lines), text: &text[end..] };
        Some(Chunk { line, text: &text[..end] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements' lines and texts.
    fn elements(text: &str) -> Option<Vec<(u32, &str)>> {
        split(Chunk { line: 1, text }).map(|split| split.map(|chunk| (chunk.line, chunk.text)).collect())
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = "apiVersion: v1\nitems:\n- a: 1\n  b: |\n    - c\n# d\n- e: 2\nkind: List\nmetadata: {}\n";
        assert_eq!(elements(text), Some(vec![(3, "- a: 1\n  b: |\n    - c\n# d\n"), (7, "- e: 2\n")]));
        let text = "---\nkind: PodList\napiVersion: v1\nitems:\n\n  - a: 1\n  - b: 2";
        assert_eq!(elements(text), Some(vec![(5, "\n  - a: 1\n"), (7, "  - b: 2")]));
    }

    #[test]
    fn what_is_not_certain_stays_whole() {
        for text in [
            "apiVersion: v1\nkind: ConfigMap\nitems:\n- a: 1\n",
            "apiVersion: v1\nkind: List\nitems:\n- &x {a: 1}\n- *x\n",
            "apiVersion: v1\nkind: List\nitems: [a]\n",
            "apiVersion: v1\nkind: List\nitems:\n",
            "apiVersion: v1\nkind: List\nitems:\n- a\nitems:\n- b\n",
            "apiVersion: v1\nmetadata: {name: \"\nkind: List\nitems:\n- a\n\"}\n",
            "%YAML 1.1\n---\napiVersion: v1\nkind: List\nitems:\n- a\n",
        ] {
            assert_eq!(elements(text), None, "{text}");
        }
        let near = "apiVersion: v1\nkind: List\nitems:\n- cron: '*/5 * * * *'\n  sh: a && b\n";
        assert!(elements(near).is_some());
    }
}
