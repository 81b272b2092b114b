//! The incremental compiler: [`Compiler::apply`] takes what changed in the cluster and answers with what changes in the
//! kernel. A batch of events goes through four stages, each of which touches only what the one before has changed:
//! the events are taken in (`intake`), the node's own pods get their tables (`resolve`), addresses get their classes
//! (`classify`), Services' front ends are judged (`services`); the difference is then put in order (`difference`).

mod classify;
mod difference;
mod intake;
mod local;
mod objects;
mod output;
mod policies;
mod resolve;
mod services;
mod tables;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    change::{Changes, Report},
    class::{
        Block, PeerId,
        addresses::Addresses,
        blocks::{BlockChange, BlockTree},
        classes::{Classes, Peers},
    },
    front_end::{FrontEndId, Services},
    index::population::{KindId, PodId, Population},
    model::{Event, NamedPort, Node},
    plan::{PeerChange, steps},
};

pub use objects::Cursor;
pub use output::TableCursor;

use local::{LocalKind, LocalPod};
use policies::{ActivePolicy, Policies, PolicyId};
use tables::Tables;

/// What a [`Compiler`] is for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node whose pods get tables.
    pub node: Arc<str>,
    /// All addresses of pods and nodes are wanted in `ENDPOINTS`, because source checks let pods forward
    /// ([`enforcer_abi::SourceCheck::Pods`]). They are there in any case while a pod's namespace lets it forward.
    pub endpoints: bool,
}

impl Options {
    /// For the pods of `node`, with strict source checks.
    pub fn new(node: impl Into<Arc<str>>) -> Self {
        Self { node: node.into(), endpoints: false }
    }
}

/// The state of a cluster as far as it matters to the pods of one node, and the tables that follow from it.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    population: Population,
    policies: Policies,
    nodes: FxHashMap<Arc<str>, Node>,
    addresses: Addresses,
    blocks: BlockTree,
    /// Blocks that match only pods with a named port, a rarity.
    ported_blocks: Vec<(PeerId, Arc<Block>, NamedPort)>,
    peers: Peers,
    classes: Classes,
    tables: Tables,
    services: Services,
    mixed: services::Mixed,
    local_kinds: FxHashMap<KindId, LocalKind>,
    local_pods: FxHashMap<PodId, LocalPod>,
    /// Front ends matter: some pod of this node is isolated for egress.
    judges_egress: bool,
    /// `ENDPOINTS` is filled.
    sends_endpoints: bool,
}

/// What a batch has changed so far.
#[derive(Debug, Default)]
struct Batch {
    reports: Vec<Report>,
    /// Kinds of this node's pods that other policies may be about.
    stale_kinds: FxHashSet<KindId>,
    /// Pods of this node whose entry may change.
    stale_pods: FxHashSet<PodId>,
    /// Pods of this node that are gone, as they were last told.
    gone: Vec<crate::change::PodTables>,
    /// What policies held that were removed.
    released: Vec<(PolicyId, ActivePolicy)>,
    peers: Vec<PeerChange>,
    blocks: Vec<BlockChange>,
    endpoints_in: Vec<enforcer_abi::Address>,
    endpoints_out: Vec<enforcer_abi::Address>,
    /// Front ends that were judged again.
    front_ends: Vec<FrontEndId>,
}

impl Compiler {
    /// Knows of nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let sends_endpoints = options.endpoints;
        Self {
            options,
            population: Population::default(),
            policies: Policies::default(),
            nodes: FxHashMap::default(),
            addresses: Addresses::default(),
            blocks: BlockTree::default(),
            ported_blocks: Vec::new(),
            peers: Peers::default(),
            classes: Classes::default(),
            tables: Tables::default(),
            services: Services::default(),
            mixed: services::Mixed::default(),
            local_kinds: FxHashMap::default(),
            local_pods: FxHashMap::default(),
            judges_egress: false,
            sends_endpoints,
        }
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: Event) -> Changes {
        self.apply_all([event])
    }

    /// Takes in events as one: what lies between them never gets to the kernel. For the initial list, and for bursts.
    pub fn apply_all(&mut self, events: impl IntoIterator<Item = Event>) -> Changes {
        let mut batch = Batch::default();
        for event in events {
            self.take_in(event, &mut batch);
        }
        self.compile(batch)
    }

    /// Takes in which pods of this node are behind a veth, by UID: exactly these. Whoever has an address there keeps it,
    /// however late another pod claims it; otherwise the last one to claim it has it. No source tells that, so it is no
    /// [`Event`], and it matters to addresses only that several pods claim.
    pub fn set_bound<'a>(&mut self, uids: impl IntoIterator<Item = &'a str>) -> Changes {
        let mut batch = Batch::default();
        let changes = self.take_in_bound(&uids.into_iter().collect(), &mut batch);
        if changes { self.compile(batch) } else { Changes::default() }
    }

    fn compile(&mut self, mut batch: Batch) -> Changes {
        self.resolve(&mut batch);
        self.classify(&mut batch);
        self.judge_front_ends(&mut batch);
        let delta = self.difference(&mut batch);
        let steps = steps(&delta, &difference::Before(self), &difference::After(self));
        self.collect(&batch);
        Changes { steps, reports: batch.reports }
    }
}

#[cfg(test)]
mod tests;
