//! A run from beginning to end: the proof that nobody else enforces, the installation, the scenarios one after the other, and
//! what is left afterwards.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use super::{
    agents, birth, changes,
    install::{Image, Overlay},
    policies, removal, scene, services,
    venue::Venue,
};
use crate::{
    bed::registry::{Lease, Resource, Undo},
    lab::{
        Cluster,
        conformance::{Conformance, NETWORK_POLICY},
    },
};

type Scenario = fn(&Venue) -> Result<()>;

/// In the order in which they run.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("policies::deny_and_allow", policies::deny_and_allow),
    ("policies::labels_count", policies::labels_count),
    ("policies::probes_of_the_kubelet", policies::probes_of_the_kubelet),
    ("changes::policy_cuts", changes::policy_cuts),
    ("changes::pod_label_cuts", changes::pod_label_cuts),
    ("changes::namespace_label_cuts", changes::namespace_label_cuts),
    ("services::cluster_ip", services::cluster_ip),
    (NAMES, services::names_are_found),
    ("birth::no_early_packet", birth::no_early_packet),
    ("agents::are_rolled_out", agents::are_rolled_out),
    ("agents::are_killed", agents::are_killed),
    ("agents::are_away", agents::are_away),
];

/// Not every cluster can run it.
const NAMES: &str = "services::names_are_found";
const UPSTREAM: &str = "upstream::network_policy";
const REMOVAL: &str = "removal::nothing_is_enforced";

/// What a run does beside its scenarios.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Another image than that of the manifests.
    pub image: Option<Image>,
    /// Whether Sluice is installed; if not, it must be there, and stays.
    pub install: bool,
    /// Whether what was installed stays.
    pub keep: bool,
    /// Whether the upstream suite runs too, and whether the nodes' kernels know SCTP.
    pub conformance: bool,
    pub sctp: bool,
    /// The folder for the suite's report and output.
    pub output: PathBuf,
}

/// Runs the scenarios on a cluster. Whether all of them passed.
///
/// # Errors
/// If somebody else enforces policies there, Sluice can't be installed or removed, or a namespace can't be removed.
pub fn run(cluster: Option<Cluster>, plan: &Plan, arguments: &Arguments) -> Result<bool> {
    let Some(cluster) = cluster.filter(|_| !arguments.list) else {
        return Ok(!libtest_mimic::run(arguments, trials(plan, None)).has_failed());
    };
    let venue = Venue::survey(cluster)?;
    println!("on nodes: {}", venue.nodes().join(", "));
    if venue.nodes().len() == 1 {
        println!("only one node takes ordinary pods, so nothing is tried between nodes");
    }
    // What a signal ends tidies nothing, and takes the namespaces alone with it.
    let warning = Undo::new(|| eprintln!("Sluice may be left on the cluster; docs/install.md says how to remove it"));
    let warning = Lease::new(Resource::Elsewhere(warning));
    let run =
        Arc::new(Run { overlay: Overlay::create(plan.image.as_ref())?, venue, installed: AtomicBool::new(false) });
    // Whatever becomes of the installation, what there is of it is removed.
    let passed = run.prepare(plan).map(|()| {
        // One at a time, in this order: they share the agents.
        let arguments = Arguments { test_threads: Some(1), ..arguments.clone() };
        !libtest_mimic::run(&arguments, trials(plan, Some(&run))).has_failed()
    });
    let tidied = run.tidy(plan);
    warning.forget();
    let passed = passed?;
    tidied?;
    Ok(passed)
}

/// What a trial does.
type Work = Box<dyn FnOnce(&Run) -> Result<()> + Send>;

struct Run {
    venue: Venue,
    overlay: Overlay,
    /// Whether this run has installed Sluice, and not removed it yet.
    installed: AtomicBool,
}

impl Run {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        let cluster = self.venue.cluster();
        let is_there = cluster.has_sluice()?;
        if plan.install {
            ensure!(
                !is_there,
                "Sluice runs on this cluster already: --no-install takes it as it is, or remove it first \
                 (docs/install.md)"
            );
        } else {
            ensure!(is_there, "Sluice does not run on this cluster, and --no-install says not to install it");
        }
        let proven = if plan.install { "without Sluice" } else { "but for Sluice" };
        timed(&format!("{proven}, probes that a policy denies pass"), || cluster.prove_unenforced())?;
        if plan.install {
            self.installed.store(true, Ordering::Relaxed);
            return timed("Sluice is installed, and every pod enforced", || {
                cluster.install_kustomization(&self.overlay.installation())
            });
        }
        timed("Sluice is there, and every pod enforced", || cluster.await_sluice())
    }

    /// Removes Sluice and the namespaces, and says what is left.
    fn tidy(&self, plan: &Plan) -> Result<()> {
        let cluster = self.venue.cluster();
        let is_ours = self.installed.load(Ordering::Relaxed);
        if is_ours && !plan.keep {
            timed("Sluice is removed", || removal::uninstall(&self.venue, &self.overlay))
                .context("Sluice is left on the cluster; docs/install.md says how to remove it")?;
        }
        let selector = format!("--selector={}", scene::LABEL);
        cluster
            .kubectl(&["delete", "namespace", &selector, "--timeout=120s"])
            .with_context(|| format!("namespaces are left: `kubectl delete namespace {selector}` removes them"))?;
        let is_there = cluster.has_sluice()?;
        println!(
            "left on the cluster: {}",
            if is_there { "Sluice; docs/install.md says how to remove it" } else { "nothing" }
        );
        Ok(())
    }
}

/// All of them, to be run; without a run, to be listed.
fn trials(plan: &Plan, run: Option<&Arc<Run>>) -> Vec<Trial> {
    let has_names = run.is_none_or(|run| run.venue.names().is_some());
    if !has_names {
        println!("skipped: {NAMES}: the cluster has no Service kube-system/kube-dns with pods behind it");
    }
    let trial = |name: &'static str, work: Work| {
        let run = run.cloned();
        let body = move || {
            let run = run.context("there is no cluster").map_err(|error| Failed::from(format!("{error:#}")))?;
            timed(name, || work(&run))
                .map_err(|error| Failed::from(format!("{error:#}\n{}", run.venue.cluster().sluice_log(10))))
        };
        Trial::test(name, body).with_ignored_flag(name == NAMES && !has_names)
    };
    let mut trials: Vec<Trial> =
        SCENARIOS.iter().map(|(name, scenario)| trial(name, Box::new(|run: &Run| scenario(&run.venue)))).collect();
    if plan.conformance {
        let suite = Conformance {
            focus: vec![NETWORK_POLICY.to_owned()],
            processes: 6,
            sctp: plan.sctp,
            folder: plan.output.clone(),
        };
        trials.push(trial(UPSTREAM, Box::new(move |run| upstream(&suite, run.venue.cluster()))));
    }
    if plan.install && !plan.keep {
        let remove = |run: &Run| {
            removal::nothing_is_enforced(&run.venue, &run.overlay)?;
            run.installed.store(false, Ordering::Relaxed);
            Ok(())
        };
        trials.push(trial(REMOVAL, Box::new(remove)));
    }
    trials
}

fn upstream(suite: &Conformance, cluster: &Cluster) -> Result<()> {
    let outcome = suite.run(cluster)?;
    eprintln!("upstream suite: {outcome}");
    ensure!(outcome.failed.is_empty(), "{outcome}\n{}/output.log has more", suite.folder.display());
    Ok(())
}

/// Says how long something took, whatever came of it.
fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    let mark = if result.is_ok() { "" } else { "  FAILED" };
    eprintln!("{:6.1} s  {what}{mark}", start.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(install: bool, keep: bool, conformance: bool) -> Vec<String> {
        let plan = Plan { image: None, install, keep, conformance, sctp: true, output: PathBuf::new() };
        trials(&plan, None).iter().map(|trial| trial.name().to_owned()).collect()
    }

    #[test]
    fn sluice_is_removed_last_and_only_where_it_was_installed() {
        assert_eq!(names(true, false, true).last().map(String::as_str), Some(REMOVAL));
        assert_eq!(names(true, false, true).len(), SCENARIOS.len() + 2);
        assert_eq!(names(false, false, true).last().map(String::as_str), Some(UPSTREAM));
        assert_eq!(names(true, true, false).len(), SCENARIOS.len());
    }
}
