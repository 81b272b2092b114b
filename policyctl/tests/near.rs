//! Each kind of near miss, and what `policyctl explain` says of it: the condition that fails, and an edit that works.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{fs, process::Command};

/// Namespaces shop and pay, a web and a db in shop, an api in pay, and DNS.
const PODS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: pay, labels: {team: payment}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
  spec: {containers: [{name: c}]}
  status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}, {name: stats, containerPort: 9187, protocol: UDP}]}]}
  status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd00::2'}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: api, namespace: pay, labels: {app: api}}
  spec: {containers: [{name: c}]}
  status: {podIPs: [{ip: 10.1.1.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
  spec: {containers: [{name: c, ports: [{name: dns, containerPort: 53, protocol: UDP}]}]}
  status: {podIPs: [{ip: 10.1.2.1}]}
- apiVersion: v1
  kind: Service
  metadata: {name: db, namespace: shop}
  spec: {clusterIP: 10.96.0.1, selector: {app: db}, ports: [{port: 80, targetPort: sql}]}
";

/// A policy of shop for db, with this spec.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: db}}}}\n{spec}"
    )
}

/// An ingress rule of db for TCP/5432.
fn from(peer: &str) -> String {
    policy(&format!("  ingress:\n  - from:\n{peer}    ports: [{{port: 5432}}]\n"))
}

/// Asks, and looks for lines in the answer, in this order; blanks at their ends don't count.
#[track_caller]
fn check(policies: &str, question: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pods.yaml"), PODS).unwrap();
    fs::write(folder.path().join("policies.yaml"), policies).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .arg("explain")
        .args(question.split(' '))
        .args(["-f", "."])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let mut lines = text.lines().map(str::trim);
    for wanted in expected {
        assert!(lines.any(|line| line == *wanted), "{wanted:?} is not there:\n{text}{stderr}");
    }
    let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 130).collect();
    assert_eq!(long, [""; 0], "{text}");
}

#[test]
fn another_key() {
    let policies = from("    - podSelector: {matchLabels: {shop.example/App: web}}\n");
    check(
        &policies,
        "shop/web shop/db:5432",
        &[
            "closest rule  shop/p ingress[0].from[0]  ./policies.yaml:8",
            "podSelector shop.example/App=web    web has app=web, another key",
            "fix           relabel the pods    add shop.example/App: web   in shop/web  (./pods.yaml:9)",
            "(tried: changes nothing else)",
        ],
    );
}

#[test]
fn the_value_is_on_the_namespace() {
    let policies = from("    - podSelector: {matchLabels: {team: payment}}\n");
    check(
        &policies,
        "pay/api shop/db:5432",
        &[
            "podSelector team=payment",
            "a podSelector alone means pods of namespace shop; api is in pay",
            "team=payment: its namespace has that label, not api",
            "fix           ask the namespace for it    shop/p ingress[0].from[0]  ./policies.yaml:8",
            "namespaceSelector: {matchLabels: {team: payment}}",
            "(tried: changes nothing else)",
        ],
    );
}

#[test]
fn the_value_is_on_the_pod() {
    let policies = from("    - namespaceSelector: {matchLabels: {app: web}}\n");
    check(
        &policies,
        "shop/web shop/db:5432",
        &[
            "namespaceSelector app=web    the pod has that label, not namespace shop",
            "or            ask the pod for it    shop/p ingress[0].from[0]  ./policies.yaml:8",
            "podSelector: {matchLabels: {app: web}}",
            "(tried: changes nothing else)",
        ],
    );
}

#[test]
fn one_dash_too_few() {
    let policies =
        from("    - namespaceSelector: {matchLabels: {team: payment}}\n      podSelector: {matchLabels: {app: web}}\n");
    check(
        &policies,
        "shop/web shop/db:5432",
        &[
            "team=payment: namespace shop has team=shop",
            "or            make two list elements of one (a dash each): either is enough then    shop/p ingress[0].from[0]  \
         ./policies.yaml:8",
            "- namespaceSelector: {matchLabels: {team: payment}}",
            "- podSelector: {matchLabels: {app: web}}",
            "(tried: also opens pay/api -> shop/db TCP/5432)",
        ],
    );
}

#[test]
fn another_namespace_and_no_dash() {
    let policies = from("    - podSelector: {matchLabels: {app: api}}\n");
    check(
        &policies,
        "pay/api shop/db:5432",
        &[
            "a podSelector alone means pods of namespace shop; api is in pay",
            "fix           add to the same list element (no new dash)    shop/p ingress[0].from[0]  ./policies.yaml:8",
            "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: pay}}",
        ],
    );
}

#[test]
fn the_namespace_has_no_such_label() {
    let policies = from("    - namespaceSelector: {matchLabels: {zone: inner}}\n");
    check(
        &policies,
        "pay/api shop/db:5432",
        &[
            "namespaceSelector zone=inner    namespace pay has no such label",
            "fix           relabel the namespace    add zone: inner   in pay",
            "(tried: changes nothing else)",
        ],
    );
}

#[test]
fn no_protocol_means_tcp() {
    let policies = policy("  ingress:\n  - ports: [{port: 53}]\n");
    check(
        &policies,
        "shop/web shop/db:53/udp",
        &["port 53/TCP    not UDP: no protocol means TCP", "- {port: 53, protocol: UDP}"],
    );
    let written = policy("  ingress:\n  - ports: [{port: 53, protocol: TCP}]\n");
    check(&written, "shop/web shop/db:53/udp", &["port 53/TCP    not UDP"]);
}

#[test]
fn the_port_of_the_service() {
    let policies = policy("  ingress:\n  - ports: [{port: 80}]\n");
    let said = "not 5432: 80 is the port of Service shop/db, its pods listen on 5432";
    check(&policies, "shop/web shop/db:5432", &[said, "- port: 5432"]);
    // dialled by the Service, it is the back end's port that counts
    check(&policies, "shop/web shop/svc/db:80", &[said, "- port: 5432"]);
    let asked = policy("  ingress:\n  - ports: [{port: 5432}]\n");
    check(&asked, "shop/web shop/db:80", &["not 80: 80 is the port of Service shop/db, its pods listen on 5432"]);
}

#[test]
fn names_of_ports() {
    let policies = policy("  ingress:\n  - ports: [{port: stats}]\n");
    check(
        &policies,
        "shop/web shop/db:9187",
        &["port stats/TCP    there is no TCP port stats on shop/db; it is 9187/UDP there"],
    );
    let policies = policy("  ingress:\n  - ports: [{port: http}]\n");
    check(&policies, "shop/web shop/db:80", &["port http/TCP    there is no TCP port http on shop/db"]);
}

#[test]
fn one_past_the_end() {
    let policies = policy("  ingress:\n  - ports: [{port: 9000, endPort: 9009}]\n");
    check(&policies, "shop/web shop/db:9010", &["ports 9000-9009/TCP    9010 is one past the end", "endPort: 9010"]);
    check(&policies, "shop/web shop/db:9011", &["ports 9000-9009/TCP    not 9011", "- port: 9011"]);
}

#[test]
fn blocks() {
    let policies = from("    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}\n");
    check(
        &policies,
        "pay/api shop/db:5432",
        &[
            "ipBlock 10.0.0.0/8 except 10.1.0.0/16    10.1.1.1 is in except 10.1.0.0/16",
            "fix           add to the list    shop/p ingress[0].from  ./policies.yaml:8",
            "- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: pay}}",
        ],
    );
    let policies = from("    - ipBlock: {cidr: 10.0.0.0/8}\n");
    check(
        &policies,
        "ip:fd00::99 shop/db:5432",
        &["ipBlock 10.0.0.0/8    fd00::99 is of the other address family", "- ipBlock: {cidr: 'fd00::99/128'}"],
    );
}

/// Rules that would allow it, of a direction that isolates by another policy.
#[test]
fn a_policy_type_is_missing() {
    let deny = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\nspec: \
                {podSelector: {}, policyTypes: [Ingress, Egress]}\n";
    let rules = policy("  policyTypes: [Egress]\n  ingress:\n  - from: [{podSelector: {}}]\n");
    let web = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec: \
               {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}\n";
    check(
        &format!("{rules}{deny}{web}"),
        "shop/web shop/db:5432",
        &[
            "closest rule  shop/p policyTypes  ./policies.yaml:6",
            "ingress[0] would allow it",
            "policyTypes leaves out Ingress, so these rules don't count",
            "fix           add to the list    shop/p policyTypes  ./policies.yaml:6",
            "- Ingress",
        ],
    );
    check(
        &rules,
        "pay/api shop/db:5432",
        &[
            "ingress  to   db   open: no policy selects shop/db for ingress",
            "almost        shop/p  podSelector app=db  ./policies.yaml:6",
            "policyTypes leaves out Ingress, so these rules don't count",
        ],
    );
}

#[test]
fn a_policy_of_another_namespace() {
    let deny = policy("  policyTypes: [Ingress]\n");
    let elsewhere = from("    - podSelector: {matchLabels: {app: web}}\n")
        .replace("name: p, namespace: shop", "name: q, namespace: pay");
    check(
        &format!("{deny}---\n{elsewhere}"),
        "shop/web shop/db:5432",
        &[
            "closest rule  pay/q metadata.namespace  ./policies.yaml:8",
            "a policy selects pods of its own namespace, pay; these are in shop",
            "fix           apply it there    pay/q metadata.namespace  ./policies.yaml:8",
            "namespace: shop",
        ],
    );
    check(
        &elsewhere,
        "pay/api shop/db:5432",
        &[
            "ingress  to   db   open: no policy selects shop/db for ingress",
            "almost        pay/q  podSelector app=db  ./policies.yaml:1",
            "a policy selects pods of its own namespace, pay; these are in shop",
        ],
    );
}

#[test]
fn names_can_not_be_looked_up() {
    let egress = |ports: &str| {
        let policy = policy(&format!("  policyTypes: [Egress]\n  egress:\n  - ports: [{ports}]\n"));
        policy.replace("app: db", "app: web")
    };
    let said =
        "note  egress of shop/web refuses DNS (kube-system/dns UDP/53): it can't look names up; add a rule for that";
    check(&egress("{port: 5432}"), "shop/web shop/db:5432", &["ALLOWED   shop/web -> shop/db  TCP/5432", said]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("all.yaml"),
        format!("{PODS}---\n{}", egress("{port: 5432}, {port: 53, protocol: UDP}")),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(["explain", "shop/web", "shop/db:5432", "-f"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("DNS"));
}

/// A fix of one side alone would not help, so they are tried together, and it is said.
#[test]
fn both_sides_refuse() {
    let egress = policy("  policyTypes: [Egress]\n  egress:\n  - to: [{podSelector: {matchLabels: {app: dbb}}}]\n")
        .replace("podSelector: {matchLabels: {app: db}}", "podSelector: {matchLabels: {app: web}}")
        .replace("name: p,", "name: e,");
    let ingress = from("    - podSelector: {matchLabels: {app: wbe}}\n");
    check(
        &format!("{egress}---\n{ingress}"),
        "shop/web shop/db:5432",
        &[
            "closest rule  shop/e egress[0].to[0]  ./policies.yaml:8",
            "closest rule  shop/p ingress[0].from[0]  ./policies.yaml:17",
            "note  both sides refuse it: it takes a fix of each; they were tried together",
        ],
    );
}

/// Those with the fewest and smallest faults first.
#[test]
fn three_near_misses_unless_all_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pods.yaml"), PODS).unwrap();
    let selectors = ["app: wbe", "app: webb", "app: wb", "tier: fornt", "app: weeb"];
    let policies = selectors.iter().enumerate().map(|(number, selector)| {
        from(&format!("    - podSelector: {{matchLabels: {{{selector}}}}}\n"))
            .replace("name: p,", &format!("name: p{number},"))
    });
    fs::write(folder.path().join("policies.yaml"), policies.collect::<Vec<_>>().join("---\n")).unwrap();
    let closest = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
            .args(["explain", "-f", ".", "shop/web", "shop/db:5432"])
            .args(flags)
            .current_dir(folder.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).matches("closest rule  ").count()
    };
    assert_eq!((closest(&[]), closest(&["-v"])), (3, 5));
}
