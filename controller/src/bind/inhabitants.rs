//! Whose an interface is by the first processes behind it: the runtime starts them in the pod's control group, before any
//! of the pod's own could have changed what the interface shows. Entry point: [`Binder::inhabited`].

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Assignment, Binder, Interface, Link, Outcome, Untouched};

/// How long a runtime usually takes from a pod's interface to the pod's first process.
const SET_UP: Duration = Duration::from_secs(10);

/// After how long a runtime has given up: kubelet's `runtimeRequestTimeout`, by default.
pub(crate) const LONGEST_SET_UP: Duration = Duration::from_mins(2);

/// An interface behind which a pod's processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhabited {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub interface: String,
    /// The pod's UID.
    pub uid: Arc<str>,
    /// What it showed before the first of them: what the CNI plugins gave the pod.
    pub addresses: Vec<IpAddr>,
}

impl Binder {
    /// Interfaces that are held, of pods that are behind no other one. Not where another veth leads to the same namespace:
    /// of several, the API's address tells which is the pod's own.
    pub fn inhabited(&self) -> impl Iterator<Item = Inhabited> {
        self.interfaces.iter().filter_map(|(index, interface)| {
            let uid = interface.link.pod()?;
            let is_unknown = interface.assignment == Assignment::Held && !self.calls.contains_key(index);
            let is_free = self.interface_of(uid).is_none() && !self.calls.values().any(|called| called.uid == *uid);
            (is_unknown && is_free && !interface.given.is_empty() && self.is_alone(*index, interface)).then(|| {
                Inhabited {
                    index: *index,
                    interface: interface.link.name.clone(),
                    uid: Arc::clone(uid),
                    addresses: interface.given.clone(),
                }
            })
        })
    }

    /// Whether a pod's first process may come behind an interface at any moment.
    #[must_use]
    pub fn awaits_inhabitants(&self, now: Instant) -> bool {
        self.interfaces.values().any(|interface| {
            // A plugin's own process may have been seen there, or one whose control group is not set yet.
            let is_set_up = interface.assignment == Assignment::Held
                && interface.link.namespace.is_some()
                && interface.link.pod().is_none();
            is_set_up && now.duration_since(interface.since) < SET_UP
        })
    }

    /// Interfaces that are held, and whose CNI plugins may not have returned: no process of a pod is there yet, no plugin has
    /// named the pod, and a runtime may not have given up.
    pub fn set_up(&self, now: Instant) -> impl Iterator<Item = u32> {
        let is_set_up = move |(index, interface): &(&u32, &Interface)| {
            interface.assignment == Assignment::Held
                && !interface.link.has_pods()
                && !self.is_called(**index)
                && now.duration_since(interface.since) < LONGEST_SET_UP
        };
        self.interfaces.iter().filter(is_set_up).map(|(index, _)| *index)
    }

    /// Interfaces that are held, and behind which only processes of no pod are.
    pub fn strangers(&self) -> impl Iterator<Item = &Link> {
        let held = self.interfaces.values().filter(|interface| interface.assignment == Assignment::Held);
        held.map(|interface| &interface.link).filter(|link| link.is_no_pods() && !self.is_called(link.index))
    }

    /// Leaves an interface alone that is held, because the processes behind it are no pod's: until one is, or a pod has an
    /// address behind it.
    pub fn release(&mut self, index: u32) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(interface) = self.interfaces.get_mut(&index).filter(|i| i.assignment == Assignment::Held) {
            interface.assignment = Assignment::Untouched(Untouched::NoPod);
            outcome.assigned.push((index, interface.assignment.clone()));
        }
        outcome
    }

    /// Whether no other veth leads to the same namespace.
    fn is_alone(&self, index: u32, interface: &Interface) -> bool {
        let leads_there =
            |(other, there): (&u32, &Interface)| *other != index && there.link.namespace == interface.link.namespace;
        !self.interfaces.iter().any(leads_there)
    }
}
