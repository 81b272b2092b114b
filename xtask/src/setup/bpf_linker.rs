//! The linker of the BPF target, built against the LLVM that the compiler itself carries: no second LLVM is needed, and
//! both always understand each other's bitcode.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::toolchain::{Toolchain, output, succeed};

/// The version that is installed.
pub(super) const VERSION: &str = "0.13.0";

/// The major versions of LLVM that it can be built for.
const LLVMS: [&str; 3] = ["21", "22", "23"];

/// Whether one of this version is there and starts: it doesn't any more when the toolchain whose library it uses went.
pub(super) fn works(toolchain: &Toolchain) -> bool {
    output(toolchain.command("bpf-linker").arg("--version")).is_ok_and(|said| said.trim().ends_with(VERSION))
}

/// Builds and installs it.
pub(super) fn install(toolchain: &Toolchain) -> Result<()> {
    let llvm = &toolchain.llvm;
    ensure!(
        LLVMS.contains(&llvm.as_str()),
        "rustc {} carries LLVM {llvm}, which bpf-linker {VERSION} does not know; set RUSTUP_TOOLCHAIN=1.95.0",
        toolchain.release
    );
    let prefix = llvm_prefix(toolchain)?;
    let mut command = toolchain.cargo();
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", &prefix);
    succeed(&mut command).context("bpf-linker could not be built")?;
    ensure!(works(toolchain), "bpf-linker was built but does not start: `bpf-linker --version` says why");
    Ok(())
}

/// A folder as an installation of LLVM has it, with links to the compiler's own library. It stays: bpf-linker looks
/// for the library there whenever it runs.
fn llvm_prefix(toolchain: &Toolchain) -> Result<PathBuf> {
    let library = library(&toolchain.sysroot.join("lib"))?;
    let prefix = Toolchain::cache()?.join(format!("llvm-{}", toolchain.release));
    let folder = prefix.join("lib");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let own_name = library.file_name().context("the library has a name")?;
    let short_name = format!("libLLVM-{}-rust-{}-stable.so", toolchain.llvm, toolchain.release);
    for name in ["libLLVM.so".as_ref(), own_name, short_name.as_ref()] {
        let link = folder.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
        }
        symlink(&library, &link).with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    Ok(prefix)
}

/// `libLLVM.so.22.1-rust-1.95.0-stable`; beside it lies a linker script of another name.
fn library(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so.")))
        .with_context(|| {
            format!("{} has no libLLVM: this compiler uses its system's; install Rust by rustup", folder.display())
        })
}
