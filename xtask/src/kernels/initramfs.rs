//! The file system that a kernel is booted with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::debian::{Kernel, Tools};

/// What the class `prog` needs of a kernel that has it as modules; the order is that of loading.
const MODULES: [&str; 4] = ["dummy", "veth", "sch_ingress", "cls_bpf"];

/// Runs as process 1. All is in memory, and nothing is mounted over /tmp, where the workspace itself may be. The last line
/// tells the exit status, and `poweroff` ends QEMU.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t bpf bpf /sys/fs/bpf
for module in /modules/*.ko; do /bin/busybox insmod "$module" 2>/dev/null; done
/bin/busybox ip link set lo up
cd @ROOT@/e2e && PATH=/bin CARGO_MANIFEST_DIR=@ROOT@/e2e /bin/check --test-threads=1 @ONLY@ 2>&1
echo "sluice-exit-status $?"
/bin/busybox poweroff -f
"#;

/// Writes the compressed archive for one kernel and returns its path. Tests run whose names contain `only`.
pub(super) fn build(tools: &Tools, kernel: &Kernel, check: &Path, root: &Path, only: &str) -> Result<PathBuf> {
    let tree = kernel.folder.join("initramfs");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("bin")).context("making the tree")?;
    fs::create_dir_all(tree.join("modules")).context("making the tree")?;
    fs::copy(tools.root.join("bin/busybox"), tree.join("bin/busybox")).context("copying busybox")?;
    for applet in ["sh", "sysctl"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).context("linking an applet")?;
    }
    // busybox has one, too, which knows neither `-batch` nor the index of a link
    copy_with_libraries("ip", &tree)?;
    fs::copy(check, tree.join("bin/check")).context("copying the class prog")?;
    let init = tree.join("init");
    fs::write(&init, INIT.replace("@ROOT@", &root.display().to_string()).replace("@ONLY@", only))
        .context("writing init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("making init executable")?;
    for (order, name) in MODULES.iter().enumerate() {
        module(kernel, name, &tree.join(format!("modules/{order}-{name}.ko")))?;
    }
    // The binary looks its cases up where it was built.
    let inside = root.strip_prefix("/").unwrap_or(root);
    fs::create_dir_all(tree.join(inside).join("e2e")).context("making the tree")?;
    copy_tree(&root.join("cases"), &tree.join(inside).join("cases"))?;
    archive(tools, &tree, &kernel.folder.join("initramfs.gz"))
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

/// Unpacks one module; one that is built in is no error.
fn module(kernel: &Kernel, name: &str, to: &Path) -> Result<()> {
    let found = Command::new("find")
        .arg(&kernel.modules)
        .args(["-name", &format!("{name}.ko*")])
        .output()
        .context("starting find")?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let Some(path) = found.lines().next() else { return Ok(()) };
    let unpack: &[&str] = match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("xz") => &["xz", "-dc"],
        Some("zst") => &["zstd", "-dqc"],
        Some("gz") => &["gzip", "-dc"],
        _ => &["cat"],
    };
    let output = Command::new(unpack[0]).args(&unpack[1..]).arg(path).output().context("unpacking a module")?;
    ensure!(output.status.success(), "{} could not unpack {path}", unpack[0]);
    fs::write(to, output.stdout).with_context(|| format!("writing {}", to.display()))
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
