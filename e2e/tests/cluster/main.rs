//! Class `cluster`: Sluice on a real cluster, installed as a user installs it. Not part of a plain `cargo test`: it
//! brings up whole clusters, one after the other, and keeps each for all the tests that want one like it.
#![forbid(unsafe_code)]

mod agents;
mod api;
mod bare;
mod birth;
mod churn;
mod ctl;
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

/// The clusters that a scenario runs on, by what connects their pods. That of bridge has kube-proxy's iptables mode.
type On = &'static [Cni];
const ALL: On = &[Cni::Ptp, Cni::Bridge, Cni::Routed];
const BOTH: On = &[Cni::Ptp, Cni::Bridge];
const PTP: On = &[Cni::Ptp];
const BRIDGE: On = &[Cni::Bridge];
/// That of bridge is proven by [`upstream::proof`] alone.
const BARE: On = &[Cni::Ptp, Cni::Routed];
/// Where [`churn`] is not.
const OTHERS: On = &[Cni::Bridge, Cni::Routed];

/// In the order in which they run. What wants another state than the one before costs an installation.
const SCENARIOS: &[(&str, On, State, Scenario)] = &[
    ("without_sluice::nothing_is_enforced", BARE, State::Bare, bare::nothing_is_enforced),
    ("upstream::nobody_else_enforces", BOTH, State::Bare, upstream::proof),
    ("policies::cut_and_open", ALL, State::Enforcing, policies::cut_and_open),
    ("policies::names_are_found", PTP, State::Enforcing, policies::names_are_found),
    ("policies::probes_of_the_kubelet", PTP, State::Enforcing, policies::probes_of_the_kubelet),
    ("birth::no_early_packet", OTHERS, State::Enforcing, birth::no_early_packet),
    ("birth::address_is_reused", PTP, State::Enforcing, birth::address_is_reused),
    ("services::node_ports", PTP, State::Enforcing, services::node_ports),
    ("services::load_balancers", PTP, State::Enforcing, services::load_balancers),
    ("services::mixed_services", PTP, State::Enforcing, services::mixed_services),
    ("services::without_a_front_end", PTP, State::Enforcing, services::without_a_front_end),
    ("nodes::host_network", PTP, State::Enforcing, nodes::host_network),
    ("nodes::host_ports", PTP, State::Enforcing, nodes::host_ports),
    ("nodes::masquerade", PTP, State::Enforcing, nodes::masquerade),
    ("nodes::loopback", PTP, State::Enforcing, nodes::loopback),
    ("nodes::other_filters", ALL, State::Enforcing, nodes::other_filters),
    ("life::open_connections", PTP, State::Enforcing, life::open_connections),
    ("life::exec_goes_on", PTP, State::Enforcing, life::exec_goes_on),
    ("ctl::nodes_are_asked", PTP, State::Enforcing, ctl::nodes_are_asked),
    ("ctl::verify_finds_it", PTP, State::Enforcing, ctl::verify_finds_it),
    ("ctl::probes_find_it", PTP, State::Enforcing, ctl::probes_find_it),
    ("churn::pods_come_and_go", PTP, State::Enforcing, churn::pods_come_and_go),
    ("agents::agents_are_killed", PTP, State::Enforcing, agents::agents_are_killed),
    ("agents::agents_are_upgraded", PTP, State::Enforcing, agents::agents_are_upgraded),
    ("agents::born_without_an_agent", PTP, State::Enforcing, agents::born_without_an_agent),
    ("api::api_server_is_away", PTP, State::Enforcing, api::api_server_is_away),
    ("api::history_is_compacted", PTP, State::Enforcing, api::history_is_compacted),
    ("upstream::all", PTP, State::Enforcing, upstream::all),
    ("upstream::chosen", BRIDGE, State::Enforcing, upstream::chosen),
    ("trace::nothing_is_left", PTP, State::Removing, trace::nothing_is_left),
    ("plugin::no_pod_starts_unenforced", PTP, State::Bare, plugin::no_pod_starts_unenforced),
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
    let routed = Settings { nodes: 2, cni: Cni::Routed, proxy: Proxy::Nftables };
    // The cluster of `cargo xtask lab up` is taken for the first of these, whatever it is like, and for every scenario.
    let is_given = stages::are_given();
    let clusters = [ptp, bridge, routed].into_iter().take(if is_given { 1 } else { 3 });
    let mut trials = Vec::new();
    for settings in clusters {
        for (name, _, state, scenario) in SCENARIOS.iter().filter(|(_, on, ..)| is_given || on.contains(&settings.cni))
        {
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
