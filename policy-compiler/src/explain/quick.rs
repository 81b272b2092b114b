//! Verdicts without reasons: [`Quick`], for questions that ask about many connections, or what an edit would change.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    cluster::Cluster,
    model::{Namespace, NamespaceMatch, ObjectName, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Rule},
};

/// A cluster that edits can be tried on. Pods are those with a network of their own.
#[derive(Clone, Debug)]
pub struct Quick<'a> {
    namespaces: BTreeMap<Arc<str>, Cow<'a, Namespace>>,
    pods: BTreeMap<&'a ObjectName, Cow<'a, Pod>>,
    policies: BTreeMap<&'a str, Vec<Cow<'a, Policy>>>,
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
            policies.entry(&policy.name.namespace).or_default().push(Cow::Borrowed(policy));
        }
        let own = cluster.pods.iter().filter(|(_, pod)| !pod.host_network && !pod.ended);
        Self {
            namespaces: cluster.namespaces.iter().map(|(name, found)| (name.clone(), Cow::Borrowed(found))).collect(),
            pods: own.map(|(name, pod)| (name, Cow::Borrowed(pod))).collect(),
            policies,
        }
    }

    /// The pods, as edited.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(|pod| &**pod)
    }

    /// A pod, as edited.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Pod> {
        self.pods.get(name).map(|pod| &**pod)
    }

    /// Replaces a policy, or adds one.
    pub fn put_policy(&mut self, namespace: &'a str, policy: Policy) {
        let list = self.policies.entry(namespace).or_default();
        match list.iter_mut().find(|known| known.name == policy.name) {
            Some(known) => *known = Cow::Owned(policy),
            None => list.push(Cow::Owned(policy)),
        }
    }

    /// Gives a pod a label.
    pub fn label_pod(&mut self, name: &ObjectName, key: &Arc<str>, value: &Arc<str>) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.to_mut().labels.insert(key.clone(), value.clone());
        }
    }

    /// Gives a namespace a label.
    pub fn label_namespace(&mut self, name: &str, key: &Arc<str>, value: &Arc<str>) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.to_mut().labels.insert(key.clone(), value.clone());
        }
    }

    /// The policies that isolate `pod` in one direction, with their rules.
    pub fn isolating<'b>(&'b self, pod: &'b Pod, ingress: bool) -> impl Iterator<Item = (&'b Policy, &'b [Rule])> {
        let own = self.policies.get(&*pod.name.namespace).map(|list| &**list).unwrap_or_default();
        own.iter().filter_map(move |policy| {
            let rules = if ingress { policy.ingress.as_deref() } else { policy.egress.as_deref() }?;
            self.has(&policy.subject, pod).then_some((&**policy, rules))
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

    fn allows(&self, rule: &Rule, pod: &Pod, ingress: bool, other: Other<'_>, port: Option<(Protocol, u16)>) -> bool {
        let named_on = if ingress { Some(pod) } else { other.pod };
        let ports = rule.ports.as_ref().is_none_or(|ports| ports.iter().any(|entry| opens(entry, named_on, port)));
        ports && rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| self.is(peer, other)))
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

    /// Whether a selector of pods matches one.
    #[must_use]
    pub fn has(&self, pods: &PodMatch, pod: &Pod) -> bool {
        let in_namespace = match &pods.namespaces {
            NamespaceMatch::Name(name) => *name == pod.name.namespace,
            NamespaceMatch::Labels(selector) => {
                self.namespaces.get(&pod.name.namespace).is_some_and(|namespace| selector.matches(&namespace.labels))
            }
        };
        in_namespace && pods.pods.matches(&pod.labels)
    }
}

fn opens(entry: &PortMatch, named_on: Option<&Pod>, port: Option<(Protocol, u16)>) -> bool {
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
