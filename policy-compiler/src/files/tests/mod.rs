//! What becomes of files, good and bad.

mod large;

use std::fmt::Write as _;

use super::*;
use crate::model::Event;

/// Parses and assembles one file, and holds the diagnostics against `expected`, one a line.
#[track_caller]
fn check(text: &str, expected: &[&str]) -> Assembled {
    check_bytes("f.yaml", text.as_bytes(), expected)
}

#[track_caller]
fn check_bytes(name: &str, bytes: &[u8], expected: &[&str]) -> Assembled {
    let assembled = assemble([&parse(name, bytes)]);
    let found: Vec<_> = assembled.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{}", found.join("\n"));
    assembled
}

fn names(assembled: &Assembled) -> String {
    let cluster = &assembled.cluster;
    let mut text = String::new();
    for event in cluster.events_since(&Cluster::default()) {
        match event {
            Event::PutPod(pod) => write!(text, "pod {} ", pod.name),
            Event::PutNamespace(namespace) => write!(text, "ns {} ", namespace.name),
            Event::PutNode(node) => write!(text, "node {} ", node.name),
            Event::PutPolicy(policy) => write!(text, "np {} ", policy.name),
            Event::PutService(service) => write!(text, "svc {} ", service.name),
            Event::PutEndpointSlice(slice) => write!(text, "slice {} ", slice.name),
            other => panic!("{other:?}"),
        }
        .unwrap();
    }
    text.trim_end().to_owned()
}

use crate::cluster::Cluster;

#[test]
fn documents_lists_and_formats_mix() {
    let assembled = check(
        r#"# a comment, no document
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}
---
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pay"}}
---
# nothing
---
apiVersion: v1
kind: PodList
items:
- metadata: {name: b}
...
apiVersion: v1
kind: ConfigMap
"#,
        &[],
    );
    assert_eq!(names(&assembled), "ns default ns pay ns shop pod default/b pod shop/a");
    assert_eq!(assembled.cluster.namespaces["pay"].labels["kubernetes.io/metadata.name"], "pay".into());
    assert_eq!(assembled.cluster.namespaces["shop"].labels["kubernetes.io/metadata.name"], "shop".into());
    let parsed = parse(
        "f",
        b"kind: Deployment\napiVersion: apps/v1\n---\nkind: NetworkPolicy\napiVersion: projectcalico.org/v3",
    );
    let ignored: Vec<_> = parsed.ignored.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    assert_eq!(ignored, ["Deployment.apps 1", "NetworkPolicy.projectcalico.org 1"]);
}

#[test]
fn a_json_stream_is_read_with_positions() {
    let text = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\t\"metadata\":{\"name\":\"a\"}}\n{\"kind\":\"NetworkPolicy\",\
                \"apiVersion\":\"networking.k8s.io/v1\",\n \"metadata\":{\"name\":\"p\"},\n \"spec\":{\n  \"podSelector\":\
                {},\n  \"ingress\":[{\"form\":[]}]}}\n{\"kind\":";
    let assembled = check_bytes(
        "f.json",
        text.as_bytes(),
        &[
            "f.json:7:15: error: document 2: NetworkPolicy default/p: spec.ingress[0].form: there is no such field; \
             write from; the rule allows nothing until then",
            "f.json:8:8: error: document 3: EOF while parsing a value",
        ],
    );
    assert_eq!(names(&assembled), "ns default pod default/a np default/p");
}

#[test]
fn a_broken_document_takes_no_other_with_it() {
    let assembled = check(
        "kind: Pod\napiVersion: v1\nmetadata: {name: a}\n---\nkind: Pod\n  apiVersion: v1\n---\nkind: Pod\napiVersion: v1\n\
         metadata: {name: b}\n---\n[unclosed\n---\nkind: Pod\napiVersion: v1\nmetadata: {name: 5}\n---\n17\n",
        &[
            "f.yaml:6:13: error: document 2: mapping values are not allowed in this context",
            "f.yaml:12:1: error: document 4: unclosed bracket '['",
            "f.yaml:16:18: error: document 5: Pod: metadata.name: this should be a string, not integer `5`; put it \
             in quotes; the object does not count until then",
            "f.yaml:18:1: error: document 6: kind: the object has no kind and does not count; add it",
        ],
    );
    assert_eq!(names(&assembled), "ns default pod default/a pod default/b");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        writeln!(text, "a{level}: &a{level} [{}]", [&*alias; 10].join(", ")).unwrap();
    }
    let parsed = parse("bomb", text.as_bytes());
    assert_eq!(parsed.diagnostics.len(), 1);
    assert!(parsed.objects.is_empty());

    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse("deep", deep.as_bytes()).diagnostics.len(), 1);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse("deep.json", deep.as_bytes()).diagnostics.len(), 1);
}

#[test]
fn aliases_and_merge_keys_work() {
    let assembled = check(
        "kind: Pod\napiVersion: v1\nmetadata:\n  name: a\n  labels: &l {app: web}\n---\nkind: List\napiVersion: v1\nitems:\n\
         - &x\n  kind: Pod\n  apiVersion: v1\n  metadata: &m {name: b, labels: {app: db}}\n- <<: *x\n  metadata: {<<: *m, \
         name: c}\n",
        &[],
    );
    assert_eq!(names(&assembled), "ns default pod default/a pod default/b pod default/c");
}

#[test]
fn a_misspelt_kind_or_version_is_reported_and_others_are_counted() {
    check(
        "kind: NetworkPolcy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p, namespace: s}\n---\n\
         kind: NetworkPolicy\napiVersion: networking.k8s.io/v1beta1\n---\n\
         kind: networkpolicy\napiVersion: networking.k8s.io/v1\n---\n\
         kind: NetworkPolicy\napiVersion: extensions/v1beta1\n---\n\
         kind: Pod\n---\nkind: Foo\n---\napiVersion: v1\n---\n\
         kind: Service\napiVersion: serving.knative.dev/v1\n---\nkind: Pods\napiVersion: v1\n",
        &[
            "f.yaml:1:7: error: document 1: NetworkPolcy s/p: kind: \"NetworkPolcy\" is not known, so the object does not \
             count; write NetworkPolicy",
            "f.yaml:6:13: error: document 2: NetworkPolicy: apiVersion: \"networking.k8s.io/v1beta1\" is not known, so the \
             object does not count; write networking.k8s.io/v1",
            "f.yaml:8:7: error: document 3: networkpolicy: kind: \"networkpolicy\" is not known, so the object does not \
             count; write NetworkPolicy",
            "f.yaml:12:13: error: document 4: NetworkPolicy: apiVersion: \"extensions/v1beta1\" is not known, so the object \
             does not count; write networking.k8s.io/v1",
            "f.yaml:14:1: error: document 5: Pod: apiVersion: \"\" is not known, so the object does not count; write v1",
            "f.yaml:16:1: error: document 6: Foo: apiVersion: the object has no apiVersion and does not count; add it",
            "f.yaml:18:1: error: document 7: kind: the object has no kind and does not count; add it",
            "f.yaml:23:7: error: document 9: Pods: kind: \"Pods\" is not known, so the object does not count; write Pod",
        ],
    );
}

/// A policy with this spec, and what of it still stands.
#[track_caller]
fn check_policy(spec: &str, expected: &[&str], standing: &str) {
    let text = format!("kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {{name: p}}\nspec: {spec}\n");
    let assembled = assemble([&parse("f", text.as_bytes())]);
    let found: Vec<_> =
        assembled.diagnostics.iter().map(|found| format!("{}: {}", found.field, found.message)).collect();
    assert_eq!(found, expected, "{}", found.join("\n"));
    let policy = assembled.cluster.policies.values().next().expect("the policy still counts");
    let rules = |rules: &Option<Vec<crate::model::Rule>>| match rules {
        None => "open".to_owned(),
        Some(rules) => {
            let list = |list: Option<String>| list.unwrap_or_else(|| "*".to_owned());
            let rules = rules.iter().map(|rule| {
                let peers =
                    rule.peers.as_ref().map(|peers| format!("{:?}", peers.iter().map(peer).collect::<Vec<_>>()));
                let ports =
                    rule.ports.as_ref().map(|ports| format!("{:?}", ports.iter().map(port).collect::<Vec<_>>()));
                format!("{}:{}", list(peers), list(ports))
            });
            format!("[{}]", rules.collect::<Vec<_>>().join(" "))
        }
    };
    let found = format!(
        "{} in {} out {}",
        policy.subject.pods.requirements.len(),
        rules(&policy.ingress),
        rules(&policy.egress)
    );
    assert_eq!(found.replace('"', ""), standing);
}

fn peer(peer: &crate::model::Peer) -> &'static str {
    match peer {
        crate::model::Peer::Nobody => "-",
        crate::model::Peer::Pods(_) => "pods",
        crate::model::Peer::Block { .. } => "block",
    }
}

fn port(port: &crate::model::PortMatch) -> &'static str {
    if *port == crate::model::PortMatch::Nothing { "-" } else { "port" }
}

#[test]
fn an_unknown_field_in_a_policy_never_widens_it() {
    check_policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", &[], "0 in [[pods]:*] out open");
    check_policy(
        "{podSelector: {}, ingress: [{from: [{podSeletor: {matchLabels: {a: b}}}, {podSelector: {}}]}]}",
        &[
            "spec.ingress[0].from[0].podSeletor: there is no such field; write podSelector; the peer matches nobody until then",
        ],
        "0 in [[-, pods]:*] out open",
    );
    check_policy(
        "{podSelector: {}, ingress: [{from: [{podSelector: {matchlabels: {a: b}}}]}]}",
        &[
            "spec.ingress[0].from[0].podSelector.matchlabels: there is no such field; write matchLabels; the peer matches \
           nobody until then",
        ],
        "0 in [[-]:*] out open",
    );
    check_policy(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, excpet: [10.1.0.0/16]}}], ports: [{prot: 1}]}]}",
        &[
            "spec.ingress[0].from[0].ipBlock.excpet: there is no such field; write except; the peer matches nobody until \
             then",
            "spec.ingress[0].ports[0].prot: there is no such field; write port; the port matches nothing until then",
        ],
        "0 in [[-]:[-]] out open",
    );
    check_policy(
        "{podSelector: {}, egress: [{from: [{podSelector: {}}]}]}",
        &[
            "spec.egress[0].from: there is no such field; remove it, or move it to where it belongs; the rule allows nothing \
           until then",
        ],
        "0 in [] out [[-]:*]",
    );
    check_policy(
        "{podSeletor: {matchLabels: {a: b}}, ingress: [{}]}",
        &["spec.podSeletor: there is no such field; write podSelector; the policy allows nothing until then"],
        "0 in [] out []",
    );
    check_policy(
        "{podSelector: {matchLabels: {a: b}}, policyTypes: [Ingress], ingress: [{}], ports: [{port: 80}]}",
        &[
            "spec.ports: there is no such field; remove it, or move it to where it belongs; the policy allows nothing until \
           then",
        ],
        "1 in [] out open",
    );
    check_policy(
        "{podSelector: {matchLabel: {a: b}}, ingress: [{}]}",
        &[
            "spec.podSelector.matchLabel: there is no such field; write matchLabels; the policy isolates every pod of its \
           namespace and allows nothing until then",
        ],
        "0 in [] out open",
    );
}

#[test]
fn a_value_of_the_wrong_type_in_a_policy_never_widens_it() {
    check_policy(
        "{ingress: [{ports: [{port: 80, endPort: ninety}, {port: 80}], from: [null, {podSelector: 7}]}]}",
        &[
            "spec.ingress[0].from[0]: this should be a map; the peer matches nobody until then",
            "spec.ingress[0].from[1].podSelector: this should be a map, not integer `7`; the peer matches \
             nobody until then",
            "spec.ingress[0].ports[0].endPort: this should be an integer, not string \"ninety\"; the port matches nothing \
             until then",
        ],
        "0 in [[-, -]:[-, port]] out open",
    );
    check_policy(
        "{ingress: [null]}",
        &[
            "spec.ingress[0]: this should be a map ({} allows everything, from and ports less); the rule allows nothing \
           until then",
        ],
        "0 in [[-]:*] out open",
    );
    check_policy(
        "[]",
        &["spec: this should be a map; the policy isolates every pod of its namespace and allows nothing until then"],
        "0 in [] out []",
    );
    check_policy(
        "{ingress: {}}",
        &["spec.ingress: this should be a list of rules; the policy allows nothing until then"],
        "0 in [] out []",
    );
    check_policy(
        "{ingress: [{from: {}}]}",
        &["spec.ingress[0].from: this should be a list; the rule allows nothing until then"],
        "0 in [[-]:*] out open",
    );
    check_policy(
        "{policyTypes: Egress, egress: [{}]}",
        &[
            "spec.policyTypes: this should be a list, not string \"Egress\"; the policy isolates in both directions and \
           allows nothing until then",
        ],
        "0 in [] out []",
    );
    check_policy(
        "{ingress: [{from: [{podSelector: {}}], from: []}]}",
        &["spec.ingress[0].from: the field is there more than once; keep one; the rule allows nothing until then"],
        "0 in [[-]:*] out open",
    );
    check_policy(
        "{ingress: [{from: [{podSelector: {matchLabels: {a: b, a: c}}}]}]}",
        &["spec.ingress[0].from[0].podSelector.matchLabels[a]: the field is there more than once; keep one; the peer \
           matches nobody until then"],
        "0 in [[-]:*] out open",
    );
    check_policy("null", &[], "0 in [] out open");
    check_policy("{ingress: null, egress: null, policyTypes: null, podSelector: null}", &[], "0 in [] out open");
    check_policy("{ingress: [{from: null, ports: null}], egress: [{to: [], ports: []}]}", &[], "0 in [*:*] out [*:*]");
}

#[test]
fn what_convert_finds_has_a_place() {
    check(
        "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata:\n  name: p\nspec:\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0/8\n",
        &[
            "f.yaml:9:9: error: document 1: NetworkPolicy default/p: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0/8\" is \
           no CIDR, so the block matches nobody; write it like 192.168.1.0/24 or 2001:db8::/64",
        ],
    );
}

#[test]
fn of_an_object_that_is_there_twice_the_later_counts() {
    let first = parse("a.yaml", b"kind: Pod\napiVersion: v1\nmetadata: {name: a, labels: {v: one}}");
    let second =
        parse("b.yaml", b"\nkind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: default, labels: {v: two}}");
    let assembled = assemble([&first, &second]);
    let found: Vec<_> = assembled.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "b.yaml:2:1: warning: document 1: Pod default/a: the object is at a.yaml:1 as well; this one counts; remove or \
          rename one"
        ]
    );
    let pod = assembled.cluster.pods.values().next().unwrap();
    assert_eq!(pod.labels["v"], "two".into());
}

#[test]
fn files_that_are_no_text_or_hold_nothing() {
    check_bytes(
        "f",
        b"kind: Pod\n\xff\xfe",
        &["f:2:1: error: document 1: the file is not text in UTF-8; save it as that"],
    );
    for empty in ["", "\n\n", "---\n", "---\n---\n", "# only\n", "\u{feff}", "null", "...\n"] {
        assert_eq!(names(&check(empty, &[])), "", "{empty:?}");
    }
    assert_eq!(
        names(&check("\u{feff}kind: Pod\r\napiVersion: v1\r\nmetadata: {name: a}\r\n---\r\n", &[])),
        "ns default pod default/a"
    );
    assert_eq!(
        names(&check("%YAML 1.2\n---\nkind: Pod\napiVersion: v1\nmetadata: {name: a}\n", &[])),
        "ns default pod default/a"
    );
    assert_eq!(
        names(&check("--- {kind: Pod, apiVersion: v1, metadata: {name: a}}\n", &[])),
        "ns default pod default/a"
    );
}
