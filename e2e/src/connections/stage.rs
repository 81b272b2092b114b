//! The pods of one case as namespaces, and servers wherever its connections arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use policy_compiler::{PodTables, TableUse, model::ObjectName};
use serde_json::{Value, json};

use super::{
    case::Case,
    sockets::{server_name, transport},
};
use crate::bed::{self, Namespace, Node, Server};

/// By the server's name: its namespace, and where it listens there.
type Listeners<'n> = BTreeMap<String, (&'n Namespace, BTreeSet<(bed::Transport, SocketAddr)>)>;

/// Pods and servers; gone when dropped.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    case: &'a Case,
    _servers: Vec<Server>,
    pods: BTreeMap<&'a ObjectName, bed::Pod>,
}

impl<'a> Stage<'a> {
    pub(super) fn set(case: &'a Case, nodes: &[Node], outside: &Namespace) -> Result<Self> {
        let mut pods = BTreeMap::new();
        let own = case.cluster.pods.iter().filter(|(_, pod)| !pod.ended && !pod.host_network);
        for (name, pod) in own.filter(|(_, pod)| !pod.addresses.is_empty()) {
            let node = node(nodes, pod.node.as_deref().context("a pod without a node")?)?;
            let label = format!("{}-{}", name.namespace, name.name);
            pods.insert(name, node.pod_at(&label, &pod.addresses)?);
        }
        let stage = Self { case, _servers: Vec::new(), pods };
        let servers = stage.listeners(nodes, outside)?.into_iter().map(|(name, (namespace, ports))| {
            Server::start_at(namespace, &name, &ports.into_iter().collect::<Vec<_>>())
        });
        Ok(Self { _servers: servers.collect::<Result<_>>()?, ..stage })
    }

    /// Where servers listen, by their names: wherever connections arrive, and every pod at every port at which some
    /// pod is asked, so that no back end of a Service is deaf.
    fn listeners<'n>(&'n self, nodes: &'n [Node], outside: &'n Namespace) -> Result<Listeners<'n>> {
        let mut listeners = Listeners::new();
        for connection in &self.case.connections {
            let Some((end, port)) = &connection.destination else { continue };
            let Some((transport @ (bed::Transport::Tcp | bed::Transport::Udp), _)) = transport(connection) else {
                continue;
            };
            let mut listen = |name: String, namespace: &'n Namespace, address: IpAddr| {
                let (_, ports) = listeners.entry(name).or_insert((namespace, BTreeSet::new()));
                ports.insert((transport, SocketAddr::new(address, *port)));
            };
            match (&end.pod, &end.node) {
                (Some(_), _) => {
                    for (name, pod) in &self.pods {
                        pod.addresses().iter().for_each(|address| listen(name.to_string(), pod.namespace(), *address));
                    }
                }
                (None, Some(name)) => listen(server_name(end), node(nodes, name)?.namespace(), end.address),
                (None, None) => listen(server_name(end), outside, end.address),
            }
        }
        Ok(listeners)
    }

    pub(super) fn pod(&self, name: &ObjectName) -> Result<&bed::Pod> {
        self.pods.get(name).with_context(|| format!("{name} is not on stage"))
    }

    /// What an agent's `/state` says of a pod once it enforces these tables at the pod's own veth.
    pub(super) fn enforced(&self, pod: &PodTables) -> Result<Value> {
        let direction = |table: Option<TableUse>| match table {
            Some(table) => json!({"isolated": true, "table": format!("{:016x}", table.id)}),
            None => json!({"isolated": false}),
        };
        Ok(json!({
            "namespace": &*pod.name.namespace,
            "name": &*pod.name.name,
            "state": "enforced",
            "interface": self.pod(&pod.name)?.host_interface(),
            "ingress": direction(pod.ingress),
            "egress": direction(pod.egress),
        }))
    }
}

fn node<'n>(nodes: &'n [Node], name: &str) -> Result<&'n Node> {
    nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
}
