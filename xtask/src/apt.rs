//! Packages of Debian: those that this machine's own sources hold are installed, others are fetched from a source of
//! our own and unpacked without being installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;

use crate::toolchain::{output, succeed};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org";

/// Installs packages of this machine's own sources, whose lists are renewed if need be.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let line = format!("apt-get install {}", packages.join(" "));
    ensure!(geteuid().is_root(), "installing packages needs root: run this with sudo, or `sudo {line}` before");
    let attempt = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
        succeed(command.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_MODE", "l"))
    };
    let renew = || succeed(Command::new("apt-get").args(["update", "--quiet"]));
    if !has_lists() {
        // A source that is out of reach need not be the one that is wanted.
        let _ = renew();
    }
    attempt().or_else(|_| renew().and_then(|()| attempt())).with_context(|| format!("`{line}` failed"))
}

fn has_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
}

/// A suite of a Debian archive that this machine's apt need not know, with lists and cache of its own.
pub(crate) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches its list into a folder below `cache`. `archive` is `debian` or `debian-security`.
    pub(crate) fn open(cache: &Path, suite: &str, archive: &str) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            install(&["debian-archive-keyring"])?;
        }
        let folder = cache.join(format!("apt-{suite}"));
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let at = folder.display();
        let source = format!("deb [signed-by={KEYRING}] {}/{archive} {suite} main\n", mirror());
        let configuration = format!(
            "Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"{at}/parts\";\n\
             Dir::Etc::preferencesparts \"{at}/parts\";\nDir::State::lists \"{at}/lists\";\n\
             Dir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\nAcquire::Languages \"none\";\n\
             Acquire::Check-Valid-Until \"false\";\nAPT::Sandbox::User \"root\";\n"
        );
        for (file, text) in [("sources.list", source.as_str()), ("status", ""), ("apt.conf", &configuration)] {
            fs::write(folder.join(file), text).with_context(|| format!("cannot write {at}/{file}"))?;
        }
        let suite = Self { folder };
        suite.run("apt-get", &["--quiet=2", "update"], Path::new("/"))?;
        Ok(suite)
    }

    /// The versions of a package, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let listed = self.run("apt-cache", &["madison", package], Path::new("/"))?;
        Ok(listed.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect())
    }

    /// Fetches packages (`NAME` or `NAME=VERSION`) and unpacks them into a folder.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let folder = self.folder.join("debs");
        if folder.exists() {
            fs::remove_dir_all(&folder).context("cannot remove packages fetched before")?;
        }
        fs::create_dir_all(&folder).and_then(|()| fs::create_dir_all(into)).context("cannot make a folder")?;
        let mut arguments = vec!["--quiet=2", "download"];
        arguments.extend(packages.iter().map(String::as_str));
        self.run("apt-get", &arguments, &folder)?;
        for entry in fs::read_dir(&folder).context("cannot list the packages")? {
            let package = entry.context("cannot list the packages")?.path();
            succeed(Command::new("dpkg").arg("-x").arg(package).arg(into))?;
        }
        fs::remove_dir_all(&folder).context("cannot remove the packages")
    }

    /// Runs one of apt's programs on this suite alone.
    pub(crate) fn run(&self, program: &str, arguments: &[&str], folder: &Path) -> Result<String> {
        let mut command = Command::new(program);
        output(command.args(arguments).current_dir(folder).env("APT_CONFIG", self.folder.join("apt.conf")))
    }
}

/// The Debian archive that this machine's apt uses already, else the usual one.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.flatten().map(|entry| entry.path()));
    }
    let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    text.split_whitespace()
        .filter_map(|word| word.trim_end_matches('/').strip_suffix("/debian"))
        .find(|word| word.starts_with("http"))
        .unwrap_or(MIRROR)
        .to_owned()
}

/// Says early that a machine without apt needs hands.
pub(crate) fn require(packages: &[&str]) -> Result<()> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        bail!("this machine has no apt-get; install by its own means: {}", packages.join(", "));
    }
    Ok(())
}
