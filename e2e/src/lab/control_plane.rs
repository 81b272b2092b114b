//! The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler on a machine of their own.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    machine::{Daemon, Machine},
    network::{API_SERVICE, CONTROL_V4, POD_RANGES, SERVICE_RANGES},
    pki::{Pki, Subject},
    programs::Programs,
    template::fill,
};
use crate::{http, wait::until};

/// Where the API server listens, on [`CONTROL_V4`].
const PORT: u16 = 6443;
/// Where etcd listens, on the machine's loopback.
const CLIENTS: &str = "http://127.0.0.1:2379";
const ETCD: &str = include_str!("../../lab/assets/etcd.yaml");
/// The longest time from the start of the API server until it is ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts the programs of the control plane.
pub(super) struct ControlPlane<'a> {
    pub(super) machine: &'a Machine,
    pub(super) programs: &'a Programs,
    /// Of the lab.
    pub(super) folder: &'a Path,
}

/// What clients take for the API server.
pub(super) fn server() -> String {
    format!("https://{CONTROL_V4}:{PORT}")
}

impl ControlPlane<'_> {
    /// Makes the certificates of the control plane itself and of its administrator, whose kubeconfig is returned.
    pub(super) fn certify(pki: &Pki) -> Result<PathBuf> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let mut names = names.to_vec();
        names.push("kubernetes.default.svc.cluster.local".to_owned());
        names.extend([CONTROL_V4, API_SERVICE, std::net::Ipv4Addr::LOCALHOST].map(|address| address.to_string()));
        pki.issue("apiserver", Subject { user: "kube-apiserver", group: None }, names)?;
        let masters = Some("system:masters");
        pki.issue("apiserver-kubelet", Subject { user: "kube-apiserver", group: masters }, Vec::new())?;
        for name in ["controller-manager", "scheduler"] {
            let user = format!("system:kube-{name}");
            pki.client(name, Subject { user: &user, group: None }, Vec::new(), &server())?;
        }
        pki.client("admin", Subject { user: "admin", group: masters }, Vec::new(), &server())
    }

    /// Starts etcd and the API server.
    pub(super) fn start_api(&self) -> Result<Daemon> {
        self.start_etcd()?;
        self.start_api_alone()
    }

    fn start_etcd(&self) -> Result<Daemon> {
        let data = self.folder.join("etcd").display().to_string();
        let config = self.folder.join("etcd.yaml");
        fs::write(&config, fill(ETCD, &[("DATA", &data), ("CLIENTS", CLIENTS)])?).context("cannot configure etcd")?;
        self.start("etcd", &self.programs.etcd(), &[format!("--config-file={}", config.display())])
    }

    /// Has etcd remove all versions before this one.
    pub(super) fn compact(&self, version: &str) -> Result<()> {
        let body = json!({"revision": version, "physical": true}).to_string();
        let at = CLIENTS.trim_start_matches("http://");
        let etcd = self.machine.run(|| TcpStream::connect(at).context("etcd does not listen"))?;
        let answer = http::ask(etcd, "POST", "/v3/kv/compaction", &body)?;
        ensure!(answer.status == 200, "etcd does not compact: {}", answer.body);
        Ok(())
    }

    /// Starts the API server, whose etcd runs.
    pub(super) fn start_api_alone(&self) -> Result<Daemon> {
        let file = |name: &str| self.file(name);
        let api = vec![
            format!("--etcd-servers={CLIENTS}"),
            format!("--bind-address={CONTROL_V4}"),
            format!("--advertise-address={CONTROL_V4}"),
            format!("--secure-port={PORT}"),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--kubelet-client-certificate={}", file("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", file("apiserver-kubelet.key")),
            format!("--kubelet-certificate-authority={}", file("ca.crt")),
            // Names of nodes are known to nobody here.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        self.start("kube-apiserver", &self.programs.kubernetes("kube-apiserver"), &api)
    }

    /// Waits until the API server says that it is ready.
    pub(super) fn await_api(&self, api: &Daemon, kubeconfig: &Path) -> Result<()> {
        let silent = || format!("the API server is not ready; it said:\n{}", api.said());
        until(PATIENCE, Duration::from_millis(100), silent, || {
            let mut kubectl = Command::new(self.programs.kubectl());
            kubectl.arg("--kubeconfig").arg(kubeconfig).args(["get", "--raw", "/readyz"]);
            if self.machine.output(&mut kubectl).is_ok() {
                return Ok(Some(()));
            }
            ensure!(self.machine.runs(api), "kube-apiserver has ended; it said:\n{}", api.said());
            Ok(None)
        })
    }

    /// Starts the controllers and the scheduler.
    pub(super) fn start_controllers(&self) -> Result<()> {
        let file = |name: &str| self.file(name);
        let kubeconfig = |name: &str| {
            let path = file(&format!("{name}.kubeconfig"));
            ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
                .map(|flag| format!("--{flag}={path}"))
        };
        let mut manager = kubeconfig("controller-manager").to_vec();
        manager.extend([
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            // Its usual limits make the start of its many controllers take five seconds.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            // Otherwise the controllers have no rights: nodes stay tainted, and Services without endpoints.
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", file("sa.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            format!("--cluster-signing-cert-file={}", file("ca.crt")),
            format!("--cluster-signing-key-file={}", file("ca.key")),
            // The lab gives each node its range itself, by the node's number.
            "--allocate-node-cidrs=false".to_owned(),
            format!("--cluster-cidr={POD_RANGES}"),
            format!("--service-cluster-ip-range={SERVICE_RANGES}"),
        ]);
        self.start("kube-controller-manager", &self.programs.kubernetes("kube-controller-manager"), &manager)?;
        let mut scheduler = kubeconfig("scheduler").to_vec();
        scheduler.extend(["--leader-elect=false".to_owned(), "--bind-address=127.0.0.1".to_owned()]);
        self.start("kube-scheduler", &self.programs.kubernetes("kube-scheduler"), &scheduler)?;
        Ok(())
    }

    /// A certificate, key or kubeconfig of the lab.
    fn file(&self, name: &str) -> String {
        self.folder.join("pki").join(name).display().to_string()
    }

    fn start(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Daemon> {
        let logs = self.folder.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let log = logs.join(format!("{name}.log"));
        self.machine.start(program, arguments, &self.programs.path(), &log).with_context(|| name.to_owned())
    }
}
