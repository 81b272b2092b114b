//! Evaluator 3 of the connection cases: the first packet of each connection, at both ends. Entry point: [`Kernel::of`].

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Context as _, Result};
use enforcer_abi::{Direction, Settings, protocol};
use policy_compiler::Cluster;

use super::{
    frame::{Damage, IpShape, Packet},
    payload::{Payload, SctpChunk, TcpFlags},
    pool,
    program::{Context, Sizes, Verdict},
    run::Run,
    step::Evicted,
};
use crate::connections::{Case, Evaluator, Side};

/// The port that connections come from.
const SOURCE_PORT: u16 = 40_000;

/// A cluster as the program on each of its nodes judges it; a node's maps are filled when it is first asked.
pub struct Kernel<'a> {
    cluster: &'a Cluster,
    settings: Settings,
    nodes: RefCell<BTreeMap<String, Run>>,
}

impl<'a> Kernel<'a> {
    /// Of this case, on a kernel of `hz` jiffies a second.
    #[must_use]
    pub fn of(case: &'a Case, hz: u64) -> Self {
        // as packet cases have it, whose programs these are, too
        let settings = super::case::SettingsFile::default().settings(hz);
        Self { cluster: &case.cluster, settings, nodes: RefCell::default() }
    }

    fn node(&self, name: &str) -> Result<Run> {
        let mut run = Run::start(pool::lease(self.settings, Sizes::new())?, name);
        run.events(self.cluster.events_since(&Cluster::default()))?;
        Ok(run)
    }
}

impl Evaluator for Kernel<'_> {
    fn passes(&self, side: &Side) -> Result<bool> {
        let mut nodes = self.nodes.borrow_mut();
        if !nodes.contains_key(&*side.node) {
            nodes.insert(side.node.to_string(), self.node(&side.node)?);
        }
        let run = nodes.get_mut(&*side.node).context("it was put there")?;
        let ifindex = run.veth(&side.pod.to_string())?.ifindex;
        let ingress_ifindex = match (side.direction, side.made_by_own_node) {
            (Direction::Egress, _) => ifindex,
            (Direction::Ingress, true) => 0,
            (Direction::Ingress, false) => super::judge::ELSEWHERE,
        };
        let context = Context { ifindex, ingress_ifindex, ..Context::default() };
        let verdict = run.program.run(side.direction, &frame(side)?, context)?;
        // what one connection leaves behind is not the next one's
        run.evict(Evicted::Both)?;
        Ok(verdict == Verdict::Pass)
    }
}

/// The first packet of a connection as a pod's veth sees it.
fn frame(side: &Side) -> Result<Vec<u8>> {
    let (source, destination) = match side.direction {
        Direction::Ingress => (side.remote, side.local),
        Direction::Egress => (side.local, side.remote),
    };
    let (from, to) = (SOURCE_PORT, side.port);
    let payload = match side.protocol {
        protocol::TCP => Payload::Tcp { source: from, destination: to, flags: TcpFlags(2), data: 0 },
        protocol::UDP => Payload::Udp { source: from, destination: to, data: 0 },
        protocol::SCTP => Payload::Sctp { source: from, destination: to, chunk: SctpChunk::Init },
        protocol::ICMP | protocol::ICMPV6 => Payload::Echo { id: 7, reply: false },
        other => Payload::Other(other),
    };
    let packet = Packet { source, destination, ip: IpShape::default(), payload, damage: Damage::default() };
    Ok(packet.build()?.bytes)
}
