//! Builds `enforcer-ebpf` for the BPF target and leaves the objects in `OUT_DIR` as `sluice`,
//! `sluice-counted` and `sluice-bench`, for `include_bytes!`.
//!
//! `aya-build` would do, but it enables `-Z build-std` only for a nightly compiler or for its own whole environment.

use std::{env, path::Path, process::Command};

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    // As it is now: the script may have been built of another checkout.
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
    let root = Path::new(&package).parent().expect("the crate lies in the workspace").to_path_buf();
    for source in ["enforcer-ebpf", "enforcer-abi", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH for build scripts");
    // A target folder of its own: cargo holds a lock on the one that it is building in.
    let target_dir = Path::new(&out).join("target");
    let flags = [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"]
        .join("\u{1f}");
    let status = Command::new(env::var("CARGO").expect("cargo sets CARGO for build scripts"))
        .current_dir(&root)
        .args(["build", "--quiet", "--release", "--package", "enforcer-ebpf", "--bins", "-Z", "build-std=core"])
        .args(["--target", target, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => {
            panic!("the eBPF program did not build; `cargo xtask setup` installs what it needs (rust-src, bpf-linker)")
        }
        Err(error) => panic!("cargo could not be started for the eBPF program: {error}"),
    }
    for object in ["sluice", "sluice-counted", "sluice-bench"] {
        let built = target_dir.join(target).join("release").join(object);
        std::fs::copy(&built, Path::new(&out).join(object)).expect("cargo has just written the object");
    }
}
