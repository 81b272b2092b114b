//! One node with its agent and the objects that it follows, for tests that are about more than which connections come
//! about: those are `cases/`.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Agent, Fabric, Namespace, Node, Pod, Scratch, Wiring};

/// The namespace that all of its pods and policies are in.
pub const NAMESPACE: &str = "shop";

/// A node `n1` with an agent. The agent ends before the node goes, and both before the pins.
#[derive(Debug)]
pub struct Site {
    /// Follows the objects.
    pub agent: Agent,
    /// Its node.
    pub node: Node,
    /// The network around it.
    pub fabric: Fabric,
    scratch: Scratch,
    directory: PathBuf,
}

/// A policy of the namespace for one pod.
#[derive(Clone, Debug)]
pub struct Policy {
    /// By which [`Site::enforce`] sees that it is in force, so a changed policy needs a new one.
    pub name: String,
    /// The pod's name.
    pub pod: String,
    /// `ingress`, if it isolates the pod in this direction.
    pub ingress: Option<Value>,
    /// `egress`, if it isolates the pod in this direction.
    pub egress: Option<Value>,
}

impl Policy {
    /// Isolates a pod in both directions, and allows nothing.
    #[must_use]
    pub fn deny(name: &str, pod: &Pod) -> Self {
        Self::ingress(name, pod, json!([])).and_egress(json!([]))
    }

    /// Isolates a pod for ingress; `rules` are the API's.
    #[must_use]
    pub fn ingress(name: &str, pod: &Pod, rules: Value) -> Self {
        Self { name: name.to_owned(), pod: pod.name().to_owned(), ingress: Some(rules), egress: None }
    }

    /// Isolates a pod for egress; `rules` are the API's.
    #[must_use]
    pub fn egress(name: &str, pod: &Pod, rules: Value) -> Self {
        Self { name: name.to_owned(), pod: pod.name().to_owned(), ingress: None, egress: Some(rules) }
    }

    /// Isolates it for egress too.
    #[must_use]
    pub fn and_egress(self, rules: Value) -> Self {
        Self { egress: Some(rules), ..self }
    }

    fn object(&self) -> Value {
        let mut spec = json!({"podSelector": {"matchLabels": {"app": self.pod}}, "policyTypes": []});
        for (kind, field, rules) in [("Ingress", "ingress", &self.ingress), ("Egress", "egress", &self.egress)] {
            if let Some(rules) = rules {
                spec["policyTypes"].as_array_mut().expect("it is written above").push(kind.into());
                spec[field] = rules.clone();
            }
        }
        let metadata = json!({"name": self.name, "namespace": NAMESPACE});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    }
}

/// A peer: the pod of this name.
#[must_use]
pub fn peer(pod: &Pod) -> Value {
    json!({"podSelector": {"matchLabels": {"app": pod.name()}}})
}

impl Site {
    /// Makes it without pods, and waits until the agent is ready. `flags` are the agent's, beside those that say where
    /// things are.
    ///
    /// # Errors
    /// Not root, or the kernel refuses, or the agent does.
    pub fn start(wiring: Wiring, flags: &[&str]) -> Result<Self> {
        Self::start_with(wiring, flags, |_| Ok(()))
    }

    /// As [`Self::start`]; `prepare` may change the node before its agent starts.
    ///
    /// # Errors
    /// As [`Self::start`], and what `prepare` says.
    pub fn start_with(wiring: Wiring, flags: &[&str], prepare: impl FnOnce(&Node) -> Result<()>) -> Result<Self> {
        let fabric = Fabric::create()?;
        let node = fabric.node("n1", 1, wiring)?;
        prepare(&node)?;
        let scratch = Scratch::create("site")?;
        let directory = scratch.files().join("objects");
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let addresses: Vec<Value> =
            node.addresses().iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let objects = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": addresses}}),
        ];
        write(&scratch, &directory, "node", &objects)?;
        let flags = [&["--listen", "127.0.0.1:0"], flags].concat();
        let agent = Agent::start_ready(&node, &directory, &scratch, &flags)?;
        Ok(Self { agent, node, fabric, scratch, directory })
    }

    /// Where the agent's pins are.
    #[must_use]
    pub fn pins(&self) -> &Path {
        self.scratch.pins()
    }

    /// The world outside the cluster.
    #[must_use]
    pub fn outside(&self) -> &Namespace {
        self.fabric.outside()
    }

    /// Starts a pod with an address of each family, and waits until it is enforced. Its label `app` is its name.
    ///
    /// # Errors
    /// If the kernel refuses, or the agent doesn't find the pod.
    pub fn pod(&mut self, name: &str) -> Result<Pod> {
        self.pod_known_by(name, |_| true)
    }

    /// As [`Self::pod`], but the API knows only of the addresses that are `told`.
    ///
    /// # Errors
    /// As [`Self::pod`].
    pub fn pod_known_by(&mut self, name: &str, told: impl Fn(&IpAddr) -> bool) -> Result<Pod> {
        let pod = self.node.pod(name)?;
        let addresses: Vec<Value> =
            pod.addresses().iter().filter(|address| told(address)).map(|address| json!({"ip": address})).collect();
        let metadata = json!({"name": name, "namespace": NAMESPACE, "uid": name, "labels": {"app": name}});
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIPs": addresses},
        });
        self.put(&format!("pod-{name}"), &[object])?;
        let interface = pod.host_interface().to_owned();
        self.agent.wait_for_state(&format!("enforced {name}"), |state| {
            of_pod(state, name).is_some_and(|pod| pod["state"] == "enforced" && pod["interface"] == *interface)
        })?;
        Ok(pod)
    }

    /// Replaces all policies, and waits until these and no others are in force.
    ///
    /// # Errors
    /// If the agent doesn't take them over.
    pub fn enforce(&mut self, policies: &[Policy]) -> Result<()> {
        self.put("policies", &policies.iter().map(Policy::object).collect::<Vec<_>>())?;
        self.agent.wait_for_state("enforced the policies", |state| {
            state["pods"].as_array().is_some_and(|pods| {
                pods.iter().all(|pod| {
                    let isolating = |by: fn(&Policy) -> bool| {
                        let own = policies.iter().filter(|policy| pod["name"] == *policy.pod && by(policy));
                        own.map(|policy| format!("{NAMESPACE}/{}", policy.name)).collect::<BTreeSet<_>>()
                    };
                    names(&pod["ingress"]["policies"]) == isolating(|policy| policy.ingress.is_some())
                        && names(&pod["egress"]["policies"]) == isolating(|policy| policy.egress.is_some())
                })
            })
        })
    }

    /// The number of the epoch in which new flows are judged.
    ///
    /// # Errors
    /// If the agent doesn't answer.
    pub fn epoch(&self) -> Result<u64> {
        self.agent.state()?["epoch"].as_u64().context("the state has no epoch")
    }

    /// How many packets of a pod were dropped so far, by the agent's metrics. `direction` is `ingress` or `egress`.
    ///
    /// # Errors
    /// If the agent doesn't answer.
    pub fn dropped(&self, pod: &Pod, direction: &str) -> Result<u64> {
        let metrics = self.agent.get("/metrics")?.body;
        let (pod, direction) = (format!("pod=\"{}\"", pod.name()), format!("direction=\"{direction}\""));
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("sluice_drops_total{") && line.contains(&pod) && line.contains(&direction))
            .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()));
        counts.sum::<Option<u64>>().context("a count that is no number")
    }

    /// Writes a file of objects in one piece, in place of what it said before.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn put(&self, file: &str, objects: &[Value]) -> Result<()> {
        write(&self.scratch, &self.directory, file, objects)
    }
}

/// What the agent's state says of a pod.
fn of_pod<'s>(state: &'s Value, name: &str) -> Option<&'s Value> {
    state["pods"].as_array()?.iter().find(|pod| pod["name"] == *name)
}

fn names(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn write(scratch: &Scratch, directory: &Path, file: &str, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let new = scratch.files().join("new.json");
    fs::write(&new, list.to_string()).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, directory.join(file).with_extension("json")).with_context(|| format!("cannot put {file} in place"))
}
