//! The commands, a file each, and what several of them do: [`Question`] finds both ends and the port.

pub(crate) mod can;
pub(crate) mod checks;
pub(crate) mod conformance;
pub(crate) mod diff;
pub(crate) mod dump;
pub(crate) mod effective;
pub(crate) mod explain;
pub(crate) mod exposure;
pub(crate) mod flows;
pub(crate) mod graph;
pub(crate) mod lint;
pub(crate) mod list;
pub(crate) mod matrix;
pub(crate) mod probe;
pub(crate) mod reach;
pub(crate) mod relay;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod units;
pub(crate) mod verify;
pub(crate) mod version;

use policy_compiler::reach::{PortRange, port_ranges};

use crate::{
    Failure,
    end::{self, Ends},
    port::Wanted,
    source::{self, State},
};

/// A connection, or many, as they were asked about.
pub(crate) struct Question {
    pub(crate) state: State,
    pub(crate) source: Ends,
    pub(crate) destination: Ends,
    pub(crate) wanted: Wanted,
}

impl Question {
    /// Reads ends and state.
    pub(crate) fn ask(source: &str, destination: &str, state: &source::Args) -> Result<Self, Failure> {
        let namespace = state.namespace()?;
        let asked_source = end::source(source, &namespace).map_err(Failure::wrong_use)?;
        let (asked_destination, port) = end::destination(destination, &namespace).map_err(Failure::wrong_use)?;
        let mut state = source::read(state)?;
        let source = Ends::find(&asked_source, &mut state, false).map_err(Failure::no_answer)?;
        let destination = Ends::find(&asked_destination, &mut state, true).map_err(Failure::no_answer)?;
        Ok(Self { state, source, destination, wanted: port.unwrap_or(Wanted::Any) })
    }

    /// How many connections it is about, at `ports` ports.
    pub(crate) fn size(&self, ports: usize) -> usize {
        self.source.members.len().saturating_mul(self.destination.members.len()).saturating_mul(ports)
    }

    /// The ports that are to be asked about, as ranges that nothing tells apart.
    pub(crate) fn probes(&self) -> Result<Vec<Option<PortRange>>, Failure> {
        let cluster = self.state.cluster();
        if let (Wanted::Any, Some(ports)) = (&self.wanted, &self.destination.ports) {
            return Ok(ports.iter().copied().map(Some).collect());
        }
        let ranges =
            if matches!(self.wanted, Wanted::Named(..) | Wanted::Icmp) { Vec::new() } else { port_ranges(cluster) };
        let mut probes = Vec::new();
        for member in &self.destination.members {
            for probe in self.wanted.probes(&ranges, member.pod_of(cluster)) {
                if !probes.contains(&probe) {
                    probes.push(probe);
                }
            }
            if !matches!(self.wanted, Wanted::Named(..)) {
                break;
            }
        }
        if let (Wanted::Named(name, _), true) = (&self.wanted, probes.is_empty()) {
            return Err(Failure::no_answer(self.no_such_name(name)));
        }
        Ok(probes)
    }

    fn no_such_name(&self, name: &str) -> anyhow::Error {
        let cluster = self.state.cluster();
        let pods: Vec<_> = self.destination.members.iter().filter_map(|member| member.pod_of(cluster)).collect();
        let label = &self.destination.label;
        if pods.is_empty() {
            return anyhow::anyhow!("only pods give names to ports; {label} is none: write the number");
        }
        let mut names: Vec<_> = pods.iter().flat_map(|pod| &pod.ports).map(|port| &*port.name).collect();
        names.sort_unstable();
        names.dedup();
        let has = if names.is_empty() { "no named ports".to_owned() } else { names.join(", ") };
        anyhow::anyhow!("{label} has no port named {name:?}; it has {has}")
    }
}
