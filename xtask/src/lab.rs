//! `cargo xtask lab`, `cargo xtask conformance` and `cargo xtask e2e`: installs what they need of this system and hands over
//! to the programs of `e2e`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use crate::{
    apt::{self, Suite},
    image,
    toolchain::{Toolchain, output},
};

/// Files of Debian packages that the lab's programs are built from or run with.
const NEEDED: [(&[&str], &str); 8] = [
    (&["/usr/bin/busybox", "/bin/busybox"], "busybox-static"),
    (&["/usr/bin/bash-static", "/bin/bash-static"], "bash-static"),
    (&["/usr/include/seccomp.h"], "libseccomp-dev"),
    (&["/usr/bin/pkg-config"], "pkg-config"),
    (&["/usr/bin/cc"], "gcc"),
    (&["/usr/include/stdlib.h"], "libc6-dev"),
    (&["/usr/sbin/iptables", "/sbin/iptables"], "iptables"),
    (&["/usr/bin/mount", "/bin/mount"], "mount"),
];

/// The status of `sluice-lab` where modules can't be fetched.
const UNREACHABLE: u8 = 75;

/// Debian's newest stable suite, for its Go: any since 1.21 fetches the version that is asked for by itself.
const SUITE: &str = "trixie";
/// Go of [`SUITE`].
const PACKAGES: [&str; 2] = ["golang-1.24-go", "golang-1.24-src"];
/// The folder of its programs, below that in which the packages are unpacked.
const PROGRAMS: &str = "usr/lib/go-1.24/bin";

/// Runs the lab's program with these arguments; its status is the task's.
pub(crate) fn run(toolchain: &Toolchain, arguments: &[OsString]) -> Result<ExitCode> {
    ensure_root()?;
    start(toolchain, "sluice-lab", arguments)
}

/// Runs the upstream suite with these arguments; its status is the task's. On a cluster of one's own, the image is one's
/// own as well.
pub(crate) fn conformance(toolchain: &Toolchain, arguments: &[OsString]) -> Result<ExitCode> {
    let is_help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    let is_lab = !arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--kubeconfig"));
    if is_lab && !is_help {
        ensure_root()?;
        image::run(toolchain, image::Profile::Debug)?;
    }
    start(toolchain, "sluice-conformance", arguments)
}

/// Runs the scenarios for any cluster with these arguments; their status is the task's. A cluster of kind is given the
/// image of the agent's debug build.
pub(crate) fn e2e(toolchain: &Toolchain, arguments: &[OsString]) -> Result<ExitCode> {
    let has = |option: &str| arguments.iter().take_while(|word| *word != "--").any(|word| word == option);
    // Where there is no Docker, the program says so, and nobody has to wait for an image.
    if has("--kind") && !has("--help") && !has("-h") && docker_answers() {
        image::run(toolchain, image::Profile::Debug)?;
    }
    start_with(toolchain, "sluice-e2e", arguments, go()?.as_deref())
}

fn docker_answers() -> bool {
    output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])).is_ok()
}

/// Builds everything that the class `cluster` runs but the agent. `None` if it is there then, else why it can't be.
pub(crate) fn build(toolchain: &Toolchain) -> Result<Option<String>> {
    let go = match prepare() {
        Ok(go) => go,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let mut command = toolchain.cargo();
    command.args(["run", "--quiet", "--package", "e2e", "--bin", "sluice-lab", "--", "build", "--suite"]);
    add_to_path(&mut command, go.as_deref());
    let status = command.status().context("cannot start cargo")?;
    if status.code() == Some(UNREACHABLE.into()) {
        return Ok(Some("the Go modules of its programs can't be fetched".to_owned()));
    }
    ensure!(status.success(), "the programs of the class cluster do not build ({status})");
    Ok(None)
}

/// Makes a command one that can bring up a lab.
pub(crate) fn equip(command: &mut Command) -> Result<()> {
    ensure_root()?;
    add_to_path(command, prepare()?.as_deref());
    Ok(())
}

fn start(toolchain: &Toolchain, program: &str, arguments: &[OsString]) -> Result<ExitCode> {
    start_with(toolchain, program, arguments, prepare()?.as_deref())
}

fn start_with(toolchain: &Toolchain, program: &str, arguments: &[OsString], go: Option<&Path>) -> Result<ExitCode> {
    let mut command = toolchain.cargo();
    command.args(["run", "--quiet", "--package", "e2e", "--bin", program, "--"]).args(arguments);
    add_to_path(&mut command, go);
    let status = command.status().context("cannot start cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn ensure_root() -> Result<()> {
    ensure!(geteuid().is_root(), "the lab is made of namespaces, which only root can make: run this with sudo");
    Ok(())
}

/// Installs what is missing; as [`go`].
fn prepare() -> Result<Option<PathBuf>> {
    let is_there = |files: &[&str]| files.iter().any(|file| Path::new(file).exists());
    let missing: Vec<&str> = NEEDED.iter().filter(|(files, _)| !is_there(files)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        println!("to be installed now: {}", missing.join(", "));
        apt::require(&missing)?;
        apt::install(&missing)?;
    }
    go()
}

/// Fetches Go if there is none. The folder of a Go that isn't in PATH, if that is to be used.
fn go() -> Result<Option<PathBuf>> {
    if version("go").is_some_and(|version| version >= (1, 21)) {
        return Ok(None);
    }
    let cache = Toolchain::cache()?;
    let folder = cache.join("go");
    let programs = folder.join(PROGRAMS);
    if version(&programs.join("go").display().to_string()).is_none() {
        println!("to be fetched now: Go, from Debian {SUITE}, into {}", folder.display());
        apt::require(&PACKAGES)?;
        let packages = PACKAGES.map(str::to_owned);
        Suite::open(&cache, SUITE, "debian")?.unpack(&packages, &folder).context("cannot fetch Go")?;
    }
    Ok(Some(programs))
}

/// What `go version` says, as far as it is needed.
fn version(go: &str) -> Option<(u32, u32)> {
    // Outside of any module, so that nothing is fetched for it.
    let said = output(Command::new(go).args(["env", "GOVERSION"]).current_dir("/")).ok()?;
    let mut parts = said.trim().strip_prefix("go")?.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

fn add_to_path(command: &mut Command, folder: Option<&Path>) {
    let Some(folder) = folder else { return };
    let old = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value.map(OsString::from));
    let old = old.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&old));
    // Fails only if a folder's name holds a colon, and PATH holds none of those.
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_first_in_path() {
        let mut command = Command::new("true");
        command.env("PATH", "/a:/b");
        add_to_path(&mut command, Some(Path::new("/go")));
        let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value);
        assert_eq!(path, Some("/go:/a:/b".as_ref()));
    }
}
