//! What every command prints, to the letter: stdout, stderr and exit status of questions about `tests/shop`.

use std::process::Command;

/// Runs `policyctl` beside the files.
fn said(args: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(args.split(' '))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
        .env_remove("POLICYCTL_NAMESPACE")
        .output()
        .expect("it was built for this test");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
    let stderr = if stderr.is_empty() { String::new() } else { format!("--- stderr\n{stderr}") };
    format!("$ policyctl {args}\n{}{stderr}--- status {status}\n", String::from_utf8_lossy(&output.stdout))
}

macro_rules! golden {
    ($($name:ident: $args:literal)*) => {
        $(#[test]
        fn $name() {
            insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(stringify!($name), said($args));
            });
        })*
    };
}

golden! {
    explain_allowed: "explain -f k8s shop/deploy/web shop/db-0:5432"
    explain_label_typo: "explain -f k8s shop/deploy/wbe shop/db-0:postgres"
    explain_other_namespace: "explain -f k8s web/front-0 shop/db-0:5432"
    explain_namespace_label_typo: "explain -f k8s shop/cache-0 pay/api-0:8443"
    explain_partly: "explain -f k8s shop/deploy/web shop/sts/db"
    explain_almost_selected: "explain -f k8s web/front-0 shop/cache-0:6379"
    explain_host_network: "explain -f k8s pay/ingress-x shop/db-1:5432"
    explain_undefined: "explain -f k8s -f host k8s/ingress-y pay/api-0:8443"
    explain_world: "explain -f k8s world shop/sts/db:5432"
    explain_service: "explain -f k8s shop/deploy/web shop/svc/db"
    explain_wrong_protocol: "explain -f k8s shop/deploy/web shop/db-0:5432/udp"
    explain_other_port: "explain -f k8s shop/deploy/wbe shop/db-0:5433"
    explain_verbose: "explain -v -f k8s shop/deploy/wbe shop/db-0:5432"
    explain_json: "explain -o json -f k8s shop/deploy/wbe shop/db-0:5432"
    explain_partly_json: "explain -o json -f k8s shop/deploy/web shop/sts/db"
    explain_yaml: "explain -o yaml -f k8s web/front-0 shop/cache-0:6379"
    explain_not_yet_there: "explain -f k8s labels:shop{app=web} shop/db-0:5432"
    explain_network: "explain -f k8s shop/cache-0 cidr:0.0.0.0/0:443"
    explain_what_if_with: "explain -f k8s --with fix.yaml shop/deploy/wbe shop/db-0:5432"
    explain_what_if_without: "explain -f k8s --without pay/api web/front-0 pay/api-0:80"
    explain_colour: "explain --color always -f k8s shop/deploy/wbe shop/db-0:5432"
    explain_exit_code: "explain --exit-code -q -f k8s shop/deploy/wbe shop/db-0:5432"
    can_yes: "can -f k8s shop/deploy/web shop/sts/db:5432"
    can_no: "can -f k8s shop/deploy/wbe shop/sts/db:5432"
    can_undefined: "can -f k8s -f host k8s/ingress-y pay/api-0:8443"
    can_some: "can -f k8s shop/deploy/wbe shop/sts/db:9187"
    can_json: "can -o json -f k8s shop/deploy/wbe shop/sts/db:5432"
    can_without_port: "can -f k8s shop/deploy/wbe shop/sts/db"
    reach_text: "reach -f k8s shop/cache-0"
    reach_json: "reach -o json -f k8s shop/cache-0"
    reach_jsonl: "reach -o jsonl -f k8s shop/cache-0"
    reach_name: "reach -o name -f k8s shop/cache-0"
    who_text: "who -f k8s shop/sts/db:5432"
    who_wide: "who -o wide -f k8s shop/svc/db"
    who_csv: "who -o csv -f k8s shop/db-0"
    effective_text: "effective -f k8s shop/db-0"
    effective_wide: "effective -o wide -f k8s shop/cache-0"
    effective_json: "effective -o json -f k8s shop/cache-0"
    list_text: "list -f k8s --only pay/"
    list_no_headers: "list --no-headers -f k8s --only pay/"
    list_md: "list -o md -f k8s --only pay/"
    list_namespace: "list -f k8s -n pay"
    list_all_namespaces: "list --no-headers -o name -f k8s -n pay -A --only pay/"
    list_selector: "list -f k8s -l app=cache,app!=db"
    list_nothing: "list -f k8s -n pay -l app=cache"
    list_jsonpath: "list -f k8s -n pay -o jsonpath={range.connections[?(@.source=='pay/api-0')]}{.destination},{end}{.state.pods}"
    can_jsonpath: "can -f k8s shop/deploy/web shop/sts/db:5432 -o jsonpath={.answer}{'\\n'}"
    wrong_jsonpath: "list -f k8s -o jsonpath={.connections[0"
    wrong_selector: "list -f k8s -l app=a=b"
    lint_namespace: "lint -f k8s -n shop"
    exposure_namespace: "exposure -f k8s -n pay"
    matrix_selector: "matrix -f k8s -n shop -l app=db --ports TCP/5432 --no-nodes"
    help_snapshot: "snapshot --help"
    matrix_text: "matrix -f k8s -f host --ports TCP/5432,8443 --ip out=8.8.8.8"
    matrix_json: "matrix -o json -f k8s -f host --ports TCP/5432,udp/53 --ip out=8.8.8.8"
    matrix_csv: "matrix -o csv -f k8s --ports TCP/8443 --no-nodes"
    matrix_svg: "matrix -o svg -f k8s -f host --ip out=8.8.8.8"
    matrix_svg_of_ports: "matrix -o svg -f k8s --ports TCP/5432,8443 --no-nodes"
    matrix_html: "matrix -o html -f k8s -f host"
    matrix_expand_unknown: "matrix -o svg -f k8s --expand shpo"
    exposure_text: "exposure -f k8s"
    exposure_name: "exposure -o name -f k8s"
    exposure_json: "exposure -o json -f sound"
    exposure_jsonl: "exposure -o jsonl -f sound"
    exposure_yaml: "exposure -o yaml -f sound"
    exposure_csv: "exposure -o csv -f k8s"
    exposure_md: "exposure -o md -f sound"
    diff_text: "diff k8s new"
    diff_json: "diff -o json k8s new"
    diff_csv: "diff -o csv k8s new"
    diff_svg: "diff -o svg k8s new"
    diff_html: "diff -o html k8s new"
    explain_svg_allowed: "explain -o svg -f k8s shop/deploy/web shop/db-0:5432"
    explain_svg_denied: "explain -o svg -f k8s shop/deploy/wbe shop/db-0:5432"
    explain_svg_partly: "explain -o svg -f k8s shop/deploy/web shop/sts/db"
    explain_svg_service: "explain -o svg -f k8s shop/deploy/web shop/svc/db"
    explain_svg_undefined: "explain -o svg -f k8s -f host k8s/ingress-y pay/api-0:8443"
    explain_html: "explain -o html -f k8s shop/cache-0 pay/api-0:8443"
    graph_text: "graph -f k8s"
    graph_json: "graph -o json -f k8s --denied"
    graph_jsonl: "graph -o jsonl -f k8s"
    graph_yaml: "graph -o yaml -f k8s --no-nodes"
    graph_name: "graph -o name -f k8s"
    graph_csv: "graph -o csv -f k8s"
    graph_md: "graph -o md -f k8s"
    graph_svg: "graph -o svg -f k8s"
    graph_svg_denied: "graph -o svg -f k8s --denied"
    graph_html: "graph -o html -f k8s"
    graph_dot: "graph -o dot -f k8s --denied"
    graph_mermaid: "graph -o mermaid -f k8s --denied"
    graph_focus_text: "graph -f k8s --focus shop/db-0"
    graph_focus_json: "graph -o json -f k8s --focus shop/cache-0"
    graph_focus_svg: "graph -o svg -f k8s --focus shop/db-0"
    graph_focus_html: "graph -o html -f k8s --focus shop/deploy/web"
    graph_focus_unknown: "graph -f k8s --focus shop/cahce-0"
    graph_focus_dot: "graph -o dot -f k8s --focus shop/db-0"
    diff_none: "diff k8s k8s"
    test_text: "test -f k8s shop.test.yaml"
    test_json: "test -o json -f k8s shop.test.yaml"
    test_tap: "test -o tap -f k8s shop.test.yaml"
    test_junit: "test -o junit -f k8s shop.test.yaml"
    test_of_no_tests: "test -f k8s fix.yaml"
    lint_smells: "lint -f smells --enable all --level info"
    lint_sound: "lint -f sound --enable all --level info"
    lint_json: "lint -o json -f k8s"
    lint_sarif: "lint -o sarif -f k8s"
    lint_csv: "lint -o csv -f k8s"
    lint_disabled: "lint -f k8s --disable NP001 --disable np002 --disable NP011"
    help: "--help"
    help_explain: "explain --help"
    wrong_format: "can -o sarif -f k8s shop/deploy/web shop/sts/db:5432"
    wrong_end: "explain -f k8s shop/dpeloy/web shop/db:1"
    wrong_namespace: "explain -f k8s web shop/db-0:1"
    wrong_pod: "explain -f k8s shop/cahce-0 shop/db-0:1"
    wrong_workload: "explain -f k8s shop/deploy/wep shop/db-0:1"
    wrong_port_name: "explain -f k8s shop/deploy/web shop/db-0:http"
    wrong_ip: "matrix -f k8s --ip out=8.8.8"
    wrong_without: "can -f k8s --without pay/apy shop/cache-0 pay/api-0:80"
    bad_files: "can -f k8s -f bad shop/deploy/web shop/db-0:5432"
}
