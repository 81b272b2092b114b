//! One boot in QEMU, and what it printed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::debian::{Kernel, Tools};

/// After this many seconds QEMU is ended.
const LIMIT: &str = "1800";

/// What a boot came to.
pub(super) struct Report {
    pub(super) passed: bool,
    /// The runner's last line, or why there is none.
    pub(super) summary: String,
    /// What the verifier made of the programs with the usual settings.
    pub(super) verifier: Vec<Verified>,
    pub(super) log: PathBuf,
}

/// What the verifier made of one program, as the test `verifier/usual-settings` prints it.
pub(super) struct Verified {
    pub(super) program: String,
    /// `-` where the kernel doesn't tell.
    pub(super) instructions: String,
    pub(super) microseconds: u64,
}

impl Verified {
    /// Out of a line like `sluice-verifier usual PROGRAM INSTRUCTIONS MICROSECONDS`, whatever is before it.
    fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("sluice-verifier usual ")?;
        let mut words = rest.split_whitespace();
        let (program, instructions) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { program, instructions, microseconds: words.next()?.parse().ok()? })
    }
}

/// Boots `kernel` with `initramfs` and waits until it powers off.
pub(super) fn run(tools: &Tools, kernel: &Kernel, initramfs: &Path) -> Result<Report> {
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
    let text = fs::read(&log).context("reading the console")?;
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let passed = text.lines().any(|line| line == "sluice-exit-status 0");
    let summary = text
        .lines()
        .rev()
        .find(|line| line.starts_with("test result"))
        .map_or_else(|| "the tests did not finish".to_owned(), str::to_owned);
    let verifier = text.lines().filter_map(Verified::read).collect();
    Ok(Report { passed, summary, verifier, log })
}

/// `/dev/kvm` alone proves nothing: inside some clouds it can't run a stock kernel. The processor's flags tell.
fn acceleration() -> (&'static str, &'static str) {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if hardware && device { ("kvm", "host") } else { ("tcg", "Nehalem") }
}
