//! A child process inside a namespace, with its output in a file.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Namespace,
    registry::{Lease, Resource},
};
use crate::wait::until;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: PathBuf,
    lease: Option<Lease>,
}

impl Process {
    /// Starts `command` inside `namespace`; what it prints goes to the file `output`.
    ///
    /// # Errors
    /// If the program or the file can't be opened.
    pub fn start(namespace: &Namespace, command: &mut Command, output: &Path) -> Result<Self> {
        let file = File::create(output).with_context(|| format!("cannot make {}", output.display()))?;
        let errors = file.try_clone().context("cannot share the output's file")?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let program = command.get_program().display().to_string();
        let child = namespace.run(|| command.spawn().with_context(|| format!("cannot start {program}")))?;
        let pid = i32::try_from(child.id()).context("the kernel's process numbers are below 2^22")?;
        let lease = Lease::new(Resource::Process(Pid::from_raw(pid)));
        Ok(Self { child, output: output.to_owned(), lease: Some(lease) })
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// Waits until `condition` holds, which is asked for every 5 ms. `what` completes 'it has not ...'.
    ///
    /// # Errors
    /// With what it printed, if the process ends before, or the time is over; what `condition` says otherwise.
    pub fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let (child, output) = (&mut self.child, &self.output);
        let late = || format!("has not {what} after {patience:?}; it said:\n{}", read(output));
        until(patience, POLL, late, || {
            if condition()? {
                return Ok(Some(()));
            }
            match child.try_wait().context("cannot ask for the process")? {
                Some(status) => bail!("ended ({status}) and has not {what}; it said:\n{}", read(output)),
                None => Ok(None),
            }
        })
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// If it doesn't end in time; it is killed then.
    pub fn stop(mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).context("the kernel's process numbers are below 2^22")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal}"))?;
        let (child, output) = (&mut self.child, &self.output);
        let late = || format!("still runs {patience:?} after {signal}; it said:\n{}", read(output));
        until(patience, POLL, late, || child.try_wait().context("cannot wait for the process"))
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If something else ended it.
    pub fn kill(self) -> Result<()> {
        let status = self.stop(Signal::SIGKILL, Duration::from_secs(5))?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "ended by itself ({status})");
        Ok(())
    }
}

fn read(output: &Path) -> String {
    fs::read(output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing to a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.lease.take());
    }
}
