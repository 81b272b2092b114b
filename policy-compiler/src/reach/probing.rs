//! The same ports asked of many pairs: [`Probing`]. What a table says of a class of addresses is found once for all of
//! the ports; a pair is then judged by two look-ups, whatever their number.

use std::{cell::RefCell, rc::Rc};

use enforcer_abi::{ClassId, Direction, TableId};
use rustc_hash::FxHashMap;

use super::{Port, Reach, Seat};

/// A set of the ports that are asked about, a bit for each, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPorts(Vec<u64>);

impl OpenPorts {
    fn of(count: usize, open: impl Fn(usize) -> bool) -> Self {
        let mut words = vec![0; count.div_ceil(64)];
        (0..count).filter(|index| open(*index)).for_each(|index| words[index / 64] |= 1 << (index % 64));
        Self(words)
    }

    /// Whether the port at this place is one of them.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Leaves the ones that are in both.
    pub fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own &= other);
    }

    /// Adds those of another set.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }
}

/// Asks about the same ports again and again.
#[derive(Debug)]
pub struct Probing<'r, 'a> {
    reach: &'r Reach<'a>,
    ports: Vec<Port>,
    /// By the table, which is one direction's, and the class of the other end.
    known: RefCell<FxHashMap<(TableId, ClassId), Rc<OpenPorts>>>,
    all: Rc<OpenPorts>,
}

impl<'r, 'a> Probing<'r, 'a> {
    /// About these ports.
    #[must_use]
    pub fn new(reach: &'r Reach<'a>, ports: Vec<Port>) -> Self {
        let all = Rc::new(OpenPorts::of(ports.len(), |_| true));
        Self { reach, ports, known: RefCell::default(), all }
    }

    /// The ports at which this engine lets a connection through (see [`Reach::enforced`]).
    #[must_use]
    pub fn open(&self, source: &Seat, destination: &Seat) -> OpenPorts {
        let reach = self.reach;
        let is_itself = source.party.ip == destination.party.ip;
        let has_front_end = destination.is_service || (destination.is_node && !reach.node_ports.is_empty());
        if is_itself || has_front_end || reach.compiled.is_none() {
            return self.each(|port| reach.enforced(source, destination, port).passes());
        }
        let mut open = (*self.side(source, Direction::Egress, destination)).clone();
        if !reach.is_own_node(source, destination) {
            open.keep(&self.side(destination, Direction::Ingress, source));
        }
        open
    }

    fn each(&self, passes: impl Fn(Port) -> bool) -> OpenPorts {
        OpenPorts::of(self.ports.len(), |index| passes(self.ports[index]))
    }

    fn side(&self, own: &Seat, direction: Direction, remote: &Seat) -> Rc<OpenPorts> {
        let table = if direction == Direction::Ingress { own.ingress } else { own.egress };
        // without a table there is nothing that refuses
        let Some(table) = table else { return self.all.clone() };
        let key = (table.id, remote.class);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let open = Rc::new(self.each(|port| self.reach.side(own, direction, remote, port)));
        self.known.borrow_mut().insert(key, open.clone());
        open
    }
}
