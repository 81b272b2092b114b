//! A cluster of kind, whose nodes are containers of Docker on this machine: one control plane and two workers, dual stack,
//! without kind's own CNI plugin, which enforces policies by itself, but with the reference plugins and routes between the
//! nodes, as the lab has them. Start at [`Kind::up`]; `docs/e2e.md` tells the rest.

mod config;
mod docker;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    bed::registry::{Lease, Resource, Undo, unique_name},
    lab::{Cluster, Programs, Proxy, sluice},
    wait::retry,
};
use config::{CONFLIST, Node};
pub use docker::Missing;

/// The longest until each node has been given a range for its pods.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kind shall bring up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How Services are translated.
    pub proxy: Proxy,
    /// The nodes' image, if not the one that this release of kind is made for.
    pub node_image: Option<String>,
}

/// A cluster that runs; removed when dropped, and on a signal.
#[derive(Debug)]
pub struct Kind {
    name: String,
    cluster: Cluster,
    lease: Lease,
    _folder: Lease,
    folder: PathBuf,
}

impl Kind {
    /// Brings up a cluster whose nodes are ready and have the agent's image.
    ///
    /// # Errors
    /// With [`Missing`] in the chain if there is no Docker that answers; if there is no image of the agent; with what
    /// kind and Docker say.
    pub fn up(settings: &Settings) -> Result<Self> {
        docker::check()?;
        let image = sluice::image()?;
        let (kind, plugins) = (Programs::get_kind()?, Programs::get_cni()?);
        let folder = std::env::temp_dir().join(unique_name("kind"));
        let files = Lease::new(Resource::Folder(folder.clone()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let name = format!("sluice-e2e-{}", std::process::id());
        let lease = Lease::new(Resource::Elsewhere(delete(&kind, &name)));
        let (configuration, kubeconfig) = (folder.join("kind.yaml"), folder.join("kubeconfig"));
        fs::write(&configuration, config::cluster(settings.proxy)).context("cannot write kind's configuration")?;
        let mut create = Command::new(&kind);
        create.args(["create", "cluster", "--name", &name]).arg("--config").arg(&configuration);
        create.arg("--kubeconfig").arg(&kubeconfig);
        if let Some(image) = &settings.node_image {
            create.args(["--image", image]);
        }
        docker::run(&mut create).context("kind can't bring up a cluster")?;
        let cluster = Cluster::of(&kubeconfig)?;
        connect(&await_ranges(&cluster)?, &plugins)?;
        let mut load = Command::new(&kind);
        docker::run(load.args(["load", "image-archive", "--name", &name]).arg(&image))?;
        cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=180s"])?;
        let names = ["rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=180s"];
        cluster.kubectl(&names)?;
        Ok(Self { name, cluster, lease, _folder: files, folder })
    }

    /// As its administrator has it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Leaves the cluster to itself, and says how to go on with it.
    ///
    /// # Errors
    /// If its kubeconfig can't be kept.
    pub fn keep(self) -> Result<String> {
        let kept = std::env::temp_dir().join(format!("{}.kubeconfig", self.name));
        fs::copy(self.folder.join("kubeconfig"), &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        self.lease.forget();
        Ok(format!(
            "the cluster {name} is left: KUBECONFIG={path} kubectl get nodes; docker rm --force --volumes $(docker ps \
             --all --quiet --filter label=io.x-k8s.kind.cluster={name}) removes it",
            name = self.name,
            path = kept.display()
        ))
    }
}

fn delete(kind: &Path, name: &str) -> Undo {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    Undo::new(move || {
        let mut delete = Command::new(&kind);
        if let Err(error) = docker::run(delete.args(["delete", "cluster", "--name", &name])) {
            eprintln!("the cluster {name} of kind is left: {error:#}");
        }
    })
}

/// The nodes, once the controllers have given each a range for its pods in both families.
fn await_ranges(cluster: &Cluster) -> Result<Vec<Node>> {
    let ask = || {
        let list = cluster.kubectl(&["get", "nodes", "--output=json"])?;
        let list: Value = serde_json::from_str(&list).context("kubectl prints no JSON")?;
        config::nodes(&list)
    };
    retry(PATIENCE, Duration::from_millis(200), ask).context("the cluster's nodes are not whole")
}

/// Gives each node the plugins and the ways to the others' pods.
fn connect(nodes: &[Node], plugins: &Path) -> Result<()> {
    for node in nodes {
        // Nobody mounts it in a container, and without it nothing can be pinned.
        docker::shell(&node.name, "grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf")?;
        docker::copy(&plugins.join("."), &node.name, "/opt/cni/bin/")?;
        for route in config::routes(node, nodes) {
            docker::shell(&node.name, &format!("ip route replace {route}"))?;
        }
        // Last: with it the node is ready.
        docker::write(&node.name, CONFLIST, &config::conflist(node).to_string())?;
    }
    Ok(())
}
