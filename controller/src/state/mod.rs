//! The one task that owns the compiler and the kernel's tables. Everything that happens comes to it in order: what the
//! source tells, what the kernel announces, what somebody asks. What follows from it is written to the kernel in slices,
//! between which the next comes to its turn. Entry point: [`State::run`].

mod answers;
mod applier;
mod calls;
mod datapath;
mod entry;
mod exports;
mod failures;
mod frees;
mod held;
mod kernel;
mod look;
mod names;
mod notices;
mod place;
mod queue;
mod reports;
mod start;
#[cfg(test)]
mod tests;
mod view;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use enforcer::Upkeep;
use enforcer_abi::{Address, Counters, Op};
use policy_compiler::{Compiler, Cursor, Event, TableCursor, model::ObjectName};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    applier::Applier,
    calls::Calls,
    held::Holds,
    look::{Lookout, RECHECK},
    reports::Reports,
};
pub use self::{
    datapath::{Attachment, Datapath, Fault, Fill, Unsent},
    exports::{CompiledPod, Moment, Page},
    look::Looks,
    names::Directory,
    start::{Settings, start},
    view::{Condition, DirectionView, Health, InterfaceView, MapView, PodView, View},
};
use crate::{
    cni::{Call, HangUp, Standing},
    conflist::Configurations,
    engines::Engines,
    links::Hint,
    metrics::Metrics,
    notice::Notice,
    source::{Problem, Update},
};

/// How long writes to the kernel may keep what happens waiting.
const SLICE: Duration = Duration::from_millis(5);

/// What somebody asks of the state.
#[derive(Debug)]
pub enum Request {
    /// Whether it is there.
    Ping(oneshot::Sender<()>),
    /// To bring the metrics up to date with the kernel's counters.
    Counters(oneshot::Sender<()>),
    /// All of it.
    View(oneshot::Sender<Box<View>>),
    /// What an administrator must know.
    Notices(oneshot::Sender<Vec<Notice>>),
    /// Which state it is.
    Moment(oneshot::Sender<Moment>),
    /// Some of its objects.
    Objects(Cursor, oneshot::Sender<Page<Event, Cursor>>),
    /// This node's pods.
    Pods(oneshot::Sender<(Moment, Vec<CompiledPod>)>),
    /// Some of the tables that it has compiled.
    Tables(TableCursor, oneshot::Sender<Page<Op, TableCursor>>),
    /// The CNI plugin has an interface for a pod; the answer comes when its tables are in force, or after that time.
    Call(Call, Duration, oneshot::Sender<Standing>),
    /// An interface of a sandbox is about to go, or all that it has.
    HangUp(HangUp, oneshot::Sender<()>),
}

/// What comes to the state.
#[derive(Debug)]
pub struct Inputs {
    /// From the source.
    pub updates: mpsc::Receiver<Update>,
    /// From the kernel.
    pub hints: mpsc::Receiver<Hint>,
    /// From whoever asks.
    pub requests: mpsc::Receiver<Request>,
    /// Becomes true when the agent drains.
    pub stopping: watch::Receiver<bool>,
}

/// What others see of the state.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Metrics.
    pub metrics: Metrics,
    /// Readiness.
    pub health: watch::Sender<Health>,
    /// Names for events.
    pub names: Arc<Directory>,
    /// Other policy engines on the node.
    pub engines: Arc<Engines>,
}

/// See the module's text.
pub struct State<D> {
    node: String,
    node_interfaces: Vec<String>,
    compiler: Compiler,
    applier: Applier<D>,
    calls: Calls,
    holds: Holds,
    lookout: Lookout,
    /// Those of the container runtime.
    configurations: Configurations,
    outputs: Outputs,
    /// The addresses of the Node objects, the node's own first of all.
    node_addresses: Vec<std::net::IpAddr>,
    link_names: BTreeMap<u32, String>,
    /// What the kernel was last told of the node.
    node_told: Option<(Vec<Address>, Vec<u32>)>,
    problems: Arc<[Problem]>,
    /// See [`Moment::generation`].
    generation: u64,
    reports: Reports,
    counted: FxHashMap<u32, (ObjectName, Counters)>,
    unsent: Unsent,
    faults: u64,
    pace: Pace,
    /// The policies that isolate each pod of this node, by UID: for ingress, for egress.
    isolating: FxHashMap<Arc<str>, [Vec<String>; 2]>,
}

/// When the next slice of work is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    /// After whatever has happened and wants to be heard.
    Now,
    /// In a slice's time: the kernel is verifying programs for larger maps.
    Soon,
    /// When something happens.
    Idle,
}

impl<D: Datapath> State<D> {
    /// Follows the inputs until the agent drains or the source ends. A change that is being written when the agent drains is
    /// written to its end.
    pub async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        self.work();
        self.answer_calls();
        self.publish();
        loop {
            self.begin_look();
            let wake = self.wake();
            tokio::select! {
                biased;
                _ = inputs.stopping.wait_for(|stopping| *stopping) => {
                    self.applier.finish(Instant::now());
                    return Ok(());
                }
                request = inputs.requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return Ok(()),
                },
                look = self.lookout.done() => self.take_in(look?),
                hint = inputs.hints.recv() => {
                    let Some(mut hint) = hint else { anyhow::bail!("nobody tells of interfaces any more") };
                    while let Ok(more) = inputs.hints.try_recv() {
                        hint.links.extend(more.links);
                        hint.veths.extend(more.veths);
                    }
                    self.hold_newcomers(hint.veths);
                    self.lookout.want(hint.links);
                }
                update = inputs.updates.recv() => {
                    let Some(update) = update else { anyhow::bail!("the source has ended") };
                    let mut updates = vec![update];
                    while let Ok(more) = inputs.updates.try_recv() {
                        updates.push(more);
                    }
                    self.update(updates);
                }
                () = tokio::task::yield_now(), if self.pace == Pace::Now => {}
                () = tokio::time::sleep_until(wake.into()) => self.tick(),
            }
            // goes on while this one works
            self.begin_look();
            self.work();
            self.answer_calls();
            self.time_holds();
            self.publish();
        }
    }

    /// Of several pods that claim an address, one that is bound to an interface here has it.
    /// Answers whether that changes anything.
    fn tell_bound(&mut self) -> bool {
        let changes = self.compiler.set_bound(self.applier.binder.bound().map(|uid| &**uid));
        let changed = !changes.is_empty();
        self.generation += u64::from(changed);
        self.applier.enqueue(changes.steps, None);
        self.reports.note(changes.reports);
        changed
    }

    /// When there is something to do although nothing happens.
    fn wake(&self) -> Instant {
        let soon = (self.pace == Pace::Soon).then(|| Instant::now() + SLICE);
        self.applier
            .next_tick()
            .into_iter()
            .chain(self.calls.next_deadline())
            .chain(soon)
            .chain(self.lookout.next())
            .fold(Instant::now() + RECHECK, Instant::min)
    }

    /// One slice of what is to be written, and of room for it.
    fn work(&mut self) {
        let now = Instant::now();
        let upkeep = self.applier.maintain(SLICE / 2);
        let advance = self.applier.advance(now, || now.elapsed() < SLICE);
        for seen in advance.finished {
            self.outputs.metrics.applied.observe(seen.elapsed().as_secs_f64());
        }
        if advance.pods && self.applier.binder.waits(now) {
            // the kernel may have shown the address of a new pod long ago
            self.lookout.want(None);
        }
        self.tell_bound();
        let upkeep = match upkeep {
            Upkeep::Done => Pace::Idle,
            Upkeep::Soon => Pace::Soon,
            Upkeep::Now => Pace::Now,
        };
        self.pace = if self.applier.is_busy() && !advance.waits { Pace::Now } else { upkeep };
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.applier.tick(now);
        if self.lookout.next().is_some_and(|next| next <= now) {
            self.lookout.want(None);
        }
    }

    /// Compiles what the source tells, to be carried out.
    fn update(&mut self, updates: Vec<Update>) {
        let Some(seen) = updates.iter().map(|update| update.seen).min() else { return };
        if let Some(last) = updates.last() {
            self.problems = Arc::clone(&last.problems);
        }
        let mut events: Vec<Event> = updates.into_iter().flat_map(|update| update.events).collect();
        let renamed = self.calls.complete(&mut events);
        self.follow_calls(renamed);
        self.note_nodes(&events);
        self.outputs.names.follow(&events);
        self.outputs.engines.follow(&events);
        let changes = {
            let _timer = self.outputs.metrics.compile.start_timer();
            self.compiler.apply_all(events)
        };
        self.note_isolating();
        self.generation += 1;
        self.applier.enqueue(changes.steps, Some(seen));
        self.reports.note(changes.reports);
        // of a pod whose processes have come before it was told of
        self.know_inhabitants();
    }

    /// The policies' names for events and views.
    fn note_isolating(&mut self) {
        let names = |policies: Vec<&ObjectName>| policies.into_iter().map(ToString::to_string).collect();
        self.isolating =
            self.compiler.isolating().map(|(uid, policies)| (Arc::clone(uid), policies.map(names))).collect();
    }

    /// The addresses of Node objects say which links are the node's own.
    fn note_nodes(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::PutNode(node) if *node.name == self.node => self.node_addresses.clone_from(&node.addresses),
                Event::DeleteNode(name) if **name == self.node => self.node_addresses.clear(),
                _ => continue,
            }
            self.applier.binder.set_node_addresses(self.node_addresses.clone());
        }
    }

    /// Tells the kernel which addresses and interfaces are the node's, if that has changed.
    fn tell_node(&mut self, own: Vec<std::net::IpAddr>) {
        let mut addresses: Vec<Address> =
            own.into_iter().chain(self.node_addresses.iter().copied()).map(Address::from).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let names = self.link_names.iter().filter(|(_, name)| self.node_interfaces.contains(name));
        let told = (addresses, names.map(|(index, _)| *index).collect::<Vec<u32>>());
        if self.node_told.as_ref() == Some(&told) {
            return;
        }
        match self.applier.datapath.set_node(&told.0, &told.1) {
            Ok(()) => self.node_told = Some(told),
            Err(fault) => tracing::error!("could not write the node's addresses, and try again soon: {fault}"),
        }
    }

    fn answer(&mut self, request: Request) {
        // whoever asked may have gone away meanwhile
        match request {
            Request::Ping(answer) => _ = answer.send(()),
            Request::Counters(answer) => {
                self.count();
                _ = answer.send(());
            }
            Request::View(answer) => _ = answer.send(Box::new(self.view())),
            Request::Notices(answer) => _ = answer.send(self.notices()),
            Request::Moment(answer) => _ = answer.send(self.moment()),
            Request::Objects(from, answer) => _ = answer.send(self.objects(from)),
            Request::Pods(answer) => _ = answer.send((self.moment(), self.compiled_pods())),
            Request::Tables(from, answer) => _ = answer.send(self.writes(from)),
            Request::Call(call, patience, answer) => self.call(call, patience, answer),
            Request::HangUp(gone, answer) => {
                self.hang_up(&gone);
                _ = answer.send(());
            }
        }
    }
}
