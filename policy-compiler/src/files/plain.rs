//! The plain part of YAML, quickly: block maps and lists, scalars on one line, literal blocks, simple `[…]` and `{…}`,
//! which is what `kubectl` prints and people write. [`read`] gives up on everything else, and on whatever it is not
//! certain about, by answering `None`; the whole of YAML is read by [`super::yaml`], some twenty times slower. A test
//! holds one against the other, positions included.

use super::{
    tree::{Entry, Node, Value},
    yaml::Chunk,
};
use crate::cluster::Position;

/// Reads a document, if it is a plain one.
pub(super) fn read(chunk: Chunk<'_>) -> Option<Node> {
    let is_ascii = chunk.text.is_ascii();
    let mut lines = Vec::with_capacity(chunk.text.len() / 24);
    for (number, text) in (chunk.line..).zip(chunk.text.split('\n')) {
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.bytes().any(|byte| byte < b' ') {
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
    fn block(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let line = self.peek()?;
        let depth = depth.checked_sub(1)?;
        if line.element().is_some() { self.list(indent, depth) } else { self.map(indent, depth) }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<Node> {
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

    fn element(&mut self, line: Line<'a>, rest: &'a str, indent: usize, depth: usize) -> Option<Node> {
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

    fn map(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let at = self.peek().map(|line| line.at(line.content))?;
        let mut entries: Vec<Entry> = Vec::new();
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
            entries.push(Entry { key: name.to_owned(), at: line.at(line.content), value });
        }
        if self.peek().is_some_and(|line| line.indent > indent) {
            return None;
        }
        Some(Node { at, value: Value::Map(entries) })
    }

    /// What stands below a key. Nothing at all is left to the other reader, which knows where that is.
    fn nested(&mut self, indent: usize, depth: usize) -> Option<Node> {
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
    fn value(&mut self, line: Line<'a>, text: &'a str, indent: usize, depth: usize) -> Option<Node> {
        if let Some(style) = text.strip_prefix('|') {
            let first = self.lines.get(self.next)?;
            let at = first.at(first.content);
            return Some(Node { at, value: Value::Text(self.literal(style.trim_end_matches(' '), indent)?) });
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

fn is_blank(text: &str) -> bool {
    text.is_empty() || text.starts_with('#')
}

/// What may follow a value.
fn is_comment(text: &str) -> bool {
    let content = text.trim_start_matches(' ');
    content.is_empty() || (content.len() < text.len() && content.starts_with('#'))
}

/// The key that a line begins with, and what follows its colon. Not a key that is a word of another type, or merges.
fn key(text: &str) -> Option<(&str, &str)> {
    let (name, after) = match text.as_bytes().first()? {
        quote @ (b'"' | b'\'') => {
            let end = text[1..].find(char::from(*quote))? + 1;
            let name = &text[1..end];
            let after = text[end + 1..].strip_prefix(':')?;
            (!name.contains('\\')).then_some((name, after))?
        }
        _ => {
            let end = text.bytes().position(|byte| !is_name_byte(byte))?;
            let name = &text[..end];
            let starts = name.as_bytes().first()?.is_ascii_alphabetic();
            (starts && !is_special(name)).then(|| text[end..].strip_prefix(':').map(|after| (name, after)))??
        }
    };
    (after.is_empty() || after.starts_with(' ')).then(|| (name, after.trim_start_matches(' ')))
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/')
}

/// Words that are, or in some version of YAML were, no text.
fn is_special(word: &str) -> bool {
    const WORDS: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];
    word.len() <= 8 && WORDS.iter().any(|special| special.eq_ignore_ascii_case(word))
}

/// A value on one line.
struct Flow<'a> {
    rest: &'a str,
    line: Line<'a>,
}

impl<'a> Flow<'a> {
    fn node(&mut self, depth: usize, nested: bool) -> Option<Node> {
        let depth = depth.checked_sub(1)?;
        let at = self.line.at(self.rest);
        let value = match self.rest.as_bytes().first()? {
            b'[' => self.list(depth)?,
            b'{' => self.map(depth)?,
            b'"' | b'\'' => Value::Text(self.quoted()?),
            _ => scalar(self.plain(nested)?)?,
        };
        Some(Node { at, value })
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest[count..].trim_start_matches(' ');
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.skip(1);
        let mut elements = Vec::new();
        while !self.rest.starts_with(']') {
            elements.push(self.node(depth, true)?);
            self.separator(b']')?;
        }
        self.rest = &self.rest[1..];
        Some(Value::List(elements))
    }

    fn map(&mut self, depth: usize) -> Option<Value> {
        self.skip(1);
        let mut entries = Vec::new();
        while !self.rest.starts_with('}') {
            let at = self.line.at(self.rest);
            let (name, rest) = key(self.rest)?;
            // `{a:}` and `{a: , b: }` are left to the other reader
            if rest.is_empty() || rest.starts_with([',', '}']) {
                return None;
            }
            self.rest = rest;
            let value = self.node(depth, true)?;
            entries.push(Entry { key: name.to_owned(), at, value });
            self.separator(b'}')?;
        }
        self.rest = &self.rest[1..];
        Some(Value::Map(entries))
    }

    /// A comma, or the end, which stays.
    fn separator(&mut self, end: u8) -> Option<()> {
        self.skip(0);
        match self.rest.as_bytes().first()? {
            b',' => {
                self.skip(1);
                // a comma before the end
                (self.rest.as_bytes().first() != Some(&end)).then_some(())
            }
            found => (*found == end).then_some(()),
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = if self.rest.starts_with('"') { '"' } else { '\'' };
        let end = self.rest[1..].find(quote)? + 1;
        let text = &self.rest[1..end];
        self.rest = &self.rest[end + 1..];
        // '' and \ are escapes
        let escapes = self.rest.starts_with(quote) || (quote == '"' && text.contains('\\'));
        if escapes { None } else { Some(text.to_owned()) }
    }

    fn plain(&mut self, nested: bool) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        if !(bytes[0].is_ascii_alphanumeric() || matches!(bytes[0], b'/' | b'_' | b'~')) {
            return None;
        }
        let mut end = 0;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b',' | b'[' | b']' | b'{' | b'}' if nested => break,
                b':' if bytes.get(end + 1).is_none_or(|next| *next == b' ' || nested) => return None,
                b' ' if bytes[end..].iter().find(|byte| **byte != b' ') == Some(&b'#') => break,
                _ => end += 1,
            }
        }
        let text = self.rest[..end].trim_end_matches(' ');
        self.rest = &self.rest[text.len()..];
        Some(text)
    }
}

/// The value of a plain scalar, if it is beyond doubt.
fn scalar(text: &str) -> Option<Value> {
    match text {
        "null" | "~" => return Some(Value::Null),
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ if is_special(text) => return None,
        _ => {}
    }
    let is_text = || Some(Value::Text(text.to_owned()));
    if !text.as_bytes().first()?.is_ascii_digit() {
        return if text.starts_with('~') { None } else { is_text() };
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_decimal = text.len() < 19 && (text == "0" || !text.starts_with('0'));
        return if is_decimal { text.parse().ok().map(Value::Int) } else { None };
    }
    // no number has two dots or two dashes, a slash, or letters such as these
    let count = |wanted| text.bytes().filter(|byte| *byte == wanted).count();
    let is_letter =
        |byte: u8| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E' | b'x' | b'X' | b'o' | b'O' | b'b' | b'B');
    let is_other = count(b'.') > 1 || count(b'-') > 1 || text.contains('/') || text.bytes().any(is_letter);
    let is_prefixed = ["0x", "0b", "0o"].iter().any(|prefix| text.starts_with(prefix));
    let is_doubtful = is_prefixed || text.contains('_') || (text.contains(':') && count(b'-') < 2);
    if is_other && !is_doubtful { is_text() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::yaml;

    /// What this reader takes, the other reads the same.
    #[track_caller]
    fn check(text: &str) -> bool {
        let mut all = true;
        for chunk in yaml::documents(text) {
            match read(chunk) {
                Some(node) => assert_eq!(Ok(node), yaml::read(chunk), "{text}"),
                None => all = false,
            }
        }
        all
    }

    #[test]
    fn what_is_plain_is_read_here() {
        for text in [
            "a: 1\nb:\n- c\n- d: {e: [f, 'g h', \"i\"], j: 10.0.0.0/8}\n  k: true\nl:\n  - m: null\n",
            "--- # comment\n# another\na: |\n  x\n   y\n\n  z\nb: |-\n  {\"q\": 1}\nc: 'it: # no comment' # but this\n",
            "a:\n- - 1\n  - 2\n- - 3\n",
            "a: 500m\nb: 1Gi\nc: 7d9f8c6b5\nd: 2026-11-21T10:00:00Z\ne: 00000000-5f3c-4b7a\nf: {}\ng: []\n",
            "a: x # y\nb: x#y\nc: http://x/y\n\"d\": 1\n'e/f': 2\r\n",
        ] {
            assert!(check(text), "{text}");
        }
    }

    #[test]
    fn what_is_doubtful_is_left_to_the_other() {
        for text in [
            "a: 0755",
            "a: 1e5",
            "a: 0x1f",
            "a: 1.5",
            "a: yes",
            "a: On",
            "a: &x 1\nb: *x",
            "a: !!str 1",
            "a: >\n  x\n  y",
            "a: x\n  y",
            "a: \"x\\n\"",
            "a: 'it''s'",
            "? a\n: b",
            "a:",
            "a:\n\tb: 1",
            "<<: {a: 1}",
            "a: [1,\n 2]",
            "a: x: y",
            "a: .inf",
            "a: -1",
            "a: 12:30:45",
            "a: 1_000",
            "a: @x",
            "a: {b: }",
            "a: {b}",
            "a: [b,]",
            "1: 2",
            "a: |\n\n  x",
            "a: |2\n  x",
            "a: |+\n  x\n\n",
            "- a\n b: c",
            "a: 1\n  b: 2",
            "text",
        ] {
            assert!(!check(text), "{text}");
        }
    }

    mod generated {
        use proptest::prelude::*;

        /// Lines put together from what YAML is made of, most of them nonsense.
        fn text() -> impl Strategy<Value = String> {
            let piece = prop::sample::select(vec![
                "a", "b: ", "c:", "- ", "  ", "    ", "\n", "\n  ", "\n    ", "\n- ", "\n  - ", "'x'", "\"y\"", "[",
                "]", "{", "}", ", ", ": ", "#", " # ", "1", "0", ".", "-", "/", "e", "true", "~", "|", "|-", "\n\n",
                "&", "*a", "ä", "_", "10.0.0.1", "x y",
            ]);
            prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
            #[test]
            fn both_readers_agree(text in text()) {
                super::check(&text);
            }
        }
    }
}
