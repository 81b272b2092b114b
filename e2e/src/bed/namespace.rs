//! A network namespace with a name that `ip` knows, and ways to run code and commands inside it.

use std::{
    fs::{self, File},
    io::Write as _,
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    ifaddrs::getifaddrs,
    mount::{MsFlags, mount},
    net::if_::{InterfaceFlags, if_nametoindex},
    sched::{CloneFlags, setns, unshare},
};

use crate::wait::until;

use super::registry::{Lease, NAMESPACES, Resource, is_root, unique_name};

/// A network namespace; removed, with the processes in it, when dropped, if it was made here.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    entrance: Entrance,
    _lease: Option<Lease>,
}

/// A way into a namespace that a thread may take with it.
#[derive(Debug)]
pub(crate) struct Entrance(File);

impl Entrance {
    /// Moves the calling thread into the namespace for good.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")
    }

    /// Removes an interface; when this returns, it is gone. One that is gone already is as good.
    pub(crate) fn delete_link(&self, link: &str) -> Result<()> {
        in_new_thread(|| {
            self.enter()?;
            if if_nametoindex(link).is_err() {
                return Ok(());
            }
            let output = Command::new("ip").args(["link", "del", link]).output().context("cannot start ip")?;
            // Whoever holds the other end may have been faster.
            if output.status.success() || if_nametoindex(link).is_err() {
                return Ok(());
            }
            bail!("cannot remove {link}: {}", String::from_utf8_lossy(&output.stderr).trim())
        })
    }
}

impl Namespace {
    /// Makes one with its loopback up, IPv6 without duplicate address detection and no reverse path filter. `label`
    /// ends its name.
    ///
    /// # Errors
    /// If this process is not root, or the kernel refuses.
    pub fn create(label: &str) -> Result<Self> {
        ensure!(is_root(), "network namespaces can only be made by root: run this with sudo");
        let name = unique_name(label);
        let path = Path::new(NAMESPACES).join(&name);
        let lease = Lease::new(Resource::Namespace(path.clone()));
        fs::create_dir_all(NAMESPACES).with_context(|| format!("cannot make the folder {NAMESPACES}"))?;
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        in_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            // A bind mount keeps the namespace alive after its last process, under a name that `ip` accepts.
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("cannot mount the namespace at {}", path.display()))
        })?;
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let namespace = Self { name, entrance: Entrance(handle), _lease: Some(lease) };
        for conf in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{conf}/accept_dad"), "0")?;
            namespace.sysctl(&format!("ipv6/conf/{conf}/disable_ipv6"), "0")?;
            namespace.sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "0")?;
            namespace.sysctl(&format!("ipv4/conf/{conf}/send_redirects"), "0")?;
        }
        // So that ICMP echo needs no raw socket (ping(7)).
        namespace.sysctl("ipv4/ping_group_range", "0 0")?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// The one that a process is in, which is somebody else's: it has no file, and goes when its owner lets it go.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of_process(name: &str, pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let handle = File::open(&path).with_context(|| format!("cannot open {path}, of {name}"))?;
        Ok(Self { name: name.to_owned(), entrance: Entrance(handle), _lease: None })
    }

    /// Its name, which starts with `sluice-` if it was made here.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `nsenter --net=PATH`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// Carries out `work` on a thread inside the namespace. Sockets opened and processes started by it stay there.
    /// A panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// If the namespace can't be entered, or `work` fails.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_new_thread(|| {
            self.entrance.enter()?;
            work()
        })
    }

    /// As [`Self::run`], in a runtime of its own.
    pub(crate) fn run_async<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.run(|| runtime()?.block_on(work()))
    }

    /// A way in for a thread that outlives the borrow.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        let handle = self.entrance.0.try_clone();
        handle.map(Entrance).with_context(|| format!("cannot keep namespace {} open", self.name))
    }

    /// Runs `ip` inside, once for all lines; the first that fails ends it.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let script: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        self.feed("ip", &["-batch", "-"], &script, "iproute2")
    }

    /// As [`Self::ip`], for lines that don't show that they are about IPv6.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip6(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let script: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        self.feed("ip", &["-6", "-batch", "-"], &script, "iproute2")
    }

    /// Runs `tc` inside, once for all lines; the first that fails ends it.
    ///
    /// # Errors
    /// With what `tc` said.
    pub fn tc(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let script: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        self.feed("tc", &["-batch", "-"], &script, "iproute2")
    }

    /// Carries out an nftables script inside, all of it or nothing.
    ///
    /// # Errors
    /// With what `nft` said.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], script, "nftables")
    }

    /// Writes `/proc/sys/net/KEY`.
    ///
    /// # Errors
    /// If the kernel has no such setting, or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .with_context(|| format!("cannot set net/{key} to {value} in {}", self.name))
        })
    }

    /// The index of one of its interfaces.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        self.run(|| if_nametoindex(interface).with_context(|| format!("no interface {interface} in {}", self.name)))
    }

    /// Waits until an interface can carry packets. The kernel may take a second to notice that a new veth's ends are
    /// both up, and drops what is sent before.
    ///
    /// # Errors
    /// If it isn't so after five seconds.
    pub(crate) fn wait_until_running(&self, interface: &str) -> Result<()> {
        let down = || format!("interface {interface} of {} does not come up", self.name);
        self.run(|| {
            until(Duration::from_secs(5), Duration::from_millis(2), down, || {
                let runs = getifaddrs().context("cannot list interfaces")?.any(|entry| {
                    entry.interface_name == interface && entry.flags.contains(InterfaceFlags::IFF_RUNNING)
                });
                Ok(runs.then_some(()))
            })
        })
    }

    fn feed(&self, program: &str, arguments: &[&str], input: &str, package: &str) -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = self.run(|| Ok(command.spawn()))?;
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("`{program}` is missing: `cargo xtask setup` installs it (package {package})")
            }
            Err(error) => return Err(error).with_context(|| format!("cannot start {program}")),
        };
        let mut stdin = child.stdin.take().context("stdin was asked for")?;
        // It may end at the first bad line without reading the rest; what it says then is the error that counts.
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("cannot wait for {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} failed in {}: {}\nof:\n{input}", self.name, said.trim());
        }
        written.with_context(|| format!("cannot write to {program}"))
    }
}

/// A runtime for one thread inside a namespace.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")
}

fn in_new_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}
