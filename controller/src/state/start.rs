//! From what an earlier agent left to what the source says now, without a moment in between that is neither: everything
//! is read and compiled first, then the difference is carried out. Entry point: [`start`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use enforcer::Enforcer;
use enforcer_abi::PodEntry;
use policy_compiler::{Compiler, Contents, Options, PodTables, PodUpdate, Report, Step, plan::plan};
use rustc_hash::FxHashMap;

use super::{Inputs, Looks as _, Outputs, RECHECK, State, Unsent, applier::Applier, kernel, reports::Reports};
use crate::{
    bind::{Binder, Exclusions},
    links::Lister,
    source::Update,
};

/// What the state is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// `--exclude-interface`
    pub exclude_interfaces: Vec<String>,
    /// `--node-interface`
    pub node_interfaces: Vec<String>,
    /// Source checks need the addresses of all pods and nodes.
    pub endpoints: bool,
    /// `--midstream-grace`
    pub midstream_grace: Duration,
}

/// Waits for the source's initial list, compiles it and puts it in force. `None` if the agent drains before.
pub async fn start(
    settings: Settings,
    mut enforcer: Enforcer,
    mut lister: Lister,
    inputs: &mut Inputs,
    outputs: Outputs,
) -> anyhow::Result<Option<State<Enforcer>>> {
    let older: BTreeSet<u32> = lister.list(|_| false)?.veths.iter().map(|link| link.index).collect();
    let exclusions = Exclusions { names: settings.exclude_interfaces.clone(), node_addresses: Vec::new() };
    let Some(first) = first_update(&mut enforcer, &mut lister, &exclusions, &older, inputs).await? else {
        return Ok(None);
    };
    let (compiler, reports) = compile(&settings, &first, &outputs);
    let wanted = compiler.contents();
    let (there, entries) = pinned(&enforcer, &wanted)?;
    let attached = enforcer.attached().context("what is attached can't be listed")?;
    let attached: Vec<u32> = attached.iter().map(|there| there.ifindex).collect();
    let until = enforcer.clock().now()? + enforcer.clock().jiffies(settings.midstream_grace);

    let now = Instant::now();
    let mut applier = Applier::new(enforcer, Binder::new(exclusions), entries, &attached, now);
    applier.allow_midstream(older, until);
    let mut state = State {
        node: settings.node,
        node_interfaces: settings.node_interfaces,
        compiler,
        applier,
        lister: Box::new(lister),
        outputs,
        node_addresses: Vec::new(),
        link_names: BTreeMap::new(),
        node_told: None,
        problems: first.problems,
        reports: Reports::default(),
        counted: FxHashMap::default(),
        unsent: Unsent::default(),
        faults: 0,
        next_check: now + RECHECK,
        isolating: FxHashMap::default(),
    };
    state.note_isolating();
    state.note_nodes(&first.events);
    state.reports.note(reports);
    state.put_in_force(plan(&there, &wanted), wanted, now)?;
    state.outputs.metrics.applied.observe(first.seen.elapsed().as_secs_f64());
    Ok(Some(state))
}

fn compile(settings: &Settings, first: &Update, outputs: &Outputs) -> (Compiler, Vec<Report>) {
    let mut compiler = Compiler::new(Options { node: settings.node.as_str().into(), endpoints: settings.endpoints });
    outputs.names.follow(&first.events);
    let _timer = outputs.metrics.compile.start_timer();
    // its steps lead from nothing to the tables; what is wanted are those that lead there from what is pinned
    let reports = compiler.apply_all(first.events.iter().cloned()).reports;
    (compiler, reports)
}

/// What an earlier agent left, with the UIDs of the pods that have its addresses now.
fn pinned(enforcer: &Enforcer, wanted: &Contents) -> anyhow::Result<(Contents, Vec<PodEntry>)> {
    let addresses = |pod: &PodTables| pod.addresses.iter().map(|address| (*address, Arc::clone(&pod.uid))).collect();
    let uids: FxHashMap<IpAddr, Arc<str>> = wanted.pods.values().flat_map::<Vec<_>, _>(addresses).collect();
    kernel::pinned(enforcer, |address| uids.get(&address).cloned()).context("what an earlier agent left can't be read")
}

impl State<Enforcer> {
    fn put_in_force(&mut self, steps: Vec<Step>, wanted: Contents, now: Instant) -> anyhow::Result<()> {
        self.applier.carry_out(steps, now);
        // pods whose tables were pinned already are no difference, but their interfaces have to be found all the same
        let pods = wanted.pods.into_values().map(PodUpdate::Put).collect();
        self.applier.carry_out(vec![Step::Pods(pods)], now);
        self.look(&BTreeSet::new());
        self.applier.refresh_all(now);
        let pods = self.applier.unenforced_before();
        if !pods.is_empty() {
            tracing::warn!("not enforced until now: {}", pods.join(", "));
        }
        // settings may have changed, of which no table tells
        self.applier.raise_epoch();
        if self.applier.datapath.awaits_take_over()? {
            self.applier.datapath.take_over().context("the programs of an earlier version can't be replaced")?;
        }
        Ok(())
    }
}

/// Waits for the initial list. An interface that comes meanwhile is attached, and held for want of an entry; those in
/// `older` were there before and go on as they are.
async fn first_update(
    enforcer: &mut Enforcer,
    lister: &mut Lister,
    exclusions: &Exclusions,
    older: &BTreeSet<u32>,
    inputs: &mut Inputs,
) -> anyhow::Result<Option<Update>> {
    let mut held = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            _ = inputs.stopping.wait_for(|stopping| *stopping) => return Ok(None),
            update = inputs.updates.recv() => return update.map(Some).context("the source has ended"),
            hint = inputs.hints.recv() => { hint.context("nobody tells of interfaces any more")?; }
        }
        for link in lister.look(&|_| false)?.veths {
            let is_new = !older.contains(&link.index) && exclusions.untouched(&link).is_none();
            if is_new && held.insert(link.index) {
                match enforcer.attach(link.index) {
                    Ok(_) => tracing::info!("{} is held until the source has told which pods there are", link.name),
                    Err(error) => tracing::error!(interface = link.name, "could not attach: {error}"),
                }
            }
        }
    }
}
