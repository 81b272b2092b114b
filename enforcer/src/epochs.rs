//! The epochs in which flows have to have been judged, by interface: [`Epochs::raise`].

use std::{io, path::Path};

use enforcer_abi::epoch_cell;

use crate::sys::Map;

/// The map of epochs, for whoever has the lock on the pins.
pub(crate) struct Epochs {
    cells: Map<u32, u64>,
    newest: u64,
}

impl Epochs {
    /// From its pin.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let cells = Map::<u32, u64>::open(path)?;
        let mut newest = 0;
        for cell in 0..cells.max_entries() {
            newest = newest.max(cells.get(&cell)?.unwrap_or(0));
        }
        Ok(Self { cells, newest })
    }

    /// Makes every flow of these interfaces that was judged before be judged again by its next packet. Returns the new
    /// epoch, a number that no interface has had.
    pub(crate) fn raise(&mut self, interfaces: &[u32]) -> io::Result<u64> {
        self.newest = self.newest.wrapping_add(1);
        for &ifindex in interfaces {
            self.cells.set(&epoch_cell(ifindex), &self.newest)?;
        }
        Ok(self.newest)
    }

    /// The newest epoch of all.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }
}
