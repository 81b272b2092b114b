//! Edits tried: [`Prover::prove`] leaves of each near miss the fixes that make the connection pass.

use std::cell::Cell;

use super::{Draft, Edit, Fix, NearMiss};
use crate::{
    cluster::Cluster,
    explain::{
        Direction, Explanation, Judgement, Other, Party, PartyKind, Quick, Reason, Verdict,
        effect::{AskedFor, Trial},
    },
    manifest,
    model::{Event, ObjectName, Protocol},
};

/// An edit, and what becomes of the objects.
pub(super) struct Attempt {
    pub(super) edit: Edit,
    pub(super) events: Vec<Event>,
}

/// A connection that has to pass: the one that was asked about, or one to a back end.
#[derive(Clone, Copy)]
pub(super) struct Leg<'a> {
    pub(super) source: &'a Party,
    pub(super) destination: &'a Party,
    pub(super) port: Option<(Protocol, u16)>,
    pub(super) egress: &'a Judgement,
    pub(super) ingress: &'a Judgement,
}

impl<'a> Leg<'a> {
    /// The end whose rules are not asked.
    pub(super) const fn other(&self, direction: Direction) -> &'a Party {
        match direction {
            Direction::Egress => self.destination,
            Direction::Ingress => self.source,
        }
    }
}

/// Everything that has to pass: in each family, and to each back end of a Service.
pub(super) struct Legs<'a>(Vec<Leg<'a>>);

impl<'a> Legs<'a> {
    pub(super) fn of(explanations: &'a [Explanation]) -> Self {
        let mut legs = Vec::new();
        for explanation in explanations.iter().filter(|explanation| explanation.verdict == Verdict::Denied) {
            let connection = &explanation.connection;
            let source = &connection.source;
            let Some(service) = &explanation.service else {
                legs.push(Leg {
                    source,
                    destination: &connection.destination,
                    port: connection.protocol.zip(connection.port),
                    egress: &explanation.egress,
                    ingress: &explanation.ingress,
                });
                continue;
            };
            legs.extend(service.back_ends.iter().map(|back_end| Leg {
                source,
                destination: &back_end.party,
                port: connection.protocol.map(|protocol| (protocol, back_end.port)),
                egress: &back_end.egress,
                ingress: &back_end.ingress,
            }));
        }
        Self(legs)
    }

    /// Those that a side refuses because no rule allows them.
    pub(super) fn refused(&self, direction: Direction) -> Vec<Leg<'a>> {
        let refuses = |leg: &&Leg<'_>| match direction {
            Direction::Egress => leg.egress.reason == Reason::NoRule,
            Direction::Ingress => leg.ingress.reason == Reason::NoRule,
        };
        self.0.iter().filter(refuses).copied().collect()
    }

    fn asked(&self) -> Vec<AskedFor> {
        let name = |party: &Party| match party.kind {
            PartyKind::Pod => ObjectName { namespace: party.namespace.clone(), name: party.name.clone() }.to_string(),
            _ => party.ip.to_string(),
        };
        self.0.iter().map(|leg| (name(leg.source), name(leg.destination), leg.port)).collect()
    }
}

pub(super) struct Prover<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) quick: &'a Quick<'a>,
    pub(super) legs: &'a Legs<'a>,
    /// How many pairs may still be compared.
    pub(super) left: &'a Cell<usize>,
}

/// The near misses of a side, and a policy of its own.
type OfSide = (Vec<Draft>, Option<Draft>);

impl Prover<'_> {
    pub(super) fn prove(&self, sides: Vec<OfSide>) -> Vec<NearMiss> {
        let leaders = self.leaders(&sides);
        let mut found = Vec::new();
        let count = sides.len();
        for (index, (near, own)) in sides.into_iter().enumerate() {
            // the fix of the other side that this one's are tried with
            let partner: &[Event] = match &leaders {
                Some(leaders) if count == 2 => &leaders[1 - index],
                Some(_) => &[],
                None => {
                    found.extend(near.into_iter().map(|draft| draft.near).filter(|near| near.failures == 1));
                    continue;
                }
            };
            let mut proven: Vec<_> = near.into_iter().map(|draft| self.proven(draft, partner)).collect();
            proven.retain(|near| near.failures == 1 || !near.fixes.is_empty());
            // an edit of a rule changes it for others too; a policy of its own may change less
            let changes = |fix: &Fix| fix.effect.opens + fix.effect.closes;
            let least = proven.iter().flat_map(|near| &near.fixes).map(changes).min();
            let own = own.map(|draft| self.proven(draft, partner)).filter(|own| !own.fixes.is_empty());
            proven.extend(own.filter(|own| least.is_none_or(|least| own.fixes.iter().all(|fix| changes(fix) < least))));
            found.extend(proven);
        }
        found
    }

    /// An attempt of each side, so that all of them together make everything pass.
    fn leaders(&self, sides: &[OfSide]) -> Option<Vec<Vec<Event>>> {
        let attempts = |(near, own): &'_ OfSide| -> Vec<Vec<Event>> {
            near.iter().chain(own).flat_map(|draft| &draft.attempts).map(|attempt| attempt.events.clone()).collect()
        };
        match sides {
            [one] => attempts(one).into_iter().find(|events| self.passes(&[events])).map(|events| vec![events]),
            [egress, ingress] => {
                let ingress = attempts(ingress);
                attempts(egress).into_iter().find_map(|first| {
                    let second = ingress.iter().find(|second| self.passes(&[&first, second]))?;
                    Some(vec![first, second.clone()])
                })
            }
            _ => None,
        }
    }

    fn proven(&self, draft: Draft, partner: &[Event]) -> NearMiss {
        let Draft { mut near, attempts } = draft;
        for Attempt { edit, events } in attempts {
            if self.passes(&[&events, partner]) {
                let after = self.after(&[&events]);
                let asked = self.legs.asked();
                let trial =
                    Trial { cluster: self.cluster, before: self.quick, after: &after, asked: &asked, left: self.left };
                near.fixes.push(Fix {
                    edit,
                    effect: trial.effect(&events),
                    needs_other_side: !partner.is_empty(),
                    objects: events.iter().filter_map(manifest::of).collect(),
                });
            }
        }
        near.fixes.sort_by_key(|fix| fix.effect.opens + fix.effect.closes > 0);
        near
    }

    fn after(&self, edits: &[&[Event]]) -> Quick<'_> {
        let mut after = self.quick.clone();
        edits.iter().flat_map(|events| events.iter()).for_each(|event| after.put(event));
        after
    }

    /// Whether everything passes after these edits.
    fn passes(&self, edits: &[&[Event]]) -> bool {
        // edits of one object would undo each other
        let names = |events: &[Event]| -> Vec<ObjectName> {
            events
                .iter()
                .filter_map(|event| if let Event::PutPolicy(policy) = event { Some(policy.name.clone()) } else { None })
                .collect()
        };
        if let [first, second] = edits
            && names(first).iter().any(|name| names(second).contains(name))
        {
            return false;
        }
        let after = self.after(edits);
        self.legs.0.iter().all(|leg| leg.passes(&after))
    }
}

impl Leg<'_> {
    fn passes(&self, quick: &Quick<'_>) -> bool {
        let side = |party: &Party, judgement: &Judgement, other: &Party, ingress: bool| {
            // what is not judged by rules is not changed by them
            if !matches!(judgement.reason, Reason::Rule | Reason::NoRule | Reason::NotIsolated) {
                return true;
            }
            let pod = |party: &Party| {
                let name = ObjectName { namespace: party.namespace.clone(), name: party.name.clone() };
                (party.kind == PartyKind::Pod).then(|| quick.pod(&name)).flatten()
            };
            let Some(own) = pod(party) else { return false };
            quick.side(own, ingress, Other { pod: pod(other), address: other.ip }, self.port) != Some(false)
        };
        side(self.source, self.egress, self.destination, false)
            && side(self.destination, self.ingress, self.source, true)
    }
}
