//! The programs of the lab, built from Go modules by the ordinary `go build`, once for each content: what a module's
//! `go.mod` and `go.sum` under `e2e/lab` say, with these arguments and this Go, is built and then found again.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use oci_image::digest;
use serde::{Deserialize, Serialize};

use super::made::{named, once, place};

/// The `go.mod`s, one for each project: what one depends on doesn't fit another, and each is built with exactly what
/// its own release was built with.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lab");

/// The file of a lab's folder that says where its programs are.
const NOTE: &str = "programs.json";

/// Programs that are built together.
struct Group {
    /// Of the folder with the `go.mod`.
    module: &'static str,
    /// What is built of it, where there is more than one group.
    part: &'static str,
    packages: &'static [&'static str],
    /// Whether a C compiler is needed, and the build tags.
    cgo: bool,
    tags: &'static str,
}

const KUBERNETES: Group = Group {
    module: "kubernetes",
    part: "",
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes/test/images/agnhost",
    ],
    cgo: false,
    tags: "",
};

/// kubectl alone, for a cluster that is there: a small part of what the rest takes to build.
const KUBECTL: Group =
    Group { module: "kubernetes", part: "kubectl", packages: &["k8s.io/kubernetes/cmd/kubectl"], cgo: false, tags: "" };

const ETCD: Group = Group { module: "etcd", part: "", packages: &["go.etcd.io/etcd/server/v3"], cgo: false, tags: "" };

const CONTAINERD: Group = Group {
    module: "containerd",
    part: "",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    cgo: false,
    tags: "",
};

/// Without seccomp every pod fails: the sandbox asks for a profile.
const RUNC: Group =
    Group { module: "runc", part: "", packages: &["github.com/opencontainers/runc"], cgo: true, tags: "seccomp" };

const CNI: Group = Group {
    module: "cni",
    part: "",
    packages: &[
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "github.com/containernetworking/plugins/plugins/main/ptp",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ],
    cgo: false,
    tags: "",
};

const COREDNS: Group =
    Group { module: "coredns", part: "", packages: &["github.com/coredns/coredns"], cgo: false, tags: "" };

const KIND: Group = Group { module: "kind", part: "", packages: &["sigs.k8s.io/kind"], cgo: false, tags: "" };

/// Of the version that the suite has inside: it is in the same `go.mod`.
const GINKGO: Group = Group {
    module: "kubernetes",
    part: "ginkgo",
    packages: &["github.com/onsi/ginkgo/v2/ginkgo"],
    cgo: false,
    tags: "",
};

/// Modules that are not here could not be fetched either; part of the error's chain then.
#[derive(Clone, Copy, Debug)]
pub struct Unreachable;

impl Unreachable {
    /// The status of a process that ends for this (`EX_TEMPFAIL` of sysexits.h).
    pub const STATUS: u8 = 75;
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Go modules can't be fetched: there is no network, or no module proxy (GOPROXY)")
    }
}

/// The programs that a lab runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Programs {
    kubernetes: PathBuf,
    etcd: PathBuf,
    containerd: PathBuf,
    runc: PathBuf,
    cni: PathBuf,
    coredns: PathBuf,
    pause: PathBuf,
}

impl Programs {
    /// Builds what is not there yet.
    ///
    /// # Errors
    /// If Go or a C compiler is missing, or something doesn't build; with what the compiler said.
    pub fn get() -> Result<Self> {
        let go = Go::find()?;
        Ok(Self {
            kubernetes: go.build(&KUBERNETES)?,
            etcd: go.build(&ETCD)?,
            containerd: go.build(&CONTAINERD)?,
            runc: go.build(&RUNC)?,
            cni: go.build(&CNI)?,
            coredns: go.build(&COREDNS)?,
            pause: go.pause()?,
        })
    }

    /// kubectl by itself, for a cluster that is there: that of the rest of Kubernetes, if it has been built.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn get_kubectl() -> Result<PathBuf> {
        let go = Go::find()?;
        let group = if go.is_built(&KUBERNETES)? { &KUBERNETES } else { &KUBECTL };
        Ok(go.build(group)?.join("kubectl"))
    }

    /// The program that brings up clusters whose nodes are containers of Docker.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn get_kind() -> Result<PathBuf> {
        Ok(Go::find()?.build(&KIND)?.join("kind"))
    }

    /// The folder of the CNI plugins by themselves; they need nothing of the node that they are put on.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn get_cni() -> Result<PathBuf> {
        Go::find()?.build(&CNI)
    }

    /// Notes in a lab's folder which these are.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("paths are text")?;
        fs::write(folder.join(NOTE), text).context("cannot note the lab's programs")
    }

    /// Those that the lab in `folder` runs, whatever would be built today.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let text = fs::read_to_string(folder.join(NOTE)).context("the lab has no note of its programs")?;
        serde_json::from_str(&text).context("the lab's note of its programs is damaged")
    }

    /// A program of Kubernetes.
    pub(super) fn kubernetes(&self, name: &str) -> PathBuf {
        self.kubernetes.join(name)
    }

    /// kubectl, which needs no cluster for some of what it does.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes("kubectl")
    }

    pub(super) fn etcd(&self) -> PathBuf {
        // The program has its package's name; a major version is none.
        self.etcd.join("server")
    }

    /// containerd, its shim or `ctr`.
    pub(super) fn containerd(&self, name: &str) -> PathBuf {
        self.containerd.join(name)
    }

    pub(super) fn runc(&self) -> PathBuf {
        self.runc.join("runc")
    }

    /// The folder of the CNI plugins.
    pub(super) fn cni(&self) -> &Path {
        &self.cni
    }

    pub(super) fn coredns(&self) -> PathBuf {
        self.coredns.join("coredns")
    }

    /// The program that does nothing, and waits for its children: the first process of pods and machines.
    pub(super) fn pause(&self) -> PathBuf {
        self.pause.join("pause")
    }

    /// Where programs find each other: the value of PATH on a machine of the lab.
    pub(super) fn path(&self) -> OsString {
        let mut folders = vec![self.kubernetes.clone(), self.containerd.clone(), self.runc.clone()];
        folders
            .extend(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        env::join_paths(folders).expect("the cache folder's name has been part of PATH for the build")
    }

    /// What all of it is, in a few letters.
    pub(super) fn content(&self) -> String {
        let folders = [&self.kubernetes, &self.etcd, &self.coredns, &self.pause];
        let names: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        digest(names.join("\n").as_bytes())
    }
}

/// The upstream end-to-end suite.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Runs the suite in several processes.
    pub ginkgo: PathBuf,
    /// `e2e.test`
    pub tests: PathBuf,
}

impl Suite {
    /// Builds it if it isn't there yet; that takes as long as Kubernetes itself.
    ///
    /// # Errors
    /// As [`Programs::get`].
    pub fn get() -> Result<Self> {
        let go = Go::find()?;
        let mut flags = vec!["test".to_owned(), "-c".to_owned()];
        flags.extend(go.flags(&GINKGO)?);
        let tests = go.once(&GINKGO, "e2e", &flags, |folder| {
            let mut command = go.command(&GINKGO, &flags);
            command.arg("-o").arg(folder.join("e2e.test")).arg("k8s.io/kubernetes/test/e2e");
            run(&mut command)
        })?;
        Ok(Self { ginkgo: go.build(&GINKGO)?.join("ginkgo"), tests: tests.join("e2e.test") })
    }
}

/// The version of a module that the `go.mod` of `group` asks for, such as `v1.36.3`.
pub(super) fn version(module: &str, package: &str) -> Result<String> {
    let path = Path::new(MODULES).join(module).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines().map(|line| line.split_whitespace().skip_while(|word| *word == "require"));
    lines
        .find_map(|mut words| (words.next() == Some(package)).then(|| words.next()).flatten())
        .map(str::to_owned)
        .with_context(|| format!("{} asks for no {package}", path.display()))
}

/// The `go` that is installed, and the version that is to be used.
struct Go {
    /// What GOTOOLCHAIN must say, if the installed one is too old.
    toolchain: Option<String>,
    version: String,
}

impl Go {
    fn find() -> Result<Self> {
        let asked = Command::new("go").args(["env", "GOVERSION"]).current_dir("/").output();
        let asked = asked.context("Go is missing: `cargo xtask lab` installs it (Debian's golang-go)")?;
        ensure!(asked.status.success(), "go fails: {}", String::from_utf8_lossy(&asked.stderr).trim());
        let installed = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        let needed = needed()?;
        if number(&installed) >= number(&needed) {
            return Ok(Self { toolchain: None, version: installed });
        }
        // Since 1.21, Go fetches another Go as the module golang.org/toolchain.
        ensure!(number(&installed) >= [1, 21, 0], "the lab needs Go 1.21 or later, not {installed}");
        Ok(Self { toolchain: Some(needed.clone()), version: needed })
    }

    fn build_flags(&self, group: &Group) -> Result<Vec<String>> {
        let mut flags = vec!["build".to_owned()];
        flags.extend(self.flags(group)?);
        Ok(flags)
    }

    fn is_built(&self, group: &Group) -> Result<bool> {
        Ok(place(&named(group.module, group.part), &self.content(group, &self.build_flags(group)?)?)?.is_dir())
    }

    fn build(&self, group: &Group) -> Result<PathBuf> {
        let flags = self.build_flags(group)?;
        self.once(group, group.part, &flags, |folder| {
            let mut command = self.command(group, &flags);
            // With a slash at its end it is a folder, also for one program.
            command.arg("-o").arg(folder.join("")).args(group.packages);
            run(&mut command)
        })
    }

    /// `pause`, which comes as a C file with Kubernetes.
    fn pause(&self) -> Result<PathBuf> {
        let flags = ["-Os", "-Wall", "-static"].map(str::to_owned);
        self.once(&KUBERNETES, "pause", &flags, |folder| {
            let mut list = self.command(&KUBERNETES, &["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]);
            let listed = list.output().context("cannot start go")?;
            ensure!(listed.status.success(), "go list fails: {}", String::from_utf8_lossy(&listed.stderr).trim());
            let source = Path::new(String::from_utf8_lossy(&listed.stdout).trim()).join("build/pause/linux/pause.c");
            run(Command::new("cc").args(&flags).arg("-o").arg(folder.join("pause")).arg(source))
        })
    }

    fn flags(&self, group: &Group) -> Result<Vec<String>> {
        let mut linking = "-s -w".to_owned();
        if group.module == "kubernetes" {
            let version = version(group.module, "k8s.io/kubernetes")?;
            let mut parts = version.trim_start_matches('v').split('.');
            let at = "-X k8s.io/component-base/version";
            linking += &format!(" {at}.gitVersion={version}");
            for part in ["gitMajor", "gitMinor"] {
                linking += &format!(" {at}.{part}={}", parts.next().unwrap_or_default());
            }
        }
        let mut flags = vec!["-trimpath".to_owned(), format!("-ldflags={linking}")];
        if !group.tags.is_empty() {
            flags.push(format!("-tags={}", group.tags));
        }
        Ok(flags)
    }

    fn command(&self, group: &Group, flags: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = Command::new("go");
        command.args(flags).current_dir(Path::new(MODULES).join(group.module)).stdin(Stdio::null());
        command.env("CGO_ENABLED", if group.cgo { "1" } else { "0" });
        if let Some(toolchain) = &self.toolchain {
            command.env("GOTOOLCHAIN", toolchain);
        }
        command
    }

    /// The folder with what `make` puts there, made only if no earlier run with the same content has made it.
    fn once(
        &self,
        group: &Group,
        part: &str,
        flags: &[String],
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let content = self.content(group, flags)?;
        let name = named(group.module, part);
        once(&name, &content, make).with_context(|| format!("cannot build {name}"))
    }

    fn content(&self, group: &Group, flags: &[String]) -> Result<String> {
        let mut content = format!("{}\n{}\n{flags:?}\n{:?}\n", self.version, env::consts::ARCH, group.packages);
        for file in ["go.mod", "go.sum"] {
            let path = Path::new(MODULES).join(group.module).join(file);
            content += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        Ok(digest(content.as_bytes()))
    }
}

/// The highest version that a `go.mod` asks for, such as `go1.26.6`.
fn needed() -> Result<String> {
    let mut highest = "go1.21.0".to_owned();
    for group in [KUBERNETES, ETCD, CONTAINERD, RUNC, CNI, COREDNS, KIND] {
        let path = Path::new(MODULES).join(group.module).join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let asked = text.lines().find_map(|line| line.strip_prefix("go "));
        let asked = format!("go{}", asked.with_context(|| format!("{} names no Go", path.display()))?.trim());
        if number(&asked) > number(&highest) {
            highest = asked;
        }
    }
    Ok(highest)
}

/// `go1.26.6` as numbers to compare.
fn number(version: &str) -> [u32; 3] {
    let mut parts = version.trim_start_matches("go").split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    });
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = anyhow!("{program} fails ({}):\n{}", output.status, said.trim());
    let is_unreachable = ["dial tcp", "no such host", "i/o timeout"].iter().any(|sign| said.contains(sign));
    Err(if is_unreachable { error.context(Unreachable) } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(number("go1.26.10") > number("go1.26.8"));
        assert!(number("go1.9") < number("go1.21.0"));
        assert_eq!(number("go1.27rc1"), [1, 27, 0]);
    }

    #[test]
    fn modules_name_their_versions() {
        for (module, package) in [("kubernetes", "k8s.io/kubernetes"), ("coredns", "github.com/coredns/coredns")] {
            assert!(version(module, package).expect("it is in the file").starts_with('v'));
        }
    }
}
