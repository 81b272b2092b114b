//! The selectors of pods that peers use: whom they match, and which numbers a named port has among those.

use std::{collections::BTreeMap, sync::Arc};

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{KindId, Population, SelectorId};
use crate::{
    class::PeerId,
    index::{candidates::Scope, selector::IndexedSelector},
    model::{NamedPort, PodMatch, Protocol},
};

#[derive(Debug)]
pub(crate) struct PodSelector {
    scope: Scope,
    matcher: IndexedSelector,
    /// Kinds.
    pub(crate) members: RoaringBitmap,
    /// The peers that it makes: itself, and with a named port of a certain number.
    pub(crate) peers: SmallVec<[(Option<NamedPort>, PeerId); 1]>,
    /// The names that egress rules use with it.
    pub(crate) named: Vec<NamedUse>,
}

/// A port name that is used with a selector.
#[derive(Debug)]
pub(crate) struct NamedUse {
    protocol: Protocol,
    name: Arc<str>,
    /// Who wants to hear of new numbers, as often as they asked.
    users: Vec<u32>,
    /// The numbers that it has, and with how many kinds.
    numbers: BTreeMap<u16, u32>,
}

impl NamedUse {
    fn numbers_of<'a>(&'a self, ports: &'a [NamedPort]) -> impl Iterator<Item = u16> + 'a {
        ports.iter().filter(|port| port.protocol == self.protocol && port.name == self.name).map(|port| port.number)
    }
}

impl Population {
    /// The selector, with its members found if nobody held it before.
    pub(crate) fn hold_selector(&mut self, matching: &Arc<PodMatch>) -> SelectorId {
        let (id, new) = self.selector_ids.hold(matching.clone());
        if new {
            let scope = self.hold_scope(&matching.namespaces);
            let matcher = IndexedSelector::new(&matching.pods, &mut self.pod_labels);
            let members = self.find_kinds(scope, &matcher);
            for kind in &members {
                let selectors = &mut self.kinds[kind as usize].selectors;
                if let Err(place) = selectors.binary_search(&id) {
                    selectors.insert(place, id);
                }
            }
            self.candidates.insert(scope, &matcher, id);
            let selector = PodSelector { scope, matcher, members, peers: SmallVec::new(), named: Vec::new() };
            self.selectors.insert(id, selector);
        }
        id
    }

    pub(crate) fn release_selector(&mut self, id: SelectorId) {
        if self.selector_ids.release(id).is_some()
            && let Some(selector) = self.selectors.remove(&id)
        {
            for kind in &selector.members {
                self.kinds[kind as usize].selectors.retain(|other| *other != id);
            }
            self.candidates.remove(selector.scope, &selector.matcher, id);
            self.release_scope(selector.scope);
            selector.matcher.release(&mut self.pod_labels);
        }
    }

    /// The kinds that a selector matches, by whichever way has fewer to look at.
    pub(crate) fn find_kinds(&self, scope: Scope, matcher: &IndexedSelector) -> RoaringBitmap {
        let namespaces = self.namespaces_of(scope);
        let in_scope: u64 = namespaces.iter().map(|id| self.namespaces[id].kinds.len()).sum();
        let all_in_scope = || namespaces.iter().fold(RoaringBitmap::new(), |all, id| all | &self.namespaces[id].kinds);
        match matcher.at_most(&self.pod_labels) {
            Some(at_most) if at_most < in_scope => {
                let mut found = matcher.find(&self.pod_labels, RoaringBitmap::new);
                found.retain(|kind| namespaces.contains(self.kind_key(kind).namespace));
                found
            }
            None if in_scope > 64 => matcher.find(&self.pod_labels, all_in_scope),
            _ => {
                let matches = |kind: &u32| matcher.matches(&self.kind_key(*kind).labels, &self.pod_labels);
                namespaces.iter().flat_map(|id| self.namespaces[id].kinds.iter().filter(matches)).collect()
            }
        }
    }

    pub(super) fn matching_selectors(&self, kind: KindId) -> Vec<SelectorId> {
        let key = self.kind_key(kind);
        let mut selectors = Vec::new();
        for scope in self.scopes_of(key.namespace) {
            self.candidates.each(scope, &key.labels, &self.pod_labels, |id| {
                if self
                    .selectors
                    .get(&id)
                    .is_some_and(|selector| selector.matcher.matches(&key.labels, &self.pod_labels))
                {
                    selectors.push(id);
                }
            });
        }
        selectors.sort_unstable();
        selectors
    }

    pub(super) fn match_kind_again(&mut self, kind: KindId) {
        let new = self.matching_selectors(kind);
        let old = self.kinds[kind as usize].selectors.clone();
        for &id in old.iter().filter(|id| new.binary_search(id).is_err()) {
            self.leave_selector(kind, id);
        }
        for &id in new.iter().filter(|id| old.binary_search(id).is_err()) {
            self.join_selector(kind, id);
        }
    }

    pub(super) fn join_selector(&mut self, kind: KindId, id: SelectorId) {
        let selectors = &mut self.kinds[kind as usize].selectors;
        if let Err(place) = selectors.binary_search(&id) {
            selectors.insert(place, id);
        }
        self.count_member(kind, id, true);
    }

    pub(super) fn leave_selector(&mut self, kind: KindId, id: SelectorId) {
        self.kinds[kind as usize].selectors.retain(|other| *other != id);
        self.count_member(kind, id, false);
    }

    fn count_member(&mut self, kind: KindId, id: SelectorId, joins: bool) {
        let Some(selector) = self.selectors.get_mut(&id) else { return };
        if joins {
            selector.members.insert(kind);
        } else {
            selector.members.remove(kind);
        }
        self.news.kinds.insert(kind);
        let ports = self.port_lists.get(self.kind_ids.get(kind).ports);
        for named in &mut selector.named {
            let numbers: SmallVec<[u16; 2]> = named.numbers_of(ports).collect();
            for number in numbers {
                let count = named.numbers.entry(number).or_default();
                *count = if joins { *count + 1 } else { *count - 1 };
                if *count == u32::from(joins) {
                    self.news.named_users.extend(&named.users);
                }
                if *count == 0 {
                    named.numbers.remove(&number);
                }
            }
        }
    }

    /// Counts the numbers that a name has among the pods of a selector, for `user`. The selector is held by the caller.
    pub(crate) fn use_name(&mut self, id: SelectorId, protocol: Protocol, name: &Arc<str>, user: u32) {
        let Some(selector) = self.selectors.get_mut(&id) else { return };
        if let Some(named) = selector.named.iter_mut().find(|named| (named.protocol, &named.name) == (protocol, name)) {
            named.users.push(user);
            return;
        }
        let mut named = NamedUse { protocol, name: name.clone(), users: vec![user], numbers: BTreeMap::new() };
        for kind in &selector.members {
            let ports = self.port_lists.get(self.kind_ids.get(kind).ports);
            let numbers: SmallVec<[u16; 2]> = named.numbers_of(ports).collect();
            numbers.into_iter().for_each(|number| *named.numbers.entry(number).or_default() += 1);
        }
        selector.named.push(named);
    }

    pub(crate) fn unuse_name(&mut self, id: SelectorId, protocol: Protocol, name: &Arc<str>, user: u32) {
        let Some(selector) = self.selectors.get_mut(&id) else { return };
        for named in selector.named.iter_mut().filter(|named| (named.protocol, &named.name) == (protocol, name)) {
            if let Some(place) = named.users.iter().position(|other| *other == user) {
                named.users.swap_remove(place);
            }
        }
        selector.named.retain(|named| !named.users.is_empty());
    }

    /// The numbers that a name, which is in use, has among the pods of a selector.
    pub(crate) fn numbers(&self, id: SelectorId, protocol: Protocol, name: &Arc<str>) -> Vec<u16> {
        let named = self.selectors.get(&id).into_iter().flat_map(|selector| &selector.named);
        named
            .filter(|named| (named.protocol, &named.name) == (protocol, name))
            .flat_map(|named| named.numbers.keys().copied())
            .collect()
    }

    /// A peer that this selector makes begins or ceases to matter.
    pub(crate) fn set_peer(&mut self, id: SelectorId, port: Option<&NamedPort>, peer: PeerId, matters: bool) {
        let Some(selector) = self.selectors.get_mut(&id) else { return };
        if matters {
            selector.peers.push((port.cloned(), peer));
        } else {
            selector.peers.retain(|(_, other)| *other != peer);
        }
        let has_port = |kind: &u32| {
            port.is_none_or(|port| self.port_lists.get(self.kind_ids.get(*kind).ports).binary_search(port).is_ok())
        };
        self.news.kinds.extend(selector.members.iter().filter(has_port));
    }

    /// The peers that match the pods of a kind, by its selectors. Not sorted.
    pub(crate) fn peers_of_kind(&self, kind: KindId) -> SmallVec<[PeerId; 8]> {
        let ports = self.kind_ports(kind);
        let selectors = self.kind(kind).selectors.iter().filter_map(|id| self.selectors.get(id));
        let fits = |port: &Option<NamedPort>| port.as_ref().is_none_or(|port| ports.binary_search(port).is_ok());
        selectors.flat_map(|selector| &selector.peers).filter(|(port, _)| fits(port)).map(|(_, peer)| *peer).collect()
    }
}
