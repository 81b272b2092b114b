//! The rules of one direction of a pod, before and after an edit: [`Rules`].

use super::port_set::PortSet;
use crate::{
    explain::quick::{Other, Quick},
    model::{Pod, Policy, PortMatch, Rule},
};

/// Policies that isolate a pod, with their rules for a direction.
pub(super) type Isolating<'a> = Vec<(&'a Policy, &'a [Rule])>;

/// The rules of a pod's direction, before and after an edit.
#[derive(Default)]
pub(super) struct Rules<'a> {
    /// Whether anything isolates it, before and after.
    isolates: [bool; 2],
    /// Those of both.
    common: Vec<Opening<'a>>,
    /// Those of one of them: before, and after.
    own: [Vec<Opening<'a>>; 2],
}

/// A rule and the ports that it opens to its peers.
struct Opening<'a> {
    rule: &'a Rule,
    /// `None` if that depends on how the far end names its ports.
    ports: Option<PortSet>,
}

impl<'a> Opening<'a> {
    /// `named_on` has the names of ports, if it is known already.
    fn new(rule: &'a Rule, named_on: Option<&Pod>) -> Self {
        let mut ports = rule.ports.iter().flatten();
        let has_names = ports.any(|port| matches!(port, PortMatch::Named(..)));
        let is_known = named_on.is_some() || !has_names;
        Self { rule, ports: is_known.then(|| PortSet::of(rule, named_on)) }
    }
}

impl<'a> Rules<'a> {
    /// No edit changes them. For `named_on` see [`Self::of`].
    pub(super) fn unchanged(policies: impl Iterator<Item = (&'a Policy, &'a [Rule])>, named_on: Option<&Pod>) -> Self {
        let mut found = Self::default();
        for (_, rules) in policies {
            found.isolates = [true; 2];
            found.common.extend(rules.iter().map(|rule| Opening::new(rule, named_on)));
        }
        found
    }

    /// Those of two times. `named_on` is the pod itself for ingress, where names of ports are its own.
    pub(super) fn of([before, after]: &[Isolating<'a>; 2], named_on: Option<&Pod>) -> Self {
        let of_same = |policies: &Isolating<'a>, policy: &Policy| -> &'a [Rule] {
            let same = policies.iter().find(|(other, _)| other.name == policy.name);
            same.map(|(_, rules)| *rules).unwrap_or_default()
        };
        let mut found = Self { isolates: [!before.is_empty(), !after.is_empty()], ..Self::default() };
        for (policy, rules) in before {
            let new = of_same(after, policy);
            for (index, rule) in rules.iter().enumerate() {
                let list = if new.get(index) == Some(rule) { &mut found.common } else { &mut found.own[0] };
                list.push(Opening::new(rule, named_on));
            }
        }
        for (policy, rules) in after {
            let old = of_same(before, policy);
            let own = rules.iter().enumerate().filter(|(index, rule)| old.get(*index) != Some(rule));
            found.own[1].extend(own.map(|(_, rule)| Opening::new(rule, named_on)));
        }
        found
    }

    /// Whether the edit changes them at all.
    pub(super) fn differ(&self) -> bool {
        self.isolates[0] != self.isolates[1] || self.own.iter().any(|own| !own.is_empty())
    }

    /// The ports that may be open to a far end before or after the edit only. `is_relabelled`: peers may match it
    /// otherwise than before.
    pub(super) fn difference(&self, far: &[Far<'_>; 2], is_relabelled: bool) -> PortSet {
        let all = PortSet::all();
        let [before, after] = if is_relabelled || self.isolates[0] != self.isolates[1] {
            [0, 1].map(|when| self.open(when, &far[when], &all))
        } else {
            [0, 1].map(|when| far[when].open(self.own[when].iter(), &all))
        };
        before.difference(&after)
    }

    /// The ports of `within` that are open to a far end, before (0) or after (1) the edit.
    pub(super) fn open(&self, when: usize, far: &Far<'_>, within: &PortSet) -> PortSet {
        if within.is_empty() || !self.isolates[when] {
            return within.clone();
        }
        far.open(self.common.iter().chain(&self.own[when]), within)
    }
}

/// A far end at one time.
#[derive(Clone, Copy)]
pub(super) struct Far<'b> {
    pub(super) quick: &'b Quick<'b>,
    pub(super) end: Other<'b>,
}

impl Far<'_> {
    fn open<'r>(&self, rules: impl Iterator<Item = &'r Opening<'r>>, within: &PortSet) -> PortSet {
        let mut open = PortSet::default();
        for Opening { rule, ports } in rules {
            let ports = match ports {
                Some(ports) => ports.and(within),
                None => PortSet::of(rule, self.end.pod).and(within),
            };
            if !ports.is_empty() && self.quick.is_peer(rule, self.end) {
                open = open.or(&ports);
            }
        }
        open
    }
}
