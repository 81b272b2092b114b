//! A pod of the lab as the test bed knows pods: a network namespace in which probes, servers and streams run.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Lab;
use crate::bed::Namespace;

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    name: String,
    node: String,
    uid: String,
    addresses: Vec<IpAddr>,
    network: Namespace,
}

impl Lab {
    /// The pods of a namespace that match a label selector (all, if it is empty), which must all run.
    ///
    /// # Errors
    /// If one has no address or no process yet.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let list = self.kubectl(&["get", "pods", "--namespace", namespace, "--selector", selector, "--output=json"])?;
        let list: Value = serde_json::from_str(&list).context("kubectl prints no JSON")?;
        list["items"].as_array().context("kubectl prints no list")?.iter().map(|pod| self.pod_of(pod)).collect()
    }

    fn pod_of(&self, object: &Value) -> Result<Pod> {
        let text = |path: &str| {
            let value = object.pointer(path).and_then(Value::as_str).map(str::to_owned);
            value.with_context(|| format!("the pod has no {path}"))
        };
        let name = text("/metadata/name")?;
        let (node, uid) = (text("/spec/nodeName").with_context(|| name.clone())?, text("/metadata/uid")?);
        let addresses: Vec<IpAddr> = object["status"]["podIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
            .collect();
        ensure!(!addresses.is_empty(), "{name} has no address yet");
        let machine = self.machine(&node)?;
        let pid = match object["spec"]["hostNetwork"].as_bool() {
            Some(true) => machine.pid(),
            _ => process_of(&uid).with_context(|| format!("{name} has no process yet"))?,
        };
        let network = Namespace::of_process(&name, pid)?;
        Ok(Pod { name, node, uid, addresses, network })
    }
}

impl Pod {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// As the API server gave it.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// `status.podIPs`
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its network namespace; the node's, of a pod in the host's network.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        &self.network
    }
}

/// A process of the pod: kubelets name a pod's control group after its UID.
fn process_of(uid: &str) -> Option<i32> {
    let group = format!("/pod{uid}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let groups = fs::read_to_string(Path::new("/proc").join(entry.file_name()).join("cgroup")).ok()?;
        groups.contains(&group).then_some(pid)
    })
}
