//! Services, as far as pods see them: front ends, and for each the classes and ports of the back ends that kube-proxy
//! would lead to. [`Services`] keeps both; whether a table opens a front end is the compiler's business.

mod targets;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_abi::{Address, ClassId, FrontEndKey, FrontEndState, FrontEndValue, TableId};
use roaring::RoaringBitmap;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use targets::Targets;

use crate::{
    class::addresses::{AddressId, Addresses},
    index::slab::Slab,
    model::{Endpoint, EndpointPort, EndpointSlice, ObjectName, Protocol, Service},
};

pub(crate) type ServiceId = u32;
pub(crate) type SliceId = u32;
pub(crate) type FrontEndId = u32;

/// Address ([`Address::node_port`] for a node port), port and protocol of a front end.
pub(crate) type FrontEndName = (Address, u16, Protocol);

/// All that a table needs to know of a back end: its class, port and protocol.
pub(crate) type Target = (ClassId, u16, Protocol);

/// Addresses and ports of back ends.
type BackEnds = SmallVec<[(AddressId, u16); 8]>;

#[derive(Debug, Default)]
pub(crate) struct Services {
    entries: Slab<ServiceEntry>,
    ids: FxHashMap<ObjectName, ServiceId>,
    slices: Slab<Slice>,
    slice_ids: FxHashMap<ObjectName, SliceId>,
    front_ends: Slab<FrontEnd>,
    front_end_ids: BTreeMap<FrontEndName, FrontEndId>,
    /// Those whose back ends, or their classes, may have changed.
    stale: FxHashSet<ServiceId>,
    /// Front ends that have changed themselves: who has them, or what their address is.
    altered: FxHashSet<FrontEndId>,
    /// Front ends by what their back ends are to a table, so that a new table only looks at those that it opens.
    by_target: Targets,
    /// Front ends whose entry is needed even if they are closed: those that aren't cluster IPs'.
    spelt_out: RoaringBitmap,
}

/// A Service, or slices that wait for one.
#[derive(Debug)]
struct ServiceEntry {
    name: ObjectName,
    service: Option<Service>,
    slices: Vec<SliceId>,
    front_ends: Vec<FrontEndId>,
}

#[derive(Debug)]
struct Slice {
    slice: ObjectName,
    service: ServiceId,
    ports: Box<[EndpointPort]>,
    ends: Box<[BackEnd]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BackEnd {
    address: AddressId,
    is_v4: bool,
    is_ready: bool,
    /// It serves while it terminates.
    is_fallback: bool,
    is_on_this_node: bool,
}

#[derive(Debug)]
pub(crate) struct FrontEnd {
    pub(crate) name: FrontEndName,
    /// The Services that have it; more than one only where they quarrel.
    uses: SmallVec<[Use; 1]>,
    /// Its back ends, sorted, without duplicates.
    pub(crate) targets: Vec<Target>,
}

/// A front end that is to be judged again.
#[derive(Debug)]
pub(crate) struct Unjudged {
    pub(crate) id: FrontEndId,
    /// The back ends that it had so far.
    pub(crate) old_targets: Vec<Target>,
    /// It may have become something else to all tables, even to those that know nothing of its back ends' classes.
    pub(crate) for_all: bool,
}

/// How a Service uses a front end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    service: ServiceId,
    port: Arc<str>,
    /// Back ends of this family only.
    is_v4: bool,
    /// Back ends on this node only.
    is_local: bool,
}

impl Services {
    /// Stores a Service, or removes it.
    pub(crate) fn set_service(&mut self, name: &ObjectName, new: Option<Service>, addresses: &mut Addresses) {
        let Some(id) = self.ids.get(name).copied().or_else(|| new.is_some().then(|| self.entry(name))) else {
            return;
        };
        if self.entries[id].service == new {
            return;
        }
        let old = std::mem::replace(&mut self.entries[id].service, new.clone());
        for front_end in std::mem::take(&mut self.entries[id].front_ends) {
            self.front_ends[front_end].uses.retain(|user| user.service != id);
            self.altered.insert(front_end);
        }
        for (service, is_new) in [(&new, true), (&old, false)] {
            let Some(service) = service else { continue };
            let count = |count: &mut u32| *count = if is_new { *count + 1 } else { *count - 1 };
            for address in &service.cluster_ips {
                let id = addresses.touch_address(*address);
                count(&mut addresses.get_mut(id).cluster_ips);
                // whether closed front ends are written depends on what the address is
                let own = self.front_end_ids.range(names_at((*address).into())).map(|(_, id)| *id);
                self.altered.extend(own);
            }
            for address in &service.external_ips {
                let id = addresses.touch_address(*address);
                count(&mut addresses.get_mut(id).external_ips);
            }
        }
        if let Some(service) = &new {
            self.add_front_ends(id, service);
        }
        self.stale.insert(id);
        self.forget_if_unused(id);
    }

    fn entry(&mut self, name: &ObjectName) -> ServiceId {
        *self.ids.entry(name.clone()).or_insert_with(|| {
            let (slices, front_ends) = (Vec::new(), Vec::new());
            self.entries.insert(ServiceEntry { name: name.clone(), service: None, slices, front_ends })
        })
    }

    fn forget_if_unused(&mut self, id: ServiceId) {
        let entry = &self.entries[id];
        if entry.service.is_none() && entry.slices.is_empty() {
            self.ids.remove(&entry.name);
            self.entries.remove(id);
            self.stale.remove(&id);
        }
    }

    fn add_front_ends(&mut self, id: ServiceId, service: &Service) {
        for port in &service.ports {
            let mut add = |address: Address, number: u16, is_local: bool| {
                let name = (address, number, port.protocol);
                let front_end = *self.front_end_ids.entry(name).or_insert_with(|| {
                    self.front_ends.insert(FrontEnd { name, uses: SmallVec::new(), targets: Vec::new() })
                });
                let is_v4 = address.is_v4();
                let user = Use { service: id, port: port.name.clone(), is_v4, is_local };
                self.front_ends[front_end].uses.push(user);
                self.altered.insert(front_end);
                self.entries[id].front_ends.push(front_end);
            };
            service.cluster_ips.iter().for_each(|address| add((*address).into(), port.port, service.internal_local));
            service.external_ips.iter().for_each(|address| add((*address).into(), port.port, false));
            for address in [Address::NODE_PORT_V4, Address::NODE_PORT_V6] {
                port.node_port.into_iter().for_each(|number| add(address, number, false));
            }
        }
    }

    /// Stores a slice, or removes it.
    pub(crate) fn set_slice(
        &mut self,
        name: &ObjectName,
        new: Option<EndpointSlice>,
        node: &str,
        addresses: &mut Addresses,
    ) {
        let old = self.slice_ids.get(name).copied();
        if let Some(slice) = new {
            let service = self.entry(&ObjectName::new(name.namespace.clone(), slice.service));
            let ends: Box<[BackEnd]> = slice
                .endpoints
                .iter()
                .filter_map(|end| {
                    // kube-proxy uses the first address
                    let address = end.addresses.first()?;
                    Some(BackEnd {
                        address: addresses.touch_address(*address),
                        is_v4: address.is_ipv4(),
                        is_ready: end.ready,
                        is_fallback: end.serving && end.terminating,
                        is_on_this_node: end.node.as_deref() == Some(node),
                    })
                })
                .collect();
            let entry = Slice { slice: name.clone(), service, ports: slice.ports.into(), ends };
            let id = self.slices.insert(entry);
            for end in &self.slices[id].ends {
                addresses.get_mut(end.address).slices.push(id);
            }
            self.entries[service].slices.push(id);
            self.slice_ids.insert(name.clone(), id);
            self.stale.insert(service);
        }
        if let Some(slice) = old.and_then(|id| Some((id, self.slices.remove(id)?))) {
            self.forget_slice(slice, addresses);
        }
    }

    fn forget_slice(&mut self, (id, slice): (SliceId, Slice), addresses: &mut Addresses) {
        if self.slice_ids.get(&slice.slice) == Some(&id) {
            self.slice_ids.remove(&slice.slice);
        }
        for end in &slice.ends {
            addresses.touch(end.address);
            let slices = &mut addresses.get_mut(end.address).slices;
            if let Some(place) = slices.iter().position(|other| *other == id) {
                slices.swap_remove(place);
            }
        }
        self.entries[slice.service].slices.retain(|other| *other != id);
        self.stale.insert(slice.service);
        self.forget_if_unused(slice.service);
    }

    /// The Services from an id on.
    pub(crate) fn known_services(&self, from: ServiceId) -> impl Iterator<Item = (u32, &Service)> {
        self.entries.from(from).filter_map(|(id, entry)| Some((id, entry.service.as_ref()?)))
    }

    /// The slices from an id on. `seat` says of a back end's address what it is, which node the pod is on that has it,
    /// and which is this node.
    pub(crate) fn known_slices<'a>(
        &'a self,
        from: SliceId,
        seat: impl Fn(AddressId) -> (IpAddr, Option<Arc<str>>, &'a Arc<str>) + 'a,
    ) -> impl Iterator<Item = (u32, EndpointSlice)> + 'a {
        self.slices.from(from).map(move |(id, slice)| {
            let endpoint = |end: &BackEnd| {
                let (address, node, here) = seat(end.address);
                let node = if end.is_on_this_node { Some(here.clone()) } else { node.filter(|node| node != here) };
                Endpoint {
                    addresses: vec![address],
                    ready: end.is_ready,
                    serving: end.is_ready || end.is_fallback,
                    terminating: end.is_fallback,
                    node,
                }
            };
            let endpoints = slice.ends.iter().map(endpoint).collect();
            let (name, ports) = (slice.slice.clone(), slice.ports.to_vec());
            (id, EndpointSlice { name, service: self.entries[slice.service].name.name.clone(), ports, endpoints })
        })
    }

    /// The class of a back end in these slices has changed.
    pub(crate) fn note_class(&mut self, slices: &[SliceId]) {
        self.stale.extend(slices.iter().map(|id| self.slices[*id].service));
    }

    /// Finds the back ends of Services that may have others than before, and answers with the front ends that are to be
    /// judged again.
    pub(crate) fn refresh(&mut self, addresses: &Addresses) -> Vec<Unjudged> {
        let altered = std::mem::take(&mut self.altered);
        let stale = std::mem::take(&mut self.stale);
        let of_stale = stale.iter().filter_map(|id| self.entries.get(*id)).flat_map(|entry| &entry.front_ends);
        let mut front_ends: Vec<FrontEndId> = of_stale.chain(&altered).copied().collect();
        front_ends.sort_unstable();
        front_ends.dedup();
        let mut changed = Vec::new();
        for id in front_ends {
            let front_end = &self.front_ends[id];
            let (address, _, protocol) = front_end.name;
            let back_ends = front_end.uses.iter().flat_map(|user| self.back_ends(user, protocol));
            let mut targets: SmallVec<[Target; 8]> =
                back_ends.map(|(address, port)| (addresses.get(address).class, port, protocol)).collect();
            targets.sort_unstable();
            targets.dedup();
            let is_altered = altered.contains(&id);
            if is_altered {
                if addresses.find(address).is_some_and(|entry| entry.cluster_ips > 0) {
                    self.spelt_out.remove(id);
                } else {
                    self.spelt_out.insert(id);
                }
            }
            if is_altered || *targets != *self.front_ends[id].targets {
                let old_targets = self.set_targets(id, targets.to_vec());
                let for_all = is_altered || ports(&old_targets) != ports(&self.front_ends[id].targets);
                changed.push(Unjudged { id, old_targets, for_all });
            }
        }
        changed
    }

    /// Answers with what it had.
    fn set_targets(&mut self, id: FrontEndId, new: Vec<Target>) -> Vec<Target> {
        let old = std::mem::take(&mut self.front_ends[id].targets);
        for target in old.iter().filter(|target| new.binary_search(target).is_err()) {
            self.by_target.remove(*target, id);
        }
        for target in new.iter().filter(|target| old.binary_search(target).is_err()) {
            self.by_target.insert(*target, id);
        }
        self.front_ends[id].targets = new;
        old
    }

    /// The front ends that need an entry in a table that `opens` some targets, and knows these classes.
    pub(crate) fn with_entry(
        &self,
        classes: &[ClassId],
        opens_to_everybody: impl Fn(u16, Protocol) -> bool,
        opens: impl FnMut(&Target) -> bool,
    ) -> RoaringBitmap {
        self.by_target.opened(classes, opens_to_everybody, opens) | &self.spelt_out
    }

    /// The back ends that kube-proxy would use: the ready ones, or if there are none those that serve while terminating
    /// (k8s.io/kubernetes pkg/proxy/topology.go, `CategorizeEndpoints`).
    fn back_ends(&self, user: &Use, protocol: Protocol) -> BackEnds {
        let (mut ready, mut fallback) = (BackEnds::new(), BackEnds::new());
        for slice in self.entries[user.service].slices.iter().map(|id| &self.slices[*id]) {
            for port in slice.ports.iter().filter(|port| port.name == user.port && port.protocol == protocol) {
                let family_fits = |end: &&BackEnd| user.is_v4 == end.is_v4;
                let node_fits = |end: &&BackEnd| !user.is_local || end.is_on_this_node;
                for end in slice.ends.iter().filter(family_fits).filter(node_fits) {
                    if end.is_ready {
                        ready.push((end.address, port.number));
                    } else if end.is_fallback {
                        fallback.push((end.address, port.number));
                    }
                }
            }
        }
        if ready.is_empty() { fallback } else { ready }
    }

    pub(crate) fn front_end(&self, id: FrontEndId) -> &FrontEnd {
        &self.front_ends[id]
    }

    pub(crate) fn find(&self, name: FrontEndName) -> Option<FrontEndId> {
        self.front_end_ids.get(&name).copied()
    }

    /// The front ends of an address.
    pub(crate) fn at(&self, address: Address) -> impl Iterator<Item = (FrontEndId, &FrontEnd)> {
        self.front_end_ids.range(names_at(address)).map(|(_, id)| (*id, &self.front_ends[*id]))
    }

    /// Some Service has it.
    pub(crate) fn is_used(&self, id: FrontEndId) -> bool {
        self.front_ends.get(id).is_some_and(|front_end| !front_end.uses.is_empty())
    }

    /// Its entry is needed even if it is closed.
    pub(crate) fn is_spelt_out(&self, id: FrontEndId) -> bool {
        self.spelt_out.contains(id)
    }

    /// The Services that have a front end, with their back ends there.
    pub(crate) fn users(&self, id: FrontEndId) -> Vec<(&ObjectName, BackEnds)> {
        let front_end = &self.front_ends[id];
        let users = front_end.uses.iter();
        users.map(|user| (&self.entries[user.service].name, self.back_ends(user, front_end.name.2))).collect()
    }

    /// The front ends of a Service.
    pub(crate) fn of_service(&self, name: &ObjectName) -> &[FrontEndId] {
        self.ids.get(name).map_or(&[], |id| &self.entries[*id].front_ends)
    }

    /// Forgets a front end, if no Service has it.
    pub(crate) fn forget_front_end(&mut self, id: FrontEndId) {
        if !self.is_used(id)
            && let Some(front_end) = self.front_ends.remove(id)
        {
            self.front_end_ids.remove(&front_end.name);
            self.spelt_out.remove(id);
        }
    }
}

/// The ports of targets of one protocol.
fn ports(targets: &[Target]) -> SmallVec<[u16; 4]> {
    let mut ports: SmallVec<[u16; 4]> = targets.iter().map(|(_, port, _)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn names_at(address: Address) -> std::ops::RangeInclusive<FrontEndName> {
    (address, 0, Protocol::Tcp)..=(address, u16::MAX, Protocol::Sctp)
}

/// The key of a front end as one table sees it.
pub(crate) fn key(table: TableId, (address, port, protocol): FrontEndName) -> FrontEndKey {
    FrontEndKey { table, address, port, protocol: protocol.number(), reserved: [0; 5] }
}

/// The entry of a front end.
pub(crate) fn value(table: TableId, name: FrontEndName, state: FrontEndState) -> FrontEndValue {
    FrontEndValue { key: key(table, name), state: state as u32, reserved: 0 }
}
