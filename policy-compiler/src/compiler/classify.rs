//! Addresses get their classes: every address that may have changed is looked at once.

use enforcer_abi::ClassId;
use rustc_hash::FxHashMap;

use super::{Batch, Compiler};
use crate::{
    class::addresses::AddressId,
    index::population::{KindId, PodId},
    plan::{PeerChange, PeerEntry},
};

impl Compiler {
    pub(super) fn classify(&mut self, batch: &mut Batch) {
        self.touch_what_changed(batch);
        let mut known: FxHashMap<(KindId, ClassId), ClassId> = FxHashMap::default();
        for id in self.addresses.take_touched() {
            self.classify_address(id, &mut known, batch);
        }
    }

    /// Brings the trie up to date and touches the addresses whose pods, prefixes or surroundings have changed.
    fn touch_what_changed(&mut self, batch: &mut Batch) {
        let judges_egress = self.tables.judge_egress();
        if std::mem::replace(&mut self.judges_egress, judges_egress) != judges_egress {
            self.addresses.touch_all(|entry| entry.flags() != 0);
        }
        let mut local =
            self.local_pods.keys().map(|id| &self.population.namespaces[self.population.pods[*id].namespace]);
        let sends_endpoints = self.options.endpoints || local.any(|namespace| namespace.forwards);
        if std::mem::replace(&mut self.sends_endpoints, sends_endpoints) != sends_endpoints {
            self.addresses.touch_all(|_| true);
        }
        for kind in std::mem::take(&mut self.population.news.kinds) {
            for pod in &self.population.kind(kind).pods {
                self.population.pods[*pod].addresses.iter().for_each(|address| self.addresses.touch(*address));
            }
        }
        // what is new was so far what the trie says, which is still what it said
        self.addresses.classify_new(&self.blocks, &mut self.classes);
        let (changes, prefixes) = self.blocks.refresh(&mut self.classes, &mut self.peers);
        batch.blocks = changes;
        prefixes.into_iter().for_each(|prefix| self.addresses.touch_range(prefix.ends()));
    }

    fn classify_address(
        &mut self,
        id: AddressId,
        known: &mut FxHashMap<(KindId, ClassId), ClassId>,
        batch: &mut Batch,
    ) {
        let entry = self.addresses.get(id);
        let address = entry.address;
        let block_class = if entry.is_block_class_stale { self.blocks.class(address) } else { entry.block_class };
        let class = match self.addresses.holder(id) {
            None => block_class,
            Some(pod) => self.class_of_pod(pod, id, block_class, known),
        };
        let entry = self.addresses.get_mut(id);
        let flags = if self.judges_egress { entry.flags() } else { 0 };
        let old = entry.sent.map(|flags| PeerEntry { class: entry.class, flags });
        let new = (flags != 0 || class != block_class).then_some(PeerEntry { class, flags });
        let old_class = entry.class;
        for (old, new) in [(entry.class, class), (entry.block_class, block_class)] {
            if old != new {
                self.classes.hold_again(new);
                self.classes.release(old);
            }
        }
        (entry.class, entry.block_class, entry.is_block_class_stale) = (class, block_class, false);
        entry.sent = new.map(|new| new.flags);
        if old_class != class && !entry.slices.is_empty() {
            self.services.note_class(&entry.slices);
        }
        if old != new {
            self.classes.resend(old.map(|old| old.class), new.map(|new| new.class));
            batch.peers.push(PeerChange { address, old, new, old_class, new_class: class });
        }
        let is_endpoint = self.sends_endpoints && entry.is_endpoint();
        if is_endpoint != entry.sent_as_endpoint {
            entry.sent_as_endpoint = is_endpoint;
            if is_endpoint { &mut batch.endpoints_in } else { &mut batch.endpoints_out }.push(address);
        }
        for pod in &entry.claims {
            if self.local_pods.contains_key(pod) {
                batch.stale_pods.insert(*pod);
            }
        }
        if let Some(classes) = self.addresses.forget_if_unused(id) {
            classes.into_iter().for_each(|class| self.classes.release(class));
        }
    }

    /// The class of an address that a pod holds: the peers of the pod's kind and those of the blocks around it.
    fn class_of_pod(
        &mut self,
        pod: PodId,
        address: AddressId,
        block_class: ClassId,
        known: &mut FxHashMap<(KindId, ClassId), ClassId>,
    ) -> ClassId {
        let Some((kind, _)) = self.population.pods[pod].kind else { return block_class };
        if self.ported_blocks.is_empty()
            && let Some(class) = known.get(&(kind, block_class))
        {
            return *class;
        }
        let mut members = self.population.peers_of_kind(kind);
        members.extend_from_slice(self.classes.members(block_class));
        let address = self.addresses.get(address).address;
        for (peer, block, port) in &self.ported_blocks {
            if self.population.kind_ports(kind).binary_search(port).is_ok()
                && crate::class::blocks::contains(block, address)
            {
                members.push(*peer);
            }
        }
        members.sort_unstable();
        // it is held by the address; here it only has to be known until then
        let class = self.classes.hold(&members, &mut self.peers);
        self.classes.release(class);
        known.insert((kind, block_class), class);
        class
    }
}
