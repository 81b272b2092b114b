//! Which front ends have back ends of a class at a port: [`Targets`] finds those that a table opens without a look at all
//! others.

use enforcer_abi::ClassId;
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

use super::{FrontEndId, Target};
use crate::model::Protocol;

type Port = (u16, Protocol);

#[derive(Debug, Default)]
pub(super) struct Targets {
    /// The front ends by class, then by port, which is sorted.
    by_class: FxHashMap<ClassId, Vec<(Port, RoaringBitmap)>>,
    /// How many classes have back ends at each port.
    ports: FxHashMap<Port, u32>,
}

impl Targets {
    pub(super) fn insert(&mut self, (class, port, protocol): Target, id: FrontEndId) {
        let of_class = self.by_class.entry(class).or_default();
        match of_class.binary_search_by_key(&(port, protocol), |(port, _)| *port) {
            Ok(place) => drop(of_class[place].1.insert(id)),
            Err(place) => {
                of_class.insert(place, ((port, protocol), RoaringBitmap::from_iter([id])));
                *self.ports.entry((port, protocol)).or_default() += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, (class, port, protocol): Target, id: FrontEndId) {
        let Some(of_class) = self.by_class.get_mut(&class) else { return };
        let Ok(place) = of_class.binary_search_by_key(&(port, protocol), |(port, _)| *port) else { return };
        of_class[place].1.remove(id);
        if !of_class[place].1.is_empty() {
            return;
        }
        of_class.remove(place);
        if of_class.is_empty() {
            self.by_class.remove(&class);
        }
        if let Some(classes) = self.ports.get_mut(&(port, protocol)) {
            *classes -= 1;
            if *classes == 0 {
                self.ports.remove(&(port, protocol));
            }
        }
    }

    /// The front ends some of whose targets a table `opens`. All targets are looked at only if it opens some port to
    /// everybody, else those of the classes that it knows.
    pub(super) fn opened(
        &self,
        classes: &[ClassId],
        opens_to_everybody: impl Fn(u16, Protocol) -> bool,
        mut opens: impl FnMut(&Target) -> bool,
    ) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let mut look_at = |class: ClassId, of_class: &[(Port, RoaringBitmap)]| {
            for ((port, protocol), front_ends) in of_class {
                if opens(&(class, *port, *protocol)) {
                    found |= front_ends;
                }
            }
        };
        if self.ports.keys().any(|(port, protocol)| opens_to_everybody(*port, *protocol)) {
            self.by_class.iter().for_each(|(class, of_class)| look_at(*class, of_class));
        } else {
            let known = classes.iter().filter_map(|class| Some((*class, self.by_class.get(class)?)));
            known.for_each(|(class, of_class)| look_at(class, of_class));
        }
        found
    }
}
