//! The images that pods of the lab run, all in one archive, under the names that the upstream suite asks for.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use oci_image::{Archive, Entry, Image, digest};

use super::{
    made::once,
    programs::{Programs, version},
};

/// As the upstream suite of this Kubernetes names it (test/utils/image/manifest.go).
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// As the upstream suite of this Kubernetes names it.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
/// The sandbox of every pod.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// The same, as manifests name it that don't mind which one they get.
pub const PAUSE_ALSO: &str = "registry.k8s.io/pause:3.10";

/// A static busybox, as Debian's package busybox-static has it.
const BUSYBOX_PROGRAMS: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// A static bash, as Debian's package bash-static has it: the published agnhost has one, whose `/dev/tcp` and `/dev/udp`
/// scenarios use.
const BASH_PROGRAMS: [&str; 2] = ["/usr/bin/bash-static", "/bin/bash-static"];

/// The name of the image of CoreDNS.
pub(super) fn coredns() -> Result<String> {
    Ok(format!("registry.k8s.io/coredns/coredns:{}", version("coredns", "github.com/coredns/coredns")?))
}

/// The archive of all images; made if need be.
///
/// # Errors
/// If busybox is missing, or the archive can't be written.
pub fn build(programs: &Programs) -> Result<PathBuf> {
    let shells = Shells {
        busybox: installed(BUSYBOX_PROGRAMS, "busybox-static")?,
        bash: installed(BASH_PROGRAMS, "bash-static")?,
    };
    let [busybox, bash] = [shells.busybox, shells.bash].map(|path| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(digest(&bytes))
    });
    let names = [AGNHOST, BUSYBOX, PAUSE, &coredns()?].join("\n");
    // The last part counts up with what this file makes of the rest.
    let content = digest(format!("{}\n{}\n{names}\n2", programs.content(), busybox? + &bash?).as_bytes());
    let folder = once("images", &content, |folder| write(&folder.join("images.tar"), programs, shells))?;
    Ok(folder.join("images.tar"))
}

/// Static programs of this system.
#[derive(Clone, Copy)]
struct Shells {
    busybox: &'static Path,
    bash: &'static Path,
}

fn installed(places: [&'static str; 2], package: &str) -> Result<&'static Path> {
    let path = places.map(Path::new).into_iter().find(|path| path.is_file());
    path.with_context(|| format!("{} is missing: `cargo xtask lab` installs it (Debian's {package})", places[0]))
}

fn write(to: &Path, programs: &Programs, shells: Shells) -> Result<()> {
    let file = File::create(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(file))?;
    for image in images(programs, shells)? {
        archive.add(&image).with_context(|| image.names.join(", "))?;
    }
    let file = archive.finish()?;
    file.into_inner().map_err(std::io::IntoInnerError::into_error).context("cannot write the archive")?;
    Ok(())
}

fn images(programs: &Programs, shells: Shells) -> Result<[Image; 4]> {
    let mut tools = system();
    tools.push(Entry::File("bin/busybox".to_owned(), 0o755, shells.busybox.to_owned()));
    tools.extend(
        applets(shells.busybox)?.into_iter().map(|name| Entry::Link(format!("bin/{name}"), "busybox".to_owned())),
    );
    // The suite's pods run commands with a shell beside it.
    let mut agnhost = tools.clone();
    agnhost.push(Entry::File("bin/bash".to_owned(), 0o755, shells.bash.to_owned()));
    agnhost.push(Entry::File("agnhost".to_owned(), 0o755, programs.kubernetes("agnhost")));
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Ok([
        Image {
            names: text(&[AGNHOST]),
            entries: agnhost,
            entrypoint: text(&["/agnhost"]),
            command: text(&["pause"]),
            ..Image::default()
        },
        Image { names: text(&[BUSYBOX]), entries: tools, command: text(&["sh"]), ..Image::default() },
        Image {
            names: text(&[PAUSE, PAUSE_ALSO]),
            entries: vec![Entry::File("pause".to_owned(), 0o755, programs.pause())],
            entrypoint: text(&["/pause"]),
            user: "65535:65535".to_owned(),
            ..Image::default()
        },
        Image {
            names: vec![coredns()?],
            entries: vec![Entry::File("coredns".to_owned(), 0o755, programs.coredns())],
            entrypoint: text(&["/coredns"]),
            ..Image::default()
        },
    ])
}

/// The folders and files that programs expect of a system.
fn system() -> Vec<Entry> {
    let mut entries: Vec<Entry> = ["bin", "etc", "proc", "sys", "dev", "var", "root"]
        .map(|path| Entry::Folder(path.to_owned(), 0o755))
        .into_iter()
        .collect();
    entries.push(Entry::Folder("tmp".to_owned(), 0o1777));
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ] {
        entries.push(Entry::Text(path.to_owned(), text.to_owned()));
    }
    entries
}

fn applets(busybox: &Path) -> Result<Vec<String>> {
    let listed = Command::new(busybox).arg("--list").output();
    let listed = listed.with_context(|| format!("cannot start {}", busybox.display()))?;
    ensure!(listed.status.success(), "busybox has no list of what it can do");
    let names = String::from_utf8_lossy(&listed.stdout);
    Ok(names.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}
