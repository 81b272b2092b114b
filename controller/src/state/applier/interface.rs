//! What an interface has of the kernel's: its entry and the programs, brought up to what they should be, or taken away.
//! Entry point: [`Applier::refresh`].

use std::sync::Arc;

use enforcer_abi::{PodEntry, PodFlags};

use super::Applier;
use crate::{
    bind::Assignment,
    state::{
        datapath::{Attachment, Datapath, Fault},
        entry::{self, Frame},
    },
};

/// What is known of an interface besides what the binder knows.
#[derive(Debug, Default)]
pub(super) struct Interface {
    /// As it is in the kernel, but for its slot.
    pub(super) written: Option<PodEntry>,
    /// The pod that it was written for; an adopted one's isn't known.
    pub(super) written_for: Option<Arc<str>>,
    pub(super) attachment: Option<Attachment>,
    /// An earlier agent attached it.
    pub(super) was_attached: bool,
    pub(super) midstream_until: u64,
    pub(super) write_fault: Option<Fault>,
    pub(super) attach_fault: Option<Fault>,
}

impl<D: Datapath> Applier<D> {
    /// Whether an interface that is held isn't attached yet, because its CNI plugins may not have returned.
    pub(in crate::state) fn waits_for_plugins(&self, index: u32) -> bool {
        let is_attached = |one: &Interface| one.was_attached || one.attachment.is_some();
        self.waiting.contains(&index) && !self.interfaces.get(&index).is_some_and(is_attached)
    }

    /// Compares what is written for an interface with what should be, and writes the difference. The entry comes before
    /// the program, so that a pod that runs already isn't held for a moment.
    pub(super) fn refresh(&mut self, index: u32) {
        let assignment = self.binder.assignment(index).cloned();
        let interface = self.interfaces.entry(index).or_default();
        let frame = Frame { ifindex: index, slot: 0, midstream_until: interface.midstream_until };
        let wanted = match &assignment {
            None | Some(Assignment::Untouched(_) | Assignment::Secondary(_)) => None,
            Some(Assignment::Held) => Some(entry::held(frame, self.binder.is_empty_namespace(index))),
            Some(Assignment::Pod(uid)) => Some(match self.tables.get(uid) {
                Some(pod) => entry::of_pod(frame, pod, self.concern.closes(pod)),
                None => entry::held(frame, false),
            }),
        };
        match wanted {
            Some(wanted) => self.enforce(index, wanted, assignment.as_ref().and_then(Assignment::pod)),
            None => self.release(index, assignment.is_none()),
        }
    }

    fn enforce(&mut self, index: u32, wanted: PodEntry, pod: Option<&Arc<str>>) {
        let ends_judgements = self.write_entry(index, wanted, pod);
        self.attach(index, pod.is_some());
        if ends_judgements {
            self.raise_epoch(&[index]);
        }
    }

    /// Answers whether flows that were judged for what was written before are to be judged again.
    fn write_entry(&mut self, index: u32, wanted: PodEntry, pod: Option<&Arc<str>>) -> bool {
        let Some(interface) = self.interfaces.get_mut(&index) else { return false };
        let mut ends_judgements = false;
        if interface.written == Some(wanted) {
            // what could not be written is wanted no more
            interface.write_fault = None;
        } else {
            match self.datapath.put_pod(wanted) {
                Ok(()) => {
                    // one that comes late was missed by the raise that it should have come before
                    let is_late = interface.write_fault.is_some();
                    ends_judgements =
                        interface.written.is_some_and(|before| is_late || is_another_pod(&before, &wanted));
                    (interface.written, interface.write_fault) = (Some(wanted), None);
                }
                Err(fault) => {
                    interface.write_fault = Some(fault.clone());
                    self.note(&fault, "write the entry of an interface");
                    return false;
                }
            }
        }
        // another pod's, even if both have one address
        ends_judgements |= interface.written_for.as_ref().is_some_and(|before| pod.is_some_and(|pod| pod != before));
        interface.written_for = pod.cloned();
        ends_judgements
    }

    fn attach(&mut self, index: u32, is_pods: bool) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        // one that an earlier agent has attached has the programs on it already
        let waits = !is_pods && self.waiting.contains(&index) && !interface.was_attached;
        if interface.attachment.is_some() || waits {
            return;
        }
        match self.datapath.attach(index) {
            Ok(attachment) => {
                for ahead in &attachment.ahead {
                    tracing::warn!(ifindex = index, "a program sees packets before Sluice does: {ahead}");
                }
                (interface.attachment, interface.attach_fault) = (Some(attachment), None);
            }
            Err(fault) => {
                interface.attach_fault = Some(fault.clone());
                self.note(&fault, "attach to an interface");
            }
        }
    }

    fn release(&mut self, index: u32, gone: bool) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let (mut fault, mut ends_flows) = (None, false);
        if interface.was_attached || interface.attachment.is_some() {
            match self.datapath.detach(index) {
                Ok(()) => (interface.was_attached, interface.attachment) = (false, None),
                Err(error) => fault = Some(("detach from an interface", error)),
            }
        }
        if fault.is_none() && interface.written.is_some() {
            match self.datapath.delete_pod(index) {
                Ok(()) => {
                    // the index may be another pod's one day, and that pod's flows are not to be this one's
                    ends_flows = interface.written.take().is_some_and(|entry| entry.flags & PodFlags::HELD == 0);
                    interface.written_for = None;
                }
                Err(error) => fault = Some(("remove the entry of an interface", error)),
            }
        }
        interface.attach_fault = None;
        interface.write_fault = fault.as_ref().map(|(_, fault)| fault.clone());
        if gone && fault.is_none() {
            self.interfaces.remove(&index);
        }
        if let Some((action, fault)) = fault {
            self.note(&fault, action);
        }
        if ends_flows {
            self.raise_epoch(&[index]);
        }
    }
}

/// Whether flows that were judged for the pod of one entry would be taken for those of another's.
fn is_another_pod(before: &PodEntry, after: &PodEntry) -> bool {
    let changed = after.flags & PodFlags::HELD != 0 || (before.v4, before.v6) != (after.v4, after.v6);
    before.flags & PodFlags::HELD == 0 && changed
}

impl Interface {
    pub(super) const fn has_fault(&self) -> bool {
        self.write_fault.is_some() || self.attach_fault.is_some()
    }
}
