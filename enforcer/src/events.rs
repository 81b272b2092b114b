//! What the program reports: a ring buffer that any poller can wait for. Entry point: [`Events::read`].

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::{Arc, Weak},
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use enforcer_abi::{Event, EventBudget, map};
use thiserror::Error;

use crate::{
    pins::Pins,
    sys::{self, PerCpuMap},
};

/// The ring buffer could not be opened or read.
#[derive(Debug, Error)]
pub enum EventsError {
    /// The pinned buffer could not be opened.
    #[error("the ring buffer of events could not be opened")]
    Open(#[source] MapError),
    /// The counts of unsent events could not be read.
    #[error("the counts of unsent events could not be read")]
    Counts(#[source] io::Error),
    /// There is no enforcer any more.
    #[error("the enforcer whose events these are has let go of its maps")]
    Closed,
}

/// Events that the program did not send, since its maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Unsent {
    /// Because the rate limit was reached.
    pub suppressed: u64,
    /// Because the ring buffer was full.
    pub lost: u64,
}

/// The reader's end. Readable ([`AsFd`], or [`AsRawFd`] for tokio's `AsyncFd`) when there is an event; there is one reader only.
pub struct Events {
    ring: RingBuf<MapData>,
    /// The enforcer's, whose lock on them this doesn't keep.
    pins: Weak<Pins>,
}

/// Counts what was not sent, as long as the enforcer lives; may be taken to another thread.
#[derive(Clone, Debug)]
pub struct Losses {
    pins: Weak<Pins>,
}

impl Losses {
    /// How many so far.
    pub fn read(&self) -> Result<Unsent, EventsError> {
        let pins = self.pins.upgrade().ok_or(EventsError::Closed)?;
        // the pin may be another map's by now
        unsent(&PerCpuMap::open(&pins.object(map::EVENT_BUDGET)).map_err(EventsError::Counts)?)
    }
}

impl Events {
    pub(crate) fn open(pins: &Arc<Pins>) -> Result<Self, EventsError> {
        let pin = pins.object(map::EVENTS);
        let map = Map::from_map_data(MapData::from_pin(pin).map_err(EventsError::Open)?).map_err(EventsError::Open)?;
        Ok(Self { ring: RingBuf::try_from(map).map_err(EventsError::Open)?, pins: Arc::downgrade(pins) })
    }

    /// Counts what was not sent.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses { pins: Weak::clone(&self.pins) }
    }

    /// The next event, `None` if there is none for now.
    pub fn read(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            // A record of another length can't be the program's; the maps' version keeps others away.
            if let Some(event) = sys::read_event(&item) {
                return Some(event);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// Adds up all CPUs' budgets.
pub(crate) fn unsent(budget: &PerCpuMap<EventBudget>) -> Result<Unsent, EventsError> {
    let budgets = budget.get(0).map_err(EventsError::Counts)?;
    Ok(budgets.iter().fold(Unsent::default(), |sum, budget| Unsent {
        suppressed: sum.suppressed.wrapping_add(budget.suppressed),
        lost: sum.lost.wrapping_add(budget.lost),
    }))
}
