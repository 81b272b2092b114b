//! YAML to [`Node`]s: one document at a time, so that a broken one takes no other with it.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::tree::{Entry, Node, Unreadable, Value};
use crate::cluster::Position;

/// The text of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// The line at which it begins, from 1.
    pub(super) line: u32,
    pub(super) text: &'a str,
}

/// Splits at the lines that YAML reserves for it: `---` begins a document, `...` ends one (YAML 1.2.2 section 9.1.2).
/// They can't occur within a value. What precedes the first `---`, or follows a `...`, is a document only if it has
/// content; directives belong to the document after them.
pub(super) const fn documents(text: &str) -> Documents<'_> {
    Documents { text, begin: (0, 1), next: (0, 1), explicit: false, ended: false }
}

/// One document after the other.
pub(super) struct Documents<'a> {
    text: &'a str,
    /// Offset and line at which the document begins that is being looked for.
    begin: (usize, u32),
    /// Offset and line up to which the text was looked at.
    next: (usize, u32),
    /// It began with a `---`.
    explicit: bool,
    ended: bool,
}

impl<'a> Iterator for Documents<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        while let Some((offset, line, content)) = self.line() {
            let begins = is_marker(content, "---");
            if !begins && !is_marker(content, "...") {
                continue;
            }
            let before = Chunk { line: self.begin.1, text: &self.text[self.begin.0..offset] };
            let counts = self.explicit || has_content(before.text);
            if !begins {
                self.begin = self.next;
            } else if counts || !has_directive(before.text) {
                self.begin = (offset, line);
            }
            self.explicit = begins;
            if counts {
                return Some(before);
            }
        }
        let rest = Chunk { line: self.begin.1, text: &self.text[self.begin.0..] };
        let counts = !std::mem::replace(&mut self.ended, true) && (self.explicit || has_content(rest.text));
        counts.then_some(rest)
    }
}

impl<'a> Documents<'a> {
    /// The next line, with its offset and its number.
    fn line(&mut self) -> Option<(usize, u32, &'a str)> {
        let (offset, line) = self.next;
        let rest = self.text.get(offset..).filter(|rest| !rest.is_empty())?;
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.next = (offset + end, line.saturating_add(1));
        Some((offset, line, &rest[..end]))
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(text: &str) -> bool {
    text.lines().any(|line| !matches!(line.trim_start().as_bytes().first(), None | Some(b'#' | b'%')))
}

fn has_directive(text: &str) -> bool {
    text.lines().any(|line| line.starts_with('%'))
}

/// Reads one document. Aliases are followed up to a limit that no manifest needs and no bomb survives.
pub(super) fn read(chunk: Chunk<'_>) -> Result<Node<'static>, Unreadable> {
    let size = chunk.text.len();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            // Every event and node of the text itself takes a byte of it at least; what aliases add is limited below.
            max_events: size + MAX_REPLAYED_EVENTS,
            max_nodes: size + MAX_REPLAYED_EVENTS,
            max_total_scalar_bytes: size + MAX_ALIASED_BYTES,
            max_total_comment_bytes: size + MAX_ALIASED_BYTES,
            max_buffered_comment_events: size,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED_EVENTS,
        },
        // A repeated key is reported with its path, when the object is known.
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        // As YAML 1.1, which kubectl speaks, has it: 0755 is octal.
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let node = serde_saphyr::from_str_with_options::<Spanned<YamlValue>>(chunk.text, options).map_err(|error| {
        let at = position(error.location().unwrap_or(Location::UNKNOWN), chunk.line);
        Unreadable { at, message: without_place(&error.without_snippet().to_string()) }
    })?;
    Ok(into_node(node, chunk.line))
}

/// What all aliases of a document together may add to it: parser events and bytes.
const MAX_REPLAYED_EVENTS: usize = 100_000;
const MAX_ALIASED_BYTES: usize = 16 << 20;

/// The first line, without the line and column in the document, since those in the file are told instead.
fn without_place(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.split(" at line ").next().unwrap_or_default().to_owned()
}

/// The position in the file of a location in a document that begins at `line`.
fn position(location: Location, line: u32) -> Position {
    let within = u32::try_from(location.line()).unwrap_or(u32::MAX).max(1);
    let column = u32::try_from(location.column()).unwrap_or(u32::MAX).max(1);
    Position { line: line.saturating_add(within - 1), column }
}

fn into_node(node: Spanned<YamlValue>, line: u32) -> Node<'static> {
    let value = match node.value {
        YamlValue::Plain(value) => value,
        YamlValue::List(elements) => Value::List(elements.into_iter().map(|node| into_node(node, line)).collect()),
        YamlValue::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, _)| Entry {
                key: key.value.into(),
                at: position(key.referenced, line),
                value: into_node(value, line),
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { at: position(node.referenced, line), value }
}

enum YamlValue {
    Plain(Value<'static>),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = YamlValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(i64::try_from(value).map_or(Value::BigInt(value), Value::Int)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Text(value.to_owned().into())))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Text(value.into())))
    }

    fn visit_unit<E: Error>(self) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<YamlValue, E> {
        Ok(YamlValue::Plain(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<YamlValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<YamlValue, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(YamlValue::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<YamlValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(YamlValue::Map(entries))
    }
}
