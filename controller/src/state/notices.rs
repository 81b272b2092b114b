//! What of the state an administrator must know although nobody asks: see [`Notice`].

use std::collections::BTreeMap;

use policy_compiler::{
    diagnostic::{Kind, Severity},
    model::ObjectName,
};

use super::{Condition, Datapath, State};
use crate::notice::Notice;

impl<D: Datapath> State<D> {
    /// All that stands now, one an object and reason.
    pub(super) fn notices(&self) -> Vec<Notice> {
        let policies = self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let policies = policies.filter_map(|problem| match &problem.about {
            Some((kind @ Kind::NetworkPolicy, name)) => Some(((*kind, name.clone(), "PolicyUnusable"), &problem.text)),
            _ => None,
        });
        let services: Vec<(ObjectName, String)> = self.reports.mixed().collect();
        let services = services.iter().map(|(name, text)| ((Kind::Service, name.clone(), "ServiceClosed"), text));
        let mut notices = Vec::new();
        for ((kind, name, reason), texts) in grouped(policies.chain(services)) {
            notices.push(Notice { kind, name, uid: None, reason, note: joined(&texts) });
        }
        for pod in self.applier.pods() {
            let (reason, what) = match self.applier.condition(&pod.uid) {
                Condition::Unenforceable => ("PodUnenforceable", "can't be enforced, so no policy holds for it"),
                Condition::Closed => ("PodClosed", "is cut off, because its policies could not be programmed"),
                Condition::Enforced | Condition::Held => continue,
            };
            let fault = self.applier.binder.interface_of(&pod.uid).and_then(|index| self.applier.fault(index));
            let cause = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
            let note = format!("on node {} the pod {what}{cause}", self.node);
            let (kind, name, uid) = (Kind::Pod, pod.name.clone(), Some(pod.uid.clone()));
            notices.push(Notice { kind, name, uid, reason, note });
        }
        notices
    }
}

type Subject = (Kind, ObjectName, &'static str);

fn grouped<'a>(all: impl Iterator<Item = (Subject, &'a String)>) -> BTreeMap<Subject, Vec<&'a String>> {
    let mut groups = BTreeMap::<Subject, Vec<&String>>::new();
    for (subject, text) in all {
        groups.entry(subject).or_default().push(text);
    }
    groups
}

/// The first, and how many more there are: a policy with a hundred bad fields is one Event.
fn joined(texts: &[&String]) -> String {
    match texts {
        [] => String::new(),
        [one] => (*one).clone(),
        [first, rest @ ..] => format!("{first} (and {} more, see the agent's log)", rest.len()),
    }
}
