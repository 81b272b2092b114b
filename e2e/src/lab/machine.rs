//! A machine of the lab: network, mount, pid, uts and ipc namespaces around one first process. Whoever ends that ends
//! all: the kernel kills the other processes of the pid namespace with it, and lets the namespaces, mounts and links go.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    panic,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::{kubectl::output, mounts};
use crate::wait::until;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// The folder of the records of first processes, in a lab's.
const RECORDS: &str = "machines";

/// A machine that runs. Dropping it doesn't end it: the lab's folder does.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    init: Init,
}

/// The first process of a machine, as the machine outside sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Init {
    pid: i32,
    /// In clock ticks since the boot: tells this process from a later one of the same number.
    started: u64,
}

impl Machine {
    /// Starts a machine of the lab in `folder`, with its own copy of this machine's file system, whose first process
    /// is `pause`.
    pub(super) fn boot(folder: &Path, name: &str, pause: &Path) -> Result<Self> {
        let boot = || {
            let new = CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC;
            unshare(new).context("cannot make namespaces")?;
            fs::write("/proc/sys/kernel/hostname", name).context("cannot name the machine")?;
            mounts::change_root(folder, name)?;
            let mut first = Command::new(pause);
            let first = quiet(&mut first).spawn().with_context(|| format!("cannot start {}", pause.display()))?;
            // /proc shows the pid namespace of the process that mounts it, and this thread is not in the new one.
            let mounted = run_to_end(Command::new("mount").args(["-t", "proc", "proc", "/proc"]));
            Ok((first, mounted))
        };
        let (mut first, mounted) = in_new_thread(boot).with_context(|| format!("machine {name}"))?;
        let init = match mounted.and_then(|()| note(folder, name, first.id())) {
            Ok(init) => init,
            Err(error) => {
                // Nobody would find it again.
                let _ = first.kill().and_then(|()| first.wait());
                return Err(error).with_context(|| format!("machine {name}"));
            }
        };
        let machine = Self { name: name.to_owned(), init };
        for conf in ["all", "default"] {
            machine.sysctl(&format!("ipv6/conf/{conf}/accept_dad"), "0")?;
            machine.sysctl(&format!("ipv6/conf/{conf}/disable_ipv6"), "0")?;
            machine.sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "0")?;
        }
        machine.sysctl("ipv4/ip_forward", "1")?;
        machine.sysctl("ipv6/conf/all/forwarding", "1")?;
        machine.ip(&["link set lo up"])?;
        Ok(machine)
    }

    /// The machines of the lab in `folder` that run, by name.
    pub(super) fn all(folder: &Path) -> Vec<Self> {
        let mut machines: Vec<Self> = records(folder)
            .into_iter()
            .filter(|(_, init)| init.runs())
            .map(|(name, init)| Self { name, init })
            .collect();
        machines.sort_by(|one, other| one.name.cmp(&other.name));
        machines
    }

    /// As given; its host name too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its first process, for `nsenter --target`.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    /// Carries out `work` on a thread in its network namespace, with the files of the machine outside. Sockets opened
    /// by it stay there. A panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// If the machine has ended, or `work` fails.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_new_thread(|| {
            setns(self.namespace("net")?, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
            work()
        })
    }

    /// Starts a command in all of its namespaces, as a child of this process.
    ///
    /// # Errors
    /// If the machine has ended, or has no such program.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        in_new_thread(|| {
            // All of them before the first is entered: after that, /proc is another.
            let handles = ["net", "uts", "ipc", "pid", "mnt"].map(|kind| self.namespace(kind));
            // A thread that shares its root and working folder with others can't change them.
            unshare(CloneFlags::CLONE_FS).context("cannot leave the other threads")?;
            for handle in handles {
                setns(handle?, CloneFlags::empty()).context("cannot enter a namespace")?;
            }
            let program = command.get_program().display().to_string();
            command.spawn().with_context(|| format!("cannot start {program} on {}", self.name))
        })
    }

    /// Starts a command in its network namespace, with the files and process numbers of this process.
    ///
    /// # Errors
    /// If the machine has ended, or there is no such program.
    pub fn spawn_in_network(&self, command: &mut Command) -> Result<Child> {
        let program = program(command);
        self.run(|| command.spawn().with_context(|| format!("cannot start {program}")))
    }

    /// What a command prints.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.output_of(command, "")
    }

    /// As [`Self::output`], of a command that reads `input`.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub fn output_of(&self, command: &mut Command, input: &str) -> Result<String> {
        let program = program(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        output(self.spawn(command)?, input).with_context(|| format!("{program} failed on {}", self.name))
    }

    /// Starts a program that goes on when this process ends; what it prints is added to the file `log`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&self, program: &Path, arguments: &[impl AsRef<OsStr>], path: &OsStr, log: &Path) -> Result<Daemon> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot share the log")?;
        // The shell ends at once, so that the first process of the machine is its parent: who has a parent outside
        // would have to be waited for there before the machine can end.
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 3>&1 >&2; \"$@\" 3>&- & echo $! >&3", "sh"]).arg(program).args(arguments);
        shell.env("PATH", path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let child = self.spawn(&mut shell)?;
        drop(file);
        let output = child.wait_with_output().context("cannot wait for the shell")?;
        let number = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let pid = number.parse().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Daemon { program: program.to_owned(), pid, log: log.to_owned() })
    }

    /// A process of this machine that runs a program of this name, whoever has started it.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn find(&self, program: &str) -> Result<Option<Daemon>> {
        self.namespace("pid")?;
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&self.init.pid.to_string());
        let processes = fs::read_dir("/proc").context("cannot list processes")?;
        for process in processes.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let Ok(path) = fs::read_link(format!("/proc/{process}/exe")) else { continue };
            if path.file_name() != Some(OsStr::new(program)) || namespace(&process) != own {
                continue;
            }
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            // The last one is that of the innermost namespace, which is the machine's. A process that ends meanwhile has
            // none.
            if let Some(pid) = numbers.and_then(|line| line.split_whitespace().last()?.parse().ok()) {
                return Ok(Some(Daemon { program: path, pid, log: PathBuf::new() }));
            }
        }
        Ok(None)
    }

    /// Whether a daemon of this machine runs.
    #[must_use]
    pub fn runs(&self, daemon: &Daemon) -> bool {
        self.signal(daemon, "-0").is_ok()
    }

    /// Sends a daemon SIGTERM, or SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// If it doesn't run, or goes on for ten seconds.
    pub fn stop(&self, daemon: &Daemon, signal: Signal) -> Result<()> {
        self.send(daemon, signal)?;
        let goes_on = || format!("{} goes on after {signal}", daemon.program.display());
        until(Duration::from_secs(10), POLL, goes_on, || Ok((!self.runs(daemon)).then_some(())))
    }

    /// Sends a daemon a signal.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn send(&self, daemon: &Daemon, signal: Signal) -> Result<()> {
        self.signal(daemon, &format!("-{}", signal as i32)).map(drop)
    }

    fn signal(&self, daemon: &Daemon, signal: &str) -> Result<String> {
        // The shell's own `kill`: that of procps is not on every system.
        let mut shell = Command::new("sh");
        self.output(shell.args(["-c", "kill \"$@\"", "sh", signal]).arg(daemon.pid.to_string()))
    }

    /// Runs `ip` in its network, once for all lines; the first that fails ends it.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let script: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
        let mut ip = Command::new("ip");
        let said = self.run(|| {
            let ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null());
            let mut child = ip.spawn().context("cannot start ip")?;
            let mut stdin = child.stdin.take().context("stdin was asked for")?;
            let _ = stdin.write_all(script.as_bytes());
            drop(stdin);
            child.wait_with_output().context("cannot wait for ip")
        })?;
        let errors = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "ip failed on {}: {}\nof:\n{script}", self.name, errors.trim());
        Ok(())
    }

    /// Writes `/proc/sys/net/KEY`.
    ///
    /// # Errors
    /// If the kernel has no such setting, or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .with_context(|| format!("cannot set net/{key} to {value} on {}", self.name))
        })
    }

    fn namespace(&self, kind: &str) -> Result<File> {
        let path = format!("/proc/{}/ns/{kind}", self.init.pid);
        let handle = File::open(&path);
        // After opening, since the number might get another owner in between.
        ensure!(self.init.runs(), "machine {} has ended", self.name);
        handle.with_context(|| format!("cannot open {path}"))
    }
}

/// A program that a machine goes on running.
#[derive(Clone, Debug)]
pub struct Daemon {
    program: PathBuf,
    /// In the machine's pid namespace.
    pid: i32,
    log: PathBuf,
}

impl Daemon {
    /// Its number in the machine's pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it has printed, if it was started here: at most the last four thousand bytes.
    #[must_use]
    pub fn said(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Init {
    /// The process of this number, if there is one that has not ended.
    fn of(pid: i32) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let has_ended = matches!(fields.next()?, "Z" | "X");
        let started = fields.nth(18)?.parse().ok()?;
        (!has_ended).then_some(Self { pid, started })
    }

    fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Ends every machine of the lab in `folder`.
pub(super) fn end_all(folder: &Path) -> Result<()> {
    let ending: Vec<(String, Init)> = records(folder).into_iter().filter(|(_, init)| init.runs()).collect();
    for (name, init) in &ending {
        match kill(Pid::from_raw(init.pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot end machine {name}")),
        }
    }
    for (name, init) in ending {
        let goes_on = || format!("machine {name} does not end");
        until(Duration::from_secs(20), POLL, goes_on, || Ok((!init.runs()).then_some(())))?;
        // Does nothing where somebody else is its parent.
        let _ = waitpid(Pid::from_raw(init.pid), Some(WaitPidFlag::WNOHANG));
    }
    Ok(())
}

/// Records the first process of a machine.
fn note(folder: &Path, name: &str, number: u32) -> Result<Init> {
    let pid = i32::try_from(number).context("process numbers are below 2^22")?;
    let init = Init::of(pid).context("the first process has ended")?;
    let records = folder.join(RECORDS);
    fs::create_dir_all(&records).with_context(|| format!("cannot make {}", records.display()))?;
    fs::write(records.join(name), format!("{} {}", init.pid, init.started)).context("cannot record the process")?;
    Ok(init)
}

fn records(folder: &Path) -> Vec<(String, Init)> {
    let Ok(entries) = fs::read_dir(folder.join(RECORDS)) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let (pid, started) = text.split_once(' ')?;
            let init = Init { pid: pid.parse().ok()?, started: started.parse().ok()? };
            Some((entry.file_name().into_string().ok()?, init))
        })
        .collect()
}

/// Without a terminal, and out of reach of its signals.
fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0)
}

fn run_to_end(command: &mut Command) -> Result<()> {
    let program = program(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn program(command: &Command) -> String {
    command.get_program().display().to_string()
}

fn in_new_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}
