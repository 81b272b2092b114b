//! What YAML and JSON have in common: a [`Node`] of a document, with its position in the file.

use std::borrow::Cow;

use crate::cluster::Position;

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node<'a> {
    pub(super) at: Position,
    pub(super) value: Value<'a>,
}

/// The values of JSON, which are all that a manifest may hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    BigInt(u64),
    Float(f64),
    /// A part of the file, wherever it stands there as it is.
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    /// In the order of the file; a key may be there twice.
    Map(Vec<Entry<'a>>),
}

/// An entry of a [`Value::Map`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    /// The key's position.
    pub(super) at: Position,
    pub(super) value: Node<'a>,
}

/// A document that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unreadable {
    pub(super) at: Position,
    pub(super) message: String,
}

impl<'a> Node<'a> {
    /// The last entry of this key, if this is a map: where a key is repeated, decoders let the last one count.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().rfind(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The text under this key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries, if this is a map.
    pub(super) fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements, if this is a list.
    pub(super) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::List(elements) => elements,
            _ => &[],
        }
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
}
