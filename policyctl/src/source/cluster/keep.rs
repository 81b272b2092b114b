//! What is kept of an object that the API server sends: [`Keep`] names the fields that verdicts depend on, and
//! everything else (`managedFields`, environment variables, most of a pod) is skipped in the text and never held.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Which part of a value is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    /// All of it.
    All,
    /// These fields of an object.
    Fields(&'static [(&'static str, Self)]),
    /// This part of each element of a list.
    Each(&'static Self),
    /// Annotations that are ours; those of others may be large, or hold secrets.
    OwnAnnotations,
}

/// What our annotations begin with.
const OWN: &str = "sluice.dev/";

impl Keep {
    /// What is kept of a field; `None` if nothing is.
    fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Fields(fields) => fields.iter().find(|(field, _)| *field == name).map(|(_, keep)| *keep),
            Self::Each(_) => None,
            Self::OwnAnnotations => name.starts_with(OWN).then_some(Self::All),
        }
    }

    const fn element(self) -> Self {
        match self {
            Self::Each(element) => *element,
            other => other,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What is not of the shape that was expected is kept, so that its reader can say so.
impl<'de> Visitor<'de> for Keep {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element_seed(self.element())? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let Some(keep) = self.field(&key) else {
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = access.next_value_seed(keep)?;
            // what is absent is written as null in places
            let is_empty = matches!(keep, Self::OwnAnnotations) && value.as_object().is_some_and(Map::is_empty);
            if !value.is_null() && !is_empty {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_named_is_not_kept() {
        const KEEP: Keep = Keep::Fields(&[
            ("a", Keep::All),
            ("b", Keep::Each(&Keep::Fields(&[("c", Keep::All)]))),
            ("annotations", Keep::OwnAnnotations),
            ("none", Keep::All),
        ]);
        let text = json!({
            "a": {"x": [1, -2, 1.5, true]}, "b": [{"c": "d", "env": "secret"}, 7], "none": null,
            "annotations": {"sluice.dev/audit": "true", "other": "secret"}, "secret": {"c": "secret"},
        })
        .to_string();
        let kept = KEEP.deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap();
        let expected = json!({
            "a": {"x": [1, -2, 1.5, true]}, "b": [{"c": "d"}, 7], "annotations": {"sluice.dev/audit": "true"},
        });
        assert_eq!(kept, expected);
    }
}
