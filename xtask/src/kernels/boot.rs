//! One boot in QEMU.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::debian::{Kernel, Tools};

/// After this many seconds QEMU is ended.
const LIMIT: &str = "3600";

/// Boots `kernel` with `initramfs` and waits until it powers off. Returns the file of what it printed.
pub(super) fn run(tools: &Tools, kernel: &Kernel, initramfs: &Path) -> Result<PathBuf> {
    let log = kernel.folder.join("console.log");
    let console = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .map(|under| tools.root.join(under).display().to_string())
        .join(":");
    let (accelerator, cpu) = acceleration();
    Command::new("timeout")
        .args(["-k", "5", LIMIT])
        .arg(tools.root.join("usr/bin/qemu-system-x86_64"))
        .arg("-L")
        .arg(tools.root.join("usr/share/qemu"))
        .arg("-L")
        .arg(tools.root.join("usr/share/seabios"))
        .args(["-M", "pc", "-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
        .env("LD_LIBRARY_PATH", libraries)
        .stdin(Stdio::null())
        .stdout(Stdio::from(console.try_clone().context("sharing the console's file")?))
        .stderr(Stdio::from(console))
        .status()
        .context("starting QEMU")?;
    Ok(log)
}

/// `/dev/kvm` alone proves nothing: inside some clouds it can't run a stock kernel. The processor's flags tell.
fn acceleration() -> (&'static str, &'static str) {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if hardware && device { ("kvm", "host") } else { ("tcg", "Nehalem") }
}
