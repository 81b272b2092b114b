//! What a scenario plays with: a Kubernetes namespace of its own with pods, servers in them, policies, and questions to
//! the network.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
pub(crate) use e2e::lab::{
    AGNHOST, BUSYBOX,
    objects::{deny_all, pod as with_container, policy},
};
use e2e::{
    bed::{Namespace, Outcome, Probe, Server, Transport, probe_all},
    lab::{Lab, PAUSE_ALSO, Pod},
    wait::retry,
};
use serde_json::{Value, json};

/// The longest time from a change of an object until packets show it. An agent needs milliseconds; kube-proxy and
/// CoreDNS, on a busy machine, seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often kubectl is asked for something that is awaited.
const POLL: Duration = Duration::from_millis(200);

/// A namespace, deleted when dropped.
pub(crate) struct Scene<'a> {
    pub(crate) lab: &'a Lab,
    name: String,
    pods: Vec<Pod>,
    // Before the pods' networks go.
    servers: Vec<Server>,
}

impl<'a> Scene<'a> {
    pub(crate) fn open(lab: &'a Lab, name: &str) -> Result<Self> {
        // Not that of a run before, which may still be going away.
        let name = format!("{name}-{}", std::process::id());
        lab.cluster().create_namespace(&name)?;
        Ok(Self { lab, name, pods: Vec::new(), servers: Vec::new() })
    }

    /// The namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Creates or changes objects in the namespace.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        self.lab.cluster().apply_in(&self.name, objects)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.lab.kubectl(&[&["--namespace", &self.name], arguments].concat())
    }

    /// Creates pods, and waits until they are ready.
    pub(crate) fn add(&mut self, pods: &[Value]) -> Result<()> {
        self.apply(pods)?;
        self.await_ready()?;
        self.pods = self.lab.pods(&self.name, "")?;
        Ok(())
    }

    /// Waits until every pod is ready.
    pub(crate) fn await_ready(&self) -> Result<()> {
        let ready = self.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"]);
        ready.map(drop).or_else(|error| {
            let pods = self.kubectl(&["describe", "pods"]).unwrap_or_default();
            Err(error).with_context(|| format!("{pods}\n{}", self.lab.cluster().sluice_log(20)))
        })
    }

    /// A pod of [`Self::add`].
    pub(crate) fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }

    /// The network of a pod.
    pub(crate) fn network(&self, pod: &str) -> Result<&Namespace> {
        Ok(self.pod(pod)?.network())
    }

    /// Starts a server in a pod, on TCP and UDP.
    pub(crate) fn serve(&mut self, pod: &str, ports: &[u16]) -> Result<()> {
        let ports = ports.iter().flat_map(|port| [(Transport::Tcp, *port), (Transport::Udp, *port)]);
        let server = Server::start(self.network(pod)?, pod, &ports.collect::<Vec<_>>())?;
        self.servers.push(server);
        Ok(())
    }

    /// A port of a pod, at each of its addresses.
    pub(crate) fn at(&self, pod: &str, port: u16) -> Result<Vec<SocketAddr>> {
        Ok(self.pod(pod)?.addresses().iter().map(|address| SocketAddr::new(*address, port)).collect())
    }

    /// A port of a Service, at each of its cluster addresses.
    pub(crate) fn at_service(&self, service: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let addresses = self.kubectl(&["get", "service", service, "--output=jsonpath={.spec.clusterIPs[*]}"])?;
        addresses
            .split_whitespace()
            .map(|address| Ok(SocketAddr::new(address.parse().context("no address")?, port)))
            .collect()
    }

    /// Waits until the agents have written an event with this reason about an object of the namespace.
    pub(crate) fn await_event(&self, reason: &str) -> Result<()> {
        retry(PATIENCE, POLL, || {
            let reasons = self.kubectl(&[
                "get",
                "events.events.k8s.io",
                "--field-selector=reportingController=sluice.dev/agent",
                "--output=jsonpath={.items[*].reason}",
            ])?;
            let is_there = reasons.split_whitespace().any(|other| other == reason);
            ensure!(is_there, "no event {reason}, only: {reasons}");
            Ok(())
        })
    }

    /// Waits until there is an event with this reason about an object of the namespace, whose text holds this.
    pub(crate) fn await_message(&self, text: &str, reason: &str) -> Result<()> {
        let field = format!("--field-selector=reason={reason}");
        retry(PATIENCE * 2, POLL, || {
            let messages = self.kubectl(&["get", "events", &field, "--output=jsonpath={.items[*].message}"])?;
            ensure!(messages.contains(text), "no event {reason} that says: {text}; only: {messages}");
            Ok(())
        })
    }

    /// Questions over TCP and UDP from a pod.
    pub(crate) fn ask(&self, from: &str, to: &[SocketAddr], expected: Outcome) -> Result<Vec<Probe<'_>>> {
        let from = self.network(from)?;
        let of = |to: &SocketAddr| {
            [Transport::Tcp, Transport::Udp].map(|transport| Probe { from, source: None, transport, to: *to, expected })
        };
        Ok(to.iter().flat_map(of).collect())
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.servers.clear();
        // What is left goes with the cluster.
        let _ = self.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// Waits until all questions are answered as expected.
pub(crate) fn eventually(probes: &[Probe<'_>]) -> Result<()> {
    let late = || format!("after {} s", PATIENCE.as_secs());
    retry(PATIENCE, Duration::ZERO, || now(probes)).with_context(late)
}

/// All questions must be answered as expected, now.
pub(crate) fn now(probes: &[Probe<'_>]) -> Result<()> {
    let wrong = wrong(probes)?;
    if wrong.is_empty() { Ok(()) } else { bail!("not as expected:{wrong}") }
}

/// What is not as expected, a line each.
fn wrong(probes: &[Probe<'_>]) -> Result<String> {
    let mut text = String::new();
    let answers = match probe_all(probes) {
        Ok(answers) => answers,
        // A router on the way that knows no way, for one.
        Err(error) => return Ok(format!("\n{error:#}")),
    };
    for (probe, answer) in probes.iter().zip(answers) {
        let Probe { from, transport, to, expected, .. } = probe;
        if answer.outcome != *expected {
            write!(text, "\n{transport} from {} to {to}: {}, not {expected}", from.name(), answer.outcome)?;
        }
    }
    Ok(text)
}

/// A pod that only waits, on a node: servers and clients are this process' own threads in its network.
pub(crate) fn pod(name: &str, node: &str, labels: &Value) -> Value {
    with_container(name, node, labels, json!({"name": "waits", "image": PAUSE_ALSO}))
}

/// A Service of the pods with these labels, of both families.
pub(crate) fn service(name: &str, selector: &Value, port: u16, target: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": selector,
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                {"name": "tcp", "port": port, "targetPort": target, "protocol": "TCP"},
                {"name": "udp", "port": port, "targetPort": target, "protocol": "UDP"},
            ],
        },
    })
}
