//! Peers and the classes they cut addresses into. A [`PeerDef`] is one thing that rules can ask of an address; a class is
//! the set of peers that match an address, and its id is that set's content.

pub(crate) mod addresses;
pub(crate) mod blocks;
pub(crate) mod classes;

use std::sync::Arc;

use enforcer_abi::{ClassId, EVERYBODY};
use ipnet::IpNet;

use crate::{
    content_id::ContentHasher,
    model::{NamedPort, NamespaceMatch, PodMatch, Requirement, Selector},
};

/// Content of a [`PeerDef`].
pub(crate) type PeerId = u64;

/// What a rule asks of an address. With a `port`, the pod must also give that number that name: so are the named ports
/// of egress rules resolved, which mean another number with each peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerDef {
    /// It is such a pod's.
    Pods { matching: Arc<PodMatch>, port: Option<NamedPort> },
    /// It is in the block; with a `port`, it is a pod's as well.
    Block { block: Arc<Block>, port: Option<NamedPort> },
}

/// An `ipBlock`, as [`crate::model::Peer::Block`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    pub(crate) cidr: IpNet,
    pub(crate) except: Vec<IpNet>,
}

impl PeerDef {
    /// Its canonical form, for an id.
    pub(crate) fn describe(&self) -> ContentHasher {
        let mut hasher = ContentHasher::new("peer");
        let port = match self {
            Self::Pods { matching, port } => {
                hasher.text("pods");
                match &matching.namespaces {
                    NamespaceMatch::Name(name) => {
                        hasher.text("name");
                        hasher.text(name);
                    }
                    NamespaceMatch::Labels(selector) => {
                        hasher.text("labels");
                        describe_selector(&mut hasher, selector);
                    }
                }
                describe_selector(&mut hasher, &matching.pods);
                port
            }
            Self::Block { block, port } => {
                hasher.text("block");
                hasher.text(&block.cidr.to_string());
                hasher.number(block.except.len() as u64);
                for except in &block.except {
                    hasher.text(&except.to_string());
                }
                port
            }
        };
        if let Some(port) = port {
            hasher.text(&port.name);
            hasher.bytes(&[port.protocol.number()]);
            hasher.number(u64::from(port.number));
        }
        hasher
    }
}

fn describe_selector(hasher: &mut ContentHasher, selector: &Selector) {
    hasher.number(selector.requirements.len() as u64);
    for requirement in &selector.requirements {
        let (operator, key, values) = match requirement {
            Requirement::In(key, values) => ("in", key, values.as_slice()),
            Requirement::NotIn(key, values) => ("notin", key, values.as_slice()),
            Requirement::Exists(key) => ("exists", key, [].as_slice()),
            Requirement::DoesNotExist(key) => ("missing", key, [].as_slice()),
        };
        hasher.text(operator);
        hasher.text(key);
        hasher.number(values.len() as u64);
        for value in values {
            hasher.text(value);
        }
    }
}

/// The id of the class of `peers`, which are sorted; [`EVERYBODY`] if there are none.
pub(crate) fn class_id(peers: &[PeerId], other_content_has: impl Fn(ClassId) -> bool) -> ClassId {
    if peers.is_empty() {
        return EVERYBODY;
    }
    let mut hasher = ContentHasher::new("class");
    for &peer in peers {
        hasher.number(peer);
    }
    hasher.first_id(other_content_has)
}
