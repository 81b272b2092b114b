//! The plain part of YAML, quickly: block maps and lists, scalars on one line, literal blocks, simple `[…]` and `{…}`,
//! which is what `kubectl` prints and people write. [`read`] gives up on everything else, and on whatever it is not
//! certain about, by answering `None`; the whole of YAML is read by [`super::yaml`], some twenty times slower. A test
//! holds one against the other, positions included.

mod flow;
#[cfg(test)]
mod tests;

use self::flow::{Flow, is_blank, is_comment, key};
use super::{
    tree::{Entry, Node, Value},
    yaml::Chunk,
};
use crate::cluster::Position;

/// Reads a document, if it is a plain one.
pub(super) fn read(chunk: Chunk<'_>) -> Option<Node<'_>> {
    let is_ascii = chunk.text.is_ascii();
    // without a branch for each byte, so that many are looked at together
    let has_control = |found, byte: u8| found | (byte < b' ' && byte != b'\n' && byte != b'\r');
    if chunk.text.bytes().fold(false, has_control) {
        return None;
    }
    let has_returns = chunk.text.contains('\r');
    let mut lines = Vec::with_capacity(chunk.text.len() / 24);
    for (number, text) in (chunk.line..).zip(chunk.text.split('\n')) {
        let text = if has_returns { text.strip_suffix('\r').unwrap_or(text) } else { text };
        if has_returns && text.contains('\r') {
            return None;
        }
        let content = text.trim_start_matches(' ');
        lines.push(Line { number, indent: text.len() - content.len(), content, whole: text, is_ascii });
    }
    let mut reader = Reader { lines, next: 0 };
    if let Some(first) = reader.lines.first()
        && let Some(rest) = first.whole.strip_prefix("---")
    {
        if !is_blank(rest.trim_start_matches(' ')) {
            return None;
        }
        reader.next = 1;
    }
    let indent = reader.peek()?.indent;
    let root = reader.block(indent, MAX_DEPTH)?;
    reader.peek().is_none().then_some(root)
}

/// How deep values may be nested; what is deeper is left to the other reader, which says so.
const MAX_DEPTH: usize = 60;

#[derive(Clone, Copy)]
struct Line<'a> {
    number: u32,
    /// Of `content`, in bytes, which are characters as long as they are spaces.
    indent: usize,
    content: &'a str,
    whole: &'a str,
    /// Bytes are characters.
    is_ascii: bool,
}

impl<'a> Line<'a> {
    /// The position of a part of `content`.
    fn at(&self, part: &str) -> Position {
        let offset = (part.as_ptr() as usize).saturating_sub(self.whole.as_ptr() as usize).min(self.whole.len());
        let column =
            if self.is_ascii { offset } else { self.whole.get(..offset).map_or(0, |before| before.chars().count()) };
        Position { line: self.number, column: u32::try_from(column + 1).unwrap_or(u32::MAX) }
    }

    /// What follows the dash, if this is a list's element.
    fn element(&self) -> Option<&'a str> {
        let rest = self.content.strip_prefix('-')?;
        (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim_start_matches(' '))
    }
}

struct Reader<'a> {
    lines: Vec<Line<'a>>,
    next: usize,
}

impl<'a> Reader<'a> {
    /// The next line with content.
    fn peek(&mut self) -> Option<Line<'a>> {
        while let Some(line) = self.lines.get(self.next) {
            if is_blank(line.content) {
                self.next += 1;
            } else {
                return Some(*line);
            }
        }
        None
    }

    /// The map or list that begins at the next line, which is indented by `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        let line = self.peek()?;
        let depth = depth.checked_sub(1)?;
        if line.element().is_some() { self.list(indent, depth) } else { self.map(indent, depth) }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        let at = self.peek().map(|line| line.at(line.content))?;
        let mut elements = Vec::new();
        while let Some(line) = self.peek() {
            if line.indent != indent {
                break;
            }
            let Some(rest) = line.element() else { break };
            elements.push(self.element(line, rest, indent, depth)?);
        }
        if self.peek().is_some_and(|line| line.indent > indent) {
            return None;
        }
        Some(Node { at, value: Value::List(elements) })
    }

    fn element(&mut self, line: Line<'a>, rest: &'a str, indent: usize, depth: usize) -> Option<Node<'a>> {
        if is_blank(rest) {
            self.next += 1;
            let deeper = self.peek().filter(|next| next.indent > indent)?;
            return self.block(deeper.indent, depth);
        }
        let own = line.content.len() - rest.len() + line.indent;
        let inner = Line { indent: own, content: rest, ..line };
        if inner.element().is_some() || key(rest).is_some() {
            // the rest of the line is the first line of a block of its own
            self.lines[self.next] = inner;
            return self.block(own, depth);
        }
        self.next += 1;
        self.value(line, rest, indent, depth)
    }

    fn map(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        let at = self.peek().map(|line| line.at(line.content))?;
        let mut entries: Vec<Entry<'a>> = Vec::new();
        while let Some(line) = self.peek() {
            if line.indent != indent {
                break;
            }
            if line.element().is_some() {
                return None;
            }
            let (name, rest) = key(line.content)?;
            self.next += 1;
            let value =
                if is_blank(rest) { self.nested(indent, depth)? } else { self.value(line, rest, indent, depth)? };
            entries.push(Entry { key: name.into(), at: line.at(line.content), value });
        }
        if self.peek().is_some_and(|line| line.indent > indent) {
            return None;
        }
        Some(Node { at, value: Value::Map(entries) })
    }

    /// What stands below a key. Nothing at all is left to the other reader, which knows where that is.
    fn nested(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        let line = self.peek()?;
        if line.indent > indent {
            // a scalar on a line of its own is rare
            return self.block(line.indent, depth);
        }
        let first = line.element().filter(|rest| line.indent == indent && !is_blank(rest))?;
        // of such a list the other reader says that it begins behind its first dash
        Some(Node { at: line.at(first), ..self.list(indent, depth.checked_sub(1)?)? })
    }

    /// What stands on the line of its key or dash, which are indented by `indent`.
    fn value(&mut self, line: Line<'a>, text: &'a str, indent: usize, depth: usize) -> Option<Node<'a>> {
        if let Some(style) = text.strip_prefix('|') {
            let first = self.lines.get(self.next)?;
            let at = first.at(first.content);
            return Some(Node { at, value: Value::Text(self.literal(style.trim_end_matches(' '), indent)?.into()) });
        }
        let mut flow = Flow { rest: text, line };
        let node = flow.node(depth, false)?;
        if !is_comment(flow.rest) {
            return None;
        }
        // a scalar that goes on on the next line
        if self.peek().is_some_and(|next| next.indent > indent) {
            return None;
        }
        Some(node)
    }

    /// A literal block without an indentation of its own.
    fn literal(&mut self, style: &str, indent: usize) -> Option<String> {
        if !matches!(style, "" | "-") {
            return None;
        }
        let first = *self.lines.get(self.next)?;
        if first.indent <= indent || first.content.is_empty() {
            return None;
        }
        let mut text = String::new();
        let mut blank = 0;
        while let Some(line) = self.lines.get(self.next) {
            if line.content.is_empty() {
                if line.indent > first.indent {
                    return None;
                }
                blank += 1;
            } else if line.indent < first.indent {
                if line.indent > indent {
                    return None;
                }
                break;
            } else {
                text.extend(std::iter::repeat_n('\n', std::mem::take(&mut blank)));
                text.push_str(&line.whole[first.indent..]);
                text.push('\n');
            }
            self.next += 1;
        }
        if style == "-" {
            text.pop();
        }
        Some(text)
    }
}
