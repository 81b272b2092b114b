//! What the state tells: its view on the socket, its health, its metrics.

use std::collections::BTreeMap;

use enforcer_abi::{Counters, Direction, Reason};
use policy_compiler::{PodTables, TableUse};

use super::{
    Condition, Datapath, DirectionView, Health, InterfaceView, MapView, PodView, State, View,
    names::Interface as NamedInterface,
};
use crate::{
    bind::Assignment,
    report::{direction_name, reason_name},
};

impl<D: Datapath> State<D> {
    /// Brings readiness, names and gauges up to date.
    pub(super) fn publish(&mut self) {
        let mut by_condition = BTreeMap::<Condition, Vec<String>>::new();
        for pod in self.applier.pods() {
            by_condition.entry(self.applier.condition(&pod.uid)).or_default().push(pod.name.to_string());
        }
        let metrics = &self.outputs.metrics;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for condition in Condition::ALL {
            let pods = by_condition.get(&condition).map_or(0, Vec::len);
            metrics.pods.with_label_values(&[condition.name()]).set(count(pods));
        }
        let mut take = |condition| {
            let mut pods = by_condition.remove(&condition).unwrap_or_default();
            pods.sort_unstable();
            pods
        };
        let health = Health {
            synced: true,
            unenforceable: take(Condition::Unenforceable),
            closed: take(Condition::Closed),
            fault: self.applier.standing_fault().map(|fault| fault.to_string()),
            source: Vec::new(),
        };
        metrics.synced.set(1);
        metrics.closed.set(count(health.closed.len()));
        metrics.mixed_services.set(count(self.reports.mixed_services()));
        metrics.source_problems.set(count(self.problems.len()));
        metrics
            .programming_failures
            .inc_by(self.applier.faults - std::mem::replace(&mut self.faults, self.applier.faults));
        #[expect(
            clippy::cast_precision_loss,
            reason = "an epoch of 2^53 would take a raise every microsecond for 285 years"
        )]
        metrics.epoch.set(self.applier.epoch as f64);
        self.outputs.health.send_if_modified(|told| {
            let health = Health { source: told.source.clone(), ..health };
            let changed = *told != health;
            *told = health;
            changed
        });
        self.name_interfaces();
    }

    fn name_interfaces(&self) {
        let pods: BTreeMap<&str, &PodTables> = self.applier.pods().map(|pod| (&*pod.uid, pod)).collect();
        let interfaces = self.applier.binder.interfaces().map(|(link, assignment)| {
            let mut named = NamedInterface { name: link.name.clone(), ..NamedInterface::default() };
            if let Assignment::Pod(uid) = assignment
                && let Some(pod) = pods.get(&**uid)
            {
                named.pod = Some(pod.name.clone());
                named.ingress = self.policies(pod, Direction::Ingress);
                named.egress = self.policies(pod, Direction::Egress);
            }
            (link.index, named)
        });
        self.outputs.names.set_interfaces(interfaces.collect());
    }

    /// The policies that isolate a pod, as `namespace/name`.
    fn policies(&self, pod: &PodTables, direction: Direction) -> Vec<String> {
        self.isolating.get(&pod.uid).map(|policies| policies[direction as usize].clone()).unwrap_or_default()
    }

    /// Adds what the kernel has counted since the last time to the metrics.
    pub(super) fn count(&mut self) {
        let metrics = self.outputs.metrics.clone();
        for fill in self.applier.datapath.fills() {
            let ratio = f64::from(fill.used) / f64::from(fill.max.max(1));
            metrics.map_fill.with_label_values(&[fill.map]).set(ratio);
            metrics.map_capacity.with_label_values(&[fill.map]).set(f64::from(fill.max));
        }
        for memory in self.applier.datapath.memory() {
            #[expect(clippy::cast_precision_loss, reason = "an f64 counts bytes exactly up to 8 PiB")]
            metrics.map_bytes.with_label_values(&[memory.map]).set(memory.bytes as f64);
        }
        match self.applier.datapath.unsent() {
            Ok(now) => {
                let before = std::mem::replace(&mut self.unsent, now);
                let lost = |cause: &str, count: u64| metrics.events_lost.with_label_values(&[cause]).inc_by(count);
                lost("rate_limit", now.suppressed.saturating_sub(before.suppressed));
                lost("ring_full", now.lost.saturating_sub(before.lost));
            }
            Err(fault) => tracing::warn!("the kernel's count of unsent events can't be read: {fault}"),
        }
        let pods: Vec<_> = self
            .applier
            .pods()
            .filter_map(|pod| Some((self.applier.binder.interface_of(&pod.uid)?, pod.name.clone())))
            .collect();
        self.counted.retain(|index, (name, _)| pods.iter().any(|(i, n)| i == index && n == name));
        for (index, name) in pods {
            let now = match self.applier.datapath.counters(index) {
                Ok(Some(now)) => now,
                Ok(None) => continue,
                Err(fault) => {
                    tracing::warn!("{name}'s counters can't be read: {fault}");
                    continue;
                }
            };
            let before = self.counted.insert(index, (name.clone(), now)).map(|(_, before)| before.packets);
            for direction in Direction::ALL {
                for reason in Reason::ALL {
                    let (d, r) = (direction as usize, reason as usize);
                    let since = now.packets[d][r].saturating_sub(before.map_or(0, |before| before[d][r]));
                    if since > 0 {
                        let counter = if reason.passes() { &metrics.flows } else { &metrics.drops };
                        let labels = [direction_name(direction), &*name.namespace, &*name.name, reason_name(reason)];
                        counter.with_label_values(&labels).inc_by(since);
                    }
                }
            }
        }
    }

    pub(super) fn view(&mut self) -> View {
        let mut pods: Vec<PodView> = self.applier.pods().map(|pod| self.view_of(pod)).collect();
        for pod in &mut pods {
            let counters = pod.ifindex.and_then(|index| self.applier.datapath.counters(index).ok().flatten());
            pod.packets = counters.as_ref().map(packets).unwrap_or_default();
        }
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let interfaces = self.applier.binder.interfaces().filter_map(|(link, assignment)| {
            let (state, reason) = match assignment {
                Assignment::Pod(_) => return None,
                Assignment::Held => {
                    let setup = if self.applier.waits_for_plugins(link.index) {
                        Some("its CNI plugins may not have returned: until then it is not attached".to_owned())
                    } else {
                        link.is_empty().then(|| "no process is in its namespace yet".to_owned())
                    };
                    ("held", self.applier.fault(link.index).map(ToString::to_string).or(setup))
                }
                Assignment::Untouched(reason) => ("untouched", Some(reason.to_string())),
                Assignment::Secondary(uid) => ("secondary", Some(format!("another interface of {uid}"))),
            };
            let (name, addresses) = (link.name.clone(), link.addresses.clone());
            Some(InterfaceView { name, ifindex: link.index, state, reason, addresses })
        });
        let interfaces = interfaces.collect();
        let bound = self.applier.binder.reports().iter().map(ToString::to_string);
        let reports = bound.chain(self.reports.texts()).collect();
        let fills = self.applier.datapath.fills().into_iter();
        View {
            version: env!("CARGO_PKG_VERSION"),
            node: self.node.clone(),
            health: self.outputs.health.borrow().clone(),
            epoch: self.applier.epoch,
            pods,
            interfaces,
            maps: fills.map(|fill| MapView { name: fill.map, used: fill.used, max: fill.max }).collect(),
            problems: self.problems.to_vec(),
            reports,
            other_engines: self.outputs.engines.sentences(),
        }
    }

    fn view_of(&self, pod: &PodTables) -> PodView {
        let ifindex = self.applier.binder.interface_of(&pod.uid);
        let direction = |table: Option<TableUse>, direction| DirectionView {
            isolated: table.is_some(),
            table: table.map(|table| format!("{:016x}", table.id)),
            policies: self.policies(pod, direction),
        };
        PodView {
            namespace: pod.name.namespace.to_string(),
            name: pod.name.name.to_string(),
            uid: pod.uid.to_string(),
            addresses: pod.addresses.clone(),
            state: self.applier.condition(&pod.uid),
            reason: ifindex.and_then(|index| self.applier.fault(index)).map(ToString::to_string),
            interface: ifindex.and_then(|index| self.link_names.get(&index).cloned()),
            ifindex,
            ingress: direction(pod.ingress, Direction::Ingress),
            egress: direction(pod.egress, Direction::Egress),
            audit: pod.audit,
            packets: BTreeMap::new(),
        }
    }
}

/// Counters by direction and reason, without those that are zero.
fn packets(counters: &Counters) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let of = |direction: Direction| {
        let counts =
            Reason::ALL.into_iter().map(|reason| (reason, counters.packets[direction as usize][reason as usize]));
        counts.filter(|(_, count)| *count > 0).map(|(reason, count)| (reason_name(reason), count)).collect()
    };
    let all = Direction::ALL.into_iter().map(|direction| (direction_name(direction), of(direction)));
    all.filter(|(_, counts): &(_, BTreeMap<_, _>)| !counts.is_empty()).collect()
}
