//! From one content of the maps to another, make before break.

mod delta;
mod transition;
mod ways;

pub(crate) use delta::{Delta, PeerChange, PeerEntry, PodChange, Side, TableParts};
pub(crate) use transition::steps;
