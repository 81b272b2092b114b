//! A node: containerd, kubelet and kube-proxy on a machine of its own.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    cgroups,
    control_plane::server,
    images::PAUSE,
    machine::{Daemon, Machine},
    network::{DNS_SERVICE, POD_RANGES, Plan},
    pki::{Pki, Subject},
    programs::Programs,
    settings::{Cni, Settings},
    template::fill,
};
use crate::wait::until;

const CONTAINERD: &str = include_str!("../../lab/assets/containerd.toml");
const KUBELET: &str = include_str!("../../lab/assets/kubelet.yaml");
/// The CNI plugin of [`Cni::Routed`].
const ROUTED: &str = include_str!("../../lab/assets/routed.sh");
const KUBE_PROXY: &str = include_str!("../../lab/assets/kube-proxy.yaml");
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where a runtime looks for the plugins' configuration.
const CONFLIST: &str = "/etc/cni/net.d/10-lab.conflist";
/// The longest time from containerd's start until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that has been set up. Its programs may be stopped and started again.
#[derive(Debug)]
pub struct Node {
    machine: Machine,
    plan: Plan,
    programs: Programs,
    /// Of the lab.
    folder: PathBuf,
}

impl Node {
    pub(super) fn new(machine: Machine, plan: Plan, programs: Programs, folder: PathBuf) -> Self {
        Self { machine, plan, programs, folder }
    }

    /// The name of the Node object, such as `n1`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Its namespaces.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its own addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.plan.node()
    }

    /// Where it logs: `containerd.log`, `kubelet.log`, `kube-proxy.log`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs").join(self.name())
    }

    /// The Node object, with the range of its pods: the kubelet finds it and adds the rest.
    pub(super) fn object(&self) -> serde_json::Value {
        let [v4, v6] = self.plan.pods();
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name(), "labels": {"kubernetes.io/hostname": self.name()}},
            "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]},
        })
    }

    /// Writes everything that its programs read.
    pub(super) fn configure(&self, pki: &Pki, settings: &Settings) -> Result<()> {
        let name = self.name();
        let logs = self.logs();
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let group = self.cgroup();
        cgroups::create(&group)?;
        let mut names = vec![name.to_owned()];
        names.extend(self.addresses().map(|address| address.to_string()));
        let user = format!("system:node:{name}");
        pki.client(name, Subject { user: &user, group: Some("system:nodes") }, names, &server())?;
        let proxy = format!("{name}-proxy");
        let proxy = pki.client(&proxy, Subject { user: "system:kube-proxy", group: None }, Vec::new(), &server())?;

        let runc = self.programs.runc().display().to_string();
        self.write("containerd.toml", &fill(CONTAINERD, &[("PAUSE", PAUSE), ("RUNC", &runc)])?)?;
        let folder = pki.folder();
        let dns = DNS_SERVICE[0].to_string();
        let values = [("PKI", folder.as_str()), ("NODE", name), ("CGROUP", &group), ("DNS", &dns)];
        self.write("kubelet.yaml", &fill(KUBELET, &values)?)?;
        let mode = settings.proxy.to_string();
        let kubeconfig = proxy.display().to_string();
        let values = [("MODE", mode.as_str()), ("PODS", POD_RANGES), ("NODE", name), ("KUBECONFIG", &kubeconfig)];
        self.write("kube-proxy.yaml", &fill(KUBE_PROXY, &values)?)?;

        let plugins = self.programs.cni().display().to_string();
        let script = "mkdir -p /opt/cni/bin && ln -s \"$1\"/* /opt/cni/bin/";
        self.machine.output(Command::new("sh").args(["-c", script, "sh", &plugins]))?;
        self.write_on_node("/opt/cni/bin/routed", ROUTED)?;
        self.machine.output(Command::new("chmod").args(["+x", "/opt/cni/bin/routed"]))?;
        self.write_on_node(CONFLIST, &self.conflist(settings).to_string())
    }

    /// Starts containerd and gives it the images.
    pub(super) fn start_runtime(&self, images: &Path) -> Result<()> {
        let containerd = self.start_containerd()?;
        let silent = || format!("containerd does not answer on {}; it said:\n{}", self.name(), containerd.said());
        until(PATIENCE, Duration::from_millis(50), silent, || {
            if self.ctr(&["version"]).is_ok() {
                return Ok(Some(()));
            }
            let runs = self.machine.runs(&containerd);
            ensure!(runs, "containerd has ended on {}; it said:\n{}", self.name(), containerd.said());
            Ok(None)
        })?;
        self.import(images)
    }

    /// Starts containerd.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_containerd(&self) -> Result<Daemon> {
        let config = self.path("containerd.toml");
        self.start("containerd", &self.programs.containerd("containerd"), &[format!("--config={config}")])
    }

    /// Starts the kubelet.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_kubelet(&self) -> Result<Daemon> {
        let [v4, v6] = self.addresses();
        let arguments = [
            format!("--config={}", self.path("kubelet.yaml")),
            format!("--kubeconfig={}", self.folder.join(format!("pki/{}.kubeconfig", self.name())).display()),
            format!("--hostname-override={}", self.name()),
            format!("--node-ip={v4},{v6}"),
        ];
        self.start("kubelet", &self.programs.kubernetes("kubelet"), &arguments)
    }

    /// Starts kube-proxy.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_proxy(&self) -> Result<Daemon> {
        let config = self.path("kube-proxy.yaml");
        self.start("kube-proxy", &self.programs.kubernetes("kube-proxy"), &[format!("--config={config}")])
    }

    /// Gives containerd the images of an archive, which must lie in the lab's cache folder.
    ///
    /// # Errors
    /// With what containerd says.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        self.ctr(&["--namespace", "k8s.io", "images", "import", "--local", &archive]).map(drop)
    }

    /// Gives an image another name too.
    ///
    /// # Errors
    /// With what containerd says.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["--namespace", "k8s.io", "images", "tag", "--force", image, name]).map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut ctr = Command::new(self.programs.containerd("ctr"));
        self.machine.output(ctr.args(["--address", SOCKET]).args(arguments))
    }

    fn start(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Daemon> {
        let log = self.logs().join(format!("{name}.log"));
        self.machine.start(program, arguments, &self.programs.path(), &log)
    }

    fn conflist(&self, settings: &Settings) -> serde_json::Value {
        let [v4, v6] = self.plan.pods();
        let ipam = json!({
            "type": "host-local",
            "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        });
        let main = match settings.cni {
            Cni::Ptp => json!({"type": "ptp", "ipam": ipam}),
            Cni::Routed => json!({"type": "routed", "ipam": ipam}),
            // In hairpin mode, so that a pod reaches itself through its Service.
            Cni::Bridge => {
                json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": ipam})
            }
        };
        let backend = settings.proxy.to_string();
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": backend});
        json!({"cniVersion": "1.0.0", "name": "lab", "plugins": [main, portmap]})
    }

    fn cgroup(&self) -> String {
        format!("{}/{}", cgroups::of_lab(&self.folder), self.name())
    }

    /// Where a file of its configuration is.
    fn path(&self, file: &str) -> String {
        self.folder.join(self.name()).join(file).display().to_string()
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))
    }

    /// Writes a file that is seen on the node only.
    fn write_on_node(&self, path: &str, text: &str) -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "mkdir -p \"$(dirname \"$1\")\" && cat > \"$1\"", "sh", path]);
        self.machine.output_of(&mut shell, text).map(drop)
    }
}
