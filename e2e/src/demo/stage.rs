//! The cluster of the demo, made of what its YAML says: pods where the Pod objects are, servers on their ports, Services
//! translated on the node.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use e2e::bed::{Fabric, Node, Pod, Scratch, Server, Transport, Wiring, services::Ruleset};
use policy_compiler::{
    Cluster,
    diagnostic::Kind,
    files,
    model::{ObjectName, Protocol, Service},
    reference::{Connection, End, Objects, Verdict},
};

const CLUSTER: &str = include_str!("cluster.yaml");

/// The node's name in the YAML.
const NODE: &str = "n1";

/// The running cluster; gone when dropped.
pub(crate) struct Stage {
    pub(crate) pods: Vec<(ObjectName, Pod)>,
    _servers: Vec<Server>,
    pub(crate) node: Node,
    _fabric: Fabric,
    pub(crate) scratch: Scratch,
    /// What the agent follows.
    pub(crate) directory: PathBuf,
}

/// Something to connect to, in both families.
#[derive(Clone, Debug)]
pub(crate) struct FrontEnd {
    /// The heading of its column.
    pub(crate) label: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) port: u16,
    /// The pod that answers.
    pub(crate) pod: ObjectName,
}

/// What the files say, in both forms: for the demo's own use, and for the reference evaluator.
pub(crate) struct Manifests {
    pub(crate) cluster: Cluster,
    /// In the order of the files.
    pub(crate) pods: Vec<ObjectName>,
    objects: Objects,
}

impl Stage {
    /// Makes it.
    pub(crate) fn build() -> Result<Self> {
        let scratch = Scratch::create("demo")?;
        let directory = scratch.files().join("cluster");
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        write(&directory, "cluster.yaml", CLUSTER)?;
        let cluster = read(&directory)?.cluster;

        let fabric = Fabric::create()?;
        let node = fabric.node(NODE, 1, Wiring::PointToPoint)?;
        let mut pods = Vec::new();
        let mut servers = Vec::new();
        for (name, pod) in &cluster.pods {
            let running = node.pod_at(&name.name, &pod.addresses)?;
            let ports: Vec<_> = pod.ports.iter().map(|port| (Transport::Tcp, port.number)).collect();
            servers.push(Server::start(running.namespace(), &name.name, &ports)?);
            pods.push((name.clone(), running));
        }
        let services: Vec<_> = cluster.services.values().cloned().collect();
        let slices: Vec<_> = cluster.endpoint_slices.values().cloned().collect();
        node.set_services(&Ruleset::new(NODE, &services, &slices))?;
        Ok(Self { pods, _servers: servers, node, _fabric: fabric, scratch, directory })
    }

    /// Writes a file where the agent looks, as `kubectl apply` would.
    pub(crate) fn apply(&self, file: &str, text: &str) -> Result<()> {
        write(&self.directory, file, text)
    }

    /// What the files say now.
    pub(crate) fn manifests(&self) -> Result<Manifests> {
        read(&self.directory)
    }

    pub(crate) fn pod(&self, name: &ObjectName) -> Result<&Pod> {
        let found = self.pods.iter().find(|(own, _)| own == name);
        found.map(|(_, pod)| pod).with_context(|| format!("no pod {name} in the cluster"))
    }
}

impl Manifests {
    /// Whether the policies allow a TCP connection, by the evaluator that knows no tables: the slow, obvious reading of
    /// the API's documentation.
    pub(crate) fn allow(&self, from: &ObjectName, to: SocketAddr) -> Result<bool> {
        let connection = Connection {
            source: End::Pod(from.clone()),
            destination: End::Address(to.ip()),
            protocol: Protocol::Tcp.number(),
            port: to.port(),
            ipv6: to.is_ipv6(),
        };
        let verdict = self.objects.judge(&connection);
        Ok(verdict.with_context(|| format!("{from} can't connect to {to} at all"))? == Verdict::Allowed)
    }
}

/// Every pod's port in the order of the files, then every Service's.
pub(crate) fn front_ends(manifests: &Manifests) -> Result<Vec<FrontEnd>> {
    let cluster = &manifests.cluster;
    let mut found = Vec::new();
    for name in &manifests.pods {
        for (pod, port) in
            cluster.pods.get(name).into_iter().flat_map(|pod| pod.ports.iter().map(move |port| (pod, port)))
        {
            found.push(FrontEnd {
                label: format!("{}:{}", name.name, port.number),
                addresses: pod.addresses.clone(),
                port: port.number,
                pod: name.clone(),
            });
        }
    }
    for service in cluster.services.values() {
        found.push(front_end(cluster, service)?);
    }
    Ok(found)
}

fn front_end(cluster: &Cluster, service: &Service) -> Result<FrontEnd> {
    let slice = cluster.endpoint_slices.values().find(|slice| slice.service == service.name.name);
    let slice = slice.with_context(|| format!("Service {} has no EndpointSlice", service.name))?;
    let back_end = slice.endpoints.first().and_then(|endpoint| endpoint.addresses.first());
    let pod = back_end.and_then(|address| cluster.pod_at(*address));
    let (Some(pod), [port]) = (pod, &service.ports[..]) else {
        bail!("the demo's Services have one port and one pod behind it; {} has not", service.name);
    };
    Ok(FrontEnd {
        label: format!("svc {}:{}", service.name.name, port.port),
        addresses: service.cluster_ips.clone(),
        port: port.port,
        pod: pod.name.clone(),
    })
}

fn read(directory: &Path) -> Result<Manifests> {
    let mut parsed = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry.context("cannot list the cluster's files")?.path();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        parsed.push(files::parse(&path.display().to_string(), &bytes));
    }
    let assembled = files::assemble(&parsed);
    if let Some(diagnostic) = assembled.diagnostics.first() {
        bail!("{diagnostic}");
    }
    let mut objects = Objects::default();
    for located in parsed.iter().flat_map(|file| &file.objects) {
        objects.put(&located.object);
    }
    let cluster = assembled.cluster;
    let mut pods: Vec<ObjectName> = cluster.pods.keys().cloned().collect();
    pods.sort_by_key(|name| cluster.origin(Kind::Pod, name).map(|origin| origin.place.clone()));
    Ok(Manifests { cluster, pods, objects })
}

/// Under another name first: the agent never sees half a file.
fn write(directory: &Path, file: &str, text: &str) -> Result<()> {
    let path = directory.join(file);
    let draft = directory.with_extension("draft");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}
