//! The file system that a kernel is booted with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    debian::{Kernel, Tools},
    modules,
    programs::Programs,
};

/// Runs as process 1. All is in memory, and nothing is mounted over /tmp, where the workspace itself may be. The lines
/// that begin with `sluice-` are [`super::report`]'s to read, and `poweroff` ends QEMU.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
for applet in mkdir mount insmod date poweroff; do /bin/busybox ln -s busybox /bin/$applet; done
mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*.ko; do insmod "$module" || echo "sluice-module $module"; done
ip link set lo up
cd @ROOT@/e2e
export CARGO_MANIFEST_DIR=@ROOT@/e2e
for target in @TARGETS@; do
    echo "sluice-target $target"
    start=$(date +%s)
    /bin/$target --test-threads=1 --color=never --nocapture @ONLY@ 2>&1
    echo "sluice-exit-status $? $(($(date +%s) - start))"
done
poweroff -f
"#;

/// Programs of this machine that tests start. busybox has an `ip`, too, which knows neither `-batch` nor the index of a
/// link.
const PROGRAMS: [&str; 3] = ["ip", "tc", "nft"];

/// Writes the compressed archive for one kernel and returns its path.
pub(super) fn build(tools: &Tools, kernel: &Kernel, programs: &Programs, root: &Path) -> Result<PathBuf> {
    let tree = kernel.folder.join("initramfs");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("bin")).context("making the tree")?;
    fs::copy(tools.root.join("bin/busybox"), tree.join("bin/busybox")).context("copying busybox")?;
    for applet in ["sh", "sysctl"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).context("linking an applet")?;
    }
    PROGRAMS.iter().try_for_each(|name| copy_with_libraries(name, &tree))?;
    // Tests look for the agent beside themselves.
    copy_stripped(&programs.agent, &tree.join("bin/sluice-agent"))?;
    for target in &programs.targets {
        copy_stripped(&target.binary, &tree.join("bin").join(target.name))?;
    }
    modules::unpack(kernel, &tree.join("modules"))?;
    write_init(&tree, programs, root)?;
    // The binaries look their cases up where they were built.
    let inside = root.strip_prefix("/").unwrap_or(root);
    fs::create_dir_all(tree.join(inside).join("e2e")).context("making the tree")?;
    copy_tree(&root.join("cases"), &tree.join(inside).join("cases"))?;
    archive(tools, &tree, &kernel.folder.join("initramfs.gz"))
}

fn write_init(tree: &Path, programs: &Programs, root: &Path) -> Result<()> {
    let targets: Vec<&str> = programs.targets.iter().map(|target| target.name).collect();
    // An empty filter is not the same as none: class `prog` asks more of a whole run.
    let only = &programs.filter;
    let only = if only.is_empty() { String::new() } else { format!("'{}'", only.replace('\'', r"'\''")) };
    let text = INIT
        .replace("@ROOT@", &root.display().to_string())
        .replace("@TARGETS@", &targets.join(" "))
        .replace("@ONLY@", &only);
    let init = tree.join("init");
    fs::write(&init, text).context("writing init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("making init executable")
}

/// Without what only a debugger reads: an emulated processor unpacks all of it into memory.
fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("strip").arg("-o").arg(to).arg(from).status();
    let status = status.context("starting strip, which comes with the linker (package binutils)")?;
    ensure!(status.success(), "strip failed on {}", from.display());
    Ok(())
}

/// Copies one of this machine's programs, and the libraries that it is linked to, which keep their places.
fn copy_with_libraries(name: &str, tree: &Path) -> Result<()> {
    let output = Command::new("sh")
        .args(["-c", "program=$(command -v \"$0\") && readlink -f \"$program\" && ldd \"$program\"", name])
        .output()
        .context("starting sh")?;
    ensure!(output.status.success(), "there is no program `{name}` to copy, or ldd can't read it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    let program = paths.next().with_context(|| format!("no path for `{name}`"))?;
    fs::copy(program, tree.join("bin").join(name)).with_context(|| format!("copying {program}"))?;
    for library in paths {
        let place = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("a library lies in a folder")?).context("making the tree")?;
        fs::copy(library, &place).with_context(|| format!("copying {library}"))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.context("listing the cases")?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn archive(tools: &Tools, tree: &Path, to: &Path) -> Result<PathBuf> {
    let file = fs::File::create(to).with_context(|| format!("making {}", to.display()))?;
    let mut cpio = Command::new("sh")
        .args(["-c", "find . | \"$0\" -o -H newc --quiet | gzip -1"])
        .arg(tools.root.join("bin/cpio"))
        .current_dir(tree)
        .stdout(Stdio::from(file))
        .spawn()
        .context("starting cpio")?;
    ensure!(cpio.wait().context("waiting for cpio")?.success(), "cpio failed");
    Ok(to.to_owned())
}
