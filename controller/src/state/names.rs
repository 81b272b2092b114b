//! Names for what packets carry: which pod is behind an interface, which pod has an address. Written by the state's
//! task, read by whoever reports events.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use enforcer_abi::{Direction, Event as PacketEvent};
use policy_compiler::{Event, model::ObjectName};
use rustc_hash::FxHashMap;

use crate::report::Names;

/// Shared names.
#[derive(Debug, Default)]
pub struct Directory {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    interfaces: BTreeMap<u32, Interface>,
    addresses: FxHashMap<IpAddr, ObjectName>,
    pods: FxHashMap<ObjectName, Vec<IpAddr>>,
}

/// An interface and the pod behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) pod: Option<ObjectName>,
    pub(super) ingress: Vec<String>,
    pub(super) egress: Vec<String>,
}

impl Directory {
    /// The names for an event.
    pub fn of(&self, event: &PacketEvent) -> Names {
        let inner = self.read();
        let remote = inner.addresses.get(&event.remote.into()).map(ToString::to_string);
        let Some(interface) = inner.interfaces.get(&event.ifindex) else {
            return Names { interface: format!("#{}", event.ifindex), remote, ..Names::default() };
        };
        let egress = event.direction == Direction::Egress as u8;
        Names {
            interface: interface.name.clone(),
            pod: interface.pod.as_ref().map(ToString::to_string),
            remote,
            policies: if egress { &interface.egress } else { &interface.ingress }.clone(),
        }
    }

    /// Pods that came, changed and went, on any node.
    pub(super) fn follow(&self, events: &[Event]) {
        let mut inner = self.write();
        for event in events {
            match event {
                Event::PutPod(pod) => {
                    inner.forget(&pod.name);
                    if !pod.host_network && !pod.ended {
                        for address in &pod.addresses {
                            inner.addresses.insert(*address, pod.name.clone());
                        }
                        inner.pods.insert(pod.name.clone(), pod.addresses.clone());
                    }
                }
                Event::DeletePod(name) => inner.forget(name),
                _ => {}
            }
        }
    }

    /// All interfaces as they are now.
    pub(super) fn set_interfaces(&self, interfaces: BTreeMap<u32, Interface>) {
        self.write().interfaces = interfaces;
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // names are for people: half an update is better than none
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, pod: &ObjectName) {
        for address in self.pods.remove(pod).unwrap_or_default() {
            // unless another pod has taken it over
            if self.addresses.get(&address) == Some(pod) {
                self.addresses.remove(&address);
            }
        }
    }
}
