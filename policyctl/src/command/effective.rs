//! `policyctl effective`: the union of all policies for one pod, per direction, equal peers merged, origins kept.

use std::collections::BTreeMap;

use policy_compiler::{
    diagnostic::Kind,
    explain::{Other, Quick, peer_summary, port_summary},
    model::{ObjectName, Pod, Rule},
};
use serde_json::json;

use crate::{
    Failure, Outcome, Status, end,
    end::Ends,
    format::{self, Answer, Table},
    source::{self, State},
};

/// Flags of `effective`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod
    #[arg(value_name = "POD")]
    pod: String,
    #[command(flatten)]
    state: source::Args,
    #[command(flatten)]
    format: format::Args,
}

/// A peer with the ports that it may use, and the rules that say so.
#[derive(Debug, Default)]
struct Merged {
    ports: Vec<String>,
    origins: Vec<String>,
    pods: usize,
}

/// Answers.
pub(crate) fn run(args: &Args) -> Outcome {
    let asked = end::source(&args.pod, &args.state.namespace()?).map_err(Failure::wrong_use)?;
    let mut state = source::read(&args.state)?;
    let ends = Ends::find(&asked, &mut state, false).map_err(Failure::no_answer)?;
    let pods: Vec<_> = ends.members.iter().filter_map(|member| member.pod_of(state.cluster())).collect();
    let Some(pod) = pods.first().filter(|pod| !pod.host_network) else {
        return Err(Failure::no_answer(anyhow::anyhow!(
            "policies are about pods with a network of their own; {} has none",
            ends.label
        )));
    };
    let quick = Quick::new(state.cluster());
    let mut answer = Answer { kind: "EffectivePolicy", list: "rules", ..Answer::default() };
    let mut table = Table { head: vec!["DIRECTION", "PEER", "PORTS", "BY", "PODS"], narrow: 4, rows: Vec::new() };
    let mut elements = Vec::new();
    answer.text = format!("{}\n", ends.label);
    for (ingress, direction) in [(true, "ingress"), (false, "egress")] {
        let policies: Vec<_> = quick.isolating(pod, ingress).collect();
        let names: Vec<_> = policies.iter().map(|(policy, _)| policy.name.to_string()).collect();
        let said = if names.is_empty() {
            "open: no policy selects it".to_owned()
        } else {
            format!("isolated by {}", names.join(", "))
        };
        answer.text.push_str(&format!("  {direction:<8} {said}\n"));
        answer.set(direction, json!({"isolated": !names.is_empty(), "policies": names}));
        let mut merged: BTreeMap<String, Merged> = BTreeMap::new();
        for (policy, rules) in policies {
            for (index, rule) in rules.iter().enumerate() {
                let origin = origin(&state, &policy.name, &format!("spec.{direction}[{index}]"));
                merge(rule, &origin, &policy.name, &quick, &mut merged);
            }
        }
        for (peer, entry) in merged {
            let (ports, by) = (entry.ports.join(", "), entry.origins.join(", "));
            elements.push(json!({
                "direction": direction, "peer": peer, "ports": entry.ports, "by": entry.origins, "pods": entry.pods,
            }));
            table.rows.push(vec![direction.to_owned(), peer, ports, by, entry.pods.to_string()]);
        }
    }
    answer.names = table.rows.iter().map(|row| row[3].clone()).collect();
    if !table.rows.is_empty() {
        answer.text.push('\n');
        answer.table = Some(table);
    }
    answer.set("pod", pod.name.to_string());
    answer.set("rules", elements);
    answer.state(&state);
    answer.print(&args.format)?;
    format::ended(&state, Status::Answered)
}

fn merge(rule: &Rule, origin: &str, policy: &ObjectName, quick: &Quick<'_>, merged: &mut BTreeMap<String, Merged>) {
    let ports = match &rule.ports {
        None => vec!["every port".to_owned()],
        Some(ports) => ports.iter().map(port_summary).collect(),
    };
    let mut add = |peer: String, pods: usize| {
        let entry = merged.entry(peer).or_default();
        entry.pods = pods;
        entry.origins.push(origin.to_owned());
        for port in &ports {
            if !entry.ports.contains(port) {
                entry.ports.push(port.clone());
            }
        }
    };
    match &rule.peers {
        None => add("everybody".to_owned(), quick.pods().filter(|pod| !pod.addresses.is_empty()).count()),
        Some(peers) => {
            for peer in peers {
                let is = |pod: &&Pod| {
                    pod.addresses.iter().any(|address| quick.is(peer, Other { pod: Some(pod), address: *address }))
                };
                add(peer_summary(peer, &policy.namespace), quick.pods().filter(is).count());
            }
        }
    }
}

/// `shop/db-ingress ingress[0] (k8s/db.yaml:12)`
fn origin(state: &State, policy: &ObjectName, path: &str) -> String {
    let place = state.cluster().origin(Kind::NetworkPolicy, policy).map(|origin| origin.place_of(path));
    let place = place.map(|place| format!(" ({}:{})", place.file, place.line)).unwrap_or_default();
    format!("{policy} {}{place}", path.trim_start_matches("spec."))
}
