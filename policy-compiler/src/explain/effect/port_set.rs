//! Sets of ports: [`PortSet`].

use smallvec::SmallVec;

use crate::{
    model::{Pod, PortMatch, Protocol, Rule},
    reach::Port,
};

/// Ports of all protocols, and protocols without ports. Each has a number, TCP/1 being 0; kept are the numbers at which
/// a run of members begins or ends, in turn.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct PortSet(SmallVec<[u32; 6]>);

/// How many ports a protocol has: 0 is none.
const PORTS: u32 = u16::MAX as u32;

/// The number of protocols without ports, after those of all three that have some.
const PORTLESS: u32 = 3 * PORTS;

impl PortSet {
    pub(super) fn all() -> Self {
        Self(SmallVec::from_slice(&[0, PORTLESS + 1]))
    }

    pub(super) fn one(port: Port) -> Self {
        let number = number(port);
        Self(SmallVec::from_slice(&[number, number + 1]))
    }

    /// What a rule opens to its peers; `named_on` has the names.
    pub(super) fn of(rule: &Rule, named_on: Option<&Pod>) -> Self {
        let Some(ports) = &rule.ports else { return Self::all() };
        let mut set = Self::default();
        for port in ports {
            match port {
                PortMatch::Nothing => {}
                PortMatch::All(protocol) => set.add(*protocol, 1, u16::MAX),
                PortMatch::Range { protocol, first, last } => set.add(*protocol, *first, *last),
                PortMatch::Named(protocol, name) => {
                    let own = named_on.into_iter().flat_map(|pod| &pod.ports);
                    own.filter(|own| own.protocol == *protocol && own.name == *name)
                        .for_each(|own| set.add(*protocol, own.number, own.number));
                }
            }
        }
        set
    }

    fn add(&mut self, protocol: Protocol, first: u16, last: u16) {
        let range = [number(Some((protocol, first))), number(Some((protocol, last))) + 1];
        let range = Self(SmallVec::from_slice(&range));
        *self = if self.is_empty() { range } else { self.or(&range) };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn or(&self, other: &Self) -> Self {
        self.merged(other, |own, other| own || other)
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        self.merged(other, |own, other| own && other)
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        self.merged(other, |own, other| own && !other)
    }

    /// What is in one of them only.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.merged(other, |own, other| own != other)
    }

    fn merged(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let mut merged = SmallVec::new();
        // how many borders are passed: within a run if that is odd
        let (mut own, mut others) = (0, 0);
        loop {
            let border = match (self.0.get(own), other.0.get(others)) {
                (Some(one), Some(other)) => *one.min(other),
                (Some(border), None) | (None, Some(border)) => *border,
                (None, None) => return Self(merged),
            };
            own += usize::from(self.0.get(own) == Some(&border));
            others += usize::from(other.0.get(others) == Some(&border));
            if keep(own % 2 == 1, others % 2 == 1) != (merged.len() % 2 == 1) {
                merged.push(border);
            }
        }
    }

    pub(super) fn contains(&self, port: Port) -> bool {
        let number = number(port);
        self.0.partition_point(|border| *border <= number) % 2 == 1
    }

    /// The first of them; protocols without ports come last.
    pub(super) fn first(&self) -> Option<Port> {
        let number = *self.0.first()?;
        if number == PORTLESS {
            return Some(None);
        }
        let protocol = Protocol::ALL[(number / PORTS) as usize];
        Some(Some((protocol, u16::try_from(number % PORTS + 1).ok()?)))
    }

    /// Whether there are two of them at least.
    pub(super) fn is_several(&self) -> bool {
        self.0.len() > 2 || self.0.get(1).zip(self.0.first()).is_some_and(|(end, begin)| end - begin > 1)
    }
}

fn number(port: Port) -> u32 {
    let Some((protocol, port)) = port else { return PORTLESS };
    let before = Protocol::ALL.iter().take_while(|other| **other != protocol).map(|_| PORTS).sum::<u32>();
    before + u32::from(port.max(1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(first: u16, last: u16) -> PortSet {
        let mut set = PortSet::default();
        set.add(Protocol::Tcp, first, last);
        set
    }

    #[test]
    fn sets_are_sets() {
        let (low, high) = (tcp(80, 90), tcp(85, 99));
        assert_eq!(low.or(&high), tcp(80, 99));
        assert_eq!(low.and(&high), tcp(85, 90));
        assert_eq!(low.without(&high), tcp(80, 84));
        assert_eq!(low.difference(&high), tcp(80, 84).or(&tcp(91, 99)));
        assert_eq!(low.difference(&low), PortSet::default());
        assert_eq!(low.without(&PortSet::one(Some((Protocol::Tcp, 80)))), tcp(81, 90));
        assert_eq!(tcp(1, 9).or(&tcp(10, u16::MAX)), tcp(1, u16::MAX));
    }

    #[test]
    fn every_port_has_its_number() {
        let all = PortSet::all();
        for port in [Some((Protocol::Tcp, 1)), Some((Protocol::Udp, 1)), Some((Protocol::Sctp, u16::MAX)), None] {
            assert_eq!(PortSet::one(port).first(), Some(port));
            assert!(all.contains(port) && !all.without(&PortSet::one(port)).contains(port));
            assert!(!PortSet::one(port).is_several());
        }
        assert!(all.is_several() && tcp(80, 81).is_several());
        assert_eq!(all.first(), Some(Some((Protocol::Tcp, 1))));
    }
}
