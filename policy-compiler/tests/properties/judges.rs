//! The evaluators of one cluster: [`Judges`].

use std::net::IpAddr;

use enforcer_abi::Direction;
use policy_compiler::{
    Cluster, Compiler, Contents, Options, PodTables,
    explain::{self, Family, Query, Verdict as Explained, explain},
    files::{assemble, parse},
    model::{ObjectName, Protocol},
    reference::{Connection, End, Objects, Verdict},
    walk::{Packet, walk},
};
use proptest::{prop_assert_eq, test_runner::TestCaseError};

use crate::generate::{Manifests, NODES, PORTS, document, remotes};

pub(crate) struct Judges {
    objects: Objects,
    cluster: Cluster,
    contents: Contents,
    pods: Vec<PodTables>,
    remotes: Vec<IpAddr>,
}

/// A packet at a pod of the first node.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pod: ObjectName,
    direction: Direction,
    remote: IpAddr,
    protocol: u8,
    port: u16,
}

impl Judges {
    pub(crate) fn of(objects: &Manifests) -> Self {
        Self::read("f.json", document(objects).as_bytes(), remotes(objects))
    }

    /// Of a file's objects; questions are asked about these remotes.
    pub(crate) fn read(file: &str, content: &[u8], remotes: Vec<IpAddr>) -> Self {
        let parsed = parse(file, content);
        let mut api = Objects::default();
        parsed.objects.iter().for_each(|located| api.put(&located.object));
        let cluster = assemble([&parsed]).cluster;
        let mut compiler = Compiler::new(Options::new(NODES[0]));
        compiler.apply_all(cluster.events_since(&Cluster::default()));
        let (contents, pods) = (compiler.contents(), compiler.pods());
        Self { objects: api, cluster, contents, pods, remotes }
    }

    /// Whether all of them answer every question alike.
    pub(crate) fn agree(&self) -> Result<(), TestCaseError> {
        for question in self.questions() {
            prop_assert_eq!(self.tables(&question), Some(self.reference(&question)), "{:?}", question);
        }
        for connection in self.connections() {
            prop_assert_eq!(self.explained(&connection), self.judged(&connection), "{:?}", connection);
        }
        Ok(())
    }

    /// At every pod of the first node that has an address.
    pub(crate) fn questions(&self) -> Vec<Question> {
        let mut questions = Vec::new();
        let local = self.cluster.pods.values().filter(|pod| {
            pod.node.as_deref() == Some(NODES[0]) && !pod.ended && !pod.host_network && !pod.addresses.is_empty()
        });
        for pod in local {
            let has = |remote: &&IpAddr| pod.addresses.iter().any(|own| own.is_ipv4() == remote.is_ipv4());
            for remote in self.remotes.iter().filter(has) {
                for (protocol, port) in PORTS {
                    for direction in Direction::ALL {
                        questions.push(Question { pod: pod.name.clone(), direction, remote: *remote, protocol, port });
                    }
                }
            }
        }
        questions
    }

    pub(crate) fn reference(&self, question: &Question) -> bool {
        let Question { pod, direction, remote, protocol, port } = question;
        match direction {
            Direction::Egress => self.objects.may_send(pod, *remote, *protocol, *port),
            Direction::Ingress => self.objects.may_receive(pod, *remote, *protocol, *port),
        }
        .expect("the pod is there")
    }

    /// `None` if the pod has no tables.
    pub(crate) fn tables(&self, question: &Question) -> Option<bool> {
        let tables = self.pods.iter().find(|pod| pod.name == question.pod)?;
        let packet = Packet {
            direction: question.direction,
            remote: question.remote.into(),
            protocol: question.protocol,
            port: question.port,
            established: false,
        };
        Some(walk(&self.contents, tables, &packet).reason.passes())
    }

    /// Pods, nodes and addresses with each other, at some of the ports.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        let pods = self.cluster.pods.keys().cloned().map(End::Pod);
        let nodes = NODES.map(|node| End::Node(node.to_owned()));
        let addresses = self.remotes.iter().step_by(3).copied().map(End::Address);
        let ends: Vec<_> = pods.chain(nodes).chain(addresses).collect();
        let mut connections = Vec::new();
        for source in &ends {
            for destination in &ends {
                for (protocol, port) in PORTS.into_iter().step_by(4) {
                    for ipv6 in [false, true] {
                        let (source, destination) = (source.clone(), destination.clone());
                        connections.push(Connection { source, destination, protocol, port, ipv6 });
                    }
                }
            }
        }
        connections
    }

    pub(crate) fn judged(&self, connection: &Connection) -> Option<Verdict> {
        let of_family = |end: &End| !matches!(end, End::Address(address) if address.is_ipv6() != connection.ipv6);
        let asked = of_family(&connection.source) && of_family(&connection.destination);
        self.objects.judge(connection).filter(|_| asked)
    }

    pub(crate) fn explained(&self, connection: &Connection) -> Option<Verdict> {
        let end = |end: &End| match end {
            End::Pod(name) => explain::End::Pod(name.clone()),
            End::Node(name) => explain::End::Node(name.as_str().into()),
            End::Address(address) => explain::End::Address(*address),
        };
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == connection.protocol);
        let query = Query {
            source: end(&connection.source),
            destination: end(&connection.destination),
            port: protocol.map(|protocol| (protocol, connection.port)),
            family: Some(if connection.ipv6 { Family::IPv6 } else { Family::IPv4 }),
        };
        let explanation = explain(&self.cluster, &query).ok()?.remove(0);
        let sides = (explanation.egress.verdict, explanation.ingress.verdict);
        let verdict = match sides {
            (Explained::Allowed, Explained::Allowed) => Verdict::Allowed,
            (Explained::Denied, Explained::Allowed) => Verdict::RefusedByEgress,
            (Explained::Allowed, Explained::Denied) => Verdict::RefusedByIngress,
            (Explained::Denied, Explained::Denied) => Verdict::RefusedByBoth,
        };
        assert_eq!(explanation.verdict == Explained::Allowed, verdict == Verdict::Allowed);
        Some(verdict)
    }
}
