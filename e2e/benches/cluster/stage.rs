//! What is measured on: a Kubernetes namespace with pods that only wait, or that send from their first instant.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
pub(crate) use e2e::lab::objects::policy;
use e2e::lab::{Lab, PAUSE_ALSO, Pod, objects};
use serde_json::{Value, json};

/// A namespace, deleted when dropped.
pub(crate) struct Stage<'a> {
    lab: &'a Lab,
    name: &'static str,
}

impl<'a> Stage<'a> {
    pub(crate) fn open(lab: &'a Lab, name: &'static str) -> Result<Self> {
        lab.cluster().create_namespace(name)?;
        Ok(Self { lab, name })
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Where the API server has the objects of the core group that are in it.
    pub(crate) fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.name)
    }

    /// Creates objects in it.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        self.lab.cluster().apply_in(self.name, objects)
    }

    /// Creates a pod that only waits, on a node, and waits until it is ready: what sends and hears are threads of this
    /// process, in its network.
    pub(crate) fn add(&self, name: &str, node: &str, labels: &Value) -> Result<Pod> {
        self.apply(&[pod(name, node, labels, json!({"name": "waits", "image": PAUSE_ALSO}))])?;
        let ready = ["wait", "pod", name, "--namespace", self.name, "--for=condition=Ready", "--timeout=60s"];
        self.lab.kubectl(&ready).with_context(|| self.lab.cluster().sluice_log(20))?;
        let pods = self.lab.pods(self.name, "")?;
        pods.into_iter().find(|pod| pod.name() == name).with_context(|| format!("pod {name} has vanished"))
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // What is left goes with the cluster.
        let _ = self.lab.kubectl(&["delete", "namespace", self.name, "--wait=false"]);
    }
}

/// A pod of one container. It is not gone from the API server before it is gone from its node.
pub(crate) fn pod(name: &str, node: &str, labels: &Value, container: Value) -> Value {
    let mut pod = objects::pod(name, node, labels, container);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod
}

/// The one of IPv4.
pub(crate) fn v4(addresses: &[IpAddr]) -> Result<IpAddr> {
    addresses.iter().copied().find(IpAddr::is_ipv4).context("a pod without an IPv4 address")
}
