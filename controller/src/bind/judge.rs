//! Whose an interface is that is held, and what is to be reported: [`Binder::settle`].

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{Assignment, Binder, Interface, Outcome, PATIENCE, Pod, Report};

enum Judgement {
    Nothing,
    Assign(Assignment),
    Report(Report),
}

impl Binder {
    /// Binds what can be bound, and finds what is to be reported.
    pub(super) fn settle(&mut self, now: Instant, outcome: &mut Outcome) {
        let mut reports = BTreeSet::new();
        for (index, interface) in &mut self.interfaces {
            if matches!(&interface.assignment, Assignment::Secondary(uid) if !self.pods.contains_key(uid)) {
                (interface.assignment, interface.since) = (Assignment::Held, now);
                outcome.assigned.push((*index, Assignment::Held));
            }
        }
        // whose owner is known by name goes first, then what an earlier agent had bound, then the oldest
        let mut held: Vec<_> = self
            .interfaces
            .iter()
            .filter(|(_, interface)| interface.assignment == Assignment::Held)
            .map(|(index, interface)| (!self.calls.contains_key(index), interface.adopted.is_empty(), *index))
            .collect();
        held.sort_unstable();
        for (_, _, index) in held {
            let Some(interface) = self.interfaces.get(&index) else { continue };
            match self.judge(interface, now) {
                Judgement::Nothing => continue,
                Judgement::Report(report) => {
                    reports.insert(report);
                    continue;
                }
                Judgement::Assign(assignment) => {
                    if let Assignment::Pod(uid) = &assignment
                        && let Some(pod) = self.pods.get_mut(uid)
                    {
                        pod.interface = Some(index);
                    }
                    outcome.assigned.push((index, assignment.clone()));
                    if let Some(interface) = self.interfaces.get_mut(&index) {
                        interface.assignment = assignment;
                    }
                }
            }
        }
        self.report_settled(now, &mut reports);
        outcome.reports.extend(reports.difference(&self.told).cloned());
        outcome.settled.extend(self.told.difference(&reports).cloned());
        self.told = reports;
    }

    /// What is to be known of interfaces that are not held, and of pods.
    fn report_settled(&self, now: Instant, reports: &mut BTreeSet<Report>) {
        for interface in self.interfaces.values() {
            if let Assignment::Secondary(uid) = &interface.assignment
                && let Some(pod) = self.pods.get(uid)
            {
                reports.insert(Report::Secondary {
                    interface: interface.link.name.clone(),
                    pod: pod.name.clone(),
                    bound: self.name_of(pod.interface),
                });
            }
        }
        for pod in self.pods.values() {
            if pod.interface.is_none() && now.duration_since(pod.since) >= PATIENCE {
                reports.insert(Report::NoInterface { pod: pod.name.clone() });
            }
        }
    }

    /// What to do with an interface that is held.
    fn judge(&self, interface: &Interface, now: Instant) -> Judgement {
        let link = &interface.link;
        if let Some(called) = self.calls.get(&link.index) {
            return if self.pods.get(&called.uid).is_some_and(|pod| pod.interface.is_none()) {
                Judgement::Assign(Assignment::Pod(Arc::clone(&called.uid)))
            } else if now.duration_since(interface.since) >= PATIENCE {
                Judgement::Report(Report::Awaited { interface: link.name.clone(), pod: called.name.clone() })
            } else {
                Judgement::Nothing
            };
        }
        let same_namespace = |pod: &&(&Arc<str>, &Pod)| {
            pod.1
                .interface
                .and_then(|bound| self.interfaces.get(&bound))
                .is_some_and(|bound| link.namespace.is_some() && bound.link.namespace == link.namespace)
        };
        let bound: Vec<_> = self.pods.iter().filter(|(_, pod)| pod.interface.is_some()).collect();
        if let Some((uid, _)) = bound.iter().find(same_namespace) {
            return Judgement::Assign(Assignment::Secondary(Arc::clone(uid)));
        }
        let adopted = self.pods.values().any(|pod| pod.has(&interface.adopted));
        let shown = if adopted { &interface.adopted } else { &link.addresses };
        if let Some((_, pod)) = bound.iter().find(|(_, pod)| pod.has(shown)) {
            return Judgement::Report(Report::SecondClaim {
                interface: link.name.clone(),
                pod: pod.name.clone(),
                bound: self.name_of(pod.interface),
            });
        }
        let is_elsewhere = |uid: &Arc<str>| self.calls.values().any(|called| called.uid == *uid);
        // what processes tell of the pod goes before what they may have written
        let is_free = |uid: &Arc<str>, pod: &Pod| {
            pod.interface.is_none() && !self.lost.contains(uid) && !is_elsewhere(uid) && !link.is_of_another(uid)
        };
        let is_shown = |uid: &str, pod: &Pod| if adopted { pod.has(shown) } else { interface.is_shown(uid, pod) };
        let candidates: Vec<_> =
            self.pods.iter().filter(|(uid, pod)| is_free(uid, pod) && is_shown(uid, pod)).collect();
        let late = || self.pods.iter().find(|(uid, pod)| is_free(uid, pod) && pod.has(shown));
        match candidates.as_slice() {
            [(uid, _)] => Judgement::Assign(Assignment::Pod(Arc::clone(uid))),
            [] if now.duration_since(interface.since) >= PATIENCE => Judgement::Report(match late() {
                Some((_, pod)) => Report::Late { interface: link.name.clone(), pod: pod.name.clone() },
                None => Report::Unknown { interface: link.name.clone(), addresses: link.addresses.clone() },
            }),
            [] => Judgement::Nothing,
            several => Judgement::Report(Report::Ambiguous {
                interface: link.name.clone(),
                pods: several.iter().take(2).map(|(_, pod)| pod.name.clone()).collect(),
            }),
        }
    }

    fn name_of(&self, index: Option<u32>) -> String {
        index.and_then(|index| self.interfaces.get(&index)).map(|i| i.link.name.clone()).unwrap_or_default()
    }
}
