//! A cluster from files, for questions: [`Gather`]. Beyond what is there as objects, it has what the cluster would make
//! of them: pods of workloads that have none, addresses of pods and Services that were never in a cluster, and the back
//! ends of Services without EndpointSlices. Each object is converted as soon as it is read, so that a large file never
//! lies in memory as API objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Assembled, Located, Object, Taken, intake, origin,
    report::Reporter,
    workload::{self, Workload, WorkloadKind},
};
use crate::{
    cluster::{Cluster, Origin},
    diagnostic::{Diagnostic, Kind},
    model::{Endpoint, EndpointPort, EndpointSlice, Labels, ObjectName, Pod, Protocol},
};

/// Takes in one file after the other.
#[derive(Debug, Default)]
pub struct Gather {
    assembled: Assembled,
    ignored: BTreeMap<String, usize>,
    /// Whose a pod is.
    owners: BTreeMap<ObjectName, Workload>,
    /// Workloads made by others: ReplicaSets by Deployments, Jobs by CronJobs.
    makers: BTreeMap<Workload, Workload>,
    templates: BTreeMap<Workload, Template>,
    selectors: BTreeMap<ObjectName, ServiceSpec>,
    /// Pods from manifests: they have no status, and so no address yet.
    unborn: BTreeSet<ObjectName>,
}

/// A workload's pod, if it wants one, and where its labels are written.
type Template = (Option<Box<Located<Object>>>, Arc<Origin>);

/// What the cluster makes EndpointSlices of.
#[derive(Debug)]
struct ServiceSpec {
    selector: Labels,
    ports: Vec<ServicePort>,
    is_headless: bool,
}

/// A cluster from files.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// All objects.
    pub cluster: Cluster,
    /// What is wrong with the files.
    pub diagnostics: Vec<Diagnostic>,
    /// How many objects there are of each kind that verdicts don't depend on, as `ConfigMap`.
    pub ignored: BTreeMap<String, usize>,
    /// Whose a pod is; pods that nothing made are not in it.
    pub owners: BTreeMap<ObjectName, Workload>,
    /// Where the labels of a workload's pods are written.
    pub templates: BTreeMap<Workload, Arc<Origin>>,
    /// Addresses that were made up, because the object has none yet.
    pub assumed: BTreeSet<IpAddr>,
}

impl Gather {
    /// Takes in a file. With `replaces`, an object that is there already is replaced without a warning.
    pub fn file(&mut self, name: &str, bytes: &[u8], replaces: bool) {
        let (diagnostics, ignored) = intake(name, bytes, &mut |taken| match taken {
            Taken::Object(object) => {
                self.object(&object, replaces);
                true
            }
            Taken::Other(kind, node, document, diagnostics) => {
                let Some(kind) = WorkloadKind::of_file(kind) else { return false };
                let mut reporter = Reporter::new(document, kind.name(), node, diagnostics);
                if let Some(read) = workload::workload(node, kind, &mut reporter) {
                    let origin = Arc::new(origin::of_template(node, document));
                    if let Some(owner) = read.owner {
                        self.makers.insert(read.workload.clone(), owner);
                    }
                    let located = |pod| Located {
                        object: Object::Pod(Box::new(pod)),
                        origin: origin.clone(),
                        spoiled: Vec::new(),
                    };
                    let pod = read.pod.map(|pod| Box::new(located(pod)));
                    self.templates.insert(read.workload, (pod, origin));
                }
                true
            }
        });
        self.assembled.diagnostics.extend(diagnostics);
        for (kind, count) in ignored {
            *self.ignored.entry(kind).or_default() += count;
        }
    }

    /// Takes in objects that nobody edits where they are read from, such as those of an API server: their places are not
    /// told. Those of faults are, unless `name` is empty.
    pub fn unwritten(&mut self, name: &str, bytes: &[u8]) {
        let before = self.assembled.diagnostics.len();
        self.file(name, bytes, false);
        if name.is_empty() {
            for diagnostic in &mut self.assembled.diagnostics[before..] {
                diagnostic.place = None;
            }
        }
        self.assembled.cluster.origins.retain(|_, origin| &*origin.place.file != name);
        for (_, origin) in self.templates.values_mut().filter(|(_, origin)| &*origin.place.file == name) {
            *origin = Arc::new(Origin { place: origin.place.clone(), fields: BTreeMap::new(), unlisted: None });
        }
    }

    /// Removes a policy that is there; `false` if it isn't.
    pub fn without_policy(&mut self, name: &ObjectName) -> bool {
        self.assembled.cluster.policies.remove(name).is_some()
    }

    /// The names of the policies so far.
    pub fn policies(&self) -> impl Iterator<Item = &ObjectName> {
        self.assembled.cluster.policies.keys()
    }

    fn object(&mut self, located: &Located<Object>, replaces: bool) {
        let Some(name) = self.assembled.add_as(located, replaces) else { return };
        match &located.object {
            Object::Pod(pod) => {
                if let Some(owner) = Workload::owner_of(&pod.metadata) {
                    self.owners.insert(name.clone(), owner.beyond_replica_set(&pod.metadata));
                }
                if pod.status.is_none() {
                    self.unborn.insert(name);
                }
            }
            Object::Service(service) => {
                if let Some(spec) = service_spec(service) {
                    self.selectors.insert(name, spec);
                }
            }
            _ => {}
        }
    }

    /// What it all amounts to.
    #[must_use]
    pub fn finish(mut self) -> Gathered {
        for owner in self.owners.values_mut() {
            while let Some(maker) = self.makers.get(owner) {
                *owner = maker.clone();
            }
        }
        let with_pods: BTreeSet<_> = self.owners.values().cloned().collect();
        let mut templates = BTreeMap::new();
        for (workload, (pod, origin)) in std::mem::take(&mut self.templates) {
            let is_top = !self.makers.contains_key(&workload);
            if let Some(pod) = pod.filter(|_| is_top && !with_pods.contains(&workload)) {
                self.object(&pod, false);
                self.owners.insert(workload.stand_in(), workload.clone());
            }
            templates.insert(workload, origin);
        }
        let Assembled { mut cluster, diagnostics } = self.assembled;
        cluster.imply_namespaces();
        let mut assumed = BTreeSet::new();
        let mut addresses = Assumed::pods(&cluster);
        for name in &self.unborn {
            if let Some(pod) = cluster.pods.get_mut(name).filter(|pod| !pod.host_network && pod.addresses.is_empty()) {
                pod.addresses = addresses.next();
                assumed.extend(&pod.addresses);
            }
        }
        let mut addresses = Assumed::services(&cluster);
        let sliced: BTreeSet<_> = cluster
            .endpoint_slices
            .values()
            .map(|slice| ObjectName::new(slice.name.namespace.clone(), slice.service.clone()))
            .collect();
        for (name, spec) in &self.selectors {
            if let Some(service) = cluster.services.get_mut(name)
                && service.cluster_ips.is_empty()
                && !spec.is_headless
            {
                service.cluster_ips = addresses.next();
                assumed.extend(&service.cluster_ips);
            }
            if !sliced.contains(name) {
                let slices = slices(name, spec, &cluster.pods);
                cluster.endpoint_slices.extend(slices.into_iter().map(|slice| (slice.name.clone(), slice)));
            }
        }
        Gathered { cluster, diagnostics, ignored: self.ignored, owners: self.owners, templates, assumed }
    }
}

impl Gathered {
    /// Addresses for a pod that is only thought of.
    pub fn assume_addresses(&mut self) -> Vec<IpAddr> {
        let addresses = Assumed::pods(&self.cluster).next();
        self.assumed.extend(&addresses);
        addresses
    }
}

/// Hands out addresses, of the families that the cluster has: those that follow the highest one in use, so that blocks
/// which mean the cluster's addresses hold them.
struct Assumed {
    next: Vec<IpAddr>,
}

impl Assumed {
    fn pods(cluster: &Cluster) -> Self {
        let own = cluster.pods.values().filter(|pod| !pod.host_network);
        let used: Vec<_> = own.flat_map(|pod| pod.addresses.iter().copied()).collect();
        // where there are none yet, those that most clusters begin with
        Self::after(&used, ["10.244.0.0", "fd00:10:244::"], cluster)
    }

    fn services(cluster: &Cluster) -> Self {
        let used: Vec<_> = cluster.services.values().flat_map(|service| service.cluster_ips.iter().copied()).collect();
        Self::after(&used, ["10.96.0.0", "fd00:10:96::"], cluster)
    }

    fn after(used: &[IpAddr], begins: [&str; 2], cluster: &Cluster) -> Self {
        let has_v6 = cluster.pods.values().flat_map(|pod| &pod.addresses).any(IpAddr::is_ipv6);
        let has_v4 = !has_v6 || cluster.pods.values().flat_map(|pod| &pod.addresses).any(IpAddr::is_ipv4);
        let highest = |is_v4: bool| used.iter().copied().filter(|address| address.is_ipv4() == is_v4).max();
        let mut next = Vec::new();
        for (has, is_v4, begin) in [(has_v4, true, begins[0]), (has_v6, false, begins[1])] {
            if has {
                next.extend(highest(is_v4).or_else(|| begin.parse().ok()));
            }
        }
        Self { next }
    }

    fn next(&mut self) -> Vec<IpAddr> {
        for address in &mut self.next {
            *address = match *address {
                IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address).wrapping_add(1))),
                IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address).wrapping_add(1))),
            };
        }
        self.next.clone()
    }
}

fn service_spec(service: &Service) -> Option<ServiceSpec> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let selector = selector.iter().map(|(key, value)| (Arc::from(&**key), Arc::from(&**value))).collect();
    Some(ServiceSpec { selector, ports: spec.ports.clone().unwrap_or_default(), is_headless })
}

/// The slices that the EndpointSlice controller would make: one for each pod, since named target ports may differ.
fn slices(name: &ObjectName, spec: &ServiceSpec, pods: &BTreeMap<ObjectName, Pod>) -> Vec<EndpointSlice> {
    let selects = |pod: &&Pod| {
        pod.name.namespace == name.namespace
            && !pod.ended
            && !pod.addresses.is_empty()
            && spec.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    let of_pod = |pod: &Pod| EndpointSlice {
        name: ObjectName::new(name.namespace.clone(), format!("{}/{}", name.name, pod.name.name)),
        service: name.name.clone(),
        ports: spec.ports.iter().filter_map(|port| target(port, pod)).collect(),
        endpoints: pod
            .addresses
            .iter()
            .map(|address| Endpoint {
                addresses: vec![*address],
                ready: true,
                serving: true,
                terminating: false,
                node: pod.node.clone(),
            })
            .collect(),
    };
    pods.values().filter(selects).map(of_pod).collect()
}

fn target(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(_) => return None,
    };
    let number = match &port.target_port {
        None => u16::try_from(port.port).ok()?,
        Some(IntOrString::Int(0)) => u16::try_from(port.port).ok()?,
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok()?,
        Some(IntOrString::String(wanted)) => {
            pod.ports.iter().find(|named| &*named.name == wanted && named.protocol == protocol)?.number
        }
    };
    Some(EndpointPort { name: port.name.as_deref().unwrap_or_default().into(), protocol, number })
}

impl Gathered {
    /// Where the labels of a pod are written: in its workload's template, if that was read, else in the pod itself.
    #[must_use]
    pub fn labels_of(&self, pod: &ObjectName) -> Option<(&Origin, Option<&Workload>)> {
        let owner = self.owners.get(pod);
        match owner.and_then(|owner| self.templates.get(owner)) {
            Some(origin) => Some((origin, owner)),
            None => self.cluster.origin(Kind::Pod, pod).map(|origin| (origin, owner)),
        }
    }
}
