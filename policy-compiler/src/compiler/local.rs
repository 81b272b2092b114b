//! The node's own pods.

use std::sync::Arc;

use enforcer_abi::TableId;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::{Batch, Compiler, policies::PolicyId};
use crate::{
    change::{PodTables, Report},
    class::addresses::Addresses,
    index::population::{KindId, PodId},
};

/// A pod of this node.
#[derive(Debug)]
pub(super) struct LocalPod {
    pub(super) uid: Arc<str>,
    pub(super) kind: KindId,
    /// As it was last told.
    pub(super) sent: Option<PodTables>,
}

/// A kind that pods of this node are of.
#[derive(Debug, Default)]
pub(super) struct LocalKind {
    /// How many of this node's pods are of it.
    pub(super) pods: u32,
    /// In the order in which they are weighed.
    pub(super) policies: Vec<PolicyId>,
    /// By direction.
    pub(super) tables: [Option<TableId>; 2],
}

impl Compiler {
    /// A pod is now one of this node's of that UID, or none of them.
    pub(super) fn set_local(&mut self, id: PodId, uid: Option<&Arc<str>>, batch: &mut Batch) {
        let kind = self.population.pods[id].kind.map(|(kind, _)| kind);
        let wanted = uid.zip(kind);
        if let Some(local) = self.local_pods.get(&id)
            && wanted.is_some_and(|(uid, kind)| local.kind == kind && local.uid == *uid)
        {
            return;
        }
        let left = self.local_pods.remove(&id);
        let stays = left.as_ref().zip(wanted).is_some_and(|(left, (uid, _))| left.uid == *uid);
        if !stays && self.addresses.set_bound(id, false) {
            self.population.pods[id].addresses.iter().for_each(|address| self.addresses.touch(*address));
        }
        if let Some(local) = &left {
            batch.stale_kinds.insert(local.kind);
            if let Some(kind) = self.local_kinds.get_mut(&local.kind) {
                kind.pods -= 1;
            }
        }
        batch.gone.extend(left.and_then(|local| local.sent));
        if let Some((uid, kind)) = wanted {
            let local_kind = self.local_kinds.entry(kind).or_default();
            local_kind.pods += 1;
            if local_kind.pods == 1 {
                batch.stale_kinds.insert(kind);
            }
            batch.stale_pods.insert(id);
            // whoever goes and comes back in one batch was there all the time
            let known = batch.gone.iter().position(|pod| pod.uid == *uid);
            let sent = known.map(|place| batch.gone.swap_remove(place));
            self.local_pods.insert(id, LocalPod { uid: uid.clone(), kind, sent });
        }
    }

    /// Pods of this node are bound to veths: exactly those with these UIDs. Answers whether that changes anything.
    pub(super) fn take_in_bound(&mut self, uids: &FxHashSet<&str>, batch: &mut Batch) -> bool {
        let mut changes = false;
        for (&id, local) in &self.local_pods {
            let addresses = &self.population.pods[id].addresses;
            let holders = |addresses_of: &Addresses| -> SmallVec<[Option<PodId>; 2]> {
                addresses.iter().map(|address| addresses_of.holder(*address)).collect()
            };
            let before = holders(&self.addresses);
            if !self.addresses.set_bound(id, uids.contains(&*local.uid)) {
                continue;
            }
            for ((&address, old), new) in addresses.iter().zip(before).zip(holders(&self.addresses)) {
                if let (Some(old), Some(new)) = (old, new)
                    && old != new
                {
                    changes = true;
                    self.addresses.touch(address);
                    batch.reports.push(Report::AddressConflict {
                        address: self.addresses.get(address).address.into(),
                        holder: self.population.pod_name(new),
                        other: self.population.pod_name(old),
                    });
                }
            }
        }
        changes
    }

    /// What the kernel should know of a pod of this node.
    pub(super) fn pod_tables(&self, id: PodId, local: &LocalPod) -> PodTables {
        let pod = &self.population.pods[id];
        let namespace = &self.population.namespaces[pod.namespace];
        let tables = self.local_kinds.get(&local.kind).map(|kind| kind.tables).unwrap_or_default();
        let [ingress, egress] = tables.map(|table| Some(self.tables.get(table?)?.table.table_use()));
        let holds = |address: &&u32| self.addresses.holder(**address) == Some(id);
        PodTables {
            uid: local.uid.clone(),
            name: self.population.pod_name(id),
            addresses: pod.addresses.iter().filter(holds).map(|id| self.addresses.get(*id).address.into()).collect(),
            ingress,
            egress,
            forwards: namespace.forwards,
            audit: namespace.audit,
        }
    }
}
