//! The Rust toolchain that runs this task: where it is, what it is, and how its cargo is started.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// The toolchain and the workspace it works on.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// `1.95.0`
    pub(crate) release: String,
    /// The major version of the LLVM that the compiler carries, `22`.
    pub(crate) llvm: String,
    /// The compiler's own folder.
    pub(crate) sysroot: PathBuf,
    /// Where `cargo install` puts programs.
    pub(crate) programs: PathBuf,
}

impl Toolchain {
    /// Asks the compiler.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        let version = output(Command::new(rustc()).arg("-vV").current_dir(root))?;
        let field = |name: &str| {
            let line = version.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).with_context(|| format!("`rustc -vV` says nothing of {name}"))
        };
        let llvm = field("LLVM version:")?;
        let sysroot = output(Command::new(rustc()).args(["--print", "sysroot"]).current_dir(root))?;
        let home = home()?;
        let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let installs = env::var_os("CARGO_INSTALL_ROOT").map_or(cargo_home, PathBuf::from);
        Ok(Self {
            root: root.to_owned(),
            release: field("release:")?,
            llvm: llvm.split('.').next().unwrap_or(&llvm).to_owned(),
            sysroot: PathBuf::from(sysroot.trim()),
            programs: installs.join("bin"),
        })
    }

    /// A command in the workspace's folder that finds what `cargo install` installed.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(&self.root);
        let old = env::var_os("PATH").unwrap_or_default();
        let mut folders = vec![self.programs.clone()];
        folders.extend(env::split_paths(&old));
        // Fails only if a folder's name holds a colon; then what is in PATH must do.
        if let Ok(path) = env::join_paths(folders) {
            command.env("PATH", path);
        }
        command
    }

    /// This toolchain's cargo, without what the cargo that runs this program says of its package: build scripts of
    /// dependencies (ring's) look at it, and would run again for each package that builds come from.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
            command.env_remove(name);
        }
        command
    }

    /// Where cargo puts what it builds of this workspace.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
    }

    /// Sluice's folder for what is costly to make and safe to lose.
    pub(crate) fn cache() -> Result<PathBuf> {
        let base = env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| home().map(|home| home.join(".cache")), |dir| Ok(dir.into()))?;
        Ok(base.join("sluice"))
    }
}

/// What a command prints; an error if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that may print; an error if it fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn home() -> Result<PathBuf> {
    env::var_os("HOME").map(PathBuf::from).context("HOME is not set")
}
