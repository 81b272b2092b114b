//! Answers against their schemas in `docs/schema/`: [`faults`].

use std::{fs, path::Path};

use serde_json::Value;

/// What is wrong with an answer of this kind.
pub(crate) fn faults(kind: &str, answer: &Value) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schema/{kind}.json"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    faults_of(&schema, answer)
}

fn faults_of(schema: &Value, answer: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    Checker { root: schema, wrong: &mut wrong }.check(schema, answer, "$");
    wrong
}

#[test]
fn the_checker_finds_faults() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"enum": [1, 2]}, "b": {"type": "array", "items": {"$ref": "#/$defs/c"}}},
        "$defs": {"c": {"type": "string", "pattern": "^[.EIB=~-]*$"}},
    });
    for (answer, faults) in [
        (serde_json::json!({"a": 1, "b": ["..E"]}), 0),
        (serde_json::json!({"b": []}), 1),
        (serde_json::json!({"a": 3, "b": [7, "x"], "c": 1}), 5),
    ] {
        let wrong = faults_of(&schema, &answer);
        assert_eq!(wrong.len(), faults, "{wrong:?}");
    }
}

/// The part of JSON Schema that our schemas use; whatever else they come to use is a fault too.
struct Checker<'a> {
    root: &'a Value,
    wrong: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, schema: &Value, value: &Value, path: &str) {
        for (keyword, wanted) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "additionalProperties" => {}
                "$ref" => {
                    let target = self.root.pointer(wanted.as_str().unwrap().trim_start_matches('#')).unwrap();
                    self.check(target, value, path);
                }
                "type" => {
                    let is = |name: &Value| match name.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "integer" => value.is_i64() || value.is_u64(),
                        "boolean" => value.is_boolean(),
                        "null" => value.is_null(),
                        other => panic!("type {other}"),
                    };
                    let fits = wanted.as_array().map_or_else(|| is(wanted), |all| all.iter().any(is));
                    self.expect(fits, path, &format!("{value} is no {wanted}"));
                }
                "const" => self.expect(value == wanted, path, &format!("{value} is not {wanted}")),
                "enum" => {
                    let known = wanted.as_array().unwrap();
                    self.expect(known.contains(value), path, &format!("{value} not in {wanted}"));
                }
                "oneOf" => {
                    let fits = |schema: &Value| {
                        let mut wrong = Vec::new();
                        Checker { root: self.root, wrong: &mut wrong }.check(schema, value, path);
                        wrong.is_empty()
                    };
                    let count = wanted.as_array().unwrap().iter().filter(|schema| fits(schema)).count();
                    self.expect(count == 1, path, &format!("{value} fits {count} of {wanted}"));
                }
                "pattern" => {
                    let text = value.as_str().unwrap_or("x");
                    let fits = match wanted.as_str().unwrap() {
                        "^[.EIB=~-]*$" => text.chars().all(|letter| ".EIB=~-".contains(letter)),
                        "^[.EIB=~X?-]*$" => text.chars().all(|letter| ".EIB=~X?-".contains(letter)),
                        "^NP[0-9]{3}$" => text.strip_prefix("NP").is_some_and(|rest| rest.len() == 3),
                        other => panic!("pattern {other}"),
                    };
                    self.expect(fits, path, &format!("{value} is not {wanted}"));
                }
                "required" => {
                    for field in wanted.as_array().unwrap() {
                        self.expect(value.get(field.as_str().unwrap()).is_some(), path, &format!("no {field}"));
                    }
                }
                "properties" => self.fields(schema, wanted, value, path),
                "items" => {
                    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, element, &format!("{path}[{index}]"));
                    }
                }
                other => panic!("keyword {other}"),
            }
        }
    }

    fn fields(&mut self, schema: &Value, properties: &Value, value: &Value, path: &str) {
        for (field, inner) in value.as_object().into_iter().flatten() {
            match properties.get(field) {
                Some(schema) => self.check(schema, inner, &format!("{path}.{field}")),
                None => self.expect(schema["additionalProperties"] != false, path, &format!("{field} is unknown")),
            }
        }
    }

    fn expect(&mut self, fits: bool, path: &str, message: &str) {
        if !fits {
            self.wrong.push(format!("{path}: {message}"));
        }
    }
}
