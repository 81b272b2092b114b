//! Maps grow before they are full: larger ones are made beside them, in a thread, and filled in slices, during which every write goes
//! to both; then the programs of all interfaces are replaced by ones that use the larger maps. A packet meets either
//! the old program with the old maps or the new one with the new maps, and both hold the same.
//!
//! What a crash leaves: until the pins are renamed, the old maps count, and they have had every write. Renaming goes
//! map by map; old and new hold the same then, so any mixture is right for the agent that starts next, which loads its
//! own programs on whatever is pinned.

use std::{
    io,
    os::fd::AsFd as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use enforcer_abi::{Direction, Op, Settings, map};
use thiserror::Error;

use crate::{
    attach::{AttachError, Attacher},
    enforcer::Enforcer,
    object::{self, LoadError, Programs, program_name},
    pins::{self, Pins, PinsError},
    plan::{self, Generation},
    sys,
    table::Fill,
    tables::put_into,
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
    /// Growth failed a moment ago, and every try takes long.
    #[error("a try to make it larger failed a moment ago")]
    Recently,
}

/// What [`Enforcer::maintain`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Upkeep {
    /// Nothing before the next change.
    Done,
    /// To be called again as soon as nothing more urgent is to be done.
    Now,
    /// To be called again in some milliseconds: the kernel is still verifying programs, in a thread of their own.
    Soon,
}

/// Growth under way.
#[derive(Debug)]
pub(crate) struct Growth {
    stage: Stage,
    maps: Vec<&'static str>,
}

#[derive(Debug)]
enum Stage {
    /// The larger maps are being made and programs verified on them, which takes most of a second.
    Loading(Loading),
    /// The larger maps are written and filled.
    Filling(Programs),
}

/// Waits for its thread when it is dropped, so that nothing is pinned afterwards.
#[derive(Debug)]
struct Loading(Option<JoinHandle<Result<Programs, GrowError>>>);

impl Loading {
    fn start(work: impl FnOnce() -> Result<Programs, GrowError> + Send + 'static) -> Self {
        Self(Some(thread::spawn(work)))
    }

    fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn finish(mut self) -> Result<Programs, GrowError> {
        let thread = self.0.take().expect("only this and drop take it");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _given_up = thread.join();
        }
    }
}

/// After a growth that failed, the next one that nothing forces is tried so much later.
const PATIENCE: Duration = Duration::from_secs(30);

/// After one that something forced and that failed: a change of thousands of writes to a full map would otherwise try
/// thousands of times, each for most of a second.
const FORCED_PATIENCE: Duration = Duration::from_secs(1);

impl Enforcer {
    /// Does what is due besides changes, for about as long as `budget`: lets maps grow. `coming` is what is to be
    /// written next, as far as it is known: a map that is to grow grows once for all of it.
    ///
    /// To be called between changes, however small the budget: a map that becomes full before its growth was begun
    /// here grows at once, and the change that filled it waits for most of a second. [`Self::has_room`] tells when
    /// that is about to happen.
    pub fn maintain(&mut self, budget: Duration, coming: &[&[Op]]) -> Result<Upkeep, GrowError> {
        let now = Instant::now();
        if self.growth.is_none() {
            if self.no_growth_before.is_some_and(|time| now < time) {
                return Ok(Upkeep::Done);
            }
            let due = self.due(None, coming)?;
            if due.is_empty() {
                return Ok(Upkeep::Done);
            }
            self.begin_growth(&due);
        }
        let result = self.advance_growth(Some(now + budget));
        self.no_growth_before = result.is_err().then(|| now + PATIENCE);
        result
    }

    /// Whether these could be written without any map being full, even if all of them were new entries.
    pub fn has_room(&mut self, ops: &[Op]) -> bool {
        self.tables.fill().into_iter().all(|fill| {
            let puts = puts(fill, &[ops]);
            puts == 0 || fill.max.saturating_sub(fill.used) >= puts
        })
    }

    /// Makes room in one map, whatever it takes.
    pub(crate) fn grow_now(&mut self, name: &'static str) -> Result<(), GrowError> {
        if self.no_forced_growth_before.is_some_and(|time| Instant::now() < time) {
            return Err(GrowError::Recently);
        }
        let result = self.force_growth(name);
        self.no_forced_growth_before = result.is_err().then(|| Instant::now() + FORCED_PATIENCE);
        result
    }

    fn force_growth(&mut self, name: &'static str) -> Result<(), GrowError> {
        if self.growth.as_ref().is_some_and(|growth| !growth.maps.contains(&name)) {
            let _done = self.advance_growth(None)?;
        }
        if self.growth.is_none() {
            let due = self.due(Some(name), &[])?;
            self.begin_growth(&due);
        }
        self.advance_growth(None).map(|_done| ())
    }

    /// Makes maps as large as they are wanted, if they are smaller.
    pub(crate) fn grow_to(&mut self, wanted: &[(&'static str, u32)]) -> Result<(), GrowError> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.begin_growth(wanted);
        self.advance_growth(None).map(|_done| ())
    }

    /// The maps that should be larger, with twice their size or what is coming takes.
    fn due(&mut self, full: Option<&'static str>, coming: &[&[Op]]) -> Result<Vec<(&'static str, u32)>, GrowError> {
        let mut due = Vec::new();
        for table in self.tables.all() {
            if table.fill().is_high() {
                table.recount().map_err(GrowError::Copy)?;
            }
            let fill = table.fill();
            if fill.is_high() || full == Some(fill.map) {
                due.push((fill.map, larger(fill, puts(fill, coming)).ok_or(GrowError::Largest)?));
            }
        }
        if let Some(&(_, pods)) = due.iter().find(|(name, _)| *name == map::PODS) {
            due.push((map::COUNTERS, pods));
        }
        Ok(due)
    }

    fn begin_growth(&mut self, larger: &[(&'static str, u32)]) {
        tracing::info!(?larger, "maps grow");
        let generation = plan::for_growth(&self.pins, larger);
        let maps = generation.successors.clone();
        let (pins, object, settings) = (Arc::clone(&self.pins), self.object, self.settings);
        let loading = Loading::start(move || load_generation(&pins, object, &settings, &generation));
        self.growth = Some(Growth { stage: Stage::Loading(loading), maps });
    }

    /// Goes on with growth until the deadline, or without one until it is finished. Growth that can't be finished is
    /// given up, unless only an interface is in the way.
    fn advance_growth(&mut self, deadline: Option<Instant>) -> Result<Upkeep, GrowError> {
        match self.growth.take() {
            None => return Ok(Upkeep::Done),
            Some(Growth { stage: Stage::Loading(loading), maps }) => {
                if deadline.is_some() && !loading.is_finished() {
                    self.growth = Some(Growth { stage: Stage::Loading(loading), maps });
                    return Ok(Upkeep::Soon);
                }
                let begun = loading.finish().and_then(|programs| self.begin_filling(programs, maps));
                begun.inspect_err(|_| self.abandon_growth())?;
            }
            filling => self.growth = filling,
        }
        match self.copy_until(deadline) {
            Ok(true) => self.finish_growth().map(|()| Upkeep::Done),
            Ok(false) => Ok(Upkeep::Now),
            Err(source) => {
                self.abandon_growth();
                Err(GrowError::Copy(source))
            }
        }
    }

    /// From now on the larger maps are written, too.
    fn begin_filling(&mut self, programs: Programs, maps: Vec<&'static str>) -> Result<(), GrowError> {
        for table in self.tables.all() {
            let name = table.fill().map;
            if maps.contains(&name) {
                table.begin(&self.pins.next(name)).map_err(GrowError::Copy)?;
            }
        }
        if maps.contains(&map::COUNTERS) {
            self.slots.begin(&self.pins.next(map::COUNTERS)).map_err(GrowError::Copy)?;
        }
        self.growth = Some(Growth { stage: Stage::Filling(programs), maps });
        Ok(())
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
        let Some(Growth { stage: Stage::Filling(programs), maps }) = &self.growth else { return Ok(()) };
        Attacher { programs, pins: &self.pins, netlink: &mut self.netlink, mode: self.mode }.replace_all()?;
        adopt_generation(&self.pins, maps)?;
        if let Some(Growth { stage: Stage::Filling(programs), .. }) = self.growth.take() {
            self.programs = programs;
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

/// How many of these operations may add an entry to a map.
fn puts(fill: Fill, ops: &[&[Op]]) -> u32 {
    let puts = ops.iter().flat_map(|ops| *ops).filter(|op| put_into(op) == Some(fill.map)).count();
    u32::try_from(puts).unwrap_or(u32::MAX)
}

/// At least twice the size of a map, and such that it need not grow again if so many entries come.
fn larger(fill: Fill, coming: u32) -> Option<u32> {
    let mut larger = Fill { max: fill.max.checked_mul(2)?, used: fill.used.saturating_add(coming), ..fill };
    // some of what is coming may be there already, so the last doubling isn't worth an error
    while larger.is_high()
        && let Some(max) = larger.max.checked_mul(2)
    {
        larger.max = max;
    }
    Some(larger.max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_grows_once_for_all_that_is_coming() {
        #[track_caller]
        fn check((used, max): (u32, u32), coming: u32, expected: Option<u32>) {
            assert_eq!(larger(Fill { map: map::PEERS, used, max }, coming), expected);
        }
        check((48, 64), 0, Some(128));
        check((48, 64), 47, Some(128));
        check((48, 64), 48, Some(256));
        check((48, 64), 100_000, Some(262_144));
        check((48, 64), u32::MAX, Some(1 << 31));
        check((1 << 31, 1 << 31), 0, None);
    }
}
