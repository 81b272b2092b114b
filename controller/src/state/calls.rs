//! What the CNI plugin has told: whose an interface is, and which addresses a pod has before the API knows them. Whoever
//! waits for a pod's tables is answered when they are in force.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use policy_compiler::{
    Event,
    model::{ObjectName, Pod},
};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::{Condition, Datapath, State};
use crate::{
    bind::{Assignment, Inhabited},
    cni::{Call, HangUp, Standing},
    source::Update,
};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Calls {
    node: String,
    /// By interface.
    known: BTreeMap<u32, Known>,
    /// This node's pods that have an interface of their own, as the source told them.
    pods: FxHashMap<ObjectName, Pod>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Known {
    call: Call,
    /// What the source said of the pod's addresses at the time. Those of an earlier sandbox may stay there for a second
    /// or so, and count no more.
    before: Vec<IpAddr>,
}

/// Somebody who waits for a pod's tables.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) call: Call,
    deadline: Instant,
    answer: oneshot::Sender<Standing>,
}

impl Calls {
    /// Takes over what the plugin has recorded for an earlier agent. Of several interfaces of one sandbox the others are of
    /// secondary networks: the pod's own was made first, and so has the lowest index.
    pub(super) fn new(node: &str, mut recorded: Vec<Call>) -> Self {
        recorded.sort_unstable_by_key(|call| call.ifindex);
        let mut calls = Self { node: node.to_owned(), ..Self::default() };
        for call in recorded {
            if calls.first_of_sandbox(&call).is_none() {
                calls.known.insert(call.ifindex, Known { call, before: Vec::new() });
            }
        }
        calls
    }

    /// What is to be told of a pod whose API object has no address yet: the CNI plugins' result. Of a family the first
    /// address counts, as for the API. Returns whose interfaces are known by another UID than the plugin's.
    pub(super) fn complete(&mut self, events: &mut [Event]) -> Vec<(u32, Arc<str>, ObjectName)> {
        let mut renamed = Vec::new();
        for event in events {
            match event {
                Event::PutPod(pod) => {
                    let is_local = pod.node.as_deref() == Some(&*self.node);
                    if !is_local || pod.host_network || pod.ended {
                        self.pods.remove(&pod.name);
                        continue;
                    }
                    self.pods.insert(pod.name.clone(), pod.clone());
                    renamed.extend(self.complete_pod(pod));
                }
                Event::DeletePod(name) => drop(self.pods.remove(name)),
                _ => {}
            }
        }
        renamed
    }

    fn complete_pod(&self, pod: &mut Pod) -> Option<(u32, Arc<str>, ObjectName)> {
        let (index, known) = self.known.iter().find(|(_, known)| known.call.is_about(pod))?;
        if pod.addresses.is_empty() || pod.addresses == known.before {
            let first = |v4: bool| known.call.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
            pod.addresses = first(true).into_iter().chain(first(false)).collect();
        }
        (*known.call.uid != *pod.uid).then(|| (*index, Arc::clone(&pod.uid), pod.name.clone()))
    }

    /// This node's pods that have an interface of their own, or will.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    fn pod(&self, call: &Call) -> Option<&Pod> {
        self.pods.get(&call.pod()).filter(|pod| call.is_about(pod))
    }

    /// The other interface of the same sandbox that was told first: this one is of a secondary network.
    fn first_of_sandbox(&self, call: &Call) -> Option<&str> {
        let is_other =
            |known: &&Known| known.call.container_id == call.container_id && known.call.ifindex != call.ifindex;
        self.known.values().find(is_other).map(|known| known.call.interface.as_str())
    }

    /// The UID that the source knows the pod by, or will.
    fn uid(&self, call: &Call) -> Arc<str> {
        self.pod(call).map_or_else(|| call.uid.as_str().into(), |pod| Arc::clone(&pod.uid))
    }

    /// Whose each interface is.
    pub(super) fn owners(&self) -> Vec<(u32, Arc<str>, ObjectName)> {
        self.known.iter().map(|(index, known)| (*index, self.uid(&known.call), known.call.pod())).collect()
    }

    /// When somebody has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.deadline).min()
    }
}

impl<D: Datapath> State<D> {
    /// An interface was made for a pod: binds it, and answers when the pod's tables are in force or `patience` is over.
    pub(super) fn call(&mut self, call: Call, patience: Duration, answer: oneshot::Sender<Standing>) {
        let deadline = Instant::now() + patience;
        // whoever has attached it meanwhile may have done so with older programs
        self.lookout.want_for(Waiting { call, deadline, answer });
    }

    /// The interface was looked at.
    pub(super) fn take_call(&mut self, waiting: Waiting) {
        let call = &waiting.call;
        // after a DEL for one of its networks nothing but the namespace tells that they are of one sandbox
        let beside = || self.applier.binder.primary_beside(call.ifindex, &self.calls.uid(call));
        if let Some(first) = self.calls.first_of_sandbox(call).or_else(beside) {
            let reason = format!("the network policies of {} are enforced at {first}", call.pod());
            // whoever asked may have gone away meanwhile
            let _ = waiting.answer.send(Standing::Untouched { reason });
            return;
        }
        self.take(call);
        self.calls.waiting.push(waiting);
    }

    /// Whose an interface is, and with which addresses.
    fn take(&mut self, call: &Call) {
        let before = self.calls.pod(call).map(|pod| pod.addresses.clone());
        let is_new = self.calls.known.get(&call.ifindex).is_none_or(|known| known.call != *call);
        if is_new && self.applier.binder.assignment(call.ifindex).is_some() {
            let uid = self.calls.uid(call);
            self.calls.known.retain(|_, known| known.call.uid != call.uid);
            let known = Known { call: call.clone(), before: before.unwrap_or_default() };
            self.calls.known.insert(call.ifindex, known);
            self.applier.call(call.ifindex, &uid, &call.pod(), Instant::now());
            self.tell_bound();
            self.tell_again(call);
        }
    }

    /// Binds interfaces behind which processes of pods have come that the source has told of.
    pub(super) fn know_inhabitants(&mut self) {
        let found: Vec<Inhabited> = self.applier.binder.inhabited().collect();
        for Inhabited { index, interface, uid, addresses } in found {
            let Some(pod) = self.calls.pods.values().find(|pod| pod.uid == uid) else { continue };
            let call = Call {
                // of no sandbox that the plugin will take away: it goes with its interface
                container_id: String::new(),
                container_interface: String::new(),
                namespace: pod.name.namespace.to_string(),
                name: pod.name.name.to_string(),
                uid: uid.to_string(),
                interface,
                ifindex: index,
                addresses,
            };
            self.take(&call);
        }
    }

    /// An interface goes. The sandbox may have others, of which another network's DEL tells.
    pub(super) fn hang_up(&mut self, gone: &HangUp) {
        self.lookout.forget(gone);
        let known = self.calls.known.iter().filter(|(_, known)| gone.ends(&known.call));
        let gone: Vec<u32> = known.map(|(index, _)| *index).collect();
        gone.into_iter().for_each(|index| self.forget(index));
    }

    fn forget(&mut self, index: u32) {
        self.applier.binder.hang_up(index);
        if let Some(known) = self.calls.known.remove(&index) {
            self.tell_again(&known.call);
        }
    }

    /// What the CNI plugins gave the pod counts for its addresses, or no longer does.
    fn tell_again(&mut self, call: &Call) {
        if let Some(pod) = self.calls.pod(call).cloned() {
            let problems = Arc::clone(&self.problems);
            self.update(vec![Update { events: vec![Event::PutPod(pod)], seen: Instant::now(), problems }]);
        }
    }

    /// Tells the binder whose these interfaces are.
    pub(super) fn follow_calls(&mut self, owners: Vec<(u32, Arc<str>, ObjectName)>) {
        let now = Instant::now();
        for (index, uid, name) in owners {
            self.applier.call(index, &uid, &name, now);
        }
    }

    /// Drops what was told of interfaces that are gone.
    pub(super) fn drop_stale_calls(&mut self) {
        let is_gone = |index: &&u32| !self.applier.binder.is_called(**index);
        let gone: Vec<u32> = self.calls.known.keys().filter(is_gone).copied().collect();
        gone.into_iter().for_each(|index| self.forget(index));
    }

    /// Answers whoever needn't wait any longer.
    pub(super) fn answer_calls(&mut self) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.calls.waiting) {
            let standing = self.standing(&waiting.call);
            if standing.is_final() || waiting.deadline <= now {
                // whoever asked may have gone away meanwhile
                let _ = waiting.answer.send(standing);
            } else if !waiting.answer.is_closed() {
                self.calls.waiting.push(waiting);
            }
        }
    }

    fn standing(&self, call: &Call) -> Standing {
        let fault = || self.applier.fault(call.ifindex).map(ToString::to_string);
        let uid = self.calls.uid(call);
        match self.applier.binder.assignment(call.ifindex) {
            None => Standing::Gone,
            Some(Assignment::Untouched(reason)) => Standing::Untouched { reason: reason.to_string() },
            Some(Assignment::Pod(bound)) if *bound == uid => match self.applier.condition(&uid) {
                Condition::Enforced => Standing::Enforced,
                Condition::Held => Standing::Held { reason: "its tables are not in force yet".into() },
                Condition::Closed => Standing::Closed { reason: "its policies could not be programmed".into() },
                Condition::Unenforceable => Standing::Unenforceable { reason: fault().unwrap_or_default() },
            },
            Some(_) => match (fault(), self.calls.pod(call)) {
                (Some(reason), _) => Standing::Unenforceable { reason },
                (None, Some(_)) => Standing::Held { reason: format!("{} has no tables yet", call.pod()) },
                (None, None) => {
                    let reason = format!("no pod {} with the UID {} is known on this node", call.pod(), call.uid);
                    Standing::Held { reason }
                }
            },
        }
    }
}
