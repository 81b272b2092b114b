//! Which maps a generation of programs is loaded on: pinned ones as they are, resized ones as successors. Entry points:
//! [`on_start`] and [`for_growth`].

use std::path::Path;

use enforcer_abi::{EPOCH_CELLS, FlowKey, FlowValue, map};

use crate::{
    object::{self, MAPS, MapPlan},
    pins::Pins,
    sys::Map,
};

/// How large the maps are made. Those of the compiled tables grow by themselves before they are full; they take no
/// memory for entries that aren't there. The others have their memory from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Pods of the node, and their counters.
    pub pods: u32,
    /// Addresses with a class of their own.
    pub peers: u32,
    /// Prefixes.
    pub blocks: u32,
    /// Single ports and their tables.
    pub ports: u32,
    /// Prefixes of ports and their tables.
    pub port_ranges: u32,
    /// Rows of all tables.
    pub rows: u32,
    /// Front ends and their tables.
    pub front_ends: u32,
    /// Addresses for the source check.
    pub endpoints: u32,
    /// Flows that were seen in both directions: 128 bytes each or so.
    pub flows: u32,
    /// Flows that were seen in one direction.
    pub openings: u32,
    /// Fragmented packets under way.
    pub fragments: u32,
    /// Bytes of the ring buffer of events, a power of two and of pages.
    pub event_bytes: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            pods: 512,
            peers: 16_384,
            blocks: 65_536,
            ports: 4096,
            port_ranges: 16_384,
            rows: 16_384,
            front_ends: 16_384,
            endpoints: 16_384,
            flows: 131_072,
            openings: 32_768,
            fragments: 4096,
            event_bytes: 1 << 20,
        }
    }
}

impl MapSizes {
    pub(crate) fn of(&self, name: &str) -> u32 {
        match name {
            map::PODS | map::COUNTERS => self.pods,
            map::PEERS => self.peers,
            map::BLOCKS => self.blocks,
            map::PORTS => self.ports,
            map::PORT_RANGES => self.port_ranges,
            map::ROWS => self.rows,
            map::FRONT_ENDS => self.front_ends,
            map::ENDPOINTS => self.endpoints,
            map::FLOWS => self.flows,
            map::OPENINGS => self.openings,
            map::FRAGMENTS => self.fragments,
            map::EVENTS => self.event_bytes,
            map::NODE_ADDRESSES => 256,
            map::NODE_INTERFACES => 64,
            map::EPOCHS => EPOCH_CELLS,
            // EVENT_BUDGET; PREVIOUS_FLOWS where it isn't used
            _ => 1,
        }
    }
}

/// The maps of a generation.
pub(crate) struct Generation {
    pub(crate) maps: Vec<MapPlan>,
    /// Pinned as successors; they take over with the programs.
    pub(crate) successors: Vec<&'static str>,
    /// Whether `PREVIOUS_FLOWS` is to be asked.
    pub(crate) previous_flows: bool,
}

/// Of an agent that starts. `now` is the jiffy, `timeout` the longest time in jiffies that a flow lives without a
/// packet.
pub(crate) fn on_start(pins: &Pins, sizes: &MapSizes, now: u64, timeout: u64) -> std::io::Result<Generation> {
    let mut successors = Vec::new();
    let mut maps = Vec::new();
    let mut previous_flows = false;
    for spec in &MAPS {
        let pin = pins.object(spec.name);
        let pinned = object::pinned_entries(&pin);
        let wanted = sizes.of(spec.name);
        let plan = match (spec.name, pinned) {
            (map::PREVIOUS_FLOWS, _) => continue,
            (map::FLOWS | map::OPENINGS | map::FRAGMENTS | map::EVENTS, Some(entries)) if entries != wanted => {
                successors.push(spec.name);
                MapPlan { name: spec.name, pin: Some(pins.next(spec.name)), entries: wanted }
            }
            (name, pinned) => MapPlan { name, pin: Some(pin), entries: pinned.unwrap_or(wanted) },
        };
        maps.push(plan);
    }
    let previous = pins.object(map::PREVIOUS_FLOWS);
    let pin = if successors.contains(&map::FLOWS) {
        let next = pins.next(map::PREVIOUS_FLOWS);
        crate::sys::pin(std::os::fd::AsFd::as_fd(&crate::sys::open_pin(&pins.object(map::FLOWS))?), &next)?;
        successors.push(map::PREVIOUS_FLOWS);
        Some(next)
    } else if holds_live_flows(&previous, now, timeout) {
        Some(previous)
    } else {
        None
    };
    let entries = pin.as_deref().and_then(object::pinned_entries).unwrap_or(1);
    previous_flows |= pin.is_some();
    maps.push(MapPlan { name: map::PREVIOUS_FLOWS, pin, entries });
    Ok(Generation { maps, successors, previous_flows })
}

/// With larger maps of some names, everything else as it is.
pub(crate) fn for_growth(pins: &Pins, larger: &[(&'static str, u32)]) -> Generation {
    let plan = |name| {
        let pin = pins.object(name);
        if let Some(&(_, entries)) = larger.iter().find(|&&(grown, _)| grown == name) {
            return MapPlan { name, pin: Some(pins.next(name)), entries };
        }
        match object::pinned_entries(&pin) {
            Some(entries) => MapPlan { name, pin: Some(pin), entries },
            // PREVIOUS_FLOWS where it isn't used
            None => MapPlan { name, pin: None, entries: 1 },
        }
    };
    Generation {
        maps: MAPS.iter().map(|spec| plan(spec.name)).collect(),
        successors: larger.iter().map(|&(name, _)| name).collect(),
        previous_flows: object::pinned_entries(&pins.object(map::PREVIOUS_FLOWS)).is_some(),
    }
}

/// Whether a pinned table of flows has one that may still be alive. One that can't be read counts as empty: its flows
/// are judged anew.
fn holds_live_flows(pin: &Path, now: u64, timeout: u64) -> bool {
    let Ok(flows) = Map::<FlowKey, FlowValue>::open(pin) else { return false };
    let low = u32::try_from(now & u64::from(u32::MAX)).expect("masked to 32 bits");
    flows
        .entries()
        .is_ok_and(|flows| flows.iter().any(|(_, flow)| u64::from(low.wrapping_sub(flow.last_seen)) < timeout))
}
