//! Evaluator 2: the compiled tables of every node, walked in user space as the packet program walks them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use policy_compiler::{
    Cluster, Compiler, Options, PodTables,
    contents::Contents,
    model::ObjectName,
    walk::{Packet, walk},
};

use super::{
    case::Case,
    connection::{Evaluator, Side},
};

/// What each node's compiler makes of a case's objects.
#[derive(Debug)]
pub struct Tables(BTreeMap<Arc<str>, Contents>);

impl Tables {
    /// Of this case, compiled at once.
    #[must_use]
    pub fn of(case: &Case) -> Self {
        let events = case.cluster.events_since(&Cluster::default());
        let nodes = case.cluster.nodes.keys().map(|node| {
            let mut compiler = Compiler::new(Options::new(node.clone()));
            let mut contents = Contents::default();
            contents.apply_changes(&compiler.apply_all(events.clone()));
            (node.clone(), contents)
        });
        Self(nodes.collect())
    }

    /// What belongs in the maps of a node.
    #[must_use]
    pub fn contents(&self, node: &str) -> Option<&Contents> {
        self.0.get(node)
    }

    /// A node's pod.
    #[must_use]
    pub fn pod(&self, node: &str, name: &ObjectName) -> Option<&PodTables> {
        self.contents(node)?.pods.values().find(|pod| pod.name == *name)
    }
}

impl Evaluator for Tables {
    fn passes(&self, side: &Side) -> Result<bool> {
        let tables = self.contents(&side.node).with_context(|| format!("there is no node {}", side.node))?;
        let pod = self.pod(&side.node, &side.pod);
        let pod = pod.with_context(|| format!("{} has no entry on {}", side.pod, side.node))?;
        let is_own = |address: &IpAddr| *address == side.remote;
        // The program asks this before it asks the tables.
        if side.made_by_own_node || pod.addresses.iter().any(is_own) {
            return Ok(true);
        }
        let packet = Packet {
            direction: side.direction,
            remote: side.remote.into(),
            protocol: side.protocol,
            port: side.port,
            established: false,
        };
        Ok(walk(tables, pod, &packet).reason.passes())
    }
}
