//! Everything that belongs in the kernel's maps at one moment, as values that can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use enforcer_abi::{
    Address, BlockKey, ClassId, FrontEndKey, FrontEndValue, Op, PeerValue, PortKey, PortRangeKey, PortValue, RowKey,
    RowValue,
};

use crate::change::{Changes, PodTables, PodUpdate, Step};

/// The maps by name, in canonical order, and the pods that use them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Contents {
    /// `PEERS`
    pub peers: BTreeMap<Address, PeerValue>,
    /// `BLOCKS`
    pub blocks: BTreeMap<BlockKey, ClassId>,
    /// `PORTS`
    pub ports: BTreeMap<PortKey, PortValue>,
    /// `PORT_RANGES`
    pub port_ranges: BTreeMap<PortRangeKey, PortValue>,
    /// `ROWS`
    pub rows: BTreeMap<RowKey, RowValue>,
    /// `FRONT_ENDS`
    pub front_ends: BTreeMap<FrontEndKey, FrontEndValue>,
    /// `ENDPOINTS`
    pub endpoints: BTreeSet<Address>,
    /// The pods of the node by UID. Where old contents are read back from the kernel's `PODS`, any string that is the
    /// same in the new contents will do.
    pub pods: BTreeMap<Arc<str>, PodTables>,
}

impl Contents {
    /// Carries out one write.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::PutPeer(value) => drop(self.peers.insert(value.address, value)),
            Op::DeletePeer(key) => drop(self.peers.remove(&key)),
            Op::PutBlock(key, class) => drop(self.blocks.insert(key, class)),
            Op::DeleteBlock(key) => drop(self.blocks.remove(&key)),
            Op::PutPort(value) => drop(self.ports.insert(value.key, value)),
            Op::DeletePort(key) => drop(self.ports.remove(&key)),
            Op::PutPortRange(key, value) => drop(self.port_ranges.insert(key, value)),
            Op::DeletePortRange(key) => drop(self.port_ranges.remove(&key)),
            Op::PutRow(value) => drop(self.rows.insert(value.key, value)),
            Op::DeleteRow(key) => drop(self.rows.remove(&key)),
            Op::PutFrontEnd(value) => drop(self.front_ends.insert(value.key, value)),
            Op::DeleteFrontEnd(key) => drop(self.front_ends.remove(&key)),
            Op::PutEndpoint(address) => drop(self.endpoints.insert(address)),
            Op::DeleteEndpoint(address) => drop(self.endpoints.remove(&address)),
        }
    }

    /// Flips one pod.
    pub fn apply_pod(&mut self, update: &PodUpdate) {
        match update {
            PodUpdate::Put(pod) => drop(self.pods.insert(pod.uid.clone(), pod.clone())),
            PodUpdate::Delete { uid } => drop(self.pods.remove(uid)),
        }
    }

    /// Carries out all of a change.
    pub fn apply_changes(&mut self, changes: &Changes) {
        for step in &changes.steps {
            match step {
                Step::Write(ops) | Step::Free(ops) => ops.iter().for_each(|op| self.apply(op)),
                Step::Pods(updates) => updates.iter().for_each(|update| self.apply_pod(update)),
                Step::RaiseEpoch(_) => {}
            }
        }
    }
}
