//! Edits tried: [`Prover::prove`] leaves of each near miss the fixes that make the connection pass.

use super::{Draft, Edit, Fix, NearMiss, name_of};
use crate::{
    cluster::Cluster,
    explain::{
        Direction, Explanation, Judgement, Other, Party, PartyKind, Quick, Reason, Verdict,
        effect::{AskedFor, Ground, Who},
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
        let who = |party: &Party| match party.kind {
            PartyKind::Pod => Who::Pod(name_of(party)),
            _ => Who::Outside(party.ip),
        };
        self.0.iter().map(|leg| (who(leg.source), who(leg.destination), leg.port)).collect()
    }
}

pub(super) struct Prover<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) quick: &'a Quick<'a>,
    pub(super) legs: &'a Legs<'a>,
}

/// The near misses of a side, and a policy of its own.
type OfSide = (Vec<Draft>, Option<Draft>);

impl Prover<'_> {
    pub(super) fn prove(&self, sides: Vec<OfSide>) -> Vec<NearMiss> {
        let Some(leaders) = self.leaders(&sides) else {
            let near = sides.into_iter().flat_map(|(near, _)| near).map(|draft| draft.near);
            return near.filter(|near| near.failures == 1).collect();
        };
        let asked = self.legs.asked();
        let drafts = sides.iter().flat_map(|(near, own)| near.iter().chain(own));
        let edits = drafts.flat_map(|draft| &draft.attempts).flat_map(|attempt| &attempt.events);
        let ground = Ground::new(self.cluster, self.quick, &asked, edits);
        let mut found = Vec::new();
        for (index, (near, own)) in sides.iter().enumerate() {
            // the fix of the other side that this one's are tried with
            let partner: &[Event] = if sides.len() == 2 { &leaders[1 - index] } else { &[] };
            let mut proven: Vec<_> = near.iter().map(|draft| self.proven(draft, partner, &ground)).collect();
            proven.retain(|near| near.failures == 1 || !near.fixes.is_empty());
            // an edit of a rule changes it for others too; a policy of its own may change less
            let changes = |fix: &Fix| fix.effect.opens + fix.effect.closes;
            let least = proven.iter().flat_map(|near| &near.fixes).map(changes).min();
            let own =
                own.as_ref().map(|draft| self.proven(draft, partner, &ground)).filter(|own| !own.fixes.is_empty());
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

    fn proven(&self, draft: &Draft, partner: &[Event], ground: &Ground<'_>) -> NearMiss {
        let mut near = draft.near.clone();
        for Attempt { edit, events } in &draft.attempts {
            if self.passes(&[events, partner]) {
                near.fixes.push(Fix {
                    edit: edit.clone(),
                    effect: ground.effect(&self.after(&[events]), events),
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
            let pod = |party: &Party| (party.kind == PartyKind::Pod).then(|| quick.pod(&name_of(party))).flatten();
            let Some(own) = pod(party) else { return false };
            quick.side(own, ingress, Other { pod: pod(other), address: other.ip }, self.port) != Some(false)
        };
        side(self.source, self.egress, self.destination, false)
            && side(self.destination, self.ingress, self.source, true)
    }
}
