//! What the plain reader takes, and that it takes it as the other one does.

use super::read;
use crate::files::yaml;

/// What this reader takes, the other reads the same.
#[track_caller]
fn check(text: &str) -> bool {
    let mut all = true;
    for chunk in yaml::documents(text) {
        match read(chunk) {
            Some(node) => assert_eq!(Ok(node), yaml::read(chunk), "{text}"),
            None => all = false,
        }
    }
    all
}

#[test]
fn what_is_plain_is_read_here() {
    for text in [
        "a: 1\nb:\n- c\n- d: {e: [f, 'g h', \"i\"], j: 10.0.0.0/8}\n  k: true\nl:\n  - m: null\n",
        "--- # comment\n# another\na: |\n  x\n   y\n\n  z\nb: |-\n  {\"q\": 1}\nc: 'it: # no comment' # but this\n",
        "a:\n- - 1\n  - 2\n- - 3\n",
        "a: 500m\nb: 1Gi\nc: 7d9f8c6b5\nd: 2026-11-21T10:00:00Z\ne: 00000000-5f3c-4b7a\nf: {}\ng: []\n",
        "a: 'it''s'\nb: \"x\\n\\\"y\\\"\\\\ \\/\"\nc: ['', '''', \"\", \"\\t\"]\n",
        "a: x # y\nb: x#y\nc: http://x/y\n\"d\": 1\n'e/f': 2\r\n",
    ] {
        assert!(check(text), "{text}");
    }
}

#[test]
fn what_is_doubtful_is_left_to_the_other() {
    for text in [
        "a: 0755",
        "a: 1e5",
        "a: 0x1f",
        "a: 1.5",
        "a: yes",
        "a: On",
        "a: &x 1\nb: *x",
        "a: !!str 1",
        "a: >\n  x\n  y",
        "a: x\n  y",
        "a: \"x\\u0041\"",
        "? a\n: b",
        "a:",
        "a:\n\tb: 1",
        "<<: {a: 1}",
        "a: [1,\n 2]",
        "a: x: y",
        "a: .inf",
        "a: -1",
        "a: 12:30:45",
        "a: 1_000",
        "a: @x",
        "a: {b: }",
        "a: {b}",
        "a: [b,]",
        "1: 2",
        "a: |\n\n  x",
        "a: |2\n  x",
        "a: |+\n  x\n\n",
        "- a\n b: c",
        "a: 1\n  b: 2",
        "text",
    ] {
        assert!(!check(text), "{text}");
    }
}

mod generated {
    use proptest::prelude::*;

    /// Lines put together from what YAML is made of, most of them nonsense.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a", "b: ", "c:", "- ", "  ", "    ", "\n", "\n  ", "\n    ", "\n- ", "\n  - ", "'x'", "\"y\"", "[", "]",
            "{", "}", ", ", ": ", "#", " # ", "1", "0", ".", "-", "/", "e", "true", "~", "|", "|-", "\n\n", "&", "*a",
            "ä", "_", "10.0.0.1", "x y",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn both_readers_agree(text in text()) {
            super::check(&text);
        }
    }
}
