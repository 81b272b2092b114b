//! Tests that hold `manifests/` against the program: what is granted is what is asked, what is set exists, what is
//! probed is served, what is watched for is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

use crate::{
    cli::Cli,
    notice,
    source::api::{RESOURCES, VERBS},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The object of this kind in a file.
fn object(path: &str, kind: &str) -> Value {
    documents(path).into_iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("{path}: no {kind}"))
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap()).collect()
}

#[test]
fn every_file_is_well_formed_and_belongs_to_a_kustomization() {
    let mut named = BTreeSet::new();
    let mut found = BTreeSet::new();
    for path in files(&root()) {
        let name = relative(&path);
        if name.ends_with(".json") {
            let _: Value = serde_json::from_str(&text(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            found.insert(name);
            continue;
        }
        assert!(name.ends_with(".yaml"), "{name} is no manifest");
        for document in documents(&name) {
            assert!(document["apiVersion"].is_string() && document["kind"].is_string(), "{name}: {document}");
            let folder = Path::new(&name).parent().unwrap();
            for resource in strings(&document["resources"]) {
                let path = root().join(folder).join(resource);
                let path = if path.is_dir() { path.join("kustomization.yaml") } else { path };
                assert!(path.is_file(), "{name} names {resource}, which is not there");
                named.insert(path.canonicalize().unwrap());
            }
            for patch in document["patches"].as_array().into_iter().flatten() {
                if let Some(path) = patch["path"].as_str() {
                    named.insert(root().join(folder).join(path).canonicalize().unwrap());
                }
            }
            for generated in document["configMapGenerator"].as_array().into_iter().flatten() {
                for file in strings(&generated["files"]) {
                    let file = file.split_once('=').map_or(file, |(_, file)| file);
                    named.insert(root().join(folder).join(file).canonicalize().unwrap());
                }
            }
        }
        found.insert(name);
    }
    for name in found {
        let path = root().join(&name).canonicalize().unwrap();
        assert!(name.ends_with("kustomization.yaml") || named.contains(&path), "no kustomization names {name}");
    }
}

#[test]
fn what_is_granted_is_what_is_asked() {
    let role = object("base/rbac.yaml", "ClusterRole");
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    assert!(granted.insert((group, resource, verb)), "{resource} {verb} is granted twice");
                }
            }
        }
    }
    let asked = RESOURCES.iter().flat_map(|one| VERBS.map(|verb| (one.group, one.plural, verb)));
    assert_eq!(granted, asked.chain([notice::RIGHT]).collect());
    let text = text("base/rbac.yaml");
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups")) {
        assert!(lines[index - 1].starts_with("  # "), "line {}: no comment says why: {line}", index + 1);
    }
    let binding = object("base/rbac.yaml", "ClusterRoleBinding");
    let account = object("base/serviceaccount.yaml", "ServiceAccount");
    let pod = &object("base/daemonset.yaml", "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["namespace"], account["metadata"]["namespace"]);
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
}

#[test]
fn what_is_set_are_flags_of_the_agent() {
    let command = Cli::command();
    let flags: BTreeMap<&str, &str> =
        command.get_arguments().filter_map(|arg| Some((arg.get_env()?.to_str()?, arg.get_long()?))).collect();
    let map = object("base/configmap.yaml", "ConfigMap");
    for (key, value) in map["data"].as_object().unwrap() {
        let flag = flags.get(&**key).unwrap_or_else(|| panic!("{key} is no flag's variable"));
        let value = value.as_str().unwrap();
        let argument = match (*flag, value) {
            ("audit", "false") => continue,
            _ => format!("--{flag}={value}"),
        };
        Cli::try_parse_from(["sluice-agent", &argument]).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    let patched = text("monitoring/kustomization.yaml");
    assert!(patched.contains("/data/SLUICE_LISTEN") && map["data"]["SLUICE_LISTEN"].is_string());
}

#[test]
fn the_agent_runs_with_what_it_needs_and_no_more() {
    let set = object("base/daemonset.yaml", "DaemonSet");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert!(security["privileged"].is_null() && security["allowPrivilegeEscalation"] == false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(strings(&security["capabilities"]["drop"]), ["ALL"]);
    let added = strings(&security["capabilities"]["add"]);
    assert_eq!(added, ["BPF", "NET_ADMIN", "NET_BROADCAST", "PERFMON", "SYS_PTRACE"]);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!((&pod["hostNetwork"], &pod["hostPID"]), (&true.into(), &true.into()));
    assert_eq!(pod["tolerations"], serde_json::json!([{"operator": "Exists"}]), "every taint, of every effect");
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(set["spec"]["updateStrategy"]["type"], "RollingUpdate");
    assert!(container["resources"]["requests"]["memory"].is_string() && container["resources"]["limits"].is_null());
    let mounts = container["volumeMounts"].as_array().unwrap();
    let bpf = mounts.iter().find(|mount| mount["mountPath"] == "/sys/fs/bpf").unwrap();
    assert_eq!(bpf["mountPropagation"], "HostToContainer");
    let run = Cli::try_parse_from(["sluice-agent"]).unwrap().run;
    let writable = |path: &Path| mounts.iter().any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()));
    assert!(writable(&run.pin_dir) && writable(&run.socket), "the agent's root is read-only");
    let configurations = mounts.iter().find(|mount| run.cni_conf_dir.to_str() == mount["mountPath"].as_str());
    assert_eq!(configurations.unwrap()["readOnly"], true);
    let old = text("kernel-5.10/kustomization.yaml");
    assert!(
        old.contains("/spec/template/spec/containers/0/securityContext/capabilities/add/-")
            && old.contains("SYS_RESOURCE")
    );
}

#[test]
fn what_is_probed_is_served() {
    let set = object("base/daemonset.yaml", "DaemonSet");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let listen = Cli::try_parse_from(["sluice-agent"]).unwrap().run.listen;
    let served = include_str!("http.rs");
    for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&path.into(), &listen.port().into()), "{probe}");
        assert_eq!(get["host"], listen.ip().to_string(), "{probe}");
        assert!(served.contains(&format!("route(\"{path}\"")), "{path} is not served");
    }
    assert_eq!(container["ports"][0]["containerPort"], listen.port());
    let service = object("monitoring/service.yaml", "Service");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    for (key, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(&labels[key], value, "the Service selects the agents");
    }
}

#[test]
fn what_is_watched_for_is_counted() {
    let counted = include_str!("metrics.rs");
    let mut seen = 0;
    for path in ["monitoring/rules.yaml", "monitoring/dashboard.json"] {
        let text = text(path);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in text.split(|c| !is_name(c)).filter(|word| word.starts_with("sluice_")) {
            let base = name.trim_end_matches("_bucket");
            assert!(counted.contains(&format!("\"{base}\"")), "{path}: there is no metric {name}");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} metrics are looked at");
}

#[test]
fn the_cleanup_runs_the_agents_own_command_on_every_node() {
    let set = object("cleanup/daemonset.yaml", "DaemonSet");
    let pod = &set["spec"]["template"]["spec"];
    let cleanup = &pod["initContainers"][0];
    let arguments = strings(&cleanup["args"]);
    Cli::try_parse_from(["sluice-agent"].into_iter().chain(arguments)).unwrap();
    assert_eq!(pod["tolerations"], serde_json::json!([{"operator": "Exists"}]));
    assert!(cleanup["securityContext"]["privileged"].is_null());
    let agent = object("base/daemonset.yaml", "DaemonSet");
    let mut volumes = agent["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
    volumes.retain(|volume| volume["name"] != "cni-conf");
    assert_eq!(pod["volumes"], Value::from(volumes), "it sees what the agent left");
}

/// What the CNI plugin's own program is called with, its tests know; here it matters that the agent is found.
#[test]
fn the_cni_plugin_is_installed_before_the_agent_starts_and_taken_out_before_the_pins_go() {
    for (path, name, command) in [
        ("cni/install.yaml", "sluice-agent", ["/sluice-cni", "install"]),
        ("cni-cleanup/uninstall.yaml", "sluice-cleanup", ["/sluice-cni", "uninstall"]),
    ] {
        let set = object(path, "DaemonSet");
        assert_eq!(set["metadata"]["name"], name);
        let pod = &set["spec"]["template"]["spec"];
        let container = &pod["initContainers"][0];
        assert_eq!(strings(&container["command"]), command);
        assert_eq!(container["image"], "sluice-agent");
        let security = &container["securityContext"];
        assert!(security["privileged"].is_null() && security["capabilities"]["add"].is_null(), "it only writes files");
        let mounts: Vec<_> =
            container["volumeMounts"].as_array().unwrap().iter().map(|one| &one["mountPath"]).collect();
        let paths: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|one| &one["hostPath"]["path"]).collect();
        assert_eq!(mounts, paths, "where the runtime of the node has them");
        assert_eq!(mounts, ["/etc/cni/net.d", "/opt/cni/bin"]);
    }
    for (overlay, base) in [("cni", "../base"), ("cni-cleanup", "../cleanup")] {
        let overlay = object(&format!("{overlay}/kustomization.yaml"), "Kustomization");
        assert_eq!(strings(&overlay["resources"]), [base]);
        assert_eq!(overlay["images"], object("base/kustomization.yaml", "Kustomization")["images"]);
    }
}
