//! Class `cluster`: Sluice on a real cluster, installed as a user installs it. Not part of a plain `cargo test`: it
//! brings up whole clusters, one after the other, and keeps each for all the tests that want one like it.
#![forbid(unsafe_code)]

mod agents;
mod api;
mod bare;
mod birth;
mod churn;
mod life;
mod nodes;
mod plugin;
mod policies;
mod scene;
mod servers;
mod services;
mod stages;
mod trace;
mod traffic;
mod upstream;

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use e2e::{
    bed::is_root,
    lab::{Cni, Lab, Proxy, Settings},
};
use libtest_mimic::{Arguments, Failed, Trial};

use stages::{Stages, State};

/// What a test does with a cluster.
type Scenario = fn(&Lab) -> Result<()>;

/// Which clusters a scenario runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// The one with the CNI plugin ptp, and nftables.
    Ptp,
    /// The one with the CNI plugin bridge, and iptables.
    Bridge,
    Both,
}

/// In the order in which they run. What wants another state than the one before costs an installation.
const SCENARIOS: &[(&str, On, State, Scenario)] = &[
    ("without_sluice::nothing_is_enforced", On::Both, State::Bare, bare::nothing_is_enforced),
    ("upstream::nobody_else_enforces", On::Both, State::Bare, upstream::proof),
    ("policies::cut_and_open", On::Both, State::Enforcing, policies::cut_and_open),
    ("policies::names_are_found", On::Ptp, State::Enforcing, policies::names_are_found),
    ("policies::probes_of_the_kubelet", On::Ptp, State::Enforcing, policies::probes_of_the_kubelet),
    ("birth::no_early_packet", On::Bridge, State::Enforcing, birth::no_early_packet),
    ("birth::address_is_reused", On::Ptp, State::Enforcing, birth::address_is_reused),
    ("services::node_ports", On::Ptp, State::Enforcing, services::node_ports),
    ("services::load_balancers", On::Ptp, State::Enforcing, services::load_balancers),
    ("services::mixed_services", On::Ptp, State::Enforcing, services::mixed_services),
    ("services::without_a_front_end", On::Ptp, State::Enforcing, services::without_a_front_end),
    ("nodes::host_network", On::Ptp, State::Enforcing, nodes::host_network),
    ("nodes::host_ports", On::Ptp, State::Enforcing, nodes::host_ports),
    ("nodes::masquerade", On::Ptp, State::Enforcing, nodes::masquerade),
    ("nodes::loopback", On::Ptp, State::Enforcing, nodes::loopback),
    ("nodes::other_filters", On::Both, State::Enforcing, nodes::other_filters),
    ("life::open_connections", On::Ptp, State::Enforcing, life::open_connections),
    ("life::exec_goes_on", On::Ptp, State::Enforcing, life::exec_goes_on),
    ("churn::pods_come_and_go", On::Ptp, State::Enforcing, churn::pods_come_and_go),
    ("agents::agents_are_killed", On::Ptp, State::Enforcing, agents::agents_are_killed),
    ("agents::agents_are_upgraded", On::Ptp, State::Enforcing, agents::agents_are_upgraded),
    ("agents::born_without_an_agent", On::Ptp, State::Enforcing, agents::born_without_an_agent),
    ("api::api_server_is_away", On::Ptp, State::Enforcing, api::api_server_is_away),
    ("api::history_is_compacted", On::Ptp, State::Enforcing, api::history_is_compacted),
    ("upstream::all", On::Ptp, State::Enforcing, upstream::all),
    ("upstream::chosen", On::Bridge, State::Enforcing, upstream::chosen),
    ("trace::nothing_is_left", On::Ptp, State::Removing, trace::nothing_is_left),
    ("plugin::no_pod_starts_unenforced", On::Ptp, State::Bare, plugin::no_pod_starts_unenforced),
];

fn main() {
    let arguments = Arguments::from_args();
    if !is_root() && !arguments.list {
        eprintln!("skipped: needs root");
        return;
    }
    if !arguments.list {
        upstream::tell_skipped();
    }
    let stages = Arc::new(Stages::default());
    let ptp = Settings { nodes: 3, cni: Cni::Ptp, proxy: Proxy::Nftables };
    let bridge = Settings { nodes: 2, cni: Cni::Bridge, proxy: Proxy::Iptables };
    // The cluster of `cargo xtask lab up` is taken for the first of these, whatever it is like.
    let clusters = [(On::Ptp, ptp), (On::Bridge, bridge)].into_iter().take(if stages::are_given() { 1 } else { 2 });
    let mut trials = Vec::new();
    for (kind, settings) in clusters {
        for (name, _, state, scenario) in SCENARIOS.iter().filter(|(_, on, ..)| *on == kind || *on == On::Both) {
            let (stages, settings) = (Arc::clone(&stages), settings.clone());
            let (cni, state, scenario) = (settings.cni, *state, *scenario);
            let run = move || {
                let start = Instant::now();
                let result = stages.run(&settings, state, scenario);
                eprintln!("{:6.1} s  {name}", start.elapsed().as_secs_f64());
                result.map_err(|error| Failed::from(format!("{error:#}")))
            };
            trials.push(Trial::test(*name, run).with_kind(cni.to_string()));
        }
    }
    // One at a time, in this order: they share a cluster.
    let conclusion = libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials);
    if let Err(error) = stages.down() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
    conclusion.exit();
}
