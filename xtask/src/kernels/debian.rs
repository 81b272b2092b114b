//! Debian's packages, fetched with lists of our own and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Series;

/// QEMU, busybox and cpio with the libraries that QEMU wants, all of Debian 12.
const TOOLS: &[&str] = &[
    "busybox-static",
    "cpio",
    "ipxe-qemu",
    "libaio1",
    "libbpf1",
    "libcapstone4",
    "libdaxctl1",
    "libfdt1",
    "libfuse3-3",
    "libibverbs1",
    "libndctl6",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnuma1",
    "libpixman-1-0",
    "libpmem1",
    "librdmacm1",
    "libslirp0",
    "liburing2",
    "libvdeplug2",
    "qemu-system-common",
    "qemu-system-data",
    "qemu-system-x86",
    "seabios",
];

/// Where QEMU, busybox and cpio were unpacked.
pub(super) struct Tools {
    pub(super) root: PathBuf,
}

/// A kernel that was unpacked.
pub(super) struct Kernel {
    /// What `uname -r` will say.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// The folder of the modules, `…/lib/modules/RELEASE`.
    pub(super) modules: PathBuf,
    /// The series' own folder, for what is built for it.
    pub(super) folder: PathBuf,
}

/// Fetches and unpacks the tools unless they are there.
pub(super) fn tools(cache: &Path) -> Result<Tools> {
    let root = cache.join("tools");
    if !root.join("usr/bin/qemu-system-x86_64").exists() {
        println!("fetching QEMU, busybox and cpio (Debian 12's packages, unpacked into {})", root.display());
        let apt = Apt::new(cache, "bookworm", "debian")?;
        apt.unpack(TOOLS.iter().map(ToString::to_string), &root)?;
    }
    Ok(Tools { root })
}

/// Fetches and unpacks the newest cloud kernel of a series unless one is there.
pub(super) fn kernel(cache: &Path, series: &Series) -> Result<Kernel> {
    let folder = cache.join(series.name);
    let tree = folder.join("tree");
    if !tree.exists() {
        println!("fetching Linux {} (Debian's {}, unpacked into {})", series.name, series.suite, tree.display());
        let apt = Apt::new(cache, series.suite, series.archive)?;
        let package = apt.newest_kernel(series.name)?;
        let staged = folder.join("staged");
        let _ = fs::remove_dir_all(&staged);
        apt.unpack(apt.with_split_packages(package), &staged)?;
        fs::rename(&staged, &tree).context("moving the unpacked kernel into place")?;
    }
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .filter_map(|under| fs::read_dir(tree.join(under)).ok()?.next()?.ok())
        .map(|entry| entry.path())
        .next()
        .with_context(|| format!("no modules below {}", tree.display()))?;
    let release = modules.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let image = [tree.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("no vmlinuz below {}", tree.display()))?;
    Ok(Kernel { release, image, modules, folder })
}

/// apt with sources, lists and cache of its own, for one suite.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(cache: &Path, suite: &str, archive: &str) -> Result<Self> {
        let folder = cache.join(format!("apt-{suite}"));
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(folder.join(part)).context("making apt's folders")?;
        }
        let line = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {}/{archive} {suite} main\n",
            mirror()?
        );
        fs::write(folder.join("sources.list"), line).context("writing apt's sources")?;
        fs::write(folder.join("status"), "").context("writing apt's status")?;
        let at = folder.display();
        let configuration = format!(
            "Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"{at}/parts\";\n\
             Dir::Etc::preferencesparts \"{at}/parts\";\nDir::State::lists \"{at}/lists\";\n\
             Dir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\nAcquire::Languages \"none\";\n\
             Acquire::Check-Valid-Until \"false\";\nAPT::Sandbox::User \"root\";\n"
        );
        fs::write(folder.join("apt.conf"), configuration).context("writing apt's configuration")?;
        let apt = Self { folder };
        if !apt.folder.join("updated").exists() {
            apt.run(Path::new("/"), "apt-get", &["-qq", "update"])?;
            fs::write(apt.folder.join("updated"), "").context("noting that apt's lists are there")?;
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .current_dir(folder)
            .args(arguments)
            .output()
            .with_context(|| format!("starting {program}; these recipes need Debian or Ubuntu"))?;
        ensure!(
            output.status.success(),
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The name of the newest `linux-image-SERIES.…-cloud-amd64`.
    fn newest_kernel(&self, series: &str) -> Result<String> {
        let prefix = format!("linux-image-{series}");
        let names = self.run(Path::new("/"), "apt-cache", &["pkgnames", &prefix])?;
        let mut found: Vec<&str> = names
            .lines()
            .filter(|name| {
                name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.')) && name.ends_with("-cloud-amd64")
            })
            .collect();
        found.sort_by_key(|name| numbers(name));
        found.last().map(ToString::to_string).with_context(|| format!("Debian has no cloud kernel of series {series}"))
    }

    /// From 7.0 `linux-image-*` is empty and its files are in `linux-binary-*` and `linux-modules-*`.
    fn with_split_packages(&self, package: String) -> Vec<String> {
        let mut packages = vec![package.clone()];
        for part in ["binary", "modules"] {
            let name = package.replacen("image", part, 1);
            if self.run(Path::new("/"), "apt-cache", &["show", &name]).is_ok_and(|shown| !shown.is_empty()) {
                packages.push(name);
            }
        }
        packages
    }

    fn unpack(&self, packages: impl IntoIterator<Item = String>, into: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        let _ = fs::remove_dir_all(&debs);
        fs::create_dir_all(&debs).context("making the folder for packages")?;
        let packages: Vec<String> = packages.into_iter().collect();
        let mut arguments = vec!["-qq", "download"];
        arguments.extend(packages.iter().map(String::as_str));
        self.run(&debs, "apt-get", &arguments)?;
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        for deb in fs::read_dir(&debs).context("listing the packages")? {
            let deb = deb.context("listing the packages")?.path();
            let status = Command::new("dpkg").arg("-x").arg(&deb).arg(into).status().context("starting dpkg")?;
            ensure!(status.success(), "dpkg could not unpack {}", deb.display());
        }
        fs::remove_dir_all(&debs).context("removing the packages")
    }
}

/// The numbers in a name, so that 5.10.9 sorts before 5.10.10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The archive that this machine's apt uses already, without its last part (`/debian`).
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|word| word.trim_end_matches('/').strip_suffix("/debian").map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .find(|word| word.starts_with("http"))
        .context("no Debian archive among apt's sources; the kernels are Debian's packages")
}
