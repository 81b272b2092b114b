//! What stands on one line: keys, scalars, `[…]` and `{…}`.

use std::borrow::Cow;

use super::Line;
use crate::files::tree::{Entry, Node, Value};

pub(super) fn is_blank(text: &str) -> bool {
    text.is_empty() || text.starts_with('#')
}

/// What may follow a value.
pub(super) fn is_comment(text: &str) -> bool {
    let content = text.trim_start_matches(' ');
    content.is_empty() || (content.len() < text.len() && content.starts_with('#'))
}

/// The key that a line begins with, and what follows its colon. Not a key that is a word of another type, or merges.
pub(super) fn key(text: &str) -> Option<(&str, &str)> {
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
pub(super) struct Flow<'a> {
    pub(super) rest: &'a str,
    pub(super) line: Line<'a>,
}

impl<'a> Flow<'a> {
    pub(super) fn node(&mut self, depth: usize, nested: bool) -> Option<Node<'a>> {
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

    fn list(&mut self, depth: usize) -> Option<Value<'a>> {
        self.skip(1);
        let mut elements = Vec::new();
        while !self.rest.starts_with(']') {
            elements.push(self.node(depth, true)?);
            self.separator(b']')?;
        }
        self.rest = &self.rest[1..];
        Some(Value::List(elements))
    }

    fn map(&mut self, depth: usize) -> Option<Value<'a>> {
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
            entries.push(Entry { key: name.into(), at, value });
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

    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        if self.rest.starts_with('"') { self.double_quoted() } else { self.single_quoted() }
    }

    /// `''` is an escape.
    fn single_quoted(&mut self) -> Option<Cow<'a, str>> {
        let text = &self.rest[1..];
        let mut end = text.find('\'')?;
        let mut escapes = false;
        while text[end + 1..].starts_with('\'') {
            escapes = true;
            end += 2 + text[end + 2..].find('\'')?;
        }
        self.rest = &text[end + 1..];
        let text = &text[..end];
        Some(if escapes { text.replace("''", "'").into() } else { text.into() })
    }

    /// With the escapes of JSON that stand for one letter; others are left to the other reader.
    fn double_quoted(&mut self) -> Option<Cow<'a, str>> {
        let text = &self.rest[1..];
        let mut end = text.find(['"', '\\'])?;
        if text[end..].starts_with('"') {
            self.rest = &text[end + 1..];
            return Some(text[..end].into());
        }
        let mut unescaped = text[..end].to_owned();
        while text[end..].starts_with('\\') {
            unescaped.push(match text.as_bytes().get(end + 1)? {
                b'n' => '\n',
                b't' => '\t',
                b'r' => '\r',
                same @ (b'"' | b'\\' | b'/') => char::from(*same),
                _ => return None,
            });
            let next = end + 2 + text[end + 2..].find(['"', '\\'])?;
            unescaped.push_str(&text[end + 2..next]);
            end = next;
        }
        self.rest = &text[end + 1..];
        Some(unescaped.into())
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
fn scalar(text: &str) -> Option<Value<'_>> {
    match text {
        "null" | "~" => return Some(Value::Null),
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ if is_special(text) => return None,
        _ => {}
    }
    let is_text = || Some(Value::Text(text.into()));
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
