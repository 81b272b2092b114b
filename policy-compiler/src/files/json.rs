//! JSON to [`Node`]s: one value after the other, as `kubectl` reads a stream of them.
//!
//! serde_json gives no positions, but it borrows: the part of the text that a value was read from tells where it is.

use serde::de::{Deserializer as _, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    kinds::{self, Said},
    pieces::{Each, MAX_OBJECT, Piece, too_large},
    tree::{Entry, Node, Unreadable, Value},
};
use crate::{cluster::Position, diagnostic::Kind};

/// Reads the values of `text`, which begins at `line` of its file, up to the first that can't be read. How many there
/// were, and why the next one can't be read.
pub(super) fn read<'a>(text: &'a str, line: u32, each: Each<'_, 'a>) -> (usize, Option<Unreadable>) {
    let lines = Lines::new(text, line);
    let mut count = 0;
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    loop {
        match stream.next() {
            None => return (count, None),
            Some(Ok(raw)) => match value(raw, &lines, each) {
                Ok(()) => count += 1,
                Err((error, raw)) => return (count, Some(lines.unreadable(&error, lines.offset(raw)))),
            },
            Some(Err(error)) => {
                // The stream counts lines from its own beginning, not from that of the value.
                return (count, Some(lines.unreadable(&error, 0)));
            }
        }
    }
}

/// A list element by element, anything else as a whole.
fn value<'a>(raw: &'a RawValue, lines: &Lines<'_>, each: Each<'_, 'a>) -> Result<(), Failure<'a>> {
    let text = raw.get();
    let shallow = serde_json::Deserializer::from_str(text).deserialize_any(ShallowVisitor);
    let Shallow::Map(entries) = shallow.map_err(|error| (error, text))? else {
        return whole(raw, lines).map(|node| each(Piece::Whole(node), text.len()));
    };
    let (items, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, ..)| key == "items");
    let kind = match &*items {
        [(_, _, items)] if items.get().starts_with('[') => list_kind(others, lines),
        _ => None,
    };
    let (Some(kind), [(_, _, items)]) = (kind, &*items) else {
        return whole(raw, lines).map(|node| each(Piece::Whole(node), text.len()));
    };
    let shallow = serde_json::Deserializer::from_str(items.get()).deserialize_any(ShallowVisitor);
    let Shallow::List(items) = shallow.map_err(|error| (error, items.get()))? else { return Ok(()) };
    each(Piece::List, 0);
    for item in items {
        let piece = match whole(item, lines) {
            Ok(node) => Piece::Item(kind, node),
            Err((error, raw)) => Piece::Broken(lines.unreadable(&error, lines.offset(raw))),
        };
        each(piece, item.get().len());
    }
    Ok(())
}

/// What the elements of a list are if they don't say themselves; nothing if these are no fields of a list.
#[expect(clippy::option_option, reason = "no list and a list of anything are different things")]
fn list_kind(fields: Vec<(String, &str, &RawValue)>, lines: &Lines<'_>) -> Option<Option<Kind>> {
    let mut entries = Vec::new();
    for (key, _, raw) in fields.into_iter().filter(|(key, ..)| matches!(&**key, "apiVersion" | "kind")) {
        let value = node(raw, lines, MAX_DEPTH).ok()?;
        entries.push(Entry { key: key.into(), at: value.at, value });
    }
    let header = Node { at: lines.position(0), value: Value::Map(entries) };
    match kinds::recognise(&header, None) {
        Said::List(kind) => Some(kind),
        _ => None,
    }
}

fn whole<'a>(raw: &'a RawValue, lines: &Lines<'_>) -> Result<Node<'a>, Failure<'a>> {
    if raw.get().len() > MAX_OBJECT {
        return Err((serde_json::Error::custom(too_large()), raw.get()));
    }
    node(raw, lines, MAX_DEPTH)
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    first: u32,
    begins: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str, first: u32) -> Self {
        let begins = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { text, first, begins }
    }

    /// The offset of a part of the text.
    fn offset(&self, part: &str) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).min(self.text.len())
    }

    fn position(&self, offset: usize) -> Position {
        let index = self.begins.partition_point(|begin| *begin <= offset).saturating_sub(1);
        let column = self.text.get(self.begins[index]..offset).map_or(0, |before| before.chars().count());
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Position { line: self.first.saturating_add(narrow(index)), column: narrow(column + 1) }
    }

    /// An error of serde_json while it read what begins at `offset`.
    fn unreadable(&self, error: &serde_json::Error, offset: usize) -> Unreadable {
        let begin = self.begins.partition_point(|begin| *begin <= offset).saturating_sub(1);
        let line = begin + error.line().saturating_sub(1);
        let on_first = if error.line() <= 1 { offset - self.begins[begin] } else { 0 };
        let line_begin = self.begins.get(line).copied().unwrap_or(self.text.len());
        let at = self.position((line_begin + on_first + error.column().saturating_sub(1)).min(self.text.len()));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Unreadable { at, message }
    }
}

type Failure<'a> = (serde_json::Error, &'a str);

/// How deep values may be nested, as in YAML.
const MAX_DEPTH: usize = 64;

/// The tree of a value, level by level: each level is read into its raw parts, which serde_json skips without a limit.
fn node<'a>(raw: &'a RawValue, lines: &Lines<'_>, depth: usize) -> Result<Node<'a>, Failure<'a>> {
    let text = raw.get();
    let Some(depth) = depth.checked_sub(1) else {
        return Err((serde_json::Error::custom(format_args!("nested more than {MAX_DEPTH} deep")), text));
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let shallow = deserializer.deserialize_any(ShallowVisitor).map_err(|error| (error, text))?;
    let value = match shallow {
        Shallow::Plain(value) => value,
        Shallow::List(elements) => {
            Value::List(elements.into_iter().map(|raw| node(raw, lines, depth)).collect::<Result<_, _>>()?)
        }
        Shallow::Map(entries) => {
            let entry = |(key, key_text, raw): (String, &str, _)| {
                Ok(Entry {
                    key: key.into(),
                    at: lines.position(lines.offset(key_text)),
                    value: node(raw, lines, depth)?,
                })
            };
            Value::Map(entries.into_iter().map(entry).collect::<Result<_, Failure<'a>>>()?)
        }
    };
    Ok(Node { at: lines.position(lines.offset(text)), value })
}

enum Shallow<'a> {
    Plain(Value<'a>),
    List(Vec<&'a RawValue>),
    /// Key, the key's own text, value.
    Map(Vec<(String, &'a str, &'a RawValue)>),
}

struct ShallowVisitor;

impl<'de> Visitor<'de> for ShallowVisitor {
    type Value = Shallow<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(Value::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(i64::try_from(value).map_or(Value::BigInt(value), Value::Int)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(Value::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(Value::Text(value.to_owned().into())))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(Value::Text(value.into())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Shallow::Plain(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Shallow::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<&RawValue, _>()? {
            let text = serde_json::from_str(key.get()).map_err(A::Error::custom)?;
            entries.push((text, key.get(), value));
        }
        Ok(Shallow::Map(entries))
    }
}
