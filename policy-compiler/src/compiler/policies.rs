//! Policies: whom of this node's pods each is about, and the tables that they make together.

use std::sync::Arc;

use enforcer_abi::Direction;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    class::{Block, PeerDef, PeerId, classes::Peers},
    index::{
        candidates::{Candidates, Scope},
        population::{KindId, Population, SelectorId},
        selector::IndexedSelector,
        slab::Slab,
    },
    model::{
        Action, NamedPort, NamespaceMatch, ObjectName, Peer, PodMatch, Policy, PortMatch, Protocol, Rule, Selector,
        Tier,
    },
    port::{PortRange, PortSpace},
    table::TableRules,
};

pub(crate) type PolicyId = u32;

#[derive(Debug, Default)]
pub(crate) struct Policies {
    entries: Slab<PolicyEntry>,
    ids: FxHashMap<ObjectName, PolicyId>,
    /// By subject.
    candidates: Candidates,
}

#[derive(Debug)]
struct PolicyEntry {
    policy: Policy,
    scope: Scope,
    subject: IndexedSelector,
    /// The kinds of this node's pods that it is about.
    kinds: Vec<KindId>,
    /// There as long as `kinds` has any.
    active: Option<ActivePolicy>,
}

/// What a policy that matters holds.
#[derive(Debug)]
pub(crate) struct ActivePolicy {
    /// By [`Direction`].
    rules: [Vec<ActiveRule>; 2],
    peers: Vec<PeerId>,
    selectors: Vec<SelectorId>,
    names: Vec<(SelectorId, Protocol, Arc<str>)>,
}

/// What a policy leaves behind that is removed.
pub(crate) struct Removed {
    /// The kinds that it was about.
    pub(crate) kinds: Vec<KindId>,
    /// What it held.
    pub(crate) held: Option<(PolicyId, ActivePolicy)>,
}

#[derive(Debug)]
struct ActiveRule {
    action: Action,
    peers: Option<Vec<ActivePeer>>,
    /// The ports by number.
    ports: PortSpace,
    /// The ports by name.
    names: Vec<(Protocol, Arc<str>)>,
    /// Egress: all pods, if everybody is allowed by a port's name.
    everything: Option<SelectorId>,
}

#[derive(Debug)]
struct ActivePeer {
    id: PeerId,
    def: PeerDef,
    /// Egress: the pods among whom names are looked up, if the rule has any.
    selector: Option<SelectorId>,
}

impl Policies {
    pub(crate) fn is_same(&self, policy: &Policy) -> bool {
        self.ids.get(&policy.name).is_some_and(|id| self.entries[*id].policy == *policy)
    }

    /// The policy of this id.
    pub(crate) fn get(&self, id: PolicyId) -> &Policy {
        &self.entries[id].policy
    }

    /// The policies from an id on.
    pub(crate) fn known(&self, from: PolicyId) -> impl Iterator<Item = (u32, &Policy)> {
        self.entries.from(from).map(|(id, entry)| (id, &entry.policy))
    }

    /// Adds a policy whose name isn't taken. Answers with its subject's scope.
    pub(crate) fn insert(&mut self, policy: Policy, population: &mut Population) -> PolicyId {
        let scope = population.hold_scope(&policy.subject.namespaces);
        let subject = IndexedSelector::new(&policy.subject.pods, &mut population.pod_labels);
        let name = policy.name.clone();
        let id = self.entries.insert(PolicyEntry { policy, scope, subject, kinds: Vec::new(), active: None });
        let entry = &self.entries[id];
        self.candidates.insert(entry.scope, &entry.subject, id);
        self.ids.insert(name, id);
        id
    }

    /// Removes a policy.
    pub(crate) fn remove(&mut self, name: &ObjectName, population: &mut Population) -> Option<Removed> {
        let id = self.ids.remove(name)?;
        let entry = self.entries.remove(id)?;
        self.candidates.remove(entry.scope, &entry.subject, id);
        population.release_scope(entry.scope);
        entry.subject.release(&mut population.pod_labels);
        Some(Removed { kinds: entry.kinds, held: entry.active.map(|active| (id, active)) })
    }

    /// Whether the policy is about a kind.
    pub(crate) fn is_about(&self, id: PolicyId, kind: KindId, population: &Population) -> bool {
        let entry = &self.entries[id];
        let key = population.kind_key(kind);
        population.is_in_scope(entry.scope, key.namespace) && entry.subject.matches(&key.labels, &population.pod_labels)
    }

    /// The policies that are about a kind, in the order in which they are weighed.
    pub(crate) fn about(&self, kind: KindId, population: &Population) -> Vec<PolicyId> {
        let key = population.kind_key(kind);
        let mut found = Vec::new();
        for scope in population.scopes_of(key.namespace) {
            self.candidates.each(scope, &key.labels, &population.pod_labels, |id| {
                if self.entries[id].subject.matches(&key.labels, &population.pod_labels) {
                    found.push(id);
                }
            });
        }
        found.sort_by_cached_key(|id| {
            let policy = &self.entries[*id].policy;
            (policy.tier, policy.priority, policy.name.clone())
        });
        found
    }

    /// A kind of this node comes under a policy, or is no longer.
    pub(crate) fn set_about(&mut self, id: PolicyId, kind: KindId, is_about: bool) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if is_about {
            entry.kinds.push(kind);
        } else {
            entry.kinds.retain(|other| *other != kind);
        }
    }

    pub(crate) fn kinds(&self, id: PolicyId) -> &[KindId] {
        self.entries.get(id).map_or(&[], |entry| &entry.kinds)
    }

    /// Holds what the policy needs, if it matters and doesn't yet.
    pub(crate) fn activate(&mut self, id: PolicyId, population: &mut Population, peers: &mut Peers) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.kinds.is_empty() || entry.active.is_some() {
            return;
        }
        let mut active = ActivePolicy {
            rules: [Vec::new(), Vec::new()],
            peers: Vec::new(),
            selectors: Vec::new(),
            names: Vec::new(),
        };
        for direction in Direction::ALL {
            for rule in rules(&entry.policy, direction).unwrap_or_default() {
                let rule = active.hold(rule, direction, id, population, peers);
                active.rules[direction as usize].push(rule);
            }
        }
        entry.active = Some(active);
    }

    /// What the policy holds, if it doesn't matter any more.
    pub(crate) fn deactivate(&mut self, id: PolicyId) -> Option<ActivePolicy> {
        let entry = self.entries.get_mut(id)?;
        if entry.kinds.is_empty() { entry.active.take() } else { None }
    }

    /// The rules of one direction of a kind that these policies (active, in order) are about, and the peers that were
    /// held for it; `None` if no policy says anything about the direction.
    pub(crate) fn table_rules(
        &self,
        ids: &[PolicyId],
        direction: Direction,
        kind: KindId,
        population: &Population,
        peers: &mut Peers,
    ) -> Option<(TableRules, Vec<PeerId>)> {
        let mut table = TableRules::new(direction);
        let mut held = Vec::new();
        let mut is_judged = false;
        for entry in ids.iter().filter_map(|id| self.entries.get(*id)) {
            let Some(active) = &entry.active else { continue };
            if rules(&entry.policy, direction).is_none() {
                continue;
            }
            is_judged = true;
            table.isolated |= entry.policy.tier == Tier::NetworkPolicy;
            for rule in &active.rules[direction as usize] {
                let mut add = |who, ports: &PortSpace| table.add(entry.policy.tier, rule.action, who, ports);
                match direction {
                    Direction::Ingress => rule.resolve_ingress(population.kind_ports(kind), &mut add),
                    Direction::Egress => rule.resolve_egress(population, peers, &mut held, &mut add),
                }
            }
        }
        table.normalise();
        is_judged.then_some((table, held))
    }
}

fn rules(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

impl ActivePolicy {
    fn hold(
        &mut self,
        rule: &Rule,
        direction: Direction,
        user: PolicyId,
        population: &mut Population,
        peers: &mut Peers,
    ) -> ActiveRule {
        let (ports, names) = numbers_and_names(rule.ports.as_deref());
        let looks_up = direction == Direction::Egress && !names.is_empty();
        let mut selector = |matching: &Arc<PodMatch>| {
            looks_up.then(|| {
                let id = population.hold_selector(matching);
                self.selectors.push(id);
                for (protocol, name) in &names {
                    population.use_name(id, *protocol, name, user);
                    self.names.push((id, *protocol, name.clone()));
                }
                id
            })
        };
        let everything = || {
            let namespaces = NamespaceMatch::Labels(Selector::default());
            Arc::new(PodMatch { namespaces, pods: Selector::default() })
        };
        let everybody = if rule.peers.is_none() { selector(&everything()) } else { None };
        let mut active_peers = Vec::new();
        for peer in rule.peers.iter().flatten() {
            let (def, selector) = match peer {
                Peer::Pods(matching) => {
                    let matching = Arc::new(matching.clone());
                    let selector = selector(&matching);
                    (PeerDef::Pods { matching, port: None }, selector)
                }
                Peer::Block { cidr, except } => {
                    let block = Arc::new(Block { cidr: *cidr, except: except.clone() });
                    (PeerDef::Block { block, port: None }, selector(&everything()))
                }
                Peer::Nobody => continue,
            };
            let id = peers.hold(&def);
            self.peers.push(id);
            active_peers.push(ActivePeer { id, def, selector });
        }
        let active_peers = rule.peers.is_some().then_some(active_peers);
        ActiveRule { action: rule.action, peers: active_peers, ports, names, everything: everybody }
    }

    /// Lets go of everything.
    pub(crate) fn release(self, user: PolicyId, population: &mut Population, peers: &mut Peers) {
        for (selector, protocol, name) in &self.names {
            population.unuse_name(*selector, *protocol, name, user);
        }
        self.selectors.into_iter().for_each(|id| population.release_selector(id));
        self.peers.into_iter().for_each(|id| peers.release(id));
    }
}

fn numbers_and_names(ports: Option<&[PortMatch]>) -> (PortSpace, Vec<(Protocol, Arc<str>)>) {
    let mut space = PortSpace::default();
    let mut names = FxHashSet::default();
    match ports {
        None => space.add_all(),
        Some(ports) => {
            for port in ports {
                match port {
                    PortMatch::All(protocol) => space.add(PortRange { protocol: *protocol, first: 0, last: u16::MAX }),
                    PortMatch::Range { protocol, first, last } => {
                        space.add(PortRange { protocol: *protocol, first: *first, last: *last });
                    }
                    PortMatch::Named(protocol, name) => drop(names.insert((*protocol, name.clone()))),
                    PortMatch::Nothing => {}
                }
            }
        }
    }
    (space, names.into_iter().collect())
}

impl ActiveRule {
    /// Names mean the pod's own ports.
    fn resolve_ingress(&self, own: &[NamedPort], add: &mut impl FnMut(Option<PeerId>, &PortSpace)) {
        let mut space = self.ports.clone();
        let is_named = |port: &&NamedPort| {
            self.names.iter().any(|(protocol, name)| (*protocol, name) == (port.protocol, &port.name))
        };
        for port in own.iter().filter(is_named) {
            space.add(PortRange { protocol: port.protocol, first: port.number, last: port.number });
        }
        match &self.peers {
            None => add(None, &space),
            Some(peers) => peers.iter().for_each(|peer| add(Some(peer.id), &space)),
        }
    }

    /// Names mean each peer's ports: for every number that a name has there, a peer of its own.
    fn resolve_egress(
        &self,
        population: &Population,
        peers: &mut Peers,
        held: &mut Vec<PeerId>,
        add: &mut impl FnMut(Option<PeerId>, &PortSpace),
    ) {
        let mut add_named = |def: &PeerDef, selector: SelectorId, add: &mut dyn FnMut(Option<PeerId>, &PortSpace)| {
            for (protocol, name) in &self.names {
                for number in population.numbers(selector, *protocol, name) {
                    let port = Some(NamedPort { name: name.clone(), protocol: *protocol, number });
                    let id = peers.hold(&match def {
                        PeerDef::Pods { matching, .. } => PeerDef::Pods { matching: matching.clone(), port },
                        PeerDef::Block { block, .. } => PeerDef::Block { block: block.clone(), port },
                    });
                    held.push(id);
                    let mut space = PortSpace::default();
                    space.add(PortRange { protocol: *protocol, first: number, last: number });
                    add(Some(id), &space);
                }
            }
        };
        match &self.peers {
            None => {
                add(None, &self.ports);
                if let Some(everything) = self.everything {
                    let matching =
                        PodMatch { namespaces: NamespaceMatch::Labels(Selector::default()), pods: Selector::default() };
                    let def = PeerDef::Pods { matching: Arc::new(matching), port: None };
                    add_named(&def, everything, add);
                }
            }
            Some(peers) => {
                for peer in peers {
                    add(Some(peer.id), &self.ports);
                    if let Some(selector) = peer.selector {
                        add_named(&peer.def, selector, add);
                    }
                }
            }
        }
    }
}
