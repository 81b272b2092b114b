//! Docker by its own program, as kind uses it.

use std::{
    ffi::OsStr,
    fmt,
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::lab::output;

/// There is no Docker that answers; part of the error's chain then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no program `docker`.
    Program,
    /// It does not reach its daemon.
    Daemon,
}

impl Missing {
    /// The status of a process that ends for this (`EX_UNAVAILABLE` of sysexits.h).
    pub const STATUS: u8 = 69;
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program => {
                "kind needs Docker, and there is no program `docker` in PATH: install Docker Engine \
                 (https://docs.docker.com/engine/install/), or use --kubeconfig with a cluster that is there"
            }
            Self::Daemon => {
                "kind needs Docker, and its daemon does not answer: start it (`systemctl start docker`), let DOCKER_HOST \
                 lead to one, or use --kubeconfig with a cluster that is there"
            }
        })
    }
}

/// Whether Docker can be had.
///
/// # Errors
/// If it can't: with [`Missing`] in the chain, and what `docker` says.
pub(super) fn check() -> Result<()> {
    check_program(OsStr::new("docker"))
}

fn check_program(docker: &OsStr) -> Result<()> {
    let asked = Command::new(docker).args(["version", "--format", "{{.Server.Version}}"]).stdin(Stdio::null()).output();
    match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(anyhow!(error).context(Missing::Program)),
        Err(error) => Err(error).context("cannot start docker"),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim().to_owned()).context(Missing::Daemon))
        }
    }
}

/// Runs a program to its end; what it says is for the terminal.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}

/// Runs a line of shell in a container.
pub(super) fn shell(container: &str, line: &str) -> Result<()> {
    input(&["exec", container, "sh", "-c", line], "").with_context(|| format!("`{line}` on {container}"))
}

/// Writes a file in a container.
pub(super) fn write(container: &str, path: &str, text: &str) -> Result<()> {
    let line = "mkdir -p \"$(dirname \"$1\")\" && cat > \"$1\"";
    input(&["exec", "--interactive", container, "sh", "-c", line, "sh", path], text)
        .with_context(|| format!("cannot write {path} on {container}"))
}

/// Copies files into a container.
pub(super) fn copy(from: &Path, container: &str, to: &str) -> Result<()> {
    let (from, to) = (from.display().to_string(), format!("{container}:{to}"));
    input(&["cp", &from, &to], "").with_context(|| format!("cannot copy {from} to {to}"))
}

fn input(arguments: &[&str], text: &str) -> Result<()> {
    let mut docker = Command::new("docker");
    docker.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    output(docker.spawn().context("cannot start docker")?, text).map(drop).context("docker failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(docker: &str, expected: Missing) {
        let error = check_program(OsStr::new(docker)).expect_err("there is no Docker by this name");
        assert_eq!(error.downcast_ref::<Missing>(), Some(&expected), "{error:#}");
    }

    #[test]
    fn what_is_missing_is_said() {
        check("/nonexistent/docker", Missing::Program);
        // Fails, as `docker version` does without its daemon.
        check("false", Missing::Daemon);
        check_program(OsStr::new("true")).expect("this one always answers");
    }
}
