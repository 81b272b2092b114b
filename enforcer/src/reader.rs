//! Reads what the compiled tables hold, beside whoever writes them. Entry point: [`Reader`].

use std::sync::Arc;

use enforcer_abi::{PodEntry, map};

use crate::{
    pins::Pins,
    sys::Map,
    tables::{Contents, TableError},
};

/// Reads the pinned maps; may be taken to any thread. As long as it lives, the pins are locked.
#[derive(Clone, Debug)]
pub struct Reader {
    pins: Arc<Pins>,
}

impl Reader {
    pub(crate) fn new(pins: Arc<Pins>) -> Self {
        Self { pins }
    }

    /// All that the maps hold that the programs use now. What is written meanwhile may be in it or not.
    pub fn contents(&self) -> Result<Contents, TableError> {
        Ok(Contents {
            pods: self.values::<u32, PodEntry>(map::PODS)?,
            peers: self.values::<enforcer_abi::Address, _>(map::PEERS)?,
            blocks: self.entries(map::BLOCKS)?,
            ports: self.values::<enforcer_abi::PortKey, _>(map::PORTS)?,
            port_ranges: self.entries(map::PORT_RANGES)?,
            rows: self.values::<enforcer_abi::RowKey, _>(map::ROWS)?,
            front_ends: self.values::<enforcer_abi::FrontEndKey, _>(map::FRONT_ENDS)?,
            endpoints: self.entries::<_, u32>(map::ENDPOINTS)?.into_iter().map(|(key, _)| key).collect(),
        })
    }

    fn entries<K: aya::Pod, V: aya::Pod>(&self, map: &'static str) -> Result<Vec<(K, V)>, TableError> {
        Map::open(&self.pins.object(map)).and_then(|map| map.entries()).map_err(TableError::read(map))
    }

    fn values<K: aya::Pod, V: aya::Pod>(&self, map: &'static str) -> Result<Vec<V>, TableError> {
        Ok(self.entries::<K, V>(map)?.into_iter().map(|(_, value)| value).collect())
    }
}
