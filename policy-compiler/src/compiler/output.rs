//! The state as it is: the maps' whole contents, the node's pods, and the look-ups of a walk.

use std::sync::Arc;

use enforcer_abi::{
    Address, ClassId, FrontEndKey, FrontEndValue, PeerValue, PortKey, PortValue, RowKey, RowValue, TableId,
};

use super::Compiler;
use crate::{
    change::PodTables,
    contents::Contents,
    front_end,
    model::{ObjectName, Protocol},
    walk::Lookup,
};

impl Compiler {
    /// The pods of this node, by UID.
    #[must_use]
    pub fn pods(&self) -> Vec<PodTables> {
        let mut pods: Vec<PodTables> = self.local_pods.values().filter_map(|pod| pod.sent.clone()).collect();
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        pods
    }

    /// The policies that isolate each pod of this node, by its UID: for ingress, for egress, each in the order in which
    /// they are weighed.
    pub fn isolating(&self) -> impl Iterator<Item = (&Arc<str>, [Vec<&ObjectName>; 2])> {
        self.local_pods.values().filter_map(|pod| {
            let policies = self.local_kinds.get(&pod.kind)?.policies.iter().map(|id| self.policies.get(*id));
            let ingress = policies.clone().filter(|policy| policy.ingress.is_some()).map(|policy| &policy.name);
            let egress = policies.filter(|policy| policy.egress.is_some()).map(|policy| &policy.name);
            Some((&pod.uid, [ingress.collect(), egress.collect()]))
        })
    }

    /// Everything that belongs in the kernel's maps now.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for entry in self.addresses.iter() {
            if let Some(value) = entry.sent_value() {
                contents.peers.insert(entry.address, value);
            }
            if entry.sent_as_endpoint {
                contents.endpoints.insert(entry.address);
            }
        }
        contents.blocks = self.blocks.sent().collect();
        for table in self.tables.used() {
            contents.ports.extend(table.ports().map(|port| (port.key, port)));
            contents.port_ranges.extend(table.port_ranges());
            contents.front_ends.extend(self.front_ends_of(table.id).map(|value| (value.key, value)));
            for (id, class) in self.classes.sent() {
                let row = table.row(&class.members);
                contents.rows.extend(row.iter().flat_map(|row| row.values(table.id, id)).map(|row| (row.key, row)));
            }
        }
        contents.pods = self.pods().into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        contents
    }
}

impl Lookup for Compiler {
    fn peer(&self, address: Address) -> Option<PeerValue> {
        self.addresses.find(address)?.sent_value()
    }

    fn block(&self, address: Address) -> Option<ClassId> {
        Some(self.blocks.class(address))
    }

    fn port(&self, key: PortKey) -> Option<PortValue> {
        self.tables.get(key.table)?.table.ports().find(|value| value.key == key)
    }

    fn port_range(&self, table: TableId, protocol: u8, port: u16) -> Option<PortValue> {
        let protocol = Protocol::ALL.into_iter().find(|known| known.number() == protocol)?;
        self.tables.get(table)?.table.port_range(protocol, port)
    }

    fn row(&self, key: RowKey) -> Option<RowValue> {
        let row = self.tables.get(key.table)?.table.row(self.classes.members(key.class))?;
        row.values(key.table, key.class).nth(key.chunk as usize)
    }

    fn front_end(&self, key: FrontEndKey) -> Option<FrontEndValue> {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == key.protocol)?;
        let name = (key.address, key.port, protocol);
        let state = self.tables.front_end(key.table, self.services.find(name)?)?;
        Some(front_end::value(key.table, name, state))
    }
}
