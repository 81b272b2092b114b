//! Every code of `policyctl lint`: a policy that has the fault, and one that nearly has it.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{fs, process::Command};

use serde_json::Value;

/// Two families, a namespace with a label, one server over UDP and one over TCP.
const PODS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {team: red}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: dns, namespace: a, labels: {app: dns}}
  spec: {containers: [{name: c, ports: [{name: dns, containerPort: 53, protocol: UDP}]}]}
  status: {podIPs: [{ip: 10.0.0.5}, {ip: 'fd00::5'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: a, labels: {app: web}}
  spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
  status: {podIPs: [{ip: 10.0.0.6}, {ip: 'fd00::6'}]}
";

/// The codes that are found in policies with these specs.
fn codes(specs: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pods.yaml"), PODS).unwrap();
    for (index, spec) in specs.iter().enumerate() {
        let policy = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{index}, namespace: a}}\nspec: {spec}\n"
        );
        fs::write(folder.path().join(format!("p{index}.yaml")), policy).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(["lint", "-o", "json", "--enable", "all", "--level", "info", "-f"])
        .arg(folder.path())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn check(code: &str, faulty: &[&str], sound: &[&str]) {
    let (found, near) = (codes(faulty), codes(sound));
    assert!(found.iter().any(|found| found == code), "{code} is not found, but {found:?}: {faulty:?}");
    assert!(!near.iter().any(|found| found == code), "{code} is found: {sound:?}");
}

#[test]
fn np001_selects_no_pod() {
    check("NP001", &["{podSelector: {matchLabels: {app: wbe}}}"], &["{podSelector: {matchLabels: {app: web}}}"]);
}

#[test]
fn np002_peer_matches_nothing() {
    let peer = |app: &str| {
        format!("{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}")
    };
    check("NP002", &[&peer("wbe")], &[&peer("web")]);
}

#[test]
fn np003_rule_that_adds_nothing() {
    let rules = |second: &str| {
        format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{}}}}], ports: [{{port: 80, endPort: 89}}]}}, {{from: [{{podSelector: {{}}}}], ports: [{{port: {second}}}]}}]}}"
        )
    };
    check("NP003", &[&rules("85")], &[&rules("90")]);
}

#[test]
fn np004_direction_that_is_left_out() {
    let types = |types: &str| format!("{{podSelector: {{}}, policyTypes: [{types}], ingress: [{{}}], egress: [{{}}]}}");
    check("NP004", &[&types("Ingress")], &[&types("Ingress, Egress")]);
}

#[test]
fn np005_no_dns() {
    let egress = |ports: &str| format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: [{ports}]}}]}}");
    check("NP005", &[&egress("{port: 53}")], &[&egress("{port: 53, protocol: UDP}")]);
    // another policy may open it
    check("NP005", &[&egress("{port: 443}")], &[&egress("{port: 443}"), &egress("{port: 53, protocol: UDP}")]);
}

#[test]
fn np006_port_name_of_nobody() {
    let port = |name: &str| format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {name}}}]}}]}}");
    check("NP006", &[&port("https")], &[&port("http")]);
    // the name is there, of another protocol
    check("NP006", &[&port("dns")], &["{podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}"]);
}

#[test]
fn np007_dash() {
    let two = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}, {podSelector: {matchLabels: {app: web}}}]}]}";
    let one = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: web}}}]}]}";
    check("NP007", &[two], &[one]);
}

#[test]
fn np008_udp_without_protocol() {
    let port =
        |port: &str| format!("{{podSelector: {{matchLabels: {{app: dns}}}}, ingress: [{{ports: [{{{port}}}]}}]}}");
    check("NP008", &[&port("port: 53")], &[&port("port: 53, protocol: UDP")]);
    // who writes TCP means it
    check("NP008", &[&port("port: 53")], &[&port("port: 53, protocol: TCP")]);
}

#[test]
fn np009_block_of_pods() {
    let block = |cidr: &str| format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}");
    check("NP009", &[&block("10.0.0.4/30")], &[&block("10.0.0.8/30")]);
}

#[test]
fn np010_one_family() {
    let blocks =
        |more: &str| format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 192.0.2.0/24}}}}{more}]}}]}}");
    check("NP010", &[&blocks("")], &[&blocks(", {ipBlock: {cidr: '2001:db8::/32'}}")]);
}

#[test]
fn np011_label_of_no_namespace() {
    let team = |team: &str| {
        format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: {team}}}}}}}]}}]}}"
        )
    };
    check("NP011", &[&team("blue")], &[&team("red")]);
}

#[test]
fn np012_unknown_field() {
    check("NP012", &["{podSelector: {}, ingres: []}"], &["{podSelector: {}, ingress: []}"]);
}

#[test]
fn np013_twins() {
    let port = |port: &str| format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}");
    check("NP013", &[&port("80"), &port("80")], &[&port("80"), &port("81")]);
}

#[test]
fn np014_no_default_deny() {
    check("NP014", &["{podSelector: {matchLabels: {app: web}}}"], &["{podSelector: {}}"]);
    check("NP014", &["{podSelector: {}, policyTypes: [Egress]}"], &["{podSelector: {}, policyTypes: [Ingress]}"]);
}

#[test]
fn np015_the_world() {
    let block = |block: &str| format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {block}}}}}]}}]}}");
    check("NP015", &[&block("0.0.0.0/0")], &[&block("203.0.113.0/24")]);
    check(
        "NP015",
        &["{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"],
        &["{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"],
    );
}

#[test]
fn np016_everything_beside_something() {
    let rules = |rule: &str| format!("{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{}}}}]}}, {rule}]}}");
    check("NP016", &[&rules("{}")], &[&rules("{ports: [{port: 80}]}")]);
}

/// NP000 is what is wrong with an object and has no code of its own.
#[test]
fn np000_what_the_api_would_refuse() {
    let port = |port: &str| format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}");
    check("NP000", &[&port("65536")], &[&port("65535")]);
}
