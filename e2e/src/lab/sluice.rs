//! Sluice on a cluster, installed and removed by the commands of docs/install.md.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use serde_json::{Value, json};

use super::{Cluster, Lab, Machine};
use crate::http;

/// Where the manifests have the agent listen.
const METRICS: &str = "127.0.0.1:9740";
/// The namespace of the agents.
pub const SYSTEM: &str = "sluice-system";
/// The selector of the agents' pods.
pub const AGENTS: &str = "--selector=app.kubernetes.io/component=agent";

/// What is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installation {
    /// The agents alone: `manifests/base`.
    Agents,
    /// And the chained CNI plugin: `manifests/cni`.
    WithPlugin,
}

impl Installation {
    fn kustomization(self) -> String {
        manifests(match self {
            Self::Agents => "base",
            Self::WithPlugin => "cni",
        })
    }

    fn cleanup(self) -> String {
        manifests(match self {
            Self::Agents => "cleanup",
            Self::WithPlugin => "cni-cleanup",
        })
    }
}

/// The variable that names another image than that of the debug build.
const IMAGE: &str = "SLUICE_IMAGE";
/// The variable that names the image of another build, to upgrade to.
const OTHER_IMAGE: &str = "SLUICE_OTHER_IMAGE";

/// The image that the manifests name, as containerd has it.
const NAME: &str = concat!("docker.io/library/sluice-agent:", env!("CARGO_PKG_VERSION"));
/// The same under the name of another version.
const OTHER: &str = "docker.io/library/sluice-agent:other";

/// The archive with the agent's image: that which `SLUICE_IMAGE` names, else that of its debug build.
///
/// # Errors
/// If it is not there.
pub fn image() -> Result<PathBuf> {
    let made = || repository().join("target/image/sluice-agent-debug.tar");
    let path = std::env::var_os(IMAGE).map_or_else(made, PathBuf::from);
    let way_out = "`cargo xtask image --debug` makes it";
    ensure!(path.is_file(), "there is no image of the agent at {}: {way_out}", path.display());
    Ok(path)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The kustomization `manifests/NAME`.
pub(crate) fn manifests(name: &str) -> String {
    repository().join("manifests").join(name).display().to_string()
}

impl Lab {
    /// Gives the nodes the agent's image.
    ///
    /// # Errors
    /// If there is none.
    pub fn give_sluice(&self) -> Result<()> {
        self.import(&image()?)
    }

    /// Gives the nodes the agent's image, installs Sluice and waits until every pod of every node is enforced.
    ///
    /// # Errors
    /// If there is no image, or the agents don't become ready: with what they logged.
    pub fn install_sluice(&self) -> Result<()> {
        self.give_sluice()?;
        self.cluster().install_sluice(Installation::Agents)
    }

    /// Gives the nodes another image of the agent, and says its name: that of the archive which `SLUICE_OTHER_IMAGE` names,
    /// else the same one under another name.
    ///
    /// # Errors
    /// If the nodes have none.
    pub fn give_other_sluice(&self) -> Result<&'static str> {
        let archive = std::env::var_os(OTHER_IMAGE);
        archive.as_ref().map_or(Ok(()), |archive| self.import(Path::new(archive)))?;
        self.nodes().iter().try_for_each(|node| node.tag(NAME, OTHER))?;
        // The archive has its image under the usual name as well.
        archive.map_or(Ok(()), |_| self.give_sluice())?;
        Ok(OTHER)
    }
}

impl Machine {
    /// What the agent of this node counts, in the format of Prometheus.
    ///
    /// # Errors
    /// If none runs.
    pub fn agent_metrics(&self) -> Result<String> {
        let connection = self.run(|| TcpStream::connect(METRICS).context("the agent does not listen"))?;
        let answer = http::get(connection, "/metrics")?;
        ensure!(answer.status == 200, "no metrics: {}", answer.body);
        Ok(answer.body)
    }

    /// The sum of one metric over all of its labels that hold `label`; 0 of one that has not been counted yet.
    ///
    /// # Errors
    /// If no agent runs.
    pub fn agent_metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = self.agent_metrics()?;
        let is_meant = |key: &str| key.split('{').next() == Some(name) && key.contains(label);
        let values = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(key, _)| is_meant(key));
        let sum = values.map(|(_, value)| value.parse::<f64>()).sum::<Result<f64, _>>();
        sum.with_context(|| format!("{name} has a value that is no number"))
    }
}

impl Cluster {
    /// Installs Sluice, whose image the nodes must have or find, and waits until every pod of every node is enforced.
    ///
    /// # Errors
    /// If the agents don't become ready: with what they logged.
    pub fn install_sluice(&self, what: Installation) -> Result<()> {
        self.install_kustomization(&what.kustomization())
    }

    /// As [`Self::install_sluice`], of a kustomization that refers to `manifests/base`.
    ///
    /// # Errors
    /// As [`Self::install_sluice`].
    pub fn install_kustomization(&self, kustomization: &str) -> Result<()> {
        self.kubectl(&["apply", "--kustomize", kustomization])?;
        self.await_sluice()
    }

    /// Waits until every agent is ready, which it is when every pod of its node is enforced.
    ///
    /// # Errors
    /// If that takes more than two minutes: with what the agents logged, and what Kubernetes warns of.
    pub fn await_sluice(&self) -> Result<()> {
        let wait = ["rollout", "status", "--namespace", SYSTEM, "daemonset/sluice-agent", "--timeout=120s"];
        self.kubectl(&wait).map(drop).or_else(|error| {
            let get =
                |what: &[&str]| self.kubectl(&[&["get", "--namespace", SYSTEM], what].concat()).unwrap_or_default();
            let pods = get(&["pods", "--output=wide"]);
            // What keeps an agent from its first line.
            let warnings = get(&["events", "--field-selector=type=Warning", "--output=custom-columns=:.message"]);
            let log = self.sluice_log(15);
            Err(error).with_context(|| format!("the agents don't become ready\n{pods}{warnings}{log}"))
        })
    }

    /// Whether Sluice is installed, ready or not.
    ///
    /// # Errors
    /// If the cluster can't be asked.
    pub fn has_sluice(&self) -> Result<bool> {
        let get = ["get", "daemonset/sluice-agent", "--namespace", SYSTEM, "--ignore-not-found", "--output=name"];
        Ok(!self.kubectl(&get)?.is_empty())
    }

    /// The last lines that each agent has logged; all, where `lines` is -1.
    #[must_use]
    pub fn sluice_log(&self, lines: i32) -> String {
        let tail = format!("--tail={lines}");
        let logs = ["logs", "--namespace", SYSTEM, AGENTS, "--prefix", &tail];
        self.kubectl(&logs).unwrap_or_else(|error| format!("no logs of the agents: {error:#}"))
    }

    /// Leaves every node without an agent, until [`Self::call_agents_back`].
    ///
    /// # Errors
    /// If an agent doesn't go.
    pub fn send_agents_away(&self) -> Result<()> {
        self.place_agents(&json!("nowhere"))?;
        self.kubectl(&["wait", "pod", "--namespace", SYSTEM, AGENTS, "--for=delete", "--timeout=120s"]).map(drop)
    }

    /// Gives every node an agent again, without waiting for it.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn call_agents_back(&self) -> Result<()> {
        self.place_agents(&Value::Null)
    }

    /// Changes the node selector of the agents.
    fn place_agents(&self, value: &Value) -> Result<()> {
        let selector = json!({"sluice.dev/e2e": value});
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}).to_string();
        let patch = ["patch", "daemonset/sluice-agent", "--namespace", SYSTEM, "--type=merge", "--patch", &patch];
        self.kubectl(&patch).map(drop)
    }

    /// Removes Sluice and every trace of it from every node.
    ///
    /// # Errors
    /// If a node can't be cleaned.
    pub fn uninstall_sluice(&self, what: Installation) -> Result<()> {
        self.uninstall_kustomizations(&what.kustomization(), &what.cleanup())
    }

    /// As [`Self::uninstall_sluice`], of a kustomization that refers to `manifests/base` by one that refers to
    /// `manifests/cleanup`.
    ///
    /// # Errors
    /// As [`Self::uninstall_sluice`].
    pub fn uninstall_kustomizations(&self, installed: &str, cleanup: &str) -> Result<()> {
        self.kubectl(&["delete", "--kustomize", installed, "--timeout=60s"])?;
        self.kubectl(&["apply", "--kustomize", cleanup])?;
        let wait = ["rollout", "status", "--namespace=sluice-cleanup", "daemonset/sluice-cleanup", "--timeout=120s"];
        self.kubectl(&wait)?;
        self.kubectl(&["delete", "--kustomize", cleanup, "--timeout=60s"]).map(drop)
    }
}
