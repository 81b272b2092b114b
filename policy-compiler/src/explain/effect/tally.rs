//! Pairs of ends, counted, and the first of them kept as examples: [`Tally`].

use std::{fmt, net::IpAddr};

use super::{Effect, port_set::PortSet};
use crate::{model::ObjectName, reach::Port};

/// How many examples are kept.
pub(super) const EXAMPLES: usize = 3;

/// An end of a connection; pods come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::explain) enum Who {
    Pod(ObjectName),
    Outside(IpAddr),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "{name}"),
            Self::Outside(address) => write!(f, "{address}"),
        }
    }
}

/// A connection that was asked about.
pub(in crate::explain) type AskedFor = (Who, Who, Port);

/// Pairs that are all alike.
pub(super) struct Pairs {
    pub(super) count: usize,
    /// The first of them, from and to.
    pub(super) first: Vec<(Who, Who)>,
}

/// Pairs that may speak at ports where they might not, or the other way round.
#[derive(Default)]
struct Changed {
    count: usize,
    /// The first of them, with their ports.
    examples: Vec<((Who, Who), String)>,
}

/// What was counted so far.
pub(super) struct Tally<'a> {
    asked: &'a [AskedFor],
    opened: Changed,
    closed: Changed,
    pub(super) incomplete: bool,
}

impl<'a> Tally<'a> {
    pub(super) fn new(asked: &'a [AskedFor]) -> Self {
        Self { asked, opened: Changed::default(), closed: Changed::default(), incomplete: false }
    }

    /// Counts pairs by the ports at which they might speak before, and may after. What was asked about doesn't count.
    pub(super) fn count(&mut self, pairs: &Pairs, [before, after]: &[PortSet; 2]) {
        let is_own = |(from, to, _): &&AskedFor| pairs.first.iter().any(|pair| pair.0 == *from && pair.1 == *to);
        let own =
            self.asked.iter().filter(is_own).fold(PortSet::default(), |set, (.., port)| set.or(&PortSet::one(*port)));
        for (changed, ports) in [(&mut self.opened, after.without(before)), (&mut self.closed, before.without(after))] {
            let ports = ports.without(&own);
            let Some(first) = ports.first() else { continue };
            // what was asked about is the best example
            let asked = self.asked.iter().map(|(.., port)| *port).find(|port| ports.contains(*port));
            changed.count += pairs.count;
            changed
                .examples
                .extend(pairs.first.iter().map(|pair| (pair.clone(), in_words(asked.unwrap_or(first), &ports))));
            changed.examples.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
            changed.examples.truncate(EXAMPLES);
        }
    }

    pub(super) fn effect(self) -> Effect {
        let list = |changed: &Changed| {
            changed.examples.iter().map(|((from, to), ports)| format!("{from} -> {to} {ports}")).collect()
        };
        Effect {
            opens: self.opened.count,
            closes: self.closed.count,
            opened: list(&self.opened),
            closed: list(&self.closed),
            incomplete: self.incomplete,
        }
    }
}

/// Pairs of pods come before those with the outside.
fn order((from, to): &(Who, Who)) -> (bool, &Who, &Who) {
    let is_outside = |who: &Who| matches!(who, Who::Outside(_));
    (is_outside(from) || is_outside(to), from, to)
}

fn in_words(port: Port, ports: &PortSet) -> String {
    let more = if ports.is_several() { " and other ports" } else { "" };
    match port {
        None => format!("without ports{more}"),
        Some((protocol, port)) => format!("{protocol}/{port}{more}"),
    }
}
