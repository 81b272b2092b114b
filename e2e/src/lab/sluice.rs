//! Sluice on a cluster, installed and removed by the commands of docs/install.md.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Cluster, Lab};

/// The namespace of the agents.
pub const SYSTEM: &str = "sluice-system";

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

/// The archive with the agent's image: that which [`IMAGE`] names, else that of its debug build.
///
/// # Errors
/// If it is not there.
fn image() -> Result<PathBuf> {
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
fn manifests(name: &str) -> String {
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
}

impl Cluster {
    /// Installs Sluice, whose image the nodes must have or find, and waits until every pod of every node is enforced.
    ///
    /// # Errors
    /// If the agents don't become ready: with what they logged.
    pub fn install_sluice(&self, what: Installation) -> Result<()> {
        self.kubectl(&["apply", "--kustomize", &what.kustomization()])?;
        self.await_sluice()
    }

    /// Waits until every agent is ready, which it is when every pod of its node is enforced.
    ///
    /// # Errors
    /// If that takes more than two minutes: with what the agents logged.
    pub fn await_sluice(&self) -> Result<()> {
        let wait = ["rollout", "status", "--namespace", SYSTEM, "daemonset/sluice-agent", "--timeout=120s"];
        self.kubectl(&wait).map(drop).or_else(|error| {
            let pods = self.kubectl(&["get", "pods", "--namespace", SYSTEM, "--output=wide"]);
            Err(error).with_context(|| {
                format!("the agents don't become ready\n{}{}", pods.unwrap_or_default(), self.sluice_log(15))
            })
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
        let logs = ["logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=agent", "--prefix", &tail];
        self.kubectl(&logs).unwrap_or_else(|error| format!("no logs of the agents: {error:#}"))
    }

    /// Removes Sluice and every trace of it from every node.
    ///
    /// # Errors
    /// If a node can't be cleaned.
    pub fn uninstall_sluice(&self, what: Installation) -> Result<()> {
        self.kubectl(&["delete", "--kustomize", &what.kustomization(), "--timeout=60s"])?;
        let cleanup = what.cleanup();
        self.kubectl(&["apply", "--kustomize", &cleanup])?;
        let wait = ["rollout", "status", "--namespace=sluice-cleanup", "daemonset/sluice-cleanup", "--timeout=120s"];
        self.kubectl(&wait)?;
        self.kubectl(&["delete", "--kustomize", &cleanup, "--timeout=60s"]).map(drop)
    }
}
