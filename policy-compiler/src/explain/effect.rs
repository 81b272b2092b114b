//! What an edit would change: the connection that was asked about, and all others between pods.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use super::{
    Verdict,
    quick::{Other, Quick},
};
use crate::model::{ObjectName, Policy, PortMatch, Protocol};

/// What an edit changes beside the connection that it is for: connections between pods, at the ports that the policies
/// and pods concerned name, and at one that none names.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// How many pairs of pods may speak to each other at a port where they might not before.
    pub opens: usize,
    /// How many pairs no longer may.
    pub closes: usize,
    /// The first of them: `pay/api-0 -> shop/db-0 TCP/5432`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<String>,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
}

/// How many examples are kept.
const EXAMPLES: usize = 3;

/// An edit, and the side that it is for.
pub(super) struct Trial<'a> {
    pub(super) before: &'a Quick<'a>,
    pub(super) after: &'a Quick<'a>,
    /// Whose rules are asked.
    pub(super) own: &'a ObjectName,
    pub(super) other: &'a ObjectName,
    pub(super) other_address: IpAddr,
    pub(super) other_is_pod: bool,
    pub(super) ingress: bool,
    pub(super) port: Option<(Protocol, u16)>,
}

impl Trial<'_> {
    /// What the side says after the edit.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let pod = self.after.pod(self.own)?;
        let other = if self.other_is_pod { Some(self.after.pod(self.other)?) } else { None };
        let passes = self.after.side(pod, self.ingress, Other { pod: other, address: self.other_address }, self.port);
        Some(if passes == Some(false) { Verdict::Denied } else { Verdict::Allowed })
    }

    /// What else changes: through `policy`, if that was edited, or around the pods that were relabelled.
    pub(super) fn effect(&self, policy: Option<&Policy>, relabelled: &[ObjectName]) -> Effect {
        let ports = self.ports(policy);
        let mut effect = Effect::default();
        if policy.is_some() {
            let isolated = |pod: &&crate::model::Pod| {
                pod.name.namespace == self.own.namespace
                    && policy.is_some_and(|edited| {
                        self.after.isolating(pod, self.ingress).any(|(policy, _)| policy.name == edited.name)
                    })
            };
            let subjects: BTreeSet<_> = self.after.pods().filter(isolated).map(|pod| &pod.name).collect();
            for subject in subjects {
                for other in self.after.pods() {
                    let pair = if self.ingress { (&other.name, subject) } else { (subject, &other.name) };
                    self.compare(pair, &ports, &mut effect);
                }
            }
        }
        for pod in relabelled {
            for other in self.after.pods() {
                self.compare((pod, &other.name), &ports, &mut effect);
                if !relabelled.contains(&other.name) {
                    self.compare((&other.name, pod), &ports, &mut effect);
                }
            }
        }
        effect
    }

    fn compare(&self, pair: (&ObjectName, &ObjectName), ports: &[Option<(Protocol, u16)>], effect: &mut Effect) {
        if pair.0 == pair.1 {
            return;
        }
        let ends = |quick: &Quick<'_>, port| Some(quick.passes(quick.pod(pair.0)?, quick.pod(pair.1)?, port));
        let asked = if self.ingress { (self.other, self.own) } else { (self.own, self.other) };
        for opens in [true, false] {
            let changed: Vec<_> = ports
                .iter()
                .filter(|port| !(pair == asked && **port == self.port))
                .filter(|port| {
                    let (before, after) = (ends(self.before, **port), ends(self.after, **port));
                    before != after && after == Some(opens)
                })
                .collect();
            let Some(first) = changed.first() else { continue };
            let (count, list) =
                if opens { (&mut effect.opens, &mut effect.opened) } else { (&mut effect.closes, &mut effect.closed) };
            *count += 1;
            if list.len() < EXAMPLES {
                let port =
                    first.map_or_else(|| "without ports".to_owned(), |(protocol, port)| format!("{protocol}/{port}"));
                let more = if changed.len() > 1 { " and other ports" } else { "" };
                list.push(format!("{} -> {} {port}{more}", pair.0, pair.1));
            }
        }
    }

    /// The ports at which something may change.
    fn ports(&self, policy: Option<&Policy>) -> Vec<Option<(Protocol, u16)>> {
        let mut ports = BTreeSet::from([self.port, Some((Protocol::Tcp, 1))]);
        let own = self.after.pod(self.own).into_iter().flat_map(|pod| &pod.ports);
        ports.extend(own.map(|port| Some((port.protocol, port.number))));
        let mut add = |entry: &PortMatch| {
            if let PortMatch::Range { protocol, first, last } = entry {
                ports.extend([Some((*protocol, *first)), Some((*protocol, *last))]);
            }
        };
        let sides = |policy: &Policy, add: &mut dyn FnMut(&PortMatch)| {
            for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                rule.ports.iter().flatten().for_each(&mut *add);
            }
        };
        match policy {
            Some(policy) => sides(policy, &mut add),
            None => {
                let pod = self.after.pod(self.own);
                for (policy, _) in pod.into_iter().flat_map(|pod| self.after.isolating(pod, self.ingress)) {
                    sides(policy, &mut add);
                }
            }
        }
        ports.into_iter().collect()
    }
}
