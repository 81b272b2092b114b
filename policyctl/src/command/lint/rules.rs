//! The checks themselves. What a policy selects is asked of [`Quick`], as explanations do.

use ipnet::IpNet;
use policy_compiler::{
    diagnostic::Kind,
    explain::Quick,
    model::{Namespace, NamespaceMatch, ObjectName, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Rule},
};

use super::{Finding, Level};
use crate::source::{State, plural};

/// Everything that is odd about a state.
pub(super) fn findings(state: &State) -> Vec<Finding> {
    let quick = Quick::new(state.cluster());
    let mut findings = Vec::new();
    for policy in state.cluster().policies.values() {
        let subjects: Vec<_> = quick.pods().filter(|pod| quick.has(&policy.subject, pod)).collect();
        let mut check = Check { state, quick: &quick, policy, subjects, findings: &mut findings };
        check.policy();
        for (ingress, rules) in [(true, &policy.ingress), (false, &policy.egress)] {
            if let Some(rules) = rules {
                check.rules(ingress, rules);
            }
        }
    }
    twins(state, &mut findings);
    without_default_deny(state, &quick, &mut findings);
    findings
}

struct Check<'a> {
    state: &'a State,
    quick: &'a Quick<'a>,
    policy: &'a Policy,
    subjects: Vec<&'a Pod>,
    findings: &'a mut Vec<Finding>,
}

impl Check<'_> {
    fn add(&mut self, code: &'static str, level: Level, field: &str, message: String) {
        let origin = self.state.cluster().origin(Kind::NetworkPolicy, &self.policy.name);
        self.findings.push(Finding {
            place: origin.map(|origin| origin.place_of(field)),
            code,
            level,
            object: format!("NetworkPolicy {}", self.policy.name),
            field: field.to_owned(),
            message,
        });
    }

    fn has_field(&self, field: &str) -> Option<bool> {
        let origin = self.state.cluster().origin(Kind::NetworkPolicy, &self.policy.name)?;
        Some(origin.fields.contains_key(field))
    }

    fn policy(&mut self) {
        if self.subjects.is_empty() {
            let message = "selects no pod of its namespace, so it does nothing; check its labels".to_owned();
            self.add("NP001", Level::Warning, "spec.podSelector", message);
        }
        for (rules, direction, name) in
            [(&self.policy.ingress, "ingress", "Ingress"), (&self.policy.egress, "egress", "Egress")]
        {
            if rules.is_none() && self.has_field(&format!("spec.{direction}[0]")) == Some(true) {
                let message = format!("has {direction} rules that do not count; add {name} to policyTypes");
                self.add("NP004", Level::Warning, &format!("spec.{direction}"), message);
            }
        }
        self.without_dns();
    }

    /// Where all egress is refused, that is meant; where some is allowed, names are looked up first.
    fn without_dns(&mut self) {
        if self.policy.egress.is_none() {
            return;
        }
        let opens_dns = |rule: &Rule| {
            rule.ports.as_ref().is_none_or(|ports| {
                ports.iter().any(|port| match port {
                    PortMatch::All(protocol) => *protocol == Protocol::Udp,
                    PortMatch::Range { protocol, first, last } => {
                        *protocol == Protocol::Udp && (*first..=*last).contains(&53)
                    }
                    // a name may stand for any number
                    PortMatch::Named(protocol, _) => *protocol == Protocol::Udp,
                    PortMatch::Nothing => false,
                })
            })
        };
        let lacks = self.subjects.iter().filter(|pod| {
            let rules: Vec<_> = self.quick.isolating(pod, false).flat_map(|(_, rules)| rules).collect();
            !rules.is_empty() && !rules.into_iter().any(opens_dns)
        });
        let count = lacks.count();
        if count > 0 && self.policy.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
            let message = {
                let pods = plural(count, "pod", "pods");
                format!("isolates {pods} for egress without a way to ask DNS (UDP/53); add a rule for it")
            };
            self.add("NP005", Level::Warning, "spec.egress", message);
        }
    }

    fn rules(&mut self, ingress: bool, rules: &[Rule]) {
        let direction = if ingress { "ingress" } else { "egress" };
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("spec.{direction}[{index}]");
            self.shadowed(rules, index, &path, direction);
            if rule.peers.is_none() && rule.ports.is_none() && rules.len() > 1 {
                let message = "allows everything, so the other rules of this direction add nothing".to_owned();
                self.add("NP016", Level::Warning, &path, message);
            }
            let peers_path = format!("{path}.{}", if ingress { "from" } else { "to" });
            self.peers(rule, &peers_path, ingress);
            for (at, port) in rule.ports.iter().flatten().enumerate() {
                self.port(rule, port, &format!("{path}.ports[{at}]"), ingress);
            }
        }
    }

    /// Another rule allows all of it; of two equal ones the later is reported.
    fn shadowed(&mut self, rules: &[Rule], index: usize, path: &str, direction: &str) {
        let rule = &rules[index];
        let by = rules.iter().enumerate().find(|(other, by)| {
            let equal = by.peers == rule.peers && by.ports == rule.ports;
            // a rule that allows everything is told as that
            let narrow = by.peers.is_some() || by.ports.is_some();
            *other != index && narrow && covers(by, rule) && (!equal || *other < index)
        });
        if let Some((other, _)) = by {
            let message = format!("adds nothing: spec.{direction}[{other}] allows all of it");
            self.add("NP003", Level::Info, path, message);
        }
    }

    fn peers(&mut self, rule: &Rule, path: &str, ingress: bool) {
        let Some(peers) = &rule.peers else {
            if ingress {
                let message = "opens to everybody, the world outside included; say whom it is for in from".to_owned();
                self.add("NP015", Level::Info, path, message);
            }
            return;
        };
        for (index, peer) in peers.iter().enumerate() {
            let at = format!("{path}[{index}]");
            match peer {
                Peer::Nobody => {}
                Peer::Block { cidr, except } => self.block(*cidr, except, &at, ingress),
                Peer::Pods(pods) => self.pods(pods, &at),
            }
            if let (Peer::Pods(one), Some(Peer::Pods(next))) = (peer, peers.get(index + 1)) {
                self.dash(one, next, &at);
            }
        }
        let blocks =
            || peers.iter().filter_map(|peer| if let Peer::Block { cidr, .. } = peer { Some(cidr) } else { None });
        let dual = self.quick.pods().any(|pod| pod.addresses.iter().any(std::net::IpAddr::is_ipv6));
        if dual && blocks().count() > 0 && blocks().all(|block| matches!(block, IpNet::V4(_))) {
            let message = "names IPv4 blocks only, but pods of this cluster have IPv6 addresses too".to_owned();
            self.add("NP010", Level::Info, path, message);
        }
    }

    fn block(&mut self, cidr: IpNet, except: &[IpNet], at: &str, ingress: bool) {
        if cidr.prefix_len() == 0 {
            if ingress && except.is_empty() {
                let message = format!("opens to the whole world ({cidr})");
                self.add("NP015", Level::Info, at, message);
            }
            return;
        }
        let holds = |pod: &&Pod| {
            pod.addresses.iter().any(|ip| cidr.contains(ip) && !except.iter().any(|except| except.contains(ip)))
        };
        let count = self.quick.pods().filter(holds).count();
        if count > 0 {
            let message = {
                let pods = plural(count, "pod", "pods");
                format!("{cidr} holds addresses of {pods}, which change; name pods by their labels")
            };
            self.add("NP009", Level::Info, at, message);
        }
    }

    fn pods(&mut self, pods: &PodMatch, at: &str) {
        let namespaces = &self.state.cluster().namespaces;
        if let NamespaceMatch::Labels(selector) = &pods.namespaces
            && !namespaces.values().any(|namespace: &Namespace| selector.matches(&namespace.labels))
        {
            let message = "matches no namespace; check the namespaces' labels".to_owned();
            self.add("NP011", Level::Warning, &format!("{at}.namespaceSelector"), message);
        } else if !self.quick.pods().any(|pod| self.quick.has(pods, pod)) {
            self.add("NP002", Level::Warning, at, "matches no pod now; check its labels".to_owned());
        }
    }

    fn dash(&mut self, one: &PodMatch, next: &PodMatch, at: &str) {
        let is_namespaces = |pods: &PodMatch| {
            let named =
                matches!(&pods.namespaces, NamespaceMatch::Labels(selector) if !selector.requirements.is_empty());
            named && pods.pods.requirements.is_empty()
        };
        let is_pods =
            |pods: &PodMatch| matches!(pods.namespaces, NamespaceMatch::Name(_)) && !pods.pods.requirements.is_empty();
        if (is_namespaces(one) && is_pods(next)) || (is_pods(one) && is_namespaces(next)) {
            let message = "this element and the next are two peers: all pods of those namespaces, or those pods of this \
                           one; if pods of those namespaces are meant, take the second dash away";
            self.add("NP007", Level::Warning, at, message.to_owned());
        }
    }

    fn port(&mut self, rule: &Rule, port: &PortMatch, at: &str, ingress: bool) {
        match port {
            PortMatch::Named(protocol, name) => {
                let has = |pod: &Pod| pod.ports.iter().any(|own| own.name == *name && own.protocol == *protocol);
                let somebody = if ingress {
                    self.subjects.is_empty() || self.subjects.iter().any(|pod| has(pod))
                } else {
                    self.quick.pods().any(|pod| has(pod) && self.is_peer(rule, pod))
                };
                if !somebody {
                    let whose = if ingress { "pod that the policy selects" } else { "pod that the rule is about" };
                    let message = format!("no {whose} has a {protocol} port named {name:?}");
                    self.add("NP006", Level::Warning, at, message);
                }
            }
            PortMatch::Range { protocol: Protocol::Tcp, first, last } if first == last && ingress => {
                let serves = |wanted| {
                    let own =
                        move |pod: &&Pod| pod.ports.iter().any(|own| own.number == *first && own.protocol == wanted);
                    self.subjects.iter().copied().any(|pod| own(&pod))
                };
                let unsaid = self.has_field(&format!("{at}.protocol")) == Some(false);
                if unsaid && serves(Protocol::Udp) && !serves(Protocol::Tcp) {
                    let message = format!("means TCP/{first}, but the pods serve it over UDP; add protocol: UDP");
                    self.add("NP008", Level::Warning, at, message);
                }
            }
            _ => {}
        }
    }

    fn is_peer(&self, rule: &Rule, pod: &Pod) -> bool {
        rule.peers.as_ref().is_none_or(|peers| {
            peers.iter().any(|peer| {
                pod.addresses.iter().any(|address| {
                    self.quick.is(peer, policy_compiler::explain::Other { pod: Some(pod), address: *address })
                })
            })
        })
    }
}

/// Whether `by` plainly allows all that `rule` does.
fn covers(by: &Rule, rule: &Rule) -> bool {
    let peers = match (&by.peers, &rule.peers) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(by), Some(own)) => own.iter().all(|peer| by.contains(peer)),
    };
    let port_covers = |by: &PortMatch, port: &PortMatch| match (by, port) {
        (
            PortMatch::All(by),
            PortMatch::All(own) | PortMatch::Named(own, _) | PortMatch::Range { protocol: own, .. },
        ) => by == own,
        (PortMatch::Range { protocol, first, last }, PortMatch::Range { protocol: own, first: from, last: to }) => {
            protocol == own && first <= from && to <= last
        }
        _ => by == port,
    };
    peers
        && match (&by.ports, &rule.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(by), Some(own)) => own.iter().all(|port| by.iter().any(|by| port_covers(by, port))),
        }
}

/// Policies of one namespace that say the same under two names.
fn twins(state: &State, findings: &mut Vec<Finding>) {
    let policies: Vec<_> = state.cluster().policies.values().collect();
    for (index, policy) in policies.iter().enumerate() {
        let same = |other: &&&Policy| {
            other.name.namespace == policy.name.namespace
                && other.subject == policy.subject
                && other.ingress == policy.ingress
                && other.egress == policy.egress
        };
        if let Some(first) = policies[..index].iter().find(same) {
            let origin = state.cluster().origin(Kind::NetworkPolicy, &policy.name);
            findings.push(Finding {
                place: origin.map(|origin| origin.place.clone()),
                code: "NP013",
                level: Level::Warning,
                object: format!("NetworkPolicy {}", policy.name),
                field: String::new(),
                message: format!("says the same as {}; remove one", first.name),
            });
        }
    }
}

fn without_default_deny(state: &State, quick: &Quick<'_>, findings: &mut Vec<Finding>) {
    for namespace in state.cluster().namespaces.keys() {
        let has_pods = quick.pods().any(|pod| pod.name.namespace == *namespace);
        let denies = |policy: &Policy| {
            policy.name.namespace == *namespace
                && policy.ingress.is_some()
                && policy.subject.pods.requirements.is_empty()
        };
        if has_pods && !state.cluster().policies.values().any(denies) {
            let name = ObjectName::new("", namespace.clone());
            findings.push(Finding {
                place: state.cluster().origin(Kind::Namespace, &name).map(|origin| origin.place.clone()),
                code: "NP014",
                level: Level::Warning,
                object: format!("Namespace {namespace}"),
                field: String::new(),
                message: "pods that no policy selects are open here; add a policy with podSelector: {}".to_owned(),
            });
        }
    }
}
