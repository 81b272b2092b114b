//! The node's own pods get their tables: which policies are about them, what those say, and which peers that makes.

use enforcer_abi::{Direction, TableId};
use rustc_hash::FxHashSet;

use super::{Batch, Compiler, policies::PolicyId};
use crate::{
    class::{PeerDef, PeerId, classes::Turn},
    index::population::{KindId, News},
};

impl Compiler {
    pub(super) fn resolve(&mut self, batch: &mut Batch) {
        let News { namespaces, named_users, .. } = &mut self.population.news;
        let (namespaces, named_users) = (std::mem::take(namespaces), std::mem::take(named_users));
        if !namespaces.is_empty() {
            let kinds = self.local_kinds.iter().filter(|(_, kind)| kind.pods > 0).map(|(id, _)| *id);
            let moved = |kind: &KindId| namespaces.contains(&self.population.kind_key(*kind).namespace);
            batch.stale_kinds.extend(kinds.filter(moved));
        }
        let mut kinds: FxHashSet<KindId> = std::mem::take(&mut batch.stale_kinds);
        let mut policies: Vec<PolicyId> = Vec::new();
        for kind in &kinds {
            self.match_policies(*kind, &mut policies);
        }
        policies.sort_unstable();
        policies.dedup();
        for id in &policies {
            self.policies.activate(*id, &mut self.population, &mut self.peers);
        }
        kinds.extend(named_users.iter().flat_map(|id| self.policies.kinds(*id)));
        let mut released: Vec<TableId> = Vec::new();
        let mut held: Vec<PeerId> = Vec::new();
        for kind in kinds {
            self.set_tables(kind, &mut released, &mut held, batch);
        }
        released.into_iter().for_each(|table| self.tables.release(table));
        self.tables.release_peers(&mut self.peers);
        held.into_iter().for_each(|peer| self.peers.release(peer));
        let unused = policies.iter().filter_map(|id| Some((*id, self.policies.deactivate(*id)?)));
        let unused: Vec<_> = unused.collect();
        for (id, active) in batch.released.drain(..).chain(unused) {
            active.release(id, &mut self.population, &mut self.peers);
        }
        self.turn_peers();
    }

    /// Brings up to date which policies are about a kind. Adds those that are or were to `touched`.
    fn match_policies(&mut self, id: KindId, touched: &mut Vec<PolicyId>) {
        let Some(kind) = self.local_kinds.get_mut(&id) else { return };
        let new = if kind.pods > 0 { self.policies.about(id, &self.population) } else { Vec::new() };
        let old = std::mem::replace(&mut kind.policies, new);
        for &policy in &old {
            self.policies.set_about(policy, id, false);
        }
        for &policy in &kind.policies {
            self.policies.set_about(policy, id, true);
        }
        touched.extend(old);
        touched.extend(&kind.policies);
    }

    /// Compiles a kind's tables. What it had goes to `released`, what was held for the purpose to `held`.
    fn set_tables(&mut self, id: KindId, released: &mut Vec<TableId>, held: &mut Vec<PeerId>, batch: &mut Batch) {
        let Some(kind) = self.local_kinds.get_mut(&id) else { return };
        let old = std::mem::take(&mut kind.tables);
        released.extend(old.into_iter().flatten());
        if kind.pods == 0 {
            self.local_kinds.remove(&id);
            return;
        }
        for direction in Direction::ALL {
            let rules = self.policies.table_rules(&kind.policies, direction, id, &self.population, &mut self.peers);
            if let Some((rules, peers)) = rules {
                held.extend(peers);
                kind.tables[direction as usize] = Some(self.tables.hold(rules, &mut self.peers));
            }
        }
        if kind.tables != old {
            let pods = &self.population.kind(id).pods;
            batch.stale_pods.extend(pods.iter().filter(|pod| self.local_pods.contains_key(pod)));
        }
    }

    /// Peers that tables begin or cease to ask about are matched against addresses from now on, or no longer.
    fn turn_peers(&mut self) {
        let turns = self.peers.turns();
        // what comes holds its selectors before what goes lets go of them
        for turn in &turns {
            if let Turn::On(id, def) = turn {
                self.turn_peer(*id, def, true);
            }
        }
        for turn in &turns {
            if let Turn::Off(id, def) = turn {
                self.turn_peer(*id, def, false);
            }
        }
    }

    fn turn_peer(&mut self, id: PeerId, def: &PeerDef, matters: bool) {
        match def {
            PeerDef::Pods { matching, port } => {
                let selector = self.population.hold_selector(matching);
                self.population.set_peer(selector, port.as_ref(), id, matters);
                if !matters {
                    self.population.release_selector(selector);
                    self.population.release_selector(selector);
                }
            }
            PeerDef::Block { block, port: None } if matters => self.blocks.insert(id, block, &mut self.classes),
            PeerDef::Block { block, port: None } => self.blocks.remove(id, block),
            PeerDef::Block { block, port: Some(port) } => {
                if matters {
                    self.ported_blocks.push((id, block.clone(), port.clone()));
                } else {
                    self.ported_blocks.retain(|(other, ..)| *other != id);
                }
                self.population.news.kinds.extend(self.population.kinds_with_ports());
            }
        }
    }
}
