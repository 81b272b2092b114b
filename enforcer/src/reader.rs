//! Reads what the compiled tables hold, beside whoever writes them. Entry point: [`Reader`].

use std::sync::Arc;

use crate::{
    pins::Pins,
    tables::{Contents, TableError, Tables},
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
        // by the pins of this moment: a map that has grown is another one
        Tables::open(&self.pins)?.contents()
    }
}
