//! The agent of a node, as the binary that is shipped, and what it says of itself.

use std::{
    env,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use super::{Node, Process, Scratch};
use crate::http::{self, Answer};

/// How long an agent may take to become ready, or to end. Almost all of it is the kernel's verifier, which takes seconds
/// of one core, and longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running agent; killed when dropped, which leaves its pins to its [`Scratch`].
#[derive(Debug)]
pub struct Agent {
    process: Process,
    socket: PathBuf,
}

impl Agent {
    /// Starts `sluice-agent` inside `node`, which follows `directory` and keeps its pins and its socket in `scratch`.
    /// `flags` come last.
    ///
    /// # Errors
    /// If the binary can't be built or started. That it becomes ready is [`Self::wait_until_ready`]'s to tell.
    pub fn start(node: &Node, directory: &Path, scratch: &Scratch, flags: &[&str]) -> Result<Self> {
        Self::start_in(node, directory, (scratch.files(), scratch.pins()), flags)
    }

    /// As [`Self::start`], with its socket and its log in one folder and its pins in another.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(node: &Node, directory: &Path, (files, pins): (&Path, &Path), flags: &[&str]) -> Result<Self> {
        let socket = files.join("agent.sock");
        let mut command = Command::new(program("sluice-agent")?);
        command.arg("--node").arg(node.name()).arg("--directory").arg(directory);
        command.arg("--pin-dir").arg(pins).arg("--socket").arg(&socket).args(flags);
        let process = Process::start(node.namespace(), &mut command, &files.join("agent.log"))?;
        Ok(Self { process, socket })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// As the two.
    pub fn start_ready(node: &Node, directory: &Path, scratch: &Scratch, flags: &[&str]) -> Result<Self> {
        let mut agent = Self::start(node, directory, scratch, flags)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// With its log, if it ends or takes too long.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let socket = self.socket.clone();
        // Before it listens, asking fails.
        let ready = || Ok(get(&socket, "/readyz").is_ok_and(|answer| answer.status == 200));
        self.process.wait_until("become ready", PATIENCE, ready).context("sluice-agent")
    }

    /// Waits until `condition` holds of what `/state` answers.
    ///
    /// # Errors
    /// With its log, if it ends or takes too long.
    pub fn wait_for_state(&mut self, what: &str, condition: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        let socket = self.socket.clone();
        let holds = || Ok(condition(&state(&socket)?));
        self.process.wait_until(what, PATIENCE, holds).context("sluice-agent")
    }

    /// What `/state` answers.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn state(&self) -> Result<serde_json::Value> {
        state(&self.socket)
    }

    /// The answer to a GET on its socket.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        get(&self.socket, path)
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// SIGKILL: no chance to clean up or to say goodbye.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub fn kill(self) -> Result<()> {
        self.process.kill().context("sluice-agent")
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Errors
    /// With its log, if it doesn't end.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.process.stop(Signal::SIGTERM, PATIENCE).context("sluice-agent")
    }
}

/// A program of the workspace, built if need be, beside the one that runs.
///
/// # Errors
/// If it can't be built, or there is none of this name.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("cannot tell which program this is")?;
    // Tests lie in `deps`, programs above it.
    let folder = here.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(Path::new("."));
    build(folder)?;
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: `cargo build -p controller -p policyctl -p sluice-cni` builds it",
        path.display()
    );
    Ok(path)
}

/// Once a process, where cargo started it: an old agent would make for confusing results.
fn build(folder: &Path) -> Result<()> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let Some(cargo) = env::var_os("CARGO") else { return Ok(()) };
    let built = BUILT.get_or_init(|| {
        let mut command = Command::new(cargo);
        // the same packages as in `cargo xtask demo`: others would have their dependencies built with other features
        command.args(["build", "--quiet", "--bins"]);
        command.args([
            "--package",
            "controller",
            "--package",
            "policyctl",
            "--package",
            "sluice-cni",
            "--package",
            "e2e",
        ]);
        if folder.ends_with("release") {
            command.arg("--release");
        }
        // as xtask does: ring's build script would run again for each package that a build comes from
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
            command.env_remove(name);
        }
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    built.clone().map_err(|error| anyhow!("the agent does not build:\n{error}"))
}

fn state(socket: &Path) -> Result<serde_json::Value> {
    let answer = get(socket, "/state")?;
    ensure!(answer.status == 200, "/state answers {}: {}", answer.status, answer.body);
    serde_json::from_str(&answer.body).context("/state is not JSON")
}

fn get(socket: &Path, path: &str) -> Result<Answer> {
    let connection = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    connection.set_read_timeout(Some(PATIENCE)).context("cannot set a time-out")?;
    http::get(connection, path)
}
