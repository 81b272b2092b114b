//! The maps that user space writes, all of them: which operation goes where, what they hold, and what maps take.

use std::{io, os::fd::AsFd as _, path::Path};

use enforcer_abi::{
    Address, BlockKey, ClassId, FrontEndKey, FrontEndValue, Op, PeerValue, PodEntry, PortKey, PortRangeKey, PortValue,
    RowKey, RowValue, map,
};
use thiserror::Error;

use crate::{
    grow::GrowError,
    object::MAPS,
    pins::Pins,
    sys,
    table::{Fill, Grow, Table, WriteError},
};

/// A map could not be read or written.
#[derive(Debug, Error)]
pub enum TableError {
    /// No room, and the map could not grow.
    #[error("{} is full ({} entries) and could not grow", .fill.map, .fill.max)]
    Full {
        /// The map.
        fill: Fill,
        /// Why it could not grow.
        #[source]
        source: Box<GrowError>,
    },
    /// The kernel refused a write.
    #[error("{map} could not be written")]
    Write {
        /// The map's name.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to let a map be read.
    #[error("{map} could not be read")]
    Read {
        /// The map's name.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl TableError {
    pub(crate) fn read(map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { map, source }
    }
}

/// Everything that the compiled tables hold. Values carry their keys where they can.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Contents {
    /// `PODS`
    pub pods: Vec<PodEntry>,
    /// `PEERS`
    pub peers: Vec<PeerValue>,
    /// `BLOCKS`
    pub blocks: Vec<(BlockKey, ClassId)>,
    /// `PORTS`
    pub ports: Vec<PortValue>,
    /// `PORT_RANGES`
    pub port_ranges: Vec<(PortRangeKey, PortValue)>,
    /// `ROWS`
    pub rows: Vec<RowValue>,
    /// `FRONT_ENDS`
    pub front_ends: Vec<FrontEndValue>,
    /// `ENDPOINTS`
    pub endpoints: Vec<Address>,
}

/// What a map takes of the kernel's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// The map's name, one of [`enforcer_abi::map`].
    pub map: &'static str,
    /// Bytes, those of a larger map that is being filled to replace it included.
    pub bytes: u64,
}

/// What the pinned maps take, in the order of the object's maps; without those of which the kernel doesn't tell.
pub(crate) fn memory(pins: &Pins) -> Vec<MapMemory> {
    let of_pin = |path: &Path| sys::map_memory(sys::open_pin(path)?.as_fd());
    let of_map = |map: &'static str| {
        let bytes = match of_pin(&pins.object(map)) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::debug!(map, %error, "what the map takes of the kernel's memory can't be read");
                return None;
            }
        };
        // mostly there is no successor
        let next = of_pin(&pins.next(map)).ok().flatten().unwrap_or(0);
        Some(MapMemory { map, bytes: bytes + next })
    };
    MAPS.iter().filter_map(|spec| of_map(spec.name)).collect()
}

/// The map in which an operation puts an entry; `None` if it removes one.
pub(crate) const fn put_into(op: &Op) -> Option<&'static str> {
    match op {
        Op::PutPeer(_) => Some(map::PEERS),
        Op::PutBlock(..) => Some(map::BLOCKS),
        Op::PutPort(_) => Some(map::PORTS),
        Op::PutPortRange(..) => Some(map::PORT_RANGES),
        Op::PutRow(_) => Some(map::ROWS),
        Op::PutFrontEnd(_) => Some(map::FRONT_ENDS),
        Op::PutEndpoint(_) => Some(map::ENDPOINTS),
        Op::DeletePeer(_)
        | Op::DeleteBlock(_)
        | Op::DeletePort(_)
        | Op::DeletePortRange(_)
        | Op::DeleteRow(_)
        | Op::DeleteFrontEnd(_)
        | Op::DeleteEndpoint(_) => None,
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) pods: Table<u32, PodEntry>,
    peers: Table<Address, PeerValue>,
    blocks: Table<BlockKey, ClassId>,
    ports: Table<PortKey, PortValue>,
    port_ranges: Table<PortRangeKey, PortValue>,
    rows: Table<RowKey, RowValue>,
    front_ends: Table<FrontEndKey, FrontEndValue>,
    endpoints: Table<Address, u32>,
    pub(crate) node_addresses: Table<Address, u32>,
    pub(crate) node_interfaces: Table<u32, u32>,
}

impl Tables {
    /// Opens the pinned maps.
    pub(crate) fn open(pins: &Pins) -> Result<Self, TableError> {
        fn table<K: aya::Pod, V: aya::Pod>(pins: &Pins, name: &'static str) -> Result<Table<K, V>, TableError> {
            Table::open(name, &pins.object(name)).map_err(TableError::read(name))
        }
        Ok(Self {
            pods: table(pins, map::PODS)?,
            peers: table(pins, map::PEERS)?,
            blocks: table(pins, map::BLOCKS)?,
            ports: table(pins, map::PORTS)?,
            port_ranges: table(pins, map::PORT_RANGES)?,
            rows: table(pins, map::ROWS)?,
            front_ends: table(pins, map::FRONT_ENDS)?,
            endpoints: table(pins, map::ENDPOINTS)?,
            node_addresses: table(pins, map::NODE_ADDRESSES)?,
            node_interfaces: table(pins, map::NODE_INTERFACES)?,
        })
    }

    /// Carries one operation out; what is so already stays so.
    pub(crate) fn write(&mut self, op: &Op) -> Result<(), WriteError> {
        match op {
            Op::PutPeer(value) => self.peers.put(&value.address, value),
            Op::DeletePeer(key) => self.peers.delete(key).map(drop),
            Op::PutBlock(key, class) => self.blocks.put(key, class),
            Op::DeleteBlock(key) => self.blocks.delete(key).map(drop),
            Op::PutPort(value) => self.ports.put(&value.key, value),
            Op::DeletePort(key) => self.ports.delete(key).map(drop),
            Op::PutPortRange(key, value) => self.port_ranges.put(key, value),
            Op::DeletePortRange(key) => self.port_ranges.delete(key).map(drop),
            Op::PutRow(value) => self.rows.put(&value.key, value),
            Op::DeleteRow(key) => self.rows.delete(key).map(drop),
            Op::PutFrontEnd(value) => self.front_ends.put(&value.key, value),
            Op::DeleteFrontEnd(key) => self.front_ends.delete(key).map(drop),
            Op::PutEndpoint(key) => self.endpoints.put(key, &1),
            Op::DeleteEndpoint(key) => self.endpoints.delete(key).map(drop),
        }
    }

    /// Reads all of the compiled tables.
    pub(crate) fn contents(&self) -> Result<Contents, TableError> {
        fn all<K: aya::Pod, V: aya::Pod>(table: &Table<K, V>) -> Result<Vec<(K, V)>, TableError> {
            table.entries().map_err(TableError::read(table.fill().map))
        }
        fn values<K: aya::Pod, V: aya::Pod>(table: &Table<K, V>) -> Result<Vec<V>, TableError> {
            Ok(all(table)?.into_iter().map(|(_, value)| value).collect())
        }
        Ok(Contents {
            pods: values(&self.pods)?,
            peers: values(&self.peers)?,
            blocks: all(&self.blocks)?,
            ports: values(&self.ports)?,
            port_ranges: all(&self.port_ranges)?,
            rows: values(&self.rows)?,
            front_ends: values(&self.front_ends)?,
            endpoints: all(&self.endpoints)?.into_iter().map(|(key, _)| key).collect(),
        })
    }

    /// All of them, for growth.
    pub(crate) fn all(&mut self) -> [&mut dyn Grow; 10] {
        [
            &mut self.pods,
            &mut self.peers,
            &mut self.blocks,
            &mut self.ports,
            &mut self.port_ranges,
            &mut self.rows,
            &mut self.front_ends,
            &mut self.endpoints,
            &mut self.node_addresses,
            &mut self.node_interfaces,
        ]
    }

    /// How full they are.
    pub(crate) fn fill(&mut self) -> Vec<Fill> {
        self.all().into_iter().map(|table| table.fill()).collect()
    }
}
