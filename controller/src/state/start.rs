//! From what an earlier agent left to what the source says now, without a moment in between that is neither: everything
//! is read and compiled first, then the difference is carried out. Entry point: [`start`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use enforcer::Enforcer;
use enforcer_abi::PodEntry;
use policy_compiler::{Compiler, Contents, Options, PodTables, PodUpdate, Report, Step, plan::plan};
use rustc_hash::FxHashMap;

use super::{
    Datapath, Inputs, Outputs, Pace, Request, SLICE, State, Unsent, View, applier::Applier, calls::Calls, held::Holds,
    kernel, look::Lookout, reports::Reports,
};
use crate::{
    bind::{Binder, Exclusions, LONGEST_SET_UP, Link},
    cni::{self, Call},
    conflist::Configurations,
    links::Lister,
    source::Update,
};

/// How often is looked whether a process has come behind an interface that waits for it.
const WAITING: Duration = Duration::from_millis(50);

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
    /// Where the CNI plugin keeps its records.
    pub cni_records: PathBuf,
    /// `--cni-conf-dir`
    pub cni_configurations: PathBuf,
}

/// Waits for the source's initial list, compiles it and puts it in force. `None` if the agent drains before.
pub async fn start(
    settings: Settings,
    mut enforcer: Enforcer,
    mut lister: Lister,
    inputs: &mut Inputs,
    outputs: Outputs,
) -> anyhow::Result<Option<State<Enforcer>>> {
    let veths = lister.list(|_| false)?.veths;
    let older: BTreeSet<u32> = veths.iter().map(|link| link.index).collect();
    let exclusions = Exclusions { names: settings.exclude_interfaces.clone(), node_addresses: Vec::new() };
    let configurations = Configurations::new(settings.cni_configurations.clone());
    let mut newcomers = Newcomers::new(older.clone(), exclusions.clone(), configurations);
    let seen = || View {
        version: env!("CARGO_PKG_VERSION"),
        node: settings.node.clone(),
        health: outputs.health.borrow().clone(),
        ..View::default()
    };
    let mut pending = Vec::new();
    let Some(mut first) = first_update(&mut enforcer, &mut lister, &mut newcomers, inputs, &mut pending, seen).await?
    else {
        return Ok(None);
    };
    let mut calls = Calls::new(&settings.node, recorded(&settings.cni_records, &veths));
    calls.complete(&mut first.events);
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
        calls,
        holds: Holds::default(),
        // what it has logged isn't said again
        configurations: newcomers.configurations.clone(),
        lookout: Lookout::new(Box::new(lister), now),
        outputs,
        node_addresses: Vec::new(),
        link_names: BTreeMap::new(),
        node_told: None,
        problems: first.problems,
        generation: 0,
        reports: Reports::default(),
        counted: FxHashMap::default(),
        unsent: Unsent::default(),
        faults: 0,
        pace: Pace::Idle,
        isolating: FxHashMap::default(),
    };
    state.note_isolating();
    state.note_nodes(&first.events);
    state.reports.note(reports);
    state.follow_calls(state.calls.owners());
    state.applier.enqueue(plan(&there, &wanted), None);
    // pods whose tables were pinned already are no difference, but their interfaces have to be found all the same
    let pods = wanted.pods.into_values().map(PodUpdate::Put).collect();
    state.applier.enqueue(vec![Step::Pods(pods)], Some(first.seen));
    state.carry_out(&mut newcomers, inputs).await?;
    state.put_in_force()?;
    pending.into_iter().for_each(|request| state.answer(request));
    Ok(Some(state))
}

/// What the CNI plugin has recorded of interfaces that are still there. An index may be another's by now.
fn recorded(folder: &Path, veths: &[Link]) -> Vec<Call> {
    let is_there = |call: &Call| veths.iter().any(|link| link.index == call.ifindex && link.name == call.interface);
    cni::recorded(folder).into_iter().filter(is_there).collect()
}

fn compile(settings: &Settings, first: &Update, outputs: &Outputs) -> (Compiler, Vec<Report>) {
    let mut compiler = Compiler::new(Options { node: settings.node.as_str().into(), endpoints: settings.endpoints });
    outputs.names.follow(&first.events);
    outputs.engines.follow(&first.events);
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
    /// Carries out what is enqueued, in slices. Interfaces are only told when the pods are: those that are pods' and ran
    /// before aren't to be held for a moment. Newcomers are, between two slices.
    async fn carry_out(&mut self, newcomers: &mut Newcomers, inputs: &mut Inputs) -> anyhow::Result<()> {
        while self.applier.is_busy() {
            let begun = Instant::now();
            let _upkeep = self.applier.maintain(SLICE / 2);
            let advance = self.applier.advance(begun, || begun.elapsed() < SLICE);
            for seen in advance.finished {
                self.outputs.metrics.applied.observe(seen.elapsed().as_secs_f64());
            }
            let hint = if advance.waits {
                let hint = tokio::time::timeout(SLICE, inputs.hints.recv()).await.ok();
                hint.map(|hint| hint.context("nobody tells of interfaces any more")).transpose()?
            } else {
                inputs.hints.try_recv().ok()
            };
            if hint.is_some() {
                let links = self.lookout.glance().context("a look is going on before the first one")??;
                let held = newcomers.hold(&links.veths, &mut self.applier.datapath);
                self.applier.forget_former(&held);
            }
        }
        Ok(())
    }

    fn put_in_force(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.look(&BTreeSet::new());
        self.applier.refresh_all(now);
        let pods = self.applier.unenforced_before();
        if !pods.is_empty() {
            tracing::warn!("not enforced until now: {}", pods.join(", "));
        }
        // settings may have changed, of which no table tells
        self.applier.raise_every_epoch();
        if self.applier.datapath.awaits_take_over()? {
            self.applier.datapath.take_over().context("the programs of an earlier version can't be replaced")?;
        }
        Ok(())
    }
}

/// Interfaces that come before the pods are known: they are attached, and held for want of an entry. Those that were
/// there before the agent go on as they are.
pub(super) struct Newcomers {
    older: BTreeSet<u32>,
    held: BTreeSet<u32>,
    /// Those that aren't attached yet, for the sake of their CNI plugins, and since when they are there.
    waiting: BTreeMap<u32, Instant>,
    exclusions: Exclusions,
    configurations: Configurations,
}

impl Newcomers {
    pub(super) fn new(older: BTreeSet<u32>, exclusions: Exclusions, configurations: Configurations) -> Self {
        Self { older, held: BTreeSet::new(), waiting: BTreeMap::new(), exclusions, configurations }
    }

    /// Answers which interfaces are held from now on.
    pub(super) fn hold(&mut self, links: &[Link], datapath: &mut impl Datapath) -> Vec<u32> {
        let mut held = Vec::new();
        for link in links {
            let is_new = !self.older.contains(&link.index) && self.exclusions.untouched(link).is_none();
            if is_new && !self.held.contains(&link.index) && self.waits(link, datapath) {
                continue;
            }
            if is_new && self.held.insert(link.index) {
                held.push(link.index);
                // an interface that went while no agent ran may have had this index: its pod's tables and flows
                // aren't this one's
                let removed = datapath.delete_pod(link.index);
                let raised = datapath.raise_epoch(&[link.index]).map(drop);
                let attached = datapath.attach(link.index).map(drop);
                match removed.and(raised).and(attached) {
                    Ok(()) => tracing::info!("{} is held until the source has told which pods there are", link.name),
                    Err(fault) => tracing::error!(interface = link.name, "could not be held: {fault}"),
                }
            }
        }
        self.waiting.retain(|index, _| !held.contains(index) && links.iter().any(|link| link.index == *index));
        held
    }

    /// Whether plugins of an interface may still need what would keep them from it: until a process of the pod is there,
    /// or none will be.
    fn waits(&mut self, link: &Link, datapath: &impl Datapath) -> bool {
        if !datapath.excludes_ingress_qdisc() {
            return false;
        }
        let is_unseen = !self.waiting.contains_key(&link.index);
        if is_unseen {
            self.configurations.look();
        }
        let since = *self.waiting.entry(link.index).or_insert_with(Instant::now);
        self.configurations.found().is_some() && !link.has_pods() && since.elapsed() < LONGEST_SET_UP
    }
}

/// Waits for the initial list. Requests that can't be answered before are `pending` then.
async fn first_update(
    enforcer: &mut Enforcer,
    lister: &mut Lister,
    newcomers: &mut Newcomers,
    inputs: &mut Inputs,
    pending: &mut Vec<Request>,
    seen: impl Fn() -> View,
) -> anyhow::Result<Option<Update>> {
    loop {
        tokio::select! {
            biased;
            _ = inputs.stopping.wait_for(|stopping| *stopping) => return Ok(None),
            update = inputs.updates.recv() => return update.map(Some).context("the source has ended"),
            // a source that can't be reached for a day is no reason to be taken for dead
            Some(request) = inputs.requests.recv() => {
                match request {
                    Request::Ping(answer) | Request::Counters(answer) => _ = answer.send(()),
                    Request::View(answer) => _ = answer.send(Box::new(seen())),
                    Request::Notices(answer) => _ = answer.send(Vec::new()),
                    // nothing is known yet, and who asks is told so by not being answered
                    Request::Moment(_) | Request::Objects(..) | Request::Pods(_) | Request::Tables(..) => {}
                    request @ (Request::Call(..) | Request::HangUp(..)) => {
                        // a runtime asks again and again while the source is away
                        pending.retain(|request| !matches!(request, Request::Call(.., answer) if answer.is_closed()));
                        pending.push(request);
                    }
                }
                continue;
            }
            hint = inputs.hints.recv() => { hint.context("nobody tells of interfaces any more")?; }
            // nobody tells of processes
            () = tokio::time::sleep(WAITING), if !newcomers.waiting.is_empty() => {}
        }
        let links = lister.list(|index| newcomers.waiting.contains_key(&index))?;
        newcomers.hold(&links.veths, enforcer);
    }
}
