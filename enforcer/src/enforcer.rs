//! The kernel's half of Sluice, held by one owner: what is done with it day by day. `open` is how it comes to be.

use std::{sync::Arc, time::Instant};

use enforcer_abi::{Address, Counters, EventBudget, FlowKey, FlowValue, Op, PodEntry, Settings, map};
use thiserror::Error;

use crate::{
    attach::{self, AttachError, Attached, Attacher, Attachment, Mode},
    clock::Clock,
    epochs::Epochs,
    events::{self, Events, EventsError, Unsent},
    grow::{GrowError, Growth},
    netlink::Netlink,
    object::Programs,
    pins::Pins,
    reader::Reader,
    slots::Slots,
    survey::Survey,
    sys::{GracePeriod, Map, PerCpuMap},
    table::{Fill, Table, WriteError},
    tables::{self, Contents, MapMemory, TableError, Tables},
};

/// Some operations of a batch failed; all others were carried out.
#[derive(Debug, Error)]
#[error("{} of {total} writes to the tables failed, the first one: {}", .failures.len(), .failures[0].error)]
pub struct ApplyError {
    /// Never empty, in the order of the batch.
    pub failures: Vec<ApplyFailure>,
    /// Operations in the batch.
    pub total: usize,
}

/// One operation that failed. What it was to write counts as not there.
#[derive(Debug)]
pub struct ApplyFailure {
    /// Its place in the batch.
    pub index: usize,
    /// The operation.
    pub op: Op,
    /// Why.
    pub error: TableError,
}

/// A remembered flow, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The connection seen from the pod.
    pub key: FlowKey,
    /// What is remembered of it.
    pub value: FlowValue,
    /// Whether packets were seen in both directions.
    pub replied: bool,
}

/// Loaded programs and their maps, locked against a second owner. Everything is pinned: when this value is dropped or
/// the process dies, enforcement goes on as it stands.
///
/// All methods must be called from the network namespace in which it was opened: interface indexes mean nothing
/// elsewhere.
pub struct Enforcer {
    pub(crate) pins: Arc<Pins>,
    pub(crate) object: &'static [u8],
    pub(crate) settings: Settings,
    pub(crate) mode: Mode,
    pub(crate) clock: Clock,
    pub(crate) programs: Programs,
    pub(crate) tables: Tables,
    pub(crate) slots: Slots,
    pub(crate) grace: GracePeriod,
    pub(crate) growth: Option<Growth>,
    /// After a growth that failed: one that nothing forces, and one that a full map does.
    pub(crate) no_growth_before: Option<Instant>,
    pub(crate) no_forced_growth_before: Option<Instant>,
    pub(crate) netlink: Netlink,
    pub(crate) epochs: Epochs,
    pub(crate) budget: PerCpuMap<EventBudget>,
}

impl Enforcer {
    pub(crate) fn attacher(&mut self) -> Attacher<'_> {
        Attacher { programs: &self.programs, pins: &self.pins, netlink: &mut self.netlink, mode: self.mode }
    }

    /// Puts the programs on an interface ahead of all others, or replaces older ones of ours. Without an entry in
    /// `PODS` they hold the pod, so for one that is running already [`Self::put_pod`] comes first.
    ///
    /// Repeat it after a change of the interface: the answer says who has come ahead of us.
    pub fn attach(&mut self, ifindex: u32) -> Result<Attachment, AttachError> {
        self.attacher().attach(ifindex)
    }

    /// Takes the programs off an interface. To be called when an interface is gone, too, for its pins' sake.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        attach::detach(&self.pins, &mut self.netlink, ifindex)
    }

    /// All interfaces that run our programs.
    pub fn attached(&mut self) -> Result<Vec<Attached>, AttachError> {
        attach::attached(&self.pins, &mut self.netlink)
    }

    /// Carries operations out in their order. Every one is tried; what is so already stays so.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        let mut failures = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            if let Err(error) = self.write(|tables| tables.write(op)) {
                failures.push(ApplyFailure { index, op: *op, error });
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(ApplyError { failures, total: ops.len() }) }
    }

    /// Writes a pod's entry, in one atomic update. Its `slot` is set here: a zeroed one for a new interface.
    pub fn put_pod(&mut self, entry: PodEntry) -> Result<(), TableError> {
        let refused = |source| TableError::Write { map: map::COUNTERS, source };
        let slot = match self.slots.claim(entry.ifindex).map_err(refused)? {
            Some(slot) => slot,
            None => {
                let fill = self.tables.fill()[0];
                self.grow_now(map::PODS).map_err(|error| TableError::Full { fill, source: Box::new(error) })?;
                self.slots.claim(entry.ifindex).map_err(refused)?.unwrap_or(0)
            }
        };
        let entry = PodEntry { slot, ..entry };
        self.write(|tables| tables.pods.put(&entry.ifindex, &entry))
    }

    /// Removes a pod's entry: an interface that still runs the programs is held.
    pub fn delete_pod(&mut self, ifindex: u32) -> Result<(), TableError> {
        self.write(|tables| tables.pods.delete(&ifindex))?;
        self.slots.release(ifindex);
        Ok(())
    }

    /// A pod's entry as the program sees it.
    pub fn pod(&self, ifindex: u32) -> Result<Option<PodEntry>, TableError> {
        self.tables.pods.get(&ifindex).map_err(TableError::read(map::PODS))
    }

    /// Sets the node's own addresses: exactly these.
    pub fn set_node_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError> {
        self.set_members(addresses, |tables| &mut tables.node_addresses)
    }

    /// Sets the interfaces whose packets from the node's addresses are the node's own: exactly these.
    pub fn set_node_interfaces(&mut self, ifindexes: &[u32]) -> Result<(), TableError> {
        self.set_members(ifindexes, |tables| &mut tables.node_interfaces)
    }

    fn set_members<K: aya::Pod + PartialEq>(
        &mut self,
        wanted: &[K],
        table: impl Fn(&mut Tables) -> &mut Table<K, u32>,
    ) -> Result<(), TableError> {
        let there = table(&mut self.tables).entries().map_err(TableError::read("a set of the node's"))?;
        for key in wanted.iter().filter(|key| !there.iter().any(|(other, _)| other == *key)) {
            self.write(|tables| table(tables).put(key, &1))?;
        }
        for (key, _) in there.iter().filter(|(key, _)| !wanted.contains(key)) {
            self.write(|tables| table(tables).delete(key).map(drop))?;
        }
        Ok(())
    }

    /// Writes, and makes room if there is none.
    fn write<T>(&mut self, write: impl Fn(&mut Tables) -> Result<T, WriteError>) -> Result<T, TableError> {
        let mut has_grown = false;
        loop {
            match write(&mut self.tables) {
                Ok(done) => return Ok(done),
                Err(WriteError::Other(map, source)) => return Err(TableError::Write { map, source }),
                Err(WriteError::Successor(error)) => {
                    tracing::warn!(%error, "a larger map could not be written and is given up");
                    self.abandon_growth();
                }
                Err(WriteError::Full(fill)) if has_grown => {
                    return Err(TableError::Full { fill, source: Box::new(GrowError::Largest) });
                }
                Err(WriteError::Full(fill)) => {
                    self.grow_now(fill.map).map_err(|error| TableError::Full { fill, source: Box::new(error) })?;
                    has_grown = true;
                }
            }
        }
    }

    /// Makes every flow of these interfaces that was judged before be judged again by its next packet. Returns the new
    /// epoch, a number that no interface has had.
    pub fn raise_epoch(&mut self, interfaces: &[u32]) -> Result<u64, TableError> {
        self.epochs.raise(interfaces).map_err(|source| TableError::Write { map: map::EPOCHS, source })
    }

    /// Waits until no packet is being judged by what was there before the last writes, a few milliseconds: to be
    /// called before anything is freed that those writes made unreachable.
    pub fn wait_for_readers(&self) -> Result<(), TableError> {
        self.grace.wait().map_err(|source| TableError::Write { map: "the grace period's map", source })
    }

    /// All that the compiled tables hold, for comparison with a fresh compilation.
    pub fn contents(&self) -> Result<Contents, TableError> {
        self.tables.contents()
    }

    /// How full the tables are.
    pub fn fill(&mut self) -> Vec<Fill> {
        self.tables.fill()
    }

    /// What the maps take of the kernel's memory, for which the process isn't charged.
    #[must_use]
    pub fn memory(&self) -> Vec<MapMemory> {
        tables::memory(&self.pins)
    }

    /// Looks for programs of others; may be taken to another thread. As long as it lives, the pins are locked.
    #[must_use]
    pub fn survey(&self) -> Survey {
        Survey::new(Arc::clone(&self.pins))
    }

    /// Reads the tables; may be taken to another thread. As long as it lives, the pins are locked.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.pins))
    }

    /// Opens the ring buffer of events. There can be one reader: a second one takes events away from the first.
    pub fn events(&self) -> Result<Events, EventsError> {
        Events::open(&self.pins)
    }

    /// How many events were not sent.
    pub fn unsent_events(&self) -> Result<Unsent, EventsError> {
        events::unsent(&self.budget)
    }

    /// What the program has counted for an interface; `None` if it has no pod entry.
    pub fn counters(&self, ifindex: u32) -> Result<Option<Counters>, TableError> {
        self.slots.read(ifindex).map_err(TableError::read(map::COUNTERS))
    }

    /// The flows that are remembered, expired ones that nothing has replaced yet among them. Reads both tables whole:
    /// tens of milliseconds for a hundred thousand flows.
    pub fn flows(&self) -> Result<Vec<Flow>, TableError> {
        let mut flows = Vec::new();
        for (name, replied) in [(map::FLOWS, true), (map::OPENINGS, false)] {
            let entries = Map::open(&self.pins.object(name)).and_then(|map| map.entries());
            let entries: Vec<(FlowKey, FlowValue)> = entries.map_err(TableError::read(name))?;
            flows.extend(entries.into_iter().map(|(key, value)| Flow { key, value, replied }));
        }
        Ok(flows)
    }

    /// By which mechanism interfaces are attached.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The clock that the settings' times are in.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The newest epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epochs.newest()
    }
}
