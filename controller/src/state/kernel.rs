//! The real [`Datapath`]: [`Enforcer`] behind the trait, and what is pinned in the compiler's terms.

use std::{net::IpAddr, sync::Arc, time::Duration};

use enforcer::{Enforcer, MapMemory, Mode, TableError, Upkeep};
use enforcer_abi::{Address, Counters, Op, Openness, PodEntry, PodFlags};
use policy_compiler::{Contents, PodTables, TableUse, model::ObjectName};

use super::datapath::{Attachment, Datapath, Fault, Fill, Unsent};

impl Datapath for Enforcer {
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, Fault> {
        let attachment = Self::attach(self, ifindex).map_err(|error| Fault::new(&error))?;
        let ahead = attachment.ahead.into_iter().map(|ahead| {
            let id = ahead.id.map(|id| format!(" (program {id})")).unwrap_or_default();
            format!("{}{id} for {}", ahead.name, crate::report::direction_name(ahead.direction))
        });
        Ok(Attachment { ahead: ahead.collect() })
    }

    fn excludes_ingress_qdisc(&self) -> bool {
        self.mode() == Mode::Clsact
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), Fault> {
        Self::detach(self, ifindex).map_err(|error| Fault::new(&error))
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(Op, Fault)> {
        match Self::apply(self, ops) {
            Ok(()) => Vec::new(),
            Err(error) => error.failures.into_iter().map(|failure| (failure.op, Fault::new(&failure.error))).collect(),
        }
    }

    fn has_room(&mut self, ops: &[Op]) -> bool {
        Self::has_room(self, ops)
    }

    fn maintain(&mut self, budget: Duration, coming: &[&[Op]]) -> Result<Upkeep, Fault> {
        Self::maintain(self, budget, coming).map_err(|error| Fault::new(&error))
    }

    fn put_pod(&mut self, entry: PodEntry) -> Result<(), Fault> {
        Self::put_pod(self, entry).map_err(|error| Fault::new(&error))
    }

    fn delete_pod(&mut self, ifindex: u32) -> Result<(), Fault> {
        Self::delete_pod(self, ifindex).map_err(|error| Fault::new(&error))
    }

    fn set_node(&mut self, addresses: &[Address], interfaces: &[u32]) -> Result<(), Fault> {
        self.set_node_addresses(addresses).map_err(|error| Fault::new(&error))?;
        self.set_node_interfaces(interfaces).map_err(|error| Fault::new(&error))
    }

    fn wait_for_readers(&mut self) -> Result<(), Fault> {
        Self::wait_for_readers(self).map_err(|error| Fault::new(&error))
    }

    fn raise_epoch(&mut self, interfaces: &[u32]) -> Result<u64, Fault> {
        Self::raise_epoch(self, interfaces).map_err(|error| Fault::new(&error))
    }

    fn counters(&mut self, ifindex: u32) -> Result<Option<Counters>, Fault> {
        Self::counters(self, ifindex).map_err(|error| Fault::new(&error))
    }

    fn fills(&mut self) -> Vec<Fill> {
        self.fill().into_iter().map(|fill| Fill { map: fill.map, used: fill.used, max: fill.max }).collect()
    }

    fn memory(&mut self) -> Vec<MapMemory> {
        Self::memory(self)
    }

    fn unsent(&mut self) -> Result<Unsent, Fault> {
        let unsent = self.unsent_events().map_err(|error| Fault::new(&error))?;
        Ok(Unsent { suppressed: unsent.suppressed, lost: unsent.lost })
    }
}

/// What is pinned, in the compiler's terms. Pods get the UIDs that `uid_at` knows for their addresses.
pub(super) fn pinned(
    enforcer: &Enforcer,
    uid_at: impl Fn(IpAddr) -> Option<Arc<str>>,
) -> Result<(Contents, Vec<PodEntry>), TableError> {
    let there = enforcer.contents()?;
    let contents = Contents {
        peers: there.peers.iter().map(|value| (value.address, *value)).collect(),
        blocks: there.blocks.into_iter().collect(),
        ports: there.ports.iter().map(|value| (value.key, *value)).collect(),
        port_ranges: there.port_ranges.into_iter().collect(),
        rows: there.rows.iter().map(|value| (value.key, *value)).collect(),
        front_ends: there.front_ends.iter().map(|value| (value.key, *value)).collect(),
        endpoints: there.endpoints.into_iter().collect(),
        pods: there
            .pods
            .iter()
            .filter(|entry| entry.flags & PodFlags::HELD == 0)
            .map(|entry| {
                let pod = pod_of(entry, &uid_at);
                (Arc::clone(&pod.uid), pod)
            })
            .collect(),
    };
    Ok((contents, there.pods))
}

/// A pod as its entry tells it.
fn pod_of(entry: &PodEntry, uid_at: impl Fn(IpAddr) -> Option<Arc<str>>) -> PodTables {
    let addresses: Vec<IpAddr> =
        [entry.v4, entry.v6].into_iter().filter(|address| *address != Address::NONE).map(Into::into).collect();
    let uid = addresses.iter().find_map(|address| uid_at(*address));
    let has = |bit: u32| entry.flags & bit != 0;
    let used = |isolated, id, everybody, ranges| {
        has(isolated).then(|| TableUse { id, everybody: Openness(everybody), ranges: has(ranges) })
    };
    PodTables {
        uid: uid.unwrap_or_else(|| format!("interface/{}", entry.ifindex).into()),
        name: ObjectName::new("", format!("interface {}", entry.ifindex)),
        addresses,
        ingress: used(
            PodFlags::INGRESS_ISOLATED,
            entry.ingress_table,
            entry.ingress_everybody,
            PodFlags::INGRESS_RANGES,
        ),
        egress: used(PodFlags::EGRESS_ISOLATED, entry.egress_table, entry.egress_everybody, PodFlags::EGRESS_RANGES),
        forwards: has(PodFlags::FORWARDS),
        audit: has(PodFlags::AUDIT),
    }
}
