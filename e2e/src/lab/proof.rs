//! The proof that nothing but Sluice enforces policies on a cluster. Without it, what a suite sees denied shows nothing.
//! (kind, for one, enforces by itself since 0.24.)

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{Cluster, images::AGNHOST, objects};

/// Longer than any engine takes to enforce.
const LONG: Duration = Duration::from_secs(5);

impl Cluster {
    /// Denies everything in a namespace and probes there. Where Sluice runs already, the namespace is audited: what
    /// Sluice would refuse passes, what anybody else refuses does not.
    ///
    /// # Errors
    /// If a probe that policies deny does not pass, because somebody else enforces or pods don't reach each other at all.
    pub fn prove_unenforced(&self) -> Result<()> {
        let namespace = format!("sluice-proof-{}", std::process::id());
        self.create_namespace(&namespace)?;
        let result = self.probe_denied(&namespace);
        // What is left of it disturbs nobody.
        let _ = self.kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
        result
    }

    fn probe_denied(&self, namespace: &str) -> Result<()> {
        self.kubectl(&["annotate", "namespace", namespace, "sluice.dev/audit=true"])?;
        self.apply_in(namespace, &["client", "server"].map(pod))?;
        self.kubectl(&["wait", "pod", "--all", "--namespace", namespace, "--for=condition=Ready", "--timeout=120s"])?;
        let of = ["get", "pod", "server", "--namespace", namespace, "--output=jsonpath={.status.podIPs[*].ip}"];
        let addresses = self.kubectl(&of)?;
        let targets: Vec<String> = addresses
            .split_whitespace()
            .map(|address| match address.parse() {
                Ok(IpAddr::V6(address)) => format!("[{address}]:8080"),
                _ => format!("{address}:8080"),
            })
            .collect();
        if targets.is_empty() {
            bail!("the pod that is to be probed has no address");
        }
        let probe = |target: &String| {
            let connect = ["--", "/agnhost", "connect", "--timeout=3s", target];
            self.kubectl(&[&["exec", "--namespace", namespace, "client"], &connect[..]].concat())
        };
        for target in &targets {
            probe(target).context("pods of this cluster don't reach each other, with no policy at all")?;
        }
        self.apply_in(namespace, &[objects::deny_all()])?;
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            for target in &targets {
                probe(target).context(
                    "a probe that a policy denies does not pass, although Sluice lets it: something else enforces \
                     policies on this cluster, so a run would prove nothing about Sluice",
                )?;
            }
        }
        Ok(())
    }
}

fn pod(name: &str) -> serde_json::Value {
    let server = json!({
        "name": "server",
        "image": AGNHOST,
        "imagePullPolicy": "IfNotPresent",
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/hostname"}, "periodSeconds": 1},
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [server]},
    })
}
