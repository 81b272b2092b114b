//! A cluster as its administrator has it: kubectl and a kubeconfig, started where the API server can be reached.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{Machine, Programs};

/// A cluster that answers: the lab's, or that of a kubeconfig.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    /// From whose network the API server is reached, if that is not this process' own.
    machine: Option<Machine>,
}

impl Cluster {
    pub(super) fn of_lab(programs: &Programs, kubeconfig: PathBuf, machine: Machine) -> Self {
        Self { kubectl: programs.kubectl(), kubeconfig, machine: Some(machine) }
    }

    /// The cluster that a kubeconfig leads to, with the kubectl of the lab.
    ///
    /// # Errors
    /// If there is no such file, or no kubectl.
    pub fn of(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = kubeconfig.canonicalize();
        let kubeconfig = kubeconfig.context("--kubeconfig must name a file that tells how to reach a cluster")?;
        Ok(Self { kubectl: Programs::get_kubectl()?, kubeconfig, machine: None })
    }

    /// How to reach it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl for [`Self::spawn`].
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Starts a command where the API server is reached, with the files of this process.
    ///
    /// # Errors
    /// If the lab has ended, or there is no such program.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        match &self.machine {
            Some(machine) => machine.spawn_in_network(command),
            None => command.spawn().with_context(|| format!("cannot start {}", command.get_program().display())),
        }
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.output(self.kubectl_command().args(arguments), "")
    }

    /// Creates or changes objects; `manifests` is YAML or JSON.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut kubectl = self.kubectl_command();
        kubectl.args(["apply", "--server-side", "--filename", "-"]);
        self.output(&mut kubectl, manifests).map(drop)
    }

    /// Creates or changes objects in a namespace.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn apply_in(&self, namespace: &str, objects: &[Value]) -> Result<()> {
        let mut objects = objects.to_vec();
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
    }

    /// Creates a namespace, and waits until it has what every pod needs: its ServiceAccount and the authority's
    /// certificate, which controllers add.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        for object in ["serviceaccount/default", "configmap/kube-root-ca.crt"] {
            self.kubectl(&["wait", object, "--namespace", name, "--for=create", "--timeout=30s"])?;
        }
        Ok(())
    }

    /// What a command that reads `input` prints; see [`Self::spawn`].
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn output(&self, command: &mut Command, input: &str) -> Result<String> {
        let program = command.get_program().display().to_string();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        output(self.spawn(command)?, input).with_context(|| format!("{program} failed"))
    }
}

/// What a child with pipes prints when it is given `input`.
pub(crate) fn output(mut child: Child, input: &str) -> Result<String> {
    let mut stdin = child.stdin.take().context("stdin was asked for")?;
    // It may fail before it has read everything; what it says then is the error that counts.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for it")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(said)
}
