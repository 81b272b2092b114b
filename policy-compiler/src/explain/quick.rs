//! Verdicts without reasons: [`Quick`], for questions that ask about many connections, or what an edit would change.

use std::{collections::BTreeMap, net::IpAddr, rc::Rc, sync::Arc};

use crate::{
    cluster::Cluster,
    model::{Event, Namespace, NamespaceMatch, ObjectName, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Rule},
};

/// A cluster that edits can be tried on; what was edited lies on top of it. Pods are those with a network of their own.
#[derive(Clone, Debug)]
pub struct Quick<'a> {
    cluster: &'a Cluster,
    policies: Rc<BTreeMap<&'a str, Vec<&'a Policy>>>,
    new_namespaces: BTreeMap<Arc<str>, Namespace>,
    new_pods: BTreeMap<ObjectName, Pod>,
    new_policies: BTreeMap<ObjectName, Policy>,
}

/// The other end of a connection, as a pod's rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// The pod that it is, if selectors may match it.
    pub pod: Option<&'a Pod>,
    /// Its address.
    pub address: IpAddr,
}

impl<'a> Quick<'a> {
    /// The cluster as it is.
    #[must_use]
    pub fn new(cluster: &'a Cluster) -> Self {
        let mut policies: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for policy in cluster.policies.values() {
            policies.entry(&policy.name.namespace).or_default().push(policy);
        }
        Self {
            cluster,
            policies: Rc::new(policies),
            new_namespaces: BTreeMap::new(),
            new_pods: BTreeMap::new(),
            new_policies: BTreeMap::new(),
        }
    }

    /// The pods, as edited.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.cluster.pods.values().filter(|pod| has_network(pod)).map(|pod| self.edited(pod).unwrap_or(pod))
    }

    /// A pod, as edited.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Pod> {
        let pod = self.cluster.pods.get(name).filter(|pod| has_network(pod))?;
        Some(self.edited(pod).unwrap_or(pod))
    }

    /// A pod after its edit, if there is one.
    pub(super) fn edited(&self, pod: &Pod) -> Option<&Pod> {
        self.new_pods.get(&pod.name)
    }

    /// The pods of a namespace, as edited.
    pub(super) fn pods_in(&self, namespace: &Arc<str>) -> impl Iterator<Item = &Pod> {
        let from = ObjectName::new(namespace.clone(), "");
        let all =
            self.cluster.pods.range(from..).map(|(_, pod)| pod).take_while(move |pod| pod.name.namespace == *namespace);
        all.filter(|pod| has_network(pod)).map(|pod| self.edited(pod).unwrap_or(pod))
    }

    /// Edits a pod that is there or a namespace, edits or adds a policy; other events change nothing.
    pub fn put(&mut self, event: &Event) {
        match event.clone() {
            Event::PutPolicy(policy) => drop(self.new_policies.insert(policy.name.clone(), policy)),
            Event::PutPod(pod) => drop(self.new_pods.insert(pod.name.clone(), pod)),
            Event::PutNamespace(namespace) => drop(self.new_namespaces.insert(namespace.name.clone(), namespace)),
            _ => {}
        }
    }

    /// The policies that isolate `pod` in one direction, with their rules.
    pub fn isolating<'b>(&'b self, pod: &'b Pod, ingress: bool) -> impl Iterator<Item = (&'b Policy, &'b [Rule])> {
        let own = self.policies.get(&*pod.name.namespace).map(|list| &**list).unwrap_or_default();
        let old = own.iter().copied().filter(|policy| !self.new_policies.contains_key(&policy.name));
        let new = self.new_policies.values().filter(|policy| policy.name.namespace == pod.name.namespace);
        old.chain(new).filter_map(move |policy| {
            let rules = if ingress { policy.ingress.as_deref() } else { policy.egress.as_deref() }?;
            self.has(&policy.subject, pod).then_some((policy, rules))
        })
    }

    /// Whether the rules of `pod` let a connection through; `None` if nothing isolates it in this direction.
    #[must_use]
    pub fn side(&self, pod: &Pod, ingress: bool, other: Other<'_>, port: Option<(Protocol, u16)>) -> Option<bool> {
        let mut isolated = None;
        for (_, rules) in self.isolating(pod, ingress) {
            if rules.iter().any(|rule| self.allows(rule, pod, ingress, other, port)) {
                return Some(true);
            }
            isolated = Some(false);
        }
        isolated
    }

    /// Whether a connection between two pods passes both sides. A pod reaches itself.
    #[must_use]
    pub fn passes(&self, source: &Pod, destination: &Pod, port: Option<(Protocol, u16)>) -> bool {
        if source.name == destination.name {
            return true;
        }
        source.addresses.iter().any(|from| {
            let to = destination.addresses.iter().find(|to| to.is_ipv4() == from.is_ipv4());
            to.is_some_and(|to| {
                let (from, to) =
                    (Other { pod: Some(source), address: *from }, Other { pod: Some(destination), address: *to });
                self.side(source, false, to, port) != Some(false)
                    && self.side(destination, true, from, port) != Some(false)
            })
        })
    }

    /// Whether a rule of a policy that isolates `pod` lets a connection through.
    pub(super) fn allows(
        &self,
        rule: &Rule,
        pod: &Pod,
        ingress: bool,
        other: Other<'_>,
        port: Option<(Protocol, u16)>,
    ) -> bool {
        let named_on = if ingress { Some(pod) } else { other.pod };
        let ports = rule.ports.as_ref().is_none_or(|ports| ports.iter().any(|entry| opens(entry, named_on, port)));
        ports && self.is_peer(rule, other)
    }

    /// Whether a rule is about the other end.
    pub(super) fn is_peer(&self, rule: &Rule, other: Other<'_>) -> bool {
        rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| self.is(peer, other)))
    }

    /// Whether a peer of a rule is the other end.
    #[must_use]
    pub fn is(&self, peer: &Peer, other: Other<'_>) -> bool {
        match peer {
            Peer::Nobody => false,
            Peer::Block { cidr, except } => {
                cidr.contains(&other.address) && !except.iter().any(|except| except.contains(&other.address))
            }
            Peer::Pods(pods) => other.pod.is_some_and(|pod| self.has(pods, pod)),
        }
    }

    fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.new_namespaces.get(name).or_else(|| self.cluster.namespaces.get(name))
    }

    /// Whether a selector of pods matches one.
    #[must_use]
    pub fn has(&self, pods: &PodMatch, pod: &Pod) -> bool {
        let in_namespace = match &pods.namespaces {
            NamespaceMatch::Name(name) => *name == pod.name.namespace,
            NamespaceMatch::Labels(selector) => {
                self.namespace(&pod.name.namespace).is_some_and(|namespace| selector.matches(&namespace.labels))
            }
        };
        in_namespace && pods.pods.matches(&pod.labels)
    }
}

const fn has_network(pod: &Pod) -> bool {
    !pod.host_network && !pod.ended
}

/// Whether an entry of `ports` is this port; `named_on` has the names.
pub(super) fn opens(entry: &PortMatch, named_on: Option<&Pod>, port: Option<(Protocol, u16)>) -> bool {
    let Some((asked, number)) = port else { return false };
    match entry {
        PortMatch::Nothing => false,
        PortMatch::All(protocol) => *protocol == asked,
        PortMatch::Range { protocol, first, last } => *protocol == asked && (*first..=*last).contains(&number),
        PortMatch::Named(protocol, name) => {
            *protocol == asked
                && named_on.is_some_and(|pod| {
                    pod.ports.iter().any(|own| own.protocol == asked && own.name == *name && own.number == number)
                })
        }
    }
}
