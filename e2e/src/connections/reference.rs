//! Evaluator 1: the reference, on the case's API objects.

use anyhow::{Context as _, Result};
use enforcer_abi::Direction;
use policy_compiler::reference::{self, Objects, Verdict};

use super::{
    case::Case,
    connection::{Connection, Evaluator, Expected, Side, Transport},
};

/// What the documents say of a case's objects.
#[derive(Debug)]
pub struct Reference(Objects);

impl Reference {
    /// Of this case.
    #[must_use]
    pub fn of(case: &Case) -> Self {
        let mut objects = Objects::default();
        for object in &case.objects {
            objects.put(object);
        }
        Self(objects)
    }

    /// What it says of a whole connection, asked by the names of its ends. Through a front end it asks for every back
    /// end; `None` if the connection is to one back end among them.
    ///
    /// # Errors
    /// An end is not among the objects.
    pub fn judge(&self, connection: &Connection) -> Result<Option<Expected>> {
        if connection.destination.as_ref().is_some_and(|(end, _)| end.address != connection.dialled) {
            return Ok(None);
        }
        let end = |end: &super::End| match (&end.pod, &end.node) {
            (Some(pod), _) => reference::End::Pod(pod.clone()),
            (None, Some(node)) => reference::End::Node(node.to_string()),
            (None, None) => reference::End::Address(end.address),
        };
        let destination = connection.destination.as_ref();
        let question = reference::Connection {
            source: end(&connection.source),
            destination: destination.map_or(reference::End::Address(connection.dialled), |(own, _)| end(own)),
            protocol: connection.protocol(),
            port: match connection.transport {
                Transport::Port(_, port) => port,
                Transport::Icmp | Transport::Gre => 0,
            },
            ipv6: connection.dialled.is_ipv6(),
        };
        let verdict = self.0.judge(&question).context("the reference doesn't know an end")?;
        Ok(Some(match verdict {
            Verdict::Allowed => Expected::Allowed,
            Verdict::RefusedByEgress => Expected::Egress,
            Verdict::RefusedByIngress => Expected::Ingress,
            Verdict::RefusedByBoth => Expected::Both,
        }))
    }
}

impl Evaluator for Reference {
    fn passes(&self, side: &Side) -> Result<bool> {
        if side.is_itself() || side.made_by_own_node {
            return Ok(true);
        }
        let Side { pod, remote, protocol, port, .. } = side;
        let passes = match side.direction {
            Direction::Egress => self.0.may_send(pod, *remote, *protocol, *port),
            Direction::Ingress => self.0.may_receive(pod, *remote, *protocol, *port),
        };
        passes.with_context(|| format!("the reference knows no pod {pod}"))
    }
}
