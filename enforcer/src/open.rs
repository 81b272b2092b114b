//! From nothing, or from what an earlier process left pinned, to an [`Enforcer`], and the way out.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use enforcer_abi::{Settings, map};
use thiserror::Error;

use crate::{
    attach::{self, AttachError, Attacher, Mode},
    clock::{Clock, ClockError},
    enforcer::Enforcer,
    epochs::Epochs,
    grow::{GrowError, adopt_generation, load_generation},
    netlink::{Netlink, NetlinkError},
    object::{LoadError, Programs},
    pins::{self, Pins, PinsError},
    plan::{self, MapSizes},
    preflight::{self, PreflightError},
    slots::Slots,
    sys::{self, GracePeriod, PerCpuMap},
    tables::{TableError, Tables},
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
        let epochs = Epochs::open(&pins.object(map::EPOCHS)).map_err(TableError::read(map::EPOCHS))?;
        let budget = PerCpuMap::open(&pins.object(map::EVENT_BUDGET)).map_err(TableError::read(map::EVENT_BUDGET))?;
        let grace = GracePeriod::new()
            .map_err(|source| OpenError::Refused { action: "make the maps of the grace period", source })?;
        Ok(Self {
            pins: Arc::new(pins),
            object: options.object,
            settings: options.settings,
            mode,
            clock: options.clock,
            programs,
            tables,
            slots,
            grace,
            growth: None,
            no_growth_before: None,
            no_forced_growth_before: None,
            netlink,
            epochs,
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
