//! Class `cluster`: Sluice on a real cluster, installed as a user installs it. Not part of a plain `cargo test`: it
//! brings up whole clusters, one after the other, and keeps each for all the tests that want one like it.
#![forbid(unsafe_code)]

mod bare;
mod birth;
mod policies;
mod scene;
mod services;
mod stages;

use std::sync::Arc;

use anyhow::Result;
use e2e::{
    bed::is_root,
    lab::{Cni, Lab, Proxy, Settings},
};
use libtest_mimic::{Arguments, Failed, Trial};

use stages::{Stages, State};

/// What a test does with a cluster that is in a state.
type Scenario = fn(&Lab) -> Result<()>;

/// In the order in which they run. What wants another state than the one before costs an installation.
const SCENARIOS: &[(&str, State, Scenario)] = &[
    ("without_sluice::nothing_is_enforced", State::Bare, bare::nothing_is_enforced),
    ("policies::cut_and_open", State::Enforcing, policies::cut_and_open),
    ("policies::names_are_found", State::Enforcing, policies::names_are_found),
    ("policies::probes_of_the_kubelet", State::Enforcing, policies::probes_of_the_kubelet),
    ("birth::no_early_packet", State::Enforcing, birth::no_early_packet),
    ("services::node_ports", State::Enforcing, services::node_ports),
    ("services::load_balancers", State::Enforcing, services::load_balancers),
    ("services::mixed_services", State::Enforcing, services::mixed_services),
    ("services::without_a_front_end", State::Enforcing, services::without_a_front_end),
];

/// Of these, the ones that a cluster with other plugins runs, too.
const WITH_BRIDGE: [&str; 3] =
    ["without_sluice::nothing_is_enforced", "policies::cut_and_open", "birth::no_early_packet"];

fn main() {
    let arguments = Arguments::from_args();
    if !is_root() && !arguments.list {
        eprintln!("skipped: needs root");
        return;
    }
    let stages = Arc::new(Stages::default());
    let ptp = Settings { nodes: 3, cni: Cni::Ptp, proxy: Proxy::Nftables };
    let bridge = Settings { nodes: 2, cni: Cni::Bridge, proxy: Proxy::Iptables };
    let trial = |settings: &Settings, (name, state, scenario): (&'static str, State, Scenario)| {
        let (stages, settings) = (Arc::clone(&stages), settings.clone());
        let run = move || {
            let result = stages.run(&settings, state, scenario);
            result.map_err(|error| Failed::from(format!("{error:#}")))
        };
        Trial::test(name, run)
    };
    let mut trials: Vec<Trial> = SCENARIOS.iter().map(|scenario| trial(&ptp, *scenario).with_kind("ptp")).collect();
    let with_bridge = SCENARIOS.iter().filter(|(name, ..)| WITH_BRIDGE.contains(name) && !stages::are_given());
    trials.extend(with_bridge.map(|scenario| trial(&bridge, *scenario).with_kind("bridge")));
    // One at a time, in this order: they share a cluster.
    let conclusion = libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials);
    if let Err(error) = stages.down() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
    conclusion.exit();
}
