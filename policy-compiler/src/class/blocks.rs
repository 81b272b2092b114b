//! ipBlocks, flattened: [`BlockTree`] holds a node for every cidr and every except, and each node the class of the
//! addresses whose longest prefix it is. IPv4 lies at `::ffff:0:0/96`, whose node is always there: no IPv6 block reaches
//! into it.

use std::collections::BTreeMap;

use enforcer_abi::{Address, BlockKey, ClassId, EVERYBODY};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::{
    Block, PeerId,
    classes::{Classes, Peers},
};

/// Bits of an address and how many of them count; in this order a prefix comes before everything that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Prefix {
    bits: u128,
    len: u32,
}

impl Prefix {
    const V4: Self = Self { bits: 0xffff << 32, len: Address::V4_PREFIX_LEN };

    fn new(bits: u128, len: u32) -> Self {
        Self { bits: bits & (!0_u128).checked_shl(128 - len).unwrap_or(0), len }
    }

    fn covers(self, other: Self) -> bool {
        self.len <= other.len && Self::new(other.bits, self.len) == self
    }

    fn last_address(self) -> u128 {
        self.bits | (!0_u128).checked_shr(self.len).unwrap_or(0)
    }

    /// The first and last address that it covers.
    pub(crate) fn ends(self) -> (Address, Address) {
        (Address(self.bits.to_be_bytes()), Address(self.last_address().to_be_bytes()))
    }

    pub(crate) fn key(self) -> BlockKey {
        BlockKey { prefix_len: self.len, address: Address(self.bits.to_be_bytes()) }
    }
}

/// Of an IPv6 prefix among the IPv4-mapped addresses, which are never on the wire: `None`.
fn prefix_of(net: IpNet) -> Option<Prefix> {
    match net {
        IpNet::V4(net) => {
            let bits = u128::from_be_bytes(Address::from_v4(net.network().octets()).0);
            Some(Prefix::new(bits, Address::V4_PREFIX_LEN + u32::from(net.prefix_len())))
        }
        IpNet::V6(net) => {
            let prefix = Prefix::new(u128::from(net.network()), u32::from(net.prefix_len()));
            (!Prefix::V4.covers(prefix)).then_some(prefix)
        }
    }
}

/// Whether an address is in a block.
pub(crate) fn contains(block: &Block, address: Address) -> bool {
    let address = Prefix { bits: u128::from_be_bytes(address.0), len: 128 };
    let within = |net: &IpNet| {
        prefix_of(*net)
            .is_some_and(|prefix| prefix.covers(address) && Prefix::V4.covers(prefix) == Prefix::V4.covers(address))
    };
    within(&block.cidr) && !block.except.iter().any(within)
}

/// An entry of `BLOCKS` that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockChange {
    pub(crate) key: BlockKey,
    pub(crate) old: Option<ClassId>,
    pub(crate) new: Option<ClassId>,
    /// What the trie said of the prefix before.
    pub(crate) old_class: ClassId,
    /// What it says now.
    pub(crate) new_class: ClassId,
}

#[derive(Debug)]
pub(crate) struct BlockTree {
    nodes: BTreeMap<Prefix, Node>,
    stale: Vec<Prefix>,
}

#[derive(Debug, Default)]
struct Node {
    added: SmallVec<[PeerId; 1]>,
    excepted: SmallVec<[PeerId; 1]>,
    class: ClassId,
    /// The entry of `BLOCKS`; none where the prefix around it says the same.
    sent: Option<ClassId>,
}

impl Default for BlockTree {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(Prefix::V4, Node::default())]), stale: Vec::new() }
    }
}

impl BlockTree {
    /// Adds a block. Classes are as before until [`Self::refresh`].
    pub(crate) fn insert(&mut self, peer: PeerId, block: &Block, classes: &mut Classes) {
        let Some(cidr) = prefix_of(block.cidr) else { return };
        self.node(cidr, classes).added.push(peer);
        for except in block.except.iter().filter_map(|except| prefix_of(*except)) {
            self.node(except, classes).excepted.push(peer);
        }
        self.stale.push(cidr);
    }

    /// Removes a block. Classes are as before until [`Self::refresh`].
    pub(crate) fn remove(&mut self, peer: PeerId, block: &Block) {
        let Some(cidr) = prefix_of(block.cidr) else { return };
        if let Some(node) = self.nodes.get_mut(&cidr) {
            node.added.retain(|other| *other != peer);
        }
        for except in block.except.iter().filter_map(|except| prefix_of(*except)) {
            if let Some(node) = self.nodes.get_mut(&except) {
                node.excepted.retain(|other| *other != peer);
            }
        }
        self.stale.push(cidr);
    }

    fn node(&mut self, prefix: Prefix, classes: &mut Classes) -> &mut Node {
        if !self.nodes.contains_key(&prefix) {
            let class = self.longest(prefix).map_or(EVERYBODY, |(_, class)| class);
            classes.hold_again(class);
            self.nodes.insert(prefix, Node { class, ..Node::default() });
        }
        self.nodes.entry(prefix).or_default()
    }

    /// The longest prefix that covers `inner`, and its class.
    fn longest(&self, inner: Prefix) -> Option<(Prefix, ClassId)> {
        let mut below = inner;
        loop {
            let (&found, node) = self.nodes.range(..=below).next_back()?;
            if found.covers(inner) {
                return Some((found, node.class));
            }
            // what covers both is at or before their common prefix
            below = Prefix::new(inner.bits, (found.bits ^ inner.bits).leading_zeros().min(found.len));
        }
    }

    /// What the trie says of an address.
    pub(crate) fn class(&self, address: Address) -> ClassId {
        let address = Prefix { bits: u128::from_be_bytes(address.0), len: 128 };
        self.longest(address).map_or(EVERYBODY, |(_, class)| class)
    }

    /// The entries of `BLOCKS`.
    pub(crate) fn sent(&self) -> impl Iterator<Item = (BlockKey, ClassId)> {
        self.nodes.iter().filter_map(|(prefix, node)| Some((prefix.key(), node.sent?)))
    }

    /// Brings classes up to date. Answers which entries change, and within which prefixes classes may have changed.
    pub(crate) fn refresh(&mut self, classes: &mut Classes, peers: &mut Peers) -> (Vec<BlockChange>, Vec<Prefix>) {
        let mut changes = Vec::new();
        let mut stale = std::mem::take(&mut self.stale);
        stale.sort_unstable();
        // a prefix comes after the one that covers it; IPv4 is not covered by IPv6
        stale.dedup_by(|next, root| root.covers(*next) && Prefix::V4.covers(*root) == Prefix::V4.covers(*next));
        for root in &stale {
            self.refresh_below(*root, &stale, classes, peers, &mut changes);
        }
        (changes, stale)
    }

    fn refresh_below(
        &mut self,
        root: Prefix,
        stale: &[Prefix],
        classes: &mut Classes,
        peers: &mut Peers,
        changes: &mut Vec<BlockChange>,
    ) {
        let parent = root.len.checked_sub(1).and_then(|len| self.longest(Prefix::new(root.bits, len)));
        let outside = Prefix { bits: 0, len: 0 };
        let mut around: Vec<(Prefix, ClassId)> = vec![parent.unwrap_or((outside, EVERYBODY))];
        let within = root..=Prefix { bits: root.last_address(), len: 128 };
        let skips_v4 = !Prefix::V4.covers(root);
        // each node is visited once: this one with what is below it, if that is stale as a whole
        let skips_v4_itself = skips_v4 && stale.contains(&Prefix::V4);
        let mut empty: Vec<Prefix> = Vec::new();
        for (&prefix, node) in self.nodes.range_mut(within) {
            if skips_v4 && Prefix::V4.covers(prefix) && (prefix != Prefix::V4 || skips_v4_itself) {
                continue;
            }
            while around.len() > 1 && !around[around.len() - 1].0.covers(prefix) {
                around.pop();
            }
            let outer = around[around.len() - 1].1;
            let new_class = if skips_v4 && prefix == Prefix::V4 {
                classes.hold_again(node.class);
                node.class
            } else {
                let outer: &[PeerId] = if prefix == Prefix::V4 { &[] } else { classes.members(outer) };
                let members = outer.iter().chain(&node.added).filter(|peer| !node.excepted.contains(peer));
                let mut members: Vec<PeerId> = members.copied().collect();
                members.sort_unstable();
                classes.hold(&members, peers)
            };
            let old_class = std::mem::replace(&mut node.class, new_class);
            classes.release(old_class);
            around.push((prefix, new_class));
            let new = (new_class != outer).then_some(new_class);
            let old = std::mem::replace(&mut node.sent, new);
            if old != new {
                classes.resend(old, new);
                changes.push(BlockChange { key: prefix.key(), old, new, old_class, new_class });
            }
            if node.added.is_empty() && node.excepted.is_empty() && prefix != Prefix::V4 {
                empty.push(prefix);
            }
        }
        for prefix in empty {
            if let Some(node) = self.nodes.remove(&prefix) {
                classes.release(node.class);
            }
        }
    }
}
