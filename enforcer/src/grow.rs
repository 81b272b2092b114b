//! Maps grow before they are full: larger ones are made beside them and filled in slices, during which every write goes
//! to both; then the programs of all interfaces are replaced by ones that use the larger maps. A packet meets either
//! the old program with the old maps or the new one with the new maps, and both hold the same.
//!
//! What a crash leaves: until the pins are renamed, the old maps count, and they have had every write. Renaming goes
//! map by map; old and new hold the same then, so any mixture is right for the agent that starts next, which loads its
//! own programs on whatever is pinned.

use std::{
    io,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use enforcer_abi::{Direction, Settings, map};
use thiserror::Error;

use crate::{
    attach::{AttachError, Attacher},
    enforcer::Enforcer,
    object::{self, LoadError, Programs, program_name},
    pins::{self, Pins, PinsError},
    plan::{self, Generation},
    sys,
};

/// Why maps could not grow. They stay as they are.
#[derive(Debug, Error)]
pub enum GrowError {
    /// Programs with larger maps could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map could not be copied.
    #[error("a map could not be copied to a larger one")]
    Copy(#[source] io::Error),
    /// The programs of an interface could not be replaced; it is tried again.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The pin folder failed.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// It has as many entries as a map can have.
    #[error("it can't be made larger")]
    Largest,
}

/// Growth under way.
#[derive(Debug)]
pub(crate) struct Growth {
    programs: Programs,
    maps: Vec<&'static str>,
}

impl Enforcer {
    /// Does what is due besides changes: lets maps grow, for about as long as `budget`. True if there is more to do.
    ///
    /// To be called between changes, however small the budget: a map that becomes full before its growth was begun
    /// here grows at once, and the change that filled it waits.
    pub fn maintain(&mut self, budget: Duration) -> Result<bool, GrowError> {
        let deadline = Instant::now() + budget;
        if self.growth.is_none() {
            let due = self.due(None)?;
            if due.is_empty() {
                return Ok(false);
            }
            self.begin_growth(&due)?;
        }
        self.advance_growth(Some(deadline))
    }

    /// Makes room in one map, whatever it takes.
    pub(crate) fn grow_now(&mut self, name: &'static str) -> Result<(), GrowError> {
        if self.growth.as_ref().is_some_and(|growth| !growth.maps.contains(&name)) {
            self.advance_growth(None)?;
        }
        if self.growth.is_none() {
            let due = self.due(Some(name))?;
            self.begin_growth(&due)?;
        }
        self.advance_growth(None).map(drop)
    }

    /// Makes maps as large as they are wanted, if they are smaller.
    pub(crate) fn grow_to(&mut self, wanted: &[(&'static str, u32)]) -> Result<(), GrowError> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.begin_growth(wanted)?;
        self.advance_growth(None).map(drop)
    }

    /// The maps that should be larger, with twice their size.
    fn due(&mut self, full: Option<&'static str>) -> Result<Vec<(&'static str, u32)>, GrowError> {
        let mut due = Vec::new();
        for table in self.tables.all() {
            if table.fill().is_high() {
                table.recount().map_err(GrowError::Copy)?;
            }
            let fill = table.fill();
            if fill.is_high() || full == Some(fill.map) {
                due.push((fill.map, fill.max.checked_mul(2).ok_or(GrowError::Largest)?));
            }
        }
        if let Some(&(_, pods)) = due.iter().find(|(name, _)| *name == map::PODS) {
            due.push((map::COUNTERS, pods));
        }
        Ok(due)
    }

    fn begin_growth(&mut self, larger: &[(&'static str, u32)]) -> Result<(), GrowError> {
        tracing::info!(?larger, "maps grow");
        let result = self.try_begin_growth(larger);
        if result.is_err() {
            self.abandon_growth();
        }
        result
    }

    fn try_begin_growth(&mut self, larger: &[(&'static str, u32)]) -> Result<(), GrowError> {
        let generation = plan::for_growth(&self.pins, larger);
        let programs = load_generation(&self.pins, self.object, &self.settings, &generation)?;
        for table in self.tables.all() {
            let name = table.fill().map;
            if generation.successors.contains(&name) {
                table.begin(&self.pins.next(name)).map_err(GrowError::Copy)?;
            }
        }
        if generation.successors.contains(&map::COUNTERS) {
            self.slots.begin(&self.pins.next(map::COUNTERS)).map_err(GrowError::Copy)?;
        }
        self.growth = Some(Growth { programs, maps: generation.successors });
        Ok(())
    }

    /// Copies, and replaces the programs when all is copied. True if there is more to do.
    fn advance_growth(&mut self, deadline: Option<Instant>) -> Result<bool, GrowError> {
        if self.growth.is_none() {
            return Ok(false);
        }
        match self.copy_until(deadline) {
            Ok(true) => self.finish_growth().map(|()| false),
            Ok(false) => Ok(true),
            Err(source) => {
                self.abandon_growth();
                Err(GrowError::Copy(source))
            }
        }
    }

    /// True if all is copied.
    fn copy_until(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        for table in self.tables.all() {
            while !table.copy()? {
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// If an interface can't be given its new programs, growth stays as it is and is finished by a later call; until
    /// then both sets of maps are written.
    fn finish_growth(&mut self) -> Result<(), GrowError> {
        let Some(growth) = &self.growth else { return Ok(()) };
        Attacher { programs: &growth.programs, pins: &self.pins, netlink: &mut self.netlink, mode: self.mode }
            .replace_all()?;
        adopt_generation(&self.pins, &growth.maps)?;
        if let Some(growth) = self.growth.take() {
            self.programs = growth.programs;
        }
        for table in self.tables.all() {
            table.adopt();
        }
        self.grace.wait().map_err(GrowError::Copy)?;
        self.slots.adopt().map_err(GrowError::Copy)
    }

    /// Gives the larger maps up and goes on with the ones in force.
    pub(crate) fn abandon_growth(&mut self) {
        for table in self.tables.all() {
            table.abandon();
        }
        self.slots.abandon();
        self.growth = None;
        if let Err(error) = self.pins.remove_successors() {
            tracing::warn!(%error, "larger maps that are given up stay pinned until the next start");
        }
    }
}

/// Loads a generation and pins its programs as successors.
pub(crate) fn load_generation(
    pins: &Pins,
    object: &[u8],
    settings: &Settings,
    generation: &Generation,
) -> Result<Programs, GrowError> {
    let settings = Settings { previous_flows: generation.previous_flows.into(), ..*settings };
    let programs = object::load(object, &settings, &generation.maps)?;
    for direction in Direction::ALL {
        let path = pins.next(program_name(direction));
        pins::remove(&path)?;
        sys::pin(programs.of(direction).as_fd(), &path).map_err(PinsError::file("could not pin", &path))?;
    }
    Ok(programs)
}

/// Lets a generation's maps and programs take the names of those before.
pub(crate) fn adopt_generation(pins: &Pins, maps: &[&'static str]) -> Result<(), PinsError> {
    maps.iter().try_for_each(|name| pins.adopt(name))?;
    Direction::ALL.into_iter().try_for_each(|direction| pins.adopt(program_name(direction)))
}
