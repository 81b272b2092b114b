//! Which pod counts where: slots of `COUNTERS` are given out per interface, zeroed, and read as sums over all CPUs.

use std::io;

use enforcer_abi::{Counters, PodEntry, Reason};
use rustc_hash::FxHashMap;

use crate::{pins::Pins, sys::PerCpuMap};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Slots {
    map: PerCpuMap<Counters>,
    of: FxHashMap<u32, u32>,
    free: Vec<u32>,
    /// Packets that were counted in a smaller map before this one replaced it, and after its copy was made.
    carried: FxHashMap<u32, Counters>,
    successor: Option<Successor>,
}

#[derive(Debug)]
struct Successor {
    map: PerCpuMap<Counters>,
    copied: FxHashMap<u32, Counters>,
}

const ZERO: Counters = Counters { packets: [[0; Reason::COUNT]; 2] };

impl Slots {
    /// Opens the pinned map; `pods` are the entries whose slots are taken.
    pub(crate) fn open(pins: &Pins, name: &str, pods: &[PodEntry]) -> io::Result<Self> {
        let map = PerCpuMap::open(&pins.object(name))?;
        let of: FxHashMap<u32, u32> = pods.iter().map(|pod| (pod.ifindex, pod.slot)).collect();
        let mut taken = vec![false; map.max_entries() as usize];
        for &slot in of.values() {
            if let Some(taken) = taken.get_mut(slot as usize) {
                *taken = true;
            }
        }
        let free = (0..map.max_entries()).rev().filter(|&slot| !taken[slot as usize]).collect();
        Ok(Self { map, of, free, carried: FxHashMap::default(), successor: None })
    }

    /// The slot of an interface, a zeroed one if it is new; `None` if there is none left.
    pub(crate) fn claim(&mut self, ifindex: u32) -> io::Result<Option<u32>> {
        if let Some(&slot) = self.of.get(&ifindex) {
            return Ok(Some(slot));
        }
        let Some(slot) = self.free.pop() else { return Ok(None) };
        let zeros = vec![ZERO; self.map.get(slot)?.len()];
        self.map.set(slot, &zeros)?;
        if let Some(successor) = &mut self.successor {
            successor.map.set(slot, &zeros)?;
            successor.copied.remove(&slot);
        }
        self.carried.remove(&slot);
        self.of.insert(ifindex, slot);
        Ok(Some(slot))
    }

    /// Takes the slot of an interface back.
    pub(crate) fn release(&mut self, ifindex: u32) {
        if let Some(slot) = self.of.remove(&ifindex) {
            self.free.push(slot);
        }
    }

    /// What has been counted for an interface, `None` if it has no slot.
    pub(crate) fn read(&self, ifindex: u32) -> io::Result<Option<Counters>> {
        let Some(&slot) = self.of.get(&ifindex) else { return Ok(None) };
        let mut sum = total(&self.map.get(slot)?);
        if let Some(carried) = self.carried.get(&slot) {
            combine(&mut sum, carried, u64::wrapping_add);
        }
        Ok(Some(sum))
    }

    /// Copies to a larger map, which no program uses yet.
    pub(crate) fn begin(&mut self, pin: &std::path::Path) -> io::Result<()> {
        let map = PerCpuMap::open(pin)?;
        let mut copied = FxHashMap::default();
        for &slot in self.of.values() {
            let values = self.map.get(slot)?;
            map.set(slot, &values)?;
            copied.insert(slot, total(&values));
        }
        self.successor = Some(Successor { map, copied });
        Ok(())
    }

    /// The larger map takes over; what was counted since the copy is remembered here, so nothing is lost while this
    /// process lives. To be called a grace period after the last program that uses the smaller one was replaced.
    pub(crate) fn adopt(&mut self) -> io::Result<()> {
        let Some(successor) = self.successor.take() else { return Ok(()) };
        for &slot in self.of.values() {
            let mut since = total(&self.map.get(slot)?);
            combine(&mut since, successor.copied.get(&slot).unwrap_or(&ZERO), u64::wrapping_sub);
            combine(self.carried.entry(slot).or_insert(ZERO), &since, u64::wrapping_add);
        }
        self.free.splice(0..0, (self.map.max_entries()..successor.map.max_entries()).rev());
        self.map = successor.map;
        Ok(())
    }

    /// The larger map is given up.
    pub(crate) fn abandon(&mut self) {
        self.successor = None;
    }
}

fn total(per_cpu: &[Counters]) -> Counters {
    let mut sum = ZERO;
    for counters in per_cpu {
        combine(&mut sum, counters, u64::wrapping_add);
    }
    sum
}

fn combine(into: &mut Counters, other: &Counters, with: impl Fn(u64, u64) -> u64) {
    for (into, other) in into.packets.iter_mut().flatten().zip(other.packets.iter().flatten()) {
        *into = with(*into, *other);
    }
}
