//! Every command in every format: what it prints, to the letter, or that it doesn't speak it. Pictures are to the letter in
//! `golden.rs`.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod said;

use std::process::Command;

use serde_json::Value;

const OUTPUTS: [&str; 16] = [
    "text",
    "wide",
    "json",
    "yaml",
    "jsonl",
    "name",
    "jsonpath={.kind}",
    "csv",
    "md",
    "junit",
    "tap",
    "sarif",
    "html",
    "svg",
    "dot",
    "mermaid",
];

fn ask(args: &str, output: &str) -> said::Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    command
        .args(args.split(' '))
        .args(["-o", output])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
        .env_remove("POLICYCTL_NAMESPACE");
    said::said(command)
}

/// Whether it is well-formed.
fn is_sound(output: &str, text: &str) -> bool {
    let is_table = |cells: fn(&str) -> usize| {
        let mut widths = text.lines().map(cells);
        let first = widths.next();
        widths.all(|width| Some(width) == first)
    };
    match output {
        "json" | "sarif" => serde_json::from_str::<Value>(text).is_ok(),
        "yaml" => serde_saphyr::from_str::<Value>(text).is_ok(),
        "jsonl" => text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        // a comma or a bar in a cell is quoted
        "csv" => is_table(|line| line.split('"').step_by(2).map(|plain| plain.matches(',').count()).sum()),
        "md" => is_table(|line| line.replace("\\|", "").matches('|').count()),
        "tap" => text.starts_with("TAP version 13\n1.."),
        "junit" => text.starts_with("<?xml ") && text.trim_end().ends_with("</testsuites>"),
        "html" => text.starts_with("<!DOCTYPE html>") && text.trim_end().ends_with("</html>"),
        "svg" => text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"),
        "dot" => text.starts_with("digraph ") && text.trim_end().ends_with('}'),
        "mermaid" => text.starts_with("flowchart "),
        _ => true,
    }
}

/// A question in all formats. What it answers and its exit status don't depend on them.
#[track_caller]
fn check(name: &str, args: &str) {
    let status = ask(args, "text").status;
    let mut all = format!("$ policyctl {args}\n");
    for output in OUTPUTS {
        let said = ask(args, output);
        all.push_str(&format!("\n=== -o {output}\n"));
        if said.status == status {
            assert!(is_sound(output, &said.stdout), "-o {output} is not well-formed: {:.200}", said.stdout);
            let is_drawn = matches!(output, "html" | "svg");
            all.push_str(if is_drawn { "(drawn)\n" } else { &said.stdout });
        } else {
            assert_eq!(
                (said.status, said.stdout.as_str()),
                (2, ""),
                "-o {output} is spoken, or a wrong use: {}",
                said.stderr
            );
            all.push_str(&said.stderr);
        }
    }
    let value = |output| ask(args, output).stdout;
    let from_json: Value = serde_json::from_str(&value("json")).expect("it is sound");
    let from_yaml: Value = serde_saphyr::from_str(&value("yaml")).expect("it is sound");
    assert_eq!(from_json, from_yaml, "one answer in two notations");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(format!("formats_{name}"), all);
    });
}

macro_rules! in_all_formats {
    ($($name:ident: $args:literal)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), $args);
        })*
    };
}

in_all_formats! {
    explain: "explain -f k8s shop/deploy/wbe shop/db-0:5432"
    explain_many: "explain -f k8s shop/deploy/web shop/sts/db"
    can: "can -f k8s shop/deploy/wbe shop/sts/db:9187"
    reach: "reach -f k8s shop/cache-0"
    who: "who -f k8s shop/sts/db:5432"
    effective: "effective -f k8s shop/cache-0"
    list: "list -f k8s -n web"
    matrix: "matrix -f k8s -n pay --ports TCP/8443 --no-nodes --ip out=8.8.8.8"
    graph: "graph -f k8s"
    graph_focus: "graph -f k8s --focus shop/cache-0"
    exposure: "exposure -f k8s"
    diff: "diff k8s new"
    lint: "lint -f k8s"
    test: "test -f k8s shop.test.yaml"
    conformance: "conformance cases-off/differs"
}
