//! A kernel that carries out changes write by write, and holds every packet's verdict in between against those before
//! and after.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_abi::{Address, Direction, PeerFlags, protocol};
use policy_compiler::{
    Contents, Step,
    change::PodTables,
    model::Protocol,
    walk::{Lookup, Packet, walk},
};
use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};

use crate::generate::{PORTS, addresses};

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    contents: Contents,
}

/// Every packet that could make a difference.
pub(crate) fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for direction in Direction::ALL {
        for remote in addresses().into_iter().map(Address::from) {
            let mut add = |protocol, port| {
                packets.push(Packet { direction, remote, protocol, port, established: false });
            };
            add(protocol::ICMP, 0);
            for protocol in Protocol::ALL {
                PORTS.into_iter().for_each(|port| add(protocol.number(), port));
            }
        }
    }
    packets
}

/// Whether a new connection passes, and whether an established one does.
fn verdict(contents: &Contents, pod: &PodTables, packet: &Packet) -> (bool, bool) {
    let passes = |established| walk(contents, pod, &Packet { established, ..*packet }).reason.passes();
    (passes(false), passes(true))
}

type Verdicts = BTreeMap<(usize, std::sync::Arc<str>), Vec<(bool, bool)>>;

impl Kernel {
    pub(crate) fn new(contents: Contents) -> Self {
        Self { contents }
    }

    /// Carries out the steps, checks every state on the way, and that the last one is `after`.
    pub(crate) fn carry_out(&mut self, steps: &[Step], after: &Contents) -> Result<(), TestCaseError> {
        let packets = packets();
        let before = self.contents.clone();
        let allowed = allowed(&before, after, &packets);
        for step in steps {
            match step {
                Step::Write(ops) | Step::Free(ops) => {
                    for op in ops {
                        self.contents.apply(op);
                        self.check(&packets, &allowed, &format!("{op:?}"))?;
                    }
                }
                Step::Pods(updates) => {
                    for update in updates {
                        self.contents.apply_pod(update);
                        self.check(&packets, &allowed, &format!("{update:?}"))?;
                    }
                }
                Step::RaiseEpoch(_) => {}
            }
        }
        prop_assert_eq!(&self.contents, after, "the writes don't lead to the contents");
        check_epoch(steps, &before, after, &packets)
    }

    fn check(&self, packets: &[Packet], allowed: &Verdicts, last: &str) -> Result<(), TestCaseError> {
        for pod in self.contents.pods.values() {
            for (at, packet) in packets.iter().enumerate() {
                let Some(allowed) = allowed.get(&(at, pod.uid.clone())) else { continue };
                let verdict = verdict(&self.contents, pod, packet);
                prop_assert!(
                    allowed.contains(&verdict),
                    "after {last}: {packet:?} at {} is {verdict:?}, allowed are {allowed:?}",
                    pod.uid
                );
            }
        }
        Ok(())
    }
}

fn count(step: &Step) -> usize {
    match step {
        Step::Write(ops) | Step::Free(ops) => ops.len(),
        Step::Pods(updates) => updates.len(),
        Step::RaiseEpoch(_) => 0,
    }
}

/// How many writes there are in `steps`.
pub(crate) fn writes(steps: &[Step]) -> usize {
    steps.iter().map(count).sum()
}

/// Contents after the first `left` writes of `steps`.
pub(crate) fn cut_short(old: &Contents, steps: &[Step], mut left: usize) -> Contents {
    let mut contents = old.clone();
    for step in steps {
        match step {
            Step::Write(ops) | Step::Free(ops) => ops.iter().take(left).for_each(|op| contents.apply(op)),
            Step::Pods(updates) => updates.iter().take(left).for_each(|update| contents.apply_pod(update)),
            Step::RaiseEpoch(_) => {}
        }
        left = left.saturating_sub(count(step));
    }
    contents
}

/// The verdicts that may be seen on the way. A pod that comes was held so far: it may see what its tables said before,
/// too. For a pod that goes, its tables count as long as others use them.
fn allowed(before: &Contents, after: &Contents, packets: &[Packet]) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let uids: BTreeSet<_> = before.pods.keys().chain(after.pods.keys()).cloned().collect();
    for uid in uids {
        let (old, new) = (before.pods.get(&uid), after.pods.get(&uid));
        for (at, packet) in packets.iter().enumerate() {
            // portless packets to a cluster IP that comes or goes in one batch with other tables may be dropped
            let is_cluster_ip = |contents: &Contents| {
                contents.peer(packet.remote).is_some_and(|peer| peer.flags & PeerFlags::CLUSTER_IP != 0)
            };
            if packet.protocol == protocol::ICMP && is_cluster_ip(before) != is_cluster_ip(after) {
                continue;
            }
            let table = |pod: &PodTables| match packet.direction {
                Direction::Ingress => pod.ingress,
                Direction::Egress => pod.egress,
            };
            let uses = |contents: &Contents, pod: &PodTables| {
                table(pod).is_none_or(|used| contents.pods.values().any(|other| table(other) == Some(used)))
            };
            let mut allowed = Vec::new();
            match (old, new) {
                (Some(old), Some(new)) => {
                    allowed.push(verdict(before, old, packet));
                    allowed.push(verdict(after, new, packet));
                }
                (None, Some(new)) => {
                    allowed.push(verdict(after, new, packet));
                    if uses(before, new) {
                        allowed.push(verdict(before, new, packet));
                    }
                }
                (Some(old), None) if uses(after, old) => {
                    allowed.push(verdict(before, old, packet));
                    allowed.push(verdict(after, old, packet));
                }
                _ => continue,
            }
            verdicts.insert((at, uid.clone()), allowed);
        }
    }
    verdicts
}

/// Whatever passed and doesn't any more has raised the epoch of its pod, after the last write that could have refused it.
fn check_epoch(steps: &[Step], before: &Contents, after: &Contents, packets: &[Packet]) -> Result<(), TestCaseError> {
    let raised = steps.iter().position(|step| matches!(step, Step::RaiseEpoch(_)));
    let last = steps.iter().rposition(|step| matches!(step, Step::Write(_) | Step::Pods(_)));
    if let Some(raised) = raised {
        prop_assert!(last.is_none_or(|last| last < raised), "the epoch was raised too early");
    }
    let revoked = raised.map_or(&[][..], |raised| match &steps[raised] {
        Step::RaiseEpoch(pods) => pods,
        _ => &[],
    });
    for (uid, old) in &before.pods {
        let Some(new) = after.pods.get(uid) else { continue };
        let is_raised = revoked.binary_search(uid).is_ok();
        for packet in packets {
            let (_, passed) = verdict(before, old, packet);
            let (_, passes) = verdict(after, new, packet);
            prop_assert!(
                !passed || passes || is_raised,
                "{packet:?} at {uid} passed and doesn't any more, and its epoch was not raised"
            );
        }
    }
    Ok(())
}
