//! The kernel's half of Sluice, held by one owner. Entry point: [`Enforcer::open`].

use std::{
    io,
    path::{Path, PathBuf},
};

use enforcer_abi::{Address, Counters, EventBudget, FlowKey, FlowValue, Op, PodEntry, Settings, map};
use thiserror::Error;

use crate::{
    attach::{self, AttachError, Attached, Attacher, Attachment, Mode},
    clock::{Clock, ClockError},
    events::{self, Events, EventsError, Unsent},
    grow::{GrowError, Growth, adopt_generation, load_generation},
    netlink::{Netlink, NetlinkError},
    object::{LoadError, Programs},
    pins::{self, Pins, PinsError},
    plan::{self, MapSizes},
    preflight::{self, PreflightError},
    slots::Slots,
    sys::{self, GracePeriod, Map, PerCpuMap},
    table::{Fill, Table, WriteError},
    tables::{Contents, TableError, Tables},
};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hooks {
    /// TCX links where the kernel has them (6.6), clsact filters elsewhere.
    #[default]
    Auto,
    /// Clsact filters everywhere.
    Clsact,
}

/// What an [`Enforcer`] is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder on a BPF file system, `/sys/fs/bpf/sluice` in production. It is made if need be.
    pub pin_dir: PathBuf,
    /// The kernel's tick, which the settings' times are in.
    pub clock: Clock,
    /// What the program is loaded with; `previous_flows` is set as needed.
    pub settings: Settings,
    /// How large the maps are made. Pinned ones never shrink, flows and fragments aside.
    pub sizes: MapSizes,
    /// How programs are attached.
    pub hooks: Hooks,
    /// The ELF object, [`crate::OBJECT`].
    pub object: &'static [u8],
}

impl Options {
    /// The object of this build, default sizes and settings, hooks by the kernel's version.
    #[must_use]
    pub fn new(pin_dir: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            pin_dir: pin_dir.into(),
            clock,
            settings: Settings::defaults(clock.hz()),
            sizes: MapSizes::default(),
            hooks: Hooks::Auto,
            object: crate::OBJECT,
        }
    }
}

/// Why enforcement could not be opened or removed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Something is missing on this node.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The pin folder failed, or another agent has it.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Pinned maps could not be made as large as wanted.
    #[error("the pinned maps could not be resized")]
    Resize(#[source] GrowError),
    /// A map could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An interface's programs could not be replaced.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The clock could not be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The kernel refused something small.
    #[error("the kernel refused to {action}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl From<GrowError> for OpenError {
    fn from(error: GrowError) -> Self {
        match error {
            GrowError::Load(error) => Self::Load(error),
            GrowError::Pins(error) => Self::Pins(error),
            GrowError::Attach(error) => Self::Attach(error),
            other => Self::Resize(other),
        }
    }
}

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
    pub(crate) pins: Pins,
    pub(crate) object: &'static [u8],
    pub(crate) settings: Settings,
    pub(crate) mode: Mode,
    clock: Clock,
    pub(crate) programs: Programs,
    pub(crate) tables: Tables,
    pub(crate) slots: Slots,
    pub(crate) grace: GracePeriod,
    pub(crate) growth: Option<Growth>,
    pub(crate) netlink: Netlink,
    epoch_map: Map<u32, u64>,
    epoch: u64,
    budget: PerCpuMap<EventBudget>,
}

impl Enforcer {
    /// Loads the programs on the maps that are pinned, or on new ones, and gives them to every interface that runs
    /// older ones, unless these use maps of another layout: see [`Self::take_over`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        preflight::check(&options.pin_dir)?;
        if let Err(error) = sys::lift_memlock() {
            tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is, which matters before 5.11 only");
        }
        let pins = Pins::open(&options.pin_dir)?;
        pins.remove_successors()?;
        let timeouts = options.settings.timeouts;
        let generation = plan::on_start(&pins, &options.sizes, options.clock.now()?, timeouts.established)
            .map_err(|source| OpenError::Refused { action: "keep the flows of a smaller table", source })?;
        let programs = load_generation(&pins, options.object, &options.settings, &generation)?;
        let mut netlink = Netlink::open()?;
        let mode = match options.hooks {
            Hooks::Auto if preflight::has_tcx() => Mode::Tcx,
            Hooks::Auto | Hooks::Clsact => Mode::Clsact,
        };
        if !pins.has_other_layouts()? {
            Attacher { programs: &programs, pins: &pins, netlink: &mut netlink, mode }.replace_all()?;
        }
        adopt_generation(&pins, &generation.successors)?;
        if !generation.previous_flows {
            pins::remove(&pins.object(map::PREVIOUS_FLOWS))?;
        }
        let mut enforcer = Self::assemble(options, (pins, programs, netlink, mode))?;
        let smaller = enforcer.smaller_than(&options.sizes);
        enforcer.grow_to(&smaller)?;
        Ok(enforcer)
    }

    fn assemble(
        options: &Options,
        (pins, programs, netlink, mode): (Pins, Programs, Netlink, Mode),
    ) -> Result<Self, OpenError> {
        let tables = Tables::open(&pins)?;
        let pods = tables.contents()?.pods;
        let slots = Slots::open(&pins, map::COUNTERS, &pods).map_err(TableError::read(map::COUNTERS))?;
        let epoch_map = Map::<u32, u64>::open(&pins.object(map::EPOCH)).map_err(TableError::read(map::EPOCH))?;
        let epoch = epoch_map.get(&0).map_err(TableError::read(map::EPOCH))?.unwrap_or(0);
        let budget = PerCpuMap::open(&pins.object(map::EVENT_BUDGET)).map_err(TableError::read(map::EVENT_BUDGET))?;
        let grace = GracePeriod::new()
            .map_err(|source| OpenError::Refused { action: "make the maps of the grace period", source })?;
        Ok(Self {
            pins,
            object: options.object,
            settings: options.settings,
            mode,
            clock: options.clock,
            programs,
            tables,
            slots,
            grace,
            growth: None,
            netlink,
            epoch_map,
            epoch,
            budget,
        })
    }

    /// The tables whose pinned maps are smaller than wanted.
    fn smaller_than(&mut self, sizes: &MapSizes) -> Vec<(&'static str, u32)> {
        let mut smaller: Vec<_> = self
            .tables
            .fill()
            .into_iter()
            .map(|fill| (fill.map, fill.max, sizes.of(fill.map)))
            .filter(|(_, is, wanted)| is < wanted)
            .map(|(name, _, wanted)| (name, wanted))
            .collect();
        if let Some(&(_, pods)) = smaller.iter().find(|(name, _)| *name == map::PODS) {
            smaller.push((map::COUNTERS, pods));
        }
        smaller
    }

    /// Whether interfaces still run programs that use maps of another layout. Then the tables of this one begin
    /// empty: fill them, put all pods, attach their interfaces, and call [`Self::take_over`].
    pub fn awaits_take_over(&self) -> Result<bool, PinsError> {
        self.pins.has_other_layouts()
    }

    /// Gives the programs to every interface that runs older ones, and removes the maps of other layouts. To be called
    /// once the tables stand; does nothing where there is nothing to do.
    pub fn take_over(&mut self) -> Result<(), AttachError> {
        self.attacher().replace_all()?;
        Ok(self.pins.remove_other_layouts()?)
    }

    fn attacher(&mut self) -> Attacher<'_> {
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

    /// Makes every flow that was judged before be judged again by its next packet. Returns the new epoch.
    pub fn raise_epoch(&mut self) -> Result<u64, TableError> {
        let epoch = self.epoch.wrapping_add(1);
        self.epoch_map.set(&0, &epoch).map_err(|source| TableError::Write { map: map::EPOCH, source })?;
        self.epoch = epoch;
        Ok(epoch)
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

    /// Opens the ring buffer of events. There can be one reader: a second one takes events away from the first.
    pub fn events(&self) -> Result<Events, EventsError> {
        Events::open(&self.pins.object(map::EVENTS))
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

    /// The clock that the settings' times are in.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends enforcement and removes every trace: links, filters, qdiscs that are empty then, pins. Returns the
    /// interfaces that were released.
    pub fn cleanup(pin_dir: &Path) -> Result<Vec<u32>, OpenError> {
        preflight::check(pin_dir)?;
        let pins = Pins::open(pin_dir)?;
        let mut netlink = Netlink::open()?;
        let released: Vec<u32> = attach::attached(&pins, &mut netlink)?.iter().map(|there| there.ifindex).collect();
        for &ifindex in &released {
            attach::remove_links(&pins, ifindex)?;
        }
        attach::remove_filters(&mut netlink)?;
        pins.remove_all()?;
        Ok(released)
    }
}
