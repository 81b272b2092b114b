//! Every address that something is known of: who claims it, what it is to Services, its class, and its entry of `PEERS`.

use std::{collections::BTreeMap, net::IpAddr};

use enforcer_abi::{Address, ClassId, EVERYBODY, PeerFlags, PeerValue};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::{blocks::BlockTree, classes::Classes};
use crate::index::{population::PodId, slab::Slab};

pub(crate) type AddressId = u32;

#[derive(Debug, Default)]
pub(crate) struct Addresses {
    ids: BTreeMap<Address, AddressId>,
    entries: Slab<AddressEntry>,
    /// Those that may have changed in this batch.
    touched: Vec<AddressId>,
    /// Pods of this node that are behind a veth: of several that claim an address, one of these has it.
    bound: FxHashSet<PodId>,
}

/// An address.
#[derive(Debug)]
pub(crate) struct AddressEntry {
    pub(crate) address: Address,
    /// The pods that claim it, in the order in which they did; see [`Addresses::holder`].
    pub(crate) claims: SmallVec<[u32; 1]>,
    /// The slices with back ends that have it.
    pub(crate) slices: SmallVec<[u32; 1]>,
    /// How many pods of the host's network have it.
    pub(crate) hosts: u32,
    /// How many Node objects have it.
    pub(crate) nodes: u32,
    /// How many Services have it as a cluster IP.
    pub(crate) cluster_ips: u32,
    /// How many Services have it as another kind of front end.
    pub(crate) external_ips: u32,
    /// Its class.
    pub(crate) class: ClassId,
    /// What the trie says of it.
    pub(crate) block_class: ClassId,
    /// The trie may say something else by now.
    pub(crate) is_block_class_stale: bool,
    /// Its classes aren't set yet.
    pub(crate) is_new: bool,
    /// The flags of its entry of `PEERS`, whose class is `class`.
    pub(crate) sent: Option<u32>,
    pub(crate) sent_as_endpoint: bool,
    is_touched: bool,
}

impl AddressEntry {
    /// What it is to Services and nodes, as [`PeerFlags`].
    pub(crate) fn flags(&self) -> u32 {
        let cluster = if self.cluster_ips > 0 { PeerFlags::FRONT_END | PeerFlags::CLUSTER_IP } else { 0 };
        let external = if self.external_ips > 0 { PeerFlags::FRONT_END } else { 0 };
        let node = if self.nodes > 0 { PeerFlags::NODE } else { 0 };
        cluster | external | node
    }

    /// Whether it belongs to a pod or a node.
    pub(crate) fn is_endpoint(&self) -> bool {
        !self.claims.is_empty() || self.hosts > 0 || self.nodes > 0
    }

    pub(crate) fn sent_value(&self) -> Option<PeerValue> {
        let flags = self.sent?;
        Some(PeerValue { address: self.address, class: self.class, flags, reserved: 0 })
    }

    fn is_unused(&self) -> bool {
        !self.is_endpoint()
            && self.slices.is_empty()
            && self.cluster_ips == 0
            && self.external_ips == 0
            && self.sent.is_none()
            && !self.sent_as_endpoint
    }
}

impl Addresses {
    /// The entry of an address, made if there is none, and touched.
    pub(crate) fn touch_address(&mut self, address: IpAddr) -> AddressId {
        let address = Address::from(address);
        let id = *self.ids.entry(address).or_insert_with(|| {
            self.entries.insert(AddressEntry {
                address,
                claims: SmallVec::new(),
                slices: SmallVec::new(),
                hosts: 0,
                nodes: 0,
                cluster_ips: 0,
                external_ips: 0,
                class: EVERYBODY,
                block_class: EVERYBODY,
                is_block_class_stale: false,
                is_new: true,
                sent: None,
                sent_as_endpoint: false,
                is_touched: false,
            })
        });
        self.touch(id);
        id
    }

    pub(crate) fn touch(&mut self, id: AddressId) {
        let entry = &mut self.entries[id];
        if !entry.is_touched {
            entry.is_touched = true;
            self.touched.push(id);
        }
    }

    /// Touches all addresses from first to last, because the trie's answer may have changed.
    pub(crate) fn touch_range(&mut self, (first, last): (Address, Address)) {
        for &id in self.ids.range(first..=last).map(|(_, id)| id) {
            let entry = &mut self.entries[id];
            entry.is_block_class_stale = true;
            if !entry.is_touched {
                entry.is_touched = true;
                self.touched.push(id);
            }
        }
    }

    pub(crate) fn touch_all(&mut self, which: impl Fn(&AddressEntry) -> bool) {
        for (id, entry) in self.entries.iter_mut() {
            if !entry.is_touched && which(entry) {
                entry.is_touched = true;
                self.touched.push(id);
            }
        }
    }

    /// Gives every address that has no class yet the one that the trie has for it.
    pub(crate) fn classify_new(&mut self, blocks: &BlockTree, classes: &mut Classes) {
        for &id in &self.touched {
            let entry = &mut self.entries[id];
            if std::mem::take(&mut entry.is_new) {
                let class = blocks.class(entry.address);
                classes.hold_again(class);
                classes.hold_again(class);
                (entry.class, entry.block_class) = (class, class);
            }
        }
    }

    /// The pod that has an address: the last one to claim it among those that are bound, or else among all.
    pub(crate) fn holder(&self, id: AddressId) -> Option<PodId> {
        let claims = &self.entries[id].claims;
        let bound = if claims.len() < 2 { None } else { claims.iter().rev().find(|pod| self.bound.contains(pod)) };
        bound.or(claims.last()).copied()
    }

    /// A pod is bound now, or not any more. Answers whether that is new.
    pub(crate) fn set_bound(&mut self, pod: PodId, bound: bool) -> bool {
        if bound { self.bound.insert(pod) } else { self.bound.remove(&pod) }
    }

    pub(crate) fn find(&self, address: Address) -> Option<&AddressEntry> {
        self.ids.get(&address).map(|id| &self.entries[*id])
    }

    pub(crate) fn get(&self, id: AddressId) -> &AddressEntry {
        &self.entries[id]
    }

    pub(crate) fn get_mut(&mut self, id: AddressId) -> &mut AddressEntry {
        &mut self.entries[id]
    }

    /// Those from an address on, in order.
    pub(crate) fn from(&self, first: Address) -> impl Iterator<Item = &AddressEntry> {
        self.ids.range(first..).map(|(_, id)| &self.entries[*id])
    }

    /// What was touched since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<AddressId> {
        let touched = std::mem::take(&mut self.touched);
        for &id in &touched {
            self.entries[id].is_touched = false;
        }
        touched
    }

    /// Forgets an address that nothing is known of any more. Answers with its classes, which it held.
    pub(crate) fn forget_if_unused(&mut self, id: AddressId) -> Option<[ClassId; 2]> {
        if !self.entries[id].is_unused() {
            return None;
        }
        let entry = self.entries.remove(id)?;
        self.ids.remove(&entry.address);
        Some([entry.class, entry.block_class])
    }
}
