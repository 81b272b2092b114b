//! `policyctl exposure`: which ports are open to any pod of the namespace, of any namespace, and to the world, and what
//! no policy protects.
//!
//! *Any pod* is more than the pods that there are: a pod without labels, and one for each label that the policies of the
//! pod in question tell apart, in the namespaces that there are and in some that there are not. All of them have to be
//! let in. They are judged by the compiler, as pods that exist are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use policy_compiler::{
    explain::{End, Other, Quick},
    model::{Labels, Namespace, NamespaceMatch, ObjectName, Peer, Pod, Requirement, Rule, Selector},
    reach::{PortRange, port_ranges},
};
use serde_json::{Value, json};

use super::units::{Between, unit_of};
use crate::{
    Outcome, Status, end,
    format::{self, Answer, Table},
    port::{representative, summary},
    source::{self, State, plural},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
For each workload and direction:
  PROTECTED      yes if a policy isolates all of its pods, some if a policy isolates some of them
  OWN NAMESPACE  the ports that are open to (egress: at) any pod of its own namespace, whatever its labels
  ANY NAMESPACE  the ports that are open to any pod of any namespace
  WORLD          the ports that are open to every address outside of the cluster
This is about one side of a connection: the other one may still refuse it.";

/// Flags of `exposure`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state: source::Scoped,
    #[command(flatten)]
    format: format::Args,
}

/// What one direction of a workload is open to.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    pods: usize,
    /// So many of them are isolated by a policy.
    isolated: usize,
    /// Any pod of its own namespace.
    pub(crate) own: Between,
    /// Any pod at all.
    pub(crate) any: Between,
    /// All of the world; `some` are open to a part of it or of the workload only.
    pub(crate) world: Between,
}

impl Exposure {
    const fn protected(&self) -> &'static str {
        match self.isolated {
            0 => "no",
            some if some == self.pods => "yes",
            _ => "some",
        }
    }

    fn json(&self) -> Value {
        let ports = |between: &Between| json!({"ports": summary(&between.all), "portsOfSome": summary(&between.some)});
        json!({
            "protected": self.protected(),
            "ownNamespace": ports(&self.own), "anyNamespace": ports(&self.any), "world": ports(&self.world),
        })
    }
}

/// Answers.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut state = source::read_scoped(&args.state)?;
    let strangers = Strangers::new(&mut state);
    let workloads = strangers.judge(&state);
    let answer = answer(&workloads, &state);
    answer.print(&args.format)?;
    format::ended(&state, Status::Answered)
}

/// Ends that nobody knows, and what is asked about them.
struct Strangers {
    addresses: Vec<IpAddr>,
    namespaces: Vec<Arc<str>>,
    /// Public addresses, one for each way in which policies tell them apart.
    world: Vec<IpAddr>,
    probes: Vec<Option<PortRange>>,
}

/// Ingress and egress of a workload.
type Both = [Exposure; 2];

impl Strangers {
    /// Puts namespaces that are not there into the state, so that their labels can be judged.
    fn new(state: &mut State) -> Self {
        let world = end::world(&[state.cluster()]);
        let world = world.iter().filter_map(|member| match member.end {
            End::Address(address) => Some(address),
            _ => None,
        });
        let (world, probes) = (world.collect(), port_ranges(state.cluster()).into_iter().map(Some).chain([None]));
        let probes = probes.collect();
        let addresses = state.gathered.assume_addresses();
        let mut labels = BTreeSet::from([Labels::new()]);
        for policy in state.cluster().policies.values() {
            for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                for peer in rule.peers.iter().flatten() {
                    if let Peer::Pods(pods) = peer
                        && let NamespaceMatch::Labels(selector) = &pods.namespaces
                    {
                        labels.extend(telling(selector));
                    }
                }
            }
        }
        let cluster = &mut state.gathered.cluster;
        for (number, labels) in labels.into_iter().enumerate() {
            // no namespace can be called that
            let name: Arc<str> = format!("namespace {number}").into();
            cluster.namespaces.insert(name.clone(), Namespace { name, labels, forwards: false, audit: false });
        }
        Self { addresses, namespaces: cluster.namespaces.keys().cloned().collect(), world, probes }
    }

    fn judge(&self, state: &State) -> BTreeMap<String, Both> {
        let quick = Quick::new(state.cluster());
        let mut workloads: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
        for pod in quick.pods().filter(|pod| !pod.addresses.is_empty() && state.scope.has(pod)) {
            workloads.entry(unit_of(state, &pod.name)).or_default().push(pod);
        }
        let both = |pods: &Vec<&Pod>| [true, false].map(|ingress| self.workload(&quick, pods, ingress));
        workloads.iter().map(|(name, pods)| (name.clone(), both(pods))).collect()
    }

    fn workload(&self, quick: &Quick<'_>, pods: &[&Pod], ingress: bool) -> Exposure {
        let isolated = pods.iter().filter(|pod| quick.isolating(pod, ingress).next().is_some()).count();
        // replicas are judged alike
        let mut alike: Vec<&Pod> = Vec::new();
        for pod in pods {
            if !alike.iter().any(|other| other.labels == pod.labels && other.ports == pod.ports) {
                alike.push(pod);
            }
        }
        let sides: Vec<_> = alike.iter().map(|pod| Side { quick, pod, ingress, strangers: self }).collect();
        let between = |open: &Open| {
            let mut between = Between::default();
            for probe in &self.probes {
                let open: Vec<_> = sides.iter().map(|side| open(side, *probe)).collect();
                if open.iter().all(|(all, _)| *all) {
                    between.all.push(*probe);
                } else if open.iter().any(|(_, some)| *some) {
                    between.some.push(*probe);
                }
            }
            between
        };
        const fn twice(open: bool) -> (bool, bool) {
            (open, open)
        }
        Exposure {
            pods: pods.len(),
            isolated,
            own: between(&|side, probe| twice(side.to_own(probe))),
            any: between(&|side, probe| twice(side.to_any(probe))),
            world: between(&|side, probe| side.to_world(probe)),
        }
    }
}

/// Whether a port is open to all of somebody, and to a part of them.
type Open = dyn Fn(&Side<'_>, Option<PortRange>) -> (bool, bool);

/// One direction of one pod.
struct Side<'a> {
    quick: &'a Quick<'a>,
    pod: &'a Pod,
    ingress: bool,
    strangers: &'a Strangers,
}

impl Side<'_> {
    fn passes(&self, other: Other<'_>, probe: Option<PortRange>) -> bool {
        self.quick.side(self.pod, self.ingress, other, representative(probe)) != Some(false)
    }

    fn to_own(&self, probe: Option<PortRange>) -> bool {
        self.to_pods_of(std::slice::from_ref(&self.pod.name.namespace), probe)
    }

    fn to_any(&self, probe: Option<PortRange>) -> bool {
        self.to_pods_of(&self.strangers.namespaces, probe)
    }

    fn to_pods_of(&self, namespaces: &[Arc<str>], probe: Option<PortRange>) -> bool {
        // most pods are told by the first label already
        self.labels().into_iter().all(|labels| {
            namespaces.iter().all(|namespace| {
                let pod = Pod {
                    name: ObjectName { namespace: namespace.clone(), name: "any pod".into() },
                    uid: "any pod".into(),
                    labels: labels.clone(),
                    addresses: self.strangers.addresses.clone(),
                    ports: Vec::new(),
                    node: None,
                    host_network: false,
                    ended: false,
                };
                let own = |address: &&IpAddr| self.pod.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4());
                let mut addresses = pod.addresses.iter().filter(own);
                addresses.all(|address| self.passes(Other { pod: Some(&pod), address: *address }, probe))
            })
        })
    }

    /// To all of it, to a part of it.
    fn to_world(&self, probe: Option<PortRange>) -> (bool, bool) {
        let own = |address: &&IpAddr| self.pod.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4());
        let addresses: Vec<_> = self.strangers.world.iter().filter(own).collect();
        let open = addresses.iter().filter(|address| self.passes(Other { pod: None, address: ***address }, probe));
        let open = open.count();
        (open == addresses.len() && open > 0, open > 0)
    }

    /// No labels, and those that the rules of this pod tell apart.
    fn labels(&self) -> BTreeSet<Labels> {
        let mut labels = BTreeSet::from([Labels::new()]);
        let peers = |rules: &[Rule]| rules.iter().flat_map(|rule| rule.peers.clone().unwrap_or_default()).collect();
        for (_, rules) in self.quick.isolating(self.pod, self.ingress) {
            let peers: Vec<Peer> = peers(rules);
            for peer in peers {
                if let Peer::Pods(pods) = peer {
                    labels.extend(telling(&pods.pods));
                }
            }
        }
        labels
    }
}

/// Labels that a selector tells from others: each value that it names, and one that it doesn't.
fn telling(selector: &Selector) -> Vec<Labels> {
    let one = |key: &Arc<str>, value: &str| Labels::from([(key.clone(), Arc::from(value))]);
    let all = selector.requirements.iter().flat_map(|requirement| match requirement {
        Requirement::In(key, values) | Requirement::NotIn(key, values) => {
            values.iter().map(|value| one(key, value)).chain([one(key, "any other value")]).collect::<Vec<_>>()
        }
        Requirement::Exists(key) | Requirement::DoesNotExist(key) => vec![one(key, "any value")],
    });
    all.collect()
}

fn answer(workloads: &BTreeMap<String, Both>, state: &State) -> Answer {
    let count = |open: &dyn Fn(&Both) -> bool| workloads.values().filter(|both| open(both)).count();
    let accepts = |between: &Between| !between.is_empty();
    let unprotected: Vec<_> =
        workloads.iter().filter(|(_, both)| both[0].isolated < both[0].pods).map(|(name, _)| name.clone()).collect();
    let host = state.cluster().pods.values().filter(|pod| pod.host_network && !pod.ended).count();
    let mut text = format!(
        "{}: ingress of {} open to the world, of {} to any pod of any namespace, of {} to any pod of their own; {} unprotected\n",
        plural(workloads.len(), "workload", "workloads"),
        count(&|both| accepts(&both[0].world)),
        count(&|both| accepts(&both[0].any)),
        count(&|both| accepts(&both[0].own)),
        unprotected.len(),
    );
    if host > 0 {
        let pods = plural(host, "pod on its node's network", "pods on their nodes' networks");
        text.push_str(&format!("{pods}, where no policy applies\n"));
    }
    text.push('\n');
    let mut rows = Vec::new();
    let mut elements = Vec::new();
    for (name, both) in workloads {
        for (exposure, direction) in both.iter().zip(["ingress", "egress"]) {
            rows.push(vec![
                name.clone(),
                direction.to_owned(),
                exposure.protected().to_owned(),
                exposure.own.written(),
                exposure.any.written(),
                exposure.world.written_of("in part"),
            ]);
        }
        let [ingress, egress] = both;
        elements.push(json!({"name": name, "pods": ingress.pods, "ingress": ingress.json(), "egress": egress.json()}));
    }
    let head = vec!["WORKLOAD", "DIRECTION", "PROTECTED", "OWN NAMESPACE", "ANY NAMESPACE", "WORLD"];
    let mut answer = Answer {
        kind: "Exposure",
        list: "workloads",
        text,
        table: Some(Table { head, narrow: 6, rows }).filter(|table| !table.rows.is_empty()),
        names: unprotected.clone(),
        ..Answer::default()
    };
    answer.set("workloads", elements);
    answer.set("unprotected", unprotected);
    answer.set("podsOnNodeNetworks", host);
    answer.state(state);
    answer
}
