//! A [`Node`] as an API object: a deserializer that knows the path and position of everything it reads, and notes
//! fields that the object's type doesn't have.

use std::{cell::RefCell, fmt, slice};

use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
};

use rustc_hash::FxHashMap;

use super::tree::{Entry, Node, Value};
use crate::{cluster::Position, diagnostic::FieldPath};

/// What was read over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Oddity {
    pub(super) field: String,
    pub(super) at: Position,
    pub(super) kind: OddityKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum OddityKind {
    /// The type has no field of this name; the nearest one it has, if there is one.
    Unknown(Option<&'static str>),
    /// The key was there before.
    Repeated,
}

impl fmt::Display for OddityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(None) => f.write_str("there is no such field; remove it, or move it to where it belongs"),
            Self::Unknown(Some(near)) => write!(f, "there is no such field; write {near}"),
            Self::Repeated => f.write_str("the field is there more than once; keep one"),
        }
    }
}

/// Why an object could not be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// Path and position, once they are known.
    pub(super) place: Option<(String, Position)>,
    pub(super) message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: None, message: message.to_string() }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = match &*expected.to_string() {
            "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "an integer".to_owned(),
            "a sequence" => "a list".to_owned(),
            other => other.to_owned(),
        };
        let hint = match unexpected {
            Unexpected::Bool(_) | Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_)
                if expected == "a string" =>
            {
                "; put it in quotes"
            }
            _ => "",
        };
        let unexpected = match unexpected {
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            Unexpected::Unit => "null".to_owned(),
            other => other.to_string(),
        };
        Self { place: None, message: format!("this should be {expected}, not {unexpected}{hint}") }
    }
}

/// Reads `node`, which is at `path`, as a `T`. Like the API server, it takes null for an absent value.
pub(super) fn read<T: de::DeserializeOwned>(
    node: &Node<'_>,
    path: &FieldPath<'_>,
    oddities: &mut Vec<Oddity>,
) -> Result<T, Failure> {
    let found = RefCell::new(Vec::new());
    let result = T::deserialize(Reader { node, path, found: &found });
    oddities.append(&mut found.into_inner());
    result
}

/// How many are noted of one object: whoever mends these will ask again.
pub(super) const MAX_ODDITIES: usize = 50;

/// Notes the keys of a map that `fields` doesn't have, or that are there twice.
pub(super) fn check_fields(
    node: &Node<'_>,
    fields: &'static [&'static str],
    path: &FieldPath<'_>,
    oddities: &mut Vec<Oddity>,
) {
    let entries = node.entries();
    for (index, entry) in entries.iter().enumerate() {
        if oddities.len() >= MAX_ODDITIES {
            break;
        }
        let kind = if !fields.contains(&&*entry.key) {
            OddityKind::Unknown(nearest(&entry.key, fields))
        } else if entries[..index].iter().any(|earlier| earlier.key == entry.key) {
            OddityKind::Repeated
        } else {
            continue;
        };
        oddities.push(Oddity { field: path.field(&entry.key).to_string(), at: entry.at, kind });
    }
}

/// The field that was probably meant: at most two letters off, or only off in case.
fn nearest(key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let key = key.to_ascii_lowercase();
    let distances = fields.iter().map(|field| (super::kinds::distance(&key, &field.to_ascii_lowercase()), *field));
    distances.filter(|(distance, field)| *distance <= 2 && *distance < field.len()).min().map(|(_, field)| field)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node<'a>,
    path: &'a FieldPath<'a>,
    found: &'a RefCell<Vec<Oddity>>,
}

impl<'a> Reader<'a> {
    fn placed<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.map_err(|failure| match failure.place {
            Some(_) => failure,
            None => Failure { place: Some((self.path.to_string(), self.node.at)), ..failure },
        })
    }

    fn list<'de, V: Visitor<'de>>(self, elements: &'a [Node<'a>], visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(Elements { of: self, rest: elements.iter().enumerate() })
    }

    fn map<'de, V: Visitor<'de>>(
        self,
        entries: &'a [Entry<'a>],
        is_struct: bool,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        // to look through all later entries for each one takes too long where there are many
        let many = !is_struct && entries.len() > 16;
        let mut counts = FxHashMap::default();
        entries.iter().filter(|_| many).for_each(|entry| *counts.entry(&*entry.key).or_insert(0) += 1);
        let counts = many.then_some(counts);
        visitor.visit_map(Entries { of: self, rest: entries.iter(), value: None, is_struct, counts })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.placed(match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::BigInt(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(elements) => self.list(elements, visitor),
            Value::Map(entries) => self.map(entries, false, visitor),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.placed(match &self.node.value {
            Value::Null => self.map(&[], true, visitor),
            Value::Map(entries) => {
                check_fields(self.node, fields, self.path, &mut self.found.borrow_mut());
                self.map(entries, true, visitor)
            }
            _ => self.deserialize_any(NotAMap).map(|never: std::convert::Infallible| match never {}),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        self.placed(visitor.visit_newtype_struct(self))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// Fails on whatever isn't a map, saying what it is.
struct NotAMap;

impl Visitor<'_> for NotAMap {
    type Value = std::convert::Infallible;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }
}

struct Elements<'a> {
    of: Reader<'a>,
    rest: std::iter::Enumerate<slice::Iter<'a, Node<'a>>>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let path = self.of.path.index(index);
        seed.deserialize(Reader { node, path: &path, found: self.of.found }).map(Some)
    }
}

struct Entries<'a> {
    of: Reader<'a>,
    rest: slice::Iter<'a, Entry<'a>>,
    value: Option<&'a Entry<'a>>,
    is_struct: bool,
    /// How often each key is still to come, where there are many.
    counts: Option<FxHashMap<&'a str, usize>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        self.value = self.rest.next();
        self.value.map(|entry| seed.deserialize((&*entry.key).into_deserializer())).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Failure> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = self.of.path;
        let path = if self.is_struct { path.field(&entry.key) } else { path.key(&entry.key) };
        if !self.is_struct {
            self.note_repetition(entry, &path);
        }
        seed.deserialize(Reader { node: &entry.value, path: &path, found: self.of.found })
    }
}

impl Entries<'_> {
    fn note_repetition(&mut self, entry: &Entry<'_>, path: &FieldPath<'_>) {
        let comes_again = match &mut self.counts {
            Some(counts) => counts.get_mut(&*entry.key).is_some_and(|count| {
                *count -= 1;
                *count > 0
            }),
            None => self.rest.as_slice().iter().any(|later| later.key == entry.key),
        };
        let mut found = self.of.found.borrow_mut();
        if comes_again && found.len() < MAX_ODDITIES {
            found.push(Oddity { field: path.to_string(), at: entry.at, kind: OddityKind::Repeated });
        }
    }
}
