//! Templates filled in: [`Template::fill`]. What is not there is empty, as `kubectl` has it; only an index out of bounds
//! is an error.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Comparison, Filter, Operand, Part, Path, Slice, Step, Template};

impl Template {
    /// The text for a document.
    pub(crate) fn fill(&self, root: &Value) -> Result<String, String> {
        let mut text = String::new();
        fill(&self.parts, root, root, &mut text)?;
        Ok(text)
    }
}

fn fill(parts: &[Part], root: &Value, current: &Value, text: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Path(path) => {
                let values = path.values(root, current)?;
                let written: Vec<_> = values.into_iter().map(written).collect();
                text.push_str(&written.join(" "));
            }
            Part::Range(path, parts) => {
                for value in path.values(root, current)? {
                    fill(parts, root, value, text)?;
                }
            }
        }
    }
    Ok(())
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Path {
    fn values<'a>(&self, root: &'a Value, current: &'a Value) -> Result<Vec<&'a Value>, String> {
        walk(&self.steps, root, vec![if self.from_root { root } else { current }])
    }
}

fn walk<'a>(steps: &[Step], root: &'a Value, mut values: Vec<&'a Value>) -> Result<Vec<&'a Value>, String> {
    for step in steps {
        values = taken(step, root, &values)?;
    }
    Ok(values)
}

fn taken<'a>(step: &Step, root: &'a Value, values: &[&'a Value]) -> Result<Vec<&'a Value>, String> {
    let mut next = Vec::new();
    match step {
        Step::Field(name) => next.extend(values.iter().filter_map(|value| value.as_object()?.get(name))),
        Step::All => values.iter().for_each(|value| next.extend(elements(value))),
        Step::Descend => values.iter().for_each(|value| descend(value, &mut next)),
        Step::Slice(slice) => {
            for list in values.iter().filter_map(|value| value.as_array()) {
                next.extend(slice.of(list)?);
            }
        }
        Step::Inner(steps) => next = walk(steps, root, values.to_vec())?,
        Step::Union(steps) => {
            for step in steps {
                next.extend(taken(step, root, values)?);
            }
        }
        Step::Filter(filter) => {
            next.extend(values.iter().flat_map(|value| elements(value)).filter(|element| filter.holds(root, element)));
        }
    }
    Ok(next)
}

fn elements(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A value and everything in it, outer ones first. The depth is that of our own answers.
fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    elements(value).for_each(|inner| descend(inner, found));
}

impl Slice {
    fn of(self, list: &[Value]) -> Result<Vec<&Value>, String> {
        let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
        let place = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
        let at = |index: i64| usize::try_from(index).ok().and_then(|index| list.get(index));
        match self {
            Self::One(index) => match at(place(index)) {
                Some(value) => Ok(vec![value]),
                None => Err(format!("[{index}] is out of bounds: there are {length} elements")),
            },
            Self::Range { from, to, step } => {
                let from = place(from.unwrap_or(0)).clamp(0, length);
                let to = place(to.unwrap_or(length)).clamp(0, length);
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                Ok((from..to).step_by(step).filter_map(at).collect())
            }
        }
    }
}

impl Filter {
    fn holds(&self, root: &Value, element: &Value) -> bool {
        // that something is not there is no error here
        let find = |operand: &Operand| match operand {
            Operand::Value(value) => Some(value.clone()),
            Operand::Path(path) => path.values(root, element).ok()?.first().map(|value| (*value).clone()),
        };
        let Some((comparison, right)) = &self.compared else { return find(&self.left).is_some() };
        let (Some(left), Some(right)) = (find(&self.left), find(right)) else { return false };
        let ordering = match (&left, &right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) => (left == right).then_some(Ordering::Equal),
        };
        match comparison {
            Comparison::Equal => ordering == Some(Ordering::Equal),
            Comparison::Unequal => ordering != Some(Ordering::Equal),
            Comparison::Less => ordering == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => ordering == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}
