//! Carries out a case: the cluster's objects through the compiler into the program's maps, then step after step.
//! Entry point: [`run`].

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use enforcer_abi::{Address, FlowKey, FlowValue, FragmentKey, FragmentValue, PodEntry, PodFlags, SourceCheck, map};
use policy_compiler::{
    Changes, Compiler, Event, Options, PodUpdate, Step as Change, TableUse, change::PodTables, model::ObjectName,
};

use super::{
    case::{self, Case},
    devices,
    objects::State,
    pool::{self, Lease},
    step::{Evicted, Step, Towards},
    tables,
};

/// The node whose pods are judged.
pub const NODE: &str = "home";

/// In step files, an interface that runs the program without an entry in `PODS`.
pub const UNKNOWN: &str = "unknown";

/// A case under way.
pub struct Run {
    node: String,
    pub(super) program: Lease,
    compiler: Compiler,
    state: State,
    pub(super) pods: BTreeMap<String, Veth>,
    pub(super) addresses: BTreeMap<String, Vec<IpAddr>>,
    next: u32,
}

/// The host's end of a pod's veth.
#[derive(Clone, Debug)]
pub(super) struct Veth {
    pub(super) ifindex: u32,
    pub(super) entry: Option<PodEntry>,
    uid: String,
    /// Flags that don't come from the compiler.
    extra: u32,
    midstream_until: u64,
}

/// Carries out a case on a kernel of `hz` jiffies a second.
///
/// # Errors
/// A step did not go as the case says; the error names it by number.
pub fn run(case: &Case, hz: u64) -> Result<()> {
    let file = &case.content;
    let mut run = Run::start(pool::lease(file.settings.settings(hz), file.settings.sizes())?, NODE);
    for ifindex in &file.settings.node_interfaces {
        run.program.hash::<u32, u32>(map::NODE_INTERFACES)?.insert(ifindex, 1, 0)?;
    }
    run.apply(&case::cluster()?)?;
    run.apply(&file.objects)?;
    for (number, step) in file.steps.iter().enumerate() {
        run.step(step).with_context(|| format!("step {}: {step:?}", number + 1))?;
    }
    Ok(())
}

impl Run {
    /// With an empty cluster, to be judged on this node.
    #[must_use]
    pub fn start(program: Lease, node: &str) -> Self {
        let endpoints = program.settings().source_check == SourceCheck::Pods as u32;
        let compiler = Compiler::new(Options { endpoints, ..Options::new(node) });
        let (pods, addresses) = (BTreeMap::new(), BTreeMap::new());
        let state = State::default();
        Self { node: node.to_owned(), program, compiler, state, pods, addresses, next: devices::FIRST + 1 }
    }

    /// Puts objects, as manifests.
    ///
    /// # Errors
    /// The manifests are not to be read without a diagnostic, or the kernel refuses a write.
    pub fn apply(&mut self, text: &str) -> Result<()> {
        let events = self.state.apply(text)?;
        self.events(events)
    }

    /// Lets the compiler hear of events, and carries out what it answers.
    ///
    /// # Errors
    /// The kernel refuses a write.
    pub fn events(&mut self, events: Vec<Event>) -> Result<()> {
        for event in &events {
            self.note(event)?;
        }
        let changes = self.compiler.apply_all(events);
        self.carry_out(&changes)
    }

    /// Remembers what steps may name.
    fn note(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::PutPod(pod) => {
                self.addresses.insert(pod.name.to_string(), pod.addresses.clone());
                if pod.node.as_deref() == Some(&*self.node)
                    && !pod.host_network
                    && !self.pods.contains_key(&pod.name.to_string())
                {
                    let veth = Veth {
                        ifindex: self.next,
                        entry: None,
                        uid: pod.uid.to_string(),
                        extra: 0,
                        midstream_until: 0,
                    };
                    self.pods.insert(pod.name.to_string(), veth);
                    self.next += 1;
                }
            }
            Event::PutNode(node) => {
                self.addresses.insert(node.name.to_string(), node.addresses.clone());
                if *node.name == *self.node {
                    let mut own = self.program.hash::<Address, u32>(map::NODE_ADDRESSES)?;
                    for address in &node.addresses {
                        own.insert(Address::from(*address), 1, 0)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, changes: &Changes) -> Result<()> {
        for change in &changes.steps {
            match change {
                Change::Write(ops) | Change::Free(ops) => tables::write(&mut self.program, ops)?,
                Change::RaiseEpoch(pods) => {
                    let revoked = self.pods.values().filter(|veth| pods.iter().any(|uid| **uid == *veth.uid));
                    for ifindex in revoked.map(|veth| veth.ifindex).collect::<Vec<_>>() {
                        self.program.raise_epoch(ifindex)?;
                    }
                }
                Change::Pods(updates) => {
                    for update in updates {
                        self.pod(update)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn pod(&mut self, update: &PodUpdate) -> Result<()> {
        match update {
            PodUpdate::Put(tables) => {
                let veth =
                    self.pods.get_mut(&tables.name.to_string()).context("the compiler names a pod it was not told")?;
                let entry = entry(veth, tables);
                veth.entry = Some(entry);
                self.put(&tables.name.to_string())
            }
            PodUpdate::Delete { uid } => {
                let gone = self.pods.iter().find(|(_, veth)| *veth.uid == **uid).map(|(name, _)| name.clone());
                if let Some(veth) = gone.and_then(|name| self.pods.remove(&name)) {
                    self.program.delete_pod(veth.ifindex)?;
                }
                Ok(())
            }
        }
    }

    /// Writes a pod's entry as it stands, with the flags that steps have set.
    fn put(&mut self, pod: &str) -> Result<()> {
        let veth = self.veth(pod)?.clone();
        if let Some(mut entry) = veth.entry {
            entry.ifindex = veth.ifindex;
            entry.flags |= veth.extra;
            entry.midstream_until = veth.midstream_until;
            self.program.put_pod(entry)?;
        }
        Ok(())
    }

    pub(super) fn veth(&mut self, pod: &str) -> Result<&mut Veth> {
        self.pods.get_mut(pod).with_context(|| format!("no pod {pod} on node {}", self.node))
    }

    fn flag(&mut self, pod: &str, set: u32, clear: u32) -> Result<()> {
        let veth = self.veth(pod)?;
        veth.extra = (veth.extra | set) & !clear;
        self.put(pod)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Packet(packet) => self.packet(packet)?,
            Step::Flow(flow) => self.flow(flow)?,
            Step::Apply(text) => self.apply(text)?,
            Step::Delete(names) => {
                let events = names.iter().map(|name| deletion(name)).collect::<Result<_>>()?;
                let events = self.state.change(events)?;
                self.events(events)?;
            }
            Step::Advance(seconds) => self.advance(*seconds)?,
            Step::Evict(what) => self.evict(*what)?,
            Step::Rebind { from, to } => {
                let ifindex = self.veth(from)?.ifindex;
                let old = std::mem::replace(&mut self.veth(to)?.ifindex, ifindex);
                self.pods.remove(from);
                self.program.delete_pod(old)?;
                self.put(to)?;
                self.program.raise_epoch(ifindex)?;
            }
            Step::Hold { pod, setup } => {
                let setup = if *setup { PodFlags::SETUP } else { 0 };
                self.flag(pod, PodFlags::HELD | setup, PodFlags::SETUP & !setup)?;
            }
            Step::Release(pod) => self.flag(pod, 0, PodFlags::HELD | PodFlags::SETUP)?,
            Step::Close { pod, directions } => {
                for towards in directions {
                    let flag = match towards {
                        Towards::Ingress => PodFlags::INGRESS_CLOSED,
                        Towards::Egress => PodFlags::EGRESS_CLOSED,
                    };
                    self.flag(pod, flag, 0)?;
                }
                let ifindex = self.veth(pod)?.ifindex;
                self.program.raise_epoch(ifindex)?;
            }
            Step::Grace { pod, seconds } => {
                let until = self.program.jiffies()? + seconds * self.program.settings().hz;
                self.veth(pod)?.midstream_until = until;
                self.put(pod)?;
            }
            Step::RaiseEpoch(times) => {
                for ifindex in self.pods.values().map(|veth| veth.ifindex) {
                    (0..*times).try_for_each(|_| self.program.raise_epoch(ifindex))?;
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, seconds: u64) -> Result<()> {
        self.program.age(seconds)?;
        let jiffies = seconds * self.program.settings().hz;
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            let veth = self.veth(&name)?;
            if veth.midstream_until > 0 {
                veth.midstream_until -= jiffies;
                self.put(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn evict(&mut self, what: Evicted) -> Result<()> {
        if matches!(what, Evicted::Openings | Evicted::Both) {
            self.program.evict::<FlowKey, FlowValue>(map::OPENINGS)?;
        }
        if matches!(what, Evicted::Flows | Evicted::Both) {
            self.program.evict::<FlowKey, FlowValue>(map::FLOWS)?;
        }
        if what == Evicted::Fragments {
            self.program.evict::<FragmentKey, FragmentValue>(map::FRAGMENTS)?;
        }
        Ok(())
    }
}

/// A pod's entry as the compiler wants it; slots are given out by interface.
fn entry(veth: &Veth, tables: &PodTables) -> PodEntry {
    let mut flags = 0;
    let mut direction = |table: Option<TableUse>, isolated: u32, ranges: u32| {
        let Some(table) = table else { return (0, 0) };
        flags |= isolated | if table.ranges { ranges } else { 0 };
        (table.id, table.everybody.0)
    };
    let (ingress_table, ingress_everybody) =
        direction(tables.ingress, PodFlags::INGRESS_ISOLATED, PodFlags::INGRESS_RANGES);
    let (egress_table, egress_everybody) = direction(tables.egress, PodFlags::EGRESS_ISOLATED, PodFlags::EGRESS_RANGES);
    flags |= if tables.forwards { PodFlags::FORWARDS } else { 0 };
    flags |= if tables.audit { PodFlags::AUDIT } else { 0 };
    let address = |v4: bool| {
        let found = tables.addresses.iter().find(|address| address.is_ipv4() == v4);
        found.map_or(Address::NONE, |address| Address::from(*address))
    };
    PodEntry {
        ifindex: veth.ifindex,
        flags,
        ingress_table,
        egress_table,
        midstream_until: 0,
        v4: address(true),
        v6: address(false),
        slot: veth.ifindex - devices::FIRST,
        ingress_everybody,
        egress_everybody,
        reserved: [0; 2],
    }
}

/// The event of an object's deletion, named as `KIND NAMESPACE/NAME` or `KIND NAME`.
fn deletion(text: &str) -> Result<Event> {
    let (kind, name) = text.split_once(' ').with_context(|| format!("`{text}` is not `KIND NAME`"))?;
    let (namespace, short) = name.split_once('/').unwrap_or(("", name));
    let object = ObjectName::new(namespace, short);
    Ok(match kind {
        "Pod" => Event::DeletePod(object),
        "Namespace" => Event::DeleteNamespace(short.into()),
        "Node" => Event::DeleteNode(short.into()),
        "NetworkPolicy" => Event::DeletePolicy(object),
        "Service" => Event::DeleteService(object),
        "EndpointSlice" => Event::DeleteEndpointSlice(object),
        other => bail!("`{other}` is no kind that the compiler knows"),
    })
}
