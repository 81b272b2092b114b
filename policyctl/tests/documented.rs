//! What the documentation promises: the commands of `docs/policyctl.md` run, and every JSON answer is as its schema in
//! `docs/schema/` says.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

fn policyctl(args: &str) -> (String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(args.split_whitespace())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
        .env_remove("POLICYCTL_NAMESPACE")
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn docs(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(path)).unwrap()
}

#[test]
fn the_walkthrough_runs() {
    let text = docs("policyctl.md");
    let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("$ policyctl ")).collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let (said, status) = policyctl(command);
        let finds = ["diff", "lint", "test"].iter().any(|name| command.starts_with(name));
        assert_eq!(status, i32::from(finds), "{command}: {said}");
        assert!(said.lines().count() > 0, "{command}");
    }
}

#[test]
fn answers_are_as_their_schemas_say() {
    for (kind, command) in [
        ("Explanation", "explain -f k8s shop/deploy/web shop/db-0:5432"),
        ("Explanation", "explain -f k8s shop/deploy/wbe shop/db-0:5432"),
        ("Explanation", "explain -f k8s shop/cache-0 pay/api-0:8443"),
        ("Explanation", "explain -f k8s web/front-0 shop/cache-0:6379"),
        ("Explanation", "explain -f k8s shop/deploy/web shop/sts/db"),
        ("Explanation", "explain -f k8s shop/deploy/web shop/sts/db:5432"),
        ("Explanation", "explain -f k8s shop/deploy/web shop/svc/db:80"),
        ("Explanation", "explain -f k8s -f host k8s/ingress-y pay/api-0:8443"),
        ("Explanation", "explain -f k8s world shop/db-0:icmp"),
        ("Explanation", "explain -f smells a/dns a/dns:53"),
        ("Can", "can -f k8s shop/deploy/wbe shop/sts/db:9187"),
        ("Reach", "reach -f k8s shop/cache-0"),
        ("Who", "who -f k8s shop/sts/db:5432"),
        ("EffectivePolicy", "effective -f k8s shop/db-0"),
        ("ConnectionList", "list -f k8s"),
        ("Matrix", "matrix -f k8s -f host --ports TCP/80,UDP/53 --ip out=8.8.8.8 --ip six=2001:db8::1"),
        ("Exposure", "exposure -f k8s"),
        ("Diff", "diff k8s new"),
        ("LintReport", "lint -f k8s"),
        ("TestReport", "test -f k8s shop.test.yaml"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
            .args(command.split(' ').chain(["-o", "json"]))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let schema: Value = serde_json::from_str(&docs(&format!("schema/{kind}.json"))).unwrap();
        let mut wrong = Vec::new();
        Checker { root: &schema, wrong: &mut wrong }.check(&schema, &answer, "$");
        assert!(wrong.is_empty(), "{command}: {wrong:#?}");
    }
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
        let mut wrong = Vec::new();
        Checker { root: &schema, wrong: &mut wrong }.check(&schema, &answer, "$");
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
