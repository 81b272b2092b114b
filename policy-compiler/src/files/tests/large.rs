//! Files that are large, or made to be hard to read: what they cost stays in proportion.

use super::{check, check_bytes, names};
use crate::files::{MAX_DIAGNOSTICS, parse, pieces::MAX_OBJECT, read::MAX_ODDITIES};

/// A list as `kubectl` prints it, whose second element is broken.
const LIST: &str = "apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    annotations:
      script: |
        - apiVersion: v1
    name: a
- apiVersion: v1
  kind: Pod
  metadata: {name: b
- apiVersion: v1
  kind: Pod
  metadata:
    name: c
    colour: red
kind: List
metadata:
  resourceVersion: \"\"
";

#[test]
fn a_broken_element_takes_no_other_with_it() {
    let expected = [
        "f.yaml:12:13: error: document 1: unclosed bracket '{'",
        "f.yaml:17:5: warning: document 1: Pod default/c: metadata.colour: there is no such field; remove it, or move it \
         to where it belongs",
    ];
    assert_eq!(names(&check(LIST, &expected)), "ns default pod default/a pod default/c");
}

/// What is a text to YAML is no object, even where a line of it looks like an element.
#[test]
fn text_that_looks_like_an_element_is_none() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  data: {x: \"\n- apiVersion: v1\n  \
                kind: Pod\n  metadata: {name: hidden}\n  # \"}\n";
    let parsed = parse("f.yaml", text.as_bytes());
    assert!(!parsed.diagnostics.is_empty(), "a file that hides an object is never read without a word");
}

#[test]
fn an_element_of_json_is_as_deep_as_a_document() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let text = format!(
        r#"{{"items": [{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "a"}}}}, {deep}, {{"metadata": {{"name": "b"}}}}],
            "apiVersion": "v1", "kind": "PodList"}}"#
    );
    let expected = ["f.json:1:140: error: document 1: nested more than 64 deep"];
    assert_eq!(names(&check_bytes("f.json", text.as_bytes(), &expected)), "ns default pod default/a pod default/b");
}

#[test]
fn an_object_that_is_too_large_is_refused() {
    let long = "x".repeat(MAX_OBJECT);
    let said = "one object of more than 4 MB, which no API server would take; write lists with each item on lines of its \
                own, as kubectl prints them, and objects as documents of their own, with --- between them";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    let text = format!("{pod}---\napiVersion: v1\nkind: ConfigMap\ndata: {{a: {long}}}\n---\n{pod}");
    check(
        &text.replace("name: a}\n---\napiVersion: v1\nkind: C", "name: b}\n---\napiVersion: v1\nkind: C"),
        &[&format!("f.yaml:4:1: error: document 2: {said}")],
    );
    let text = format!(r#"{{"kind": "ConfigMap", "data": "{long}"}}"#);
    check_bytes("f.json", text.as_bytes(), &[&format!("f.json:1:1: error: document 1: {said}")]);
}

/// Lists are read element by element, so they may be larger than any object.
#[test]
fn a_large_list_is_read() {
    let element = "- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n  data:\n    x: ".to_owned();
    let text =
        format!("apiVersion: v1\nkind: List\nitems:\n{}", format!("{element}{}\n", "y".repeat(100_000)).repeat(50));
    assert!(text.len() > MAX_OBJECT);
    let parsed = parse("f.yaml", text.as_bytes());
    assert_eq!((parsed.diagnostics.len(), parsed.ignored["ConfigMap"]), (0, 50));
}

/// To compare each key with each other one would take minutes.
#[test]
fn many_keys_and_many_mistakes() {
    let keys: String = (0..200_000).map(|number| format!("    k{number}: v\n")).collect();
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n{keys}    k7: again\n");
    check(
        &text,
        &[
            "f.yaml:13:5: error: document 1: Pod default/a: metadata.annotations[k7]: the field is there more than once; keep \
         one; the object does not count until then",
        ],
    );
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n{}", keys.replace("    k", "k"));
    assert_eq!(parse("f.yaml", text.as_bytes()).diagnostics.len(), MAX_ODDITIES);

    let text = "---\nx\n".repeat(MAX_DIAGNOSTICS * 3);
    let parsed = parse("f.yaml", text.as_bytes());
    assert_eq!(parsed.diagnostics.len(), MAX_DIAGNOSTICS + 2);
    let last = parsed.diagnostics.last().map(ToString::to_string).unwrap_or_default();
    assert!(last.contains("more than 10000 mistakes; the rest of the file is not read"), "{last}");
}

/// What is read ahead comes in the order of the file, with its own numbers and lines.
#[test]
fn a_large_file_is_read_in_order() {
    let filler = "x".repeat(20_000);
    let pod = |number| {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p{number}\n  annotations: {{a: {filler}}}\n")
    };
    let text: String = (0..200).map(pod).collect();
    let parsed = parse("f.yaml", text.as_bytes());
    assert_eq!(parsed.diagnostics, []);
    let read: Vec<_> = parsed
        .objects
        .iter()
        .map(|located| {
            let place = &located.origin.place;
            (located.object.metadata().name.clone().unwrap_or_default(), place.document, place.line)
        })
        .collect();
    let expected: Vec<_> = (0..200).map(|number| (format!("p{number}"), number + 1, number * 6 + 2)).collect();
    assert_eq!(read, expected);
}

/// Nobody reads ahead what nobody takes any more.
#[test]
fn a_large_file_of_mistakes_is_not_read_to_its_end() {
    let parsed = parse("f.yaml", format!("---\nx: {}\n", "y".repeat(100)).repeat(MAX_DIAGNOSTICS * 3).as_bytes());
    assert_eq!(parsed.diagnostics.len(), MAX_DIAGNOSTICS + 2);
}
