//! Class `cluster`: the lab itself, without Sluice. Pods reach each other, across nodes, through Services and by name,
//! in both families; and a policy that denies everything stops nothing, so that a denial that another test sees is
//! Sluice's. Not part of a plain `cargo test`: it takes a real cluster.
#![forbid(unsafe_code)]

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::is_root,
    lab::{Cni, Lab, Proxy, Settings},
};
use libtest_mimic::{Arguments, Failed, Trial};

/// Two pods that serve their own names, on two nodes, and a Service of the second.
const PODS: &str = include_str!("cluster/pods.yaml");
const DENY_ALL: &str = include_str!("cluster/deny-all.yaml");
/// The most that a change takes to reach every kube-proxy and CoreDNS.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments = Arguments::from_args();
    if !is_root() && !arguments.list {
        eprintln!("skipped: needs root");
        return;
    }
    let wirings = [(Cni::Ptp, Proxy::Nftables), (Cni::Bridge, Proxy::Iptables)];
    let trials = wirings.map(|(cni, proxy)| {
        Trial::test(format!("{cni}_and_{proxy}"), move || {
            run(&Settings { nodes: 2, cni, proxy }).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    // One at a time: each wants the machine for itself.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials.into()).exit();
}

fn run(settings: &Settings) -> Result<()> {
    let lab = Lab::up(settings)?;
    lab.create_namespace("shop")?;
    lab.apply(PODS)?;
    lab.kubectl(&["wait", "pod", "--all", "--namespace=shop", "--for=condition=Ready", "--timeout=60s"])?;
    let nodes = lab.kubectl(&["get", "pods", "--namespace=shop", "--output=jsonpath={.items[*].spec.nodeName}"])?;
    ensure!(nodes == "n1 n2", "the pods run on {nodes}");

    let targets = targets(&lab)?;
    ensure!(targets.len() == 5, "two addresses of the pod, two of the Service and its name, not {targets:?}");
    for target in &targets {
        let deadline = Instant::now() + PATIENCE;
        // The pod is ready before kube-proxy and CoreDNS know.
        while let Err(error) = ask(&lab, target) {
            ensure!(Instant::now() < deadline, "{target} does not answer: {error:#}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    lab.apply(DENY_ALL)?;
    // Longer than any engine takes: one would have been at work by then.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for target in &targets {
            ask(&lab, target).with_context(|| format!("something else than Sluice enforces policies: {target}"))?;
        }
    }
    lab.down()
}

/// The addresses of pod `b`, those of its Service, and the name of the Service.
fn targets(lab: &Lab) -> Result<Vec<String>> {
    let of = |kind: &str, path: &str| {
        lab.kubectl(&["get", kind, "b", "--namespace=shop", &format!("--output=jsonpath={{{path}}}")])
    };
    let addresses = format!("{} {}", of("pod", ".status.podIPs[*].ip")?, of("service", ".spec.clusterIPs[*]")?);
    let mut targets: Vec<String> = addresses.split_whitespace().map(str::to_owned).collect();
    targets.push("b.shop.svc.cluster.local".to_owned());
    Ok(targets)
}

/// Whether `b` answers pod `a` at this address or name.
fn ask(lab: &Lab, target: &str) -> Result<()> {
    let host = if target.contains(':') { format!("[{target}]") } else { target.to_owned() };
    let connect = ["exec", "--namespace=shop", "a", "--", "/agnhost", "connect", "--timeout=2s"];
    let address = format!("{host}:8080");
    lab.kubectl(&[&connect[..], &[address.as_str()]].concat()).map(drop)
}
