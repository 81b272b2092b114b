//! Asks the linker for the BPF instructions of 2019 (`v3`: 32-bit arithmetic and jumps), which Linux 5.10 has.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=--cpu=v3");
}
