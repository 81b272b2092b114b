//! A lab from beginning to end: what is started in which order, what is waited for, and the guard that removes it.

use std::{
    fmt::Display,
    fs,
    io::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    control_plane::ControlPlane,
    dns,
    folder::Folder,
    images,
    kubectl::Cluster,
    machine::Machine,
    network::{self, DNS_SERVICE, OUTSIDE_V4, OUTSIDE_V6, Plan},
    node::Node,
    pki::Pki,
    programs::Programs,
    settings::Settings,
    template::fill,
};
use crate::{bed::is_root, wait::retry};

const COREDNS: &str = include_str!("../../lab/assets/coredns.yaml");
/// The longest time until nodes are ready or CoreDNS answers.
const PATIENCE: Duration = Duration::from_secs(180);
/// The machine of the control plane.
const CONTROL: &str = "control";

/// A cluster that runs.
#[derive(Debug)]
pub struct Lab {
    control: Machine,
    nodes: Vec<Node>,
    cluster: Cluster,
    programs: Programs,
    folder: Folder,
}

impl Lab {
    /// Brings up a cluster that is removed when dropped, until all nodes are ready and CoreDNS answers. Programs and
    /// images are built before if need be, which takes a quarter of an hour from nothing.
    ///
    /// # Errors
    /// If this process is not root, a program can't be built, or the cluster doesn't come up: with the logs' ends.
    pub fn up(settings: &Settings) -> Result<Self> {
        Self::start(settings, Folder::create)
    }

    /// As [`Self::up`], of the one cluster that goes on when this process ends.
    ///
    /// # Errors
    /// As [`Self::up`], and if there is such a cluster already.
    pub fn up_to_stay(settings: &Settings) -> Result<Self> {
        let mut lab = Self::start(settings, Folder::create_kept)?;
        lab.folder.keep();
        Ok(lab)
    }

    /// The cluster that goes on when its process has ended, if there is one. Dropping this doesn't remove it.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn kept() -> Result<Option<Self>> {
        let Some(folder) = Folder::kept()? else { return Ok(None) };
        let programs = Programs::load(folder.path())?;
        let mut control = None;
        let mut nodes = Vec::new();
        for machine in Machine::all(folder.path()) {
            if machine.name() == CONTROL {
                control = Some(machine);
                continue;
            }
            let number = machine.name().trim_start_matches('n').parse();
            let plan = Plan::new(number.with_context(|| format!("{} is no node of a lab", machine.name()))?);
            nodes.push(Node::new(machine, plan, programs.clone(), folder.path().to_owned()));
        }
        let control = control.context("the lab's control plane has ended: `cargo xtask lab down` removes the rest")?;
        let cluster = Cluster::of_lab(&programs, folder.path().join("pki/admin.kubeconfig"), control.clone());
        Ok(Some(Self { control, nodes, cluster, programs, folder }))
    }

    fn start(settings: &Settings, folder: impl FnOnce() -> Result<Folder>) -> Result<Self> {
        ensure!(is_root(), "a lab is made of namespaces, which only root can make: run this with sudo");
        let most = Settings::NODES;
        ensure!((1..=most).contains(&settings.nodes), "a lab has 1 to {most} nodes, not {}", settings.nodes);
        let mut clock = Clock::start();
        let programs = Programs::get()?;
        let archive = images::build(&programs)?;
        clock.lap("programs and images are there");
        let folder = folder()?;
        programs.save(folder.path())?;
        let pki = Pki::create(folder.path().join("pki"))?;
        let kubeconfig = ControlPlane::certify(&pki)?;
        let control = Machine::boot(folder.path(), CONTROL, &programs.pause())?;
        network::lay(&control)?;
        let mut nodes = Vec::new();
        for number in 1..=settings.nodes {
            let machine = Machine::boot(folder.path(), &format!("n{number}"), &programs.pause())?;
            network::join(&control, &machine, Plan::new(number), settings.nodes)?;
            nodes.push(Node::new(machine, Plan::new(number), programs.clone(), folder.path().to_owned()));
        }
        clock.lap("machines and links are there");

        let cluster = Cluster::of_lab(&programs, kubeconfig.clone(), control.clone());
        let lab = Self { control, nodes, cluster, programs, folder };
        let plane = lab.plane();
        let api = plane.start_api()?;
        thread::scope(|scope| {
            let runtimes: Vec<_> = lab
                .nodes
                .iter()
                .map(|node| scope.spawn(|| node.configure(&pki, settings).and_then(|()| node.start_runtime(&archive))))
                .collect();
            plane.await_api(&api, &kubeconfig)?;
            clock.lap("the API server is ready");
            plane.start_controllers()?;
            lab.apply_objects()?;
            for runtime in runtimes {
                runtime.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            clock.lap("the nodes have the images");
            anyhow::Ok(())
        })?;
        for node in &lab.nodes {
            node.start_kubelet()?;
            node.start_proxy()?;
        }
        lab.await_nodes().map_err(|error| lab.explained(error))?;
        clock.lap("all nodes are ready");
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        let rollout = ["--namespace=kube-system", "rollout", "status", "deployment/coredns", &limit];
        lab.kubectl(&rollout).map_err(|error| lab.explained(error))?;
        clock.lap("CoreDNS is available");
        lab.await_dns().map_err(|error| lab.explained(error))?;
        clock.lap("CoreDNS answers");
        Ok(lab)
    }

    /// The cluster as its administrator has it.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The machine of the control plane, which is also the outside of the cluster.
    #[must_use]
    pub fn control(&self) -> &Machine {
        &self.control
    }

    /// All nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node or control plane of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        let mut machines = self.nodes.iter().map(Node::machine).chain([&self.control]);
        machines.find(|machine| machine.name() == name).with_context(|| {
            let names: Vec<&str> = self.nodes.iter().map(Node::name).chain([CONTROL]).collect();
            format!("the lab has no machine {name}; it has {}", names.join(", "))
        })
    }

    /// Where everything of the lab is; its logs are in `logs` there.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The value of PATH with which its machines find the lab's own programs, `ctr` for one.
    #[must_use]
    pub fn path(&self) -> std::ffi::OsString {
        self.programs.path()
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    /// Creates or changes objects; `manifests` is YAML or JSON.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.cluster.apply(manifests)
    }

    /// Gives every node the images of an archive, from anywhere.
    ///
    /// # Errors
    /// With what containerd says.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let here = self.folder.path().join("import.tar");
        fs::copy(archive, &here).with_context(|| format!("cannot read {}", archive.display()))?;
        let imported = self.nodes.iter().try_for_each(|node| node.import(&here));
        fs::remove_file(&here).context("cannot remove the copy of the archive")?;
        imported
    }

    /// Kills the API server, as a machine that fails does.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn stop_api(&self) -> Result<()> {
        let api = self.control.find("kube-apiserver")?.context("the API server doesn't run")?;
        self.control.stop(&api, Signal::SIGKILL)
    }

    /// Starts the API server again, and waits until it is ready.
    ///
    /// # Errors
    /// If it isn't in two minutes.
    pub fn start_api(&self) -> Result<()> {
        let api = self.plane().start_api_alone()?;
        self.plane().await_api(&api, self.cluster.kubeconfig())
    }

    /// Lets etcd forget everything but what there is now.
    ///
    /// # Errors
    /// With what etcd says.
    pub fn compact_history(&self) -> Result<()> {
        let list = ["get", "--raw", "/api/v1/namespaces?limit=1"];
        let list: serde_json::Value = serde_json::from_str(&self.kubectl(&list)?).context("no JSON")?;
        let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
        self.plane().compact(version)
    }

    fn plane(&self) -> ControlPlane<'_> {
        ControlPlane { machine: &self.control, programs: &self.programs, folder: self.folder.path() }
    }

    /// Removes the cluster, and says what could not be removed.
    ///
    /// # Errors
    /// With what could not be removed.
    pub fn down(self) -> Result<()> {
        self.folder.remove()
    }

    fn apply_objects(&self) -> Result<()> {
        let nodes: Vec<_> = self.nodes.iter().map(Node::object).collect();
        let nodes = json!({"apiVersion": "v1", "kind": "List", "items": nodes});
        let mut create = self.cluster.kubectl_command();
        self.cluster.output(create.args(["create", "--filename", "-"]), &nodes.to_string())?;
        let image = images::coredns()?;
        let [v4, v6] = DNS_SERVICE.map(|address| address.to_string());
        let outside = (OUTSIDE_V4.to_string(), OUTSIDE_V6.to_string());
        let values = [
            ("IMAGE", image.as_str()),
            ("DNS_V4", &v4),
            ("DNS_V6", &v6),
            ("OUTSIDE_V4", &outside.0),
            ("OUTSIDE_V6", &outside.1),
        ];
        self.apply(&fill(COREDNS, &values)?)
    }

    fn await_nodes(&self) -> Result<()> {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["wait", "node", "--all", "--for=condition=Ready", &limit]).map(drop)
    }

    /// Until every node gets an answer, at both addresses.
    fn await_dns(&self) -> Result<()> {
        for node in &self.nodes {
            for server in DNS_SERVICE {
                let ask = || node.machine().run(|| dns::ask(server, "kubernetes.default.svc.cluster.local"));
                let answer = retry(PATIENCE, Duration::from_millis(50), ask);
                answer.with_context(|| format!("no DNS on {}", node.name()))?;
            }
        }
        Ok(())
    }

    /// With what may have gone wrong.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let ask = |arguments: &[&str]| self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        let nodes = ask(&["get", "nodes", "--output=wide"]);
        let pods = ask(&["get", "pods", "--all-namespaces", "--output=wide"]);
        let events = ask(&["get", "events", "--all-namespaces", "--field-selector=type=Warning"]);
        let warnings: Vec<&str> = events.lines().rev().take(10).collect();
        let mut text = format!("the cluster does not come up\n{nodes}{pods}{}", warnings.join("\n"));
        for node in &self.nodes {
            let log = fs::read_to_string(node.logs().join("kubelet.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('E')).collect();
            let last = &lines[lines.len().saturating_sub(5)..];
            text += &format!("\nkubelet of {}:\n{}", node.name(), last.join("\n"));
        }
        error.context(text)
    }
}

/// Says what has been reached, and when.
struct Clock {
    start: Instant,
    last: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self { start: now, last: now }
    }

    fn lap(&mut self, what: impl Display) {
        let now = Instant::now();
        let (since, took) = (now - self.start, now - self.last);
        // To where it is seen at once, also by those who read only what a test prints.
        let _ = writeln!(std::io::stderr(), "{:6.1} s  +{:5.1} s  {what}", since.as_secs_f64(), took.as_secs_f64());
        self.last = now;
    }
}
