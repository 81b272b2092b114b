//! What builds and tests need and a bare machine has not: found out, announced, installed. Quick where nothing is
//! missing, and safe to run again.

mod bpf_linker;
mod rust_src;

use std::{env, path::Path};

use anyhow::Result;

use crate::{apt, toolchain::Toolchain};

/// Programs of Debian packages that the test bed calls.
const PROGRAMS: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];

/// The browser that the tests show policyctl's pictures to, and a font of the widths that these are laid out by. Where it
/// can't be had, they are skipped and say so.
const BROWSER: (&str, [&str; 2]) = ("chromium", ["chromium", "fonts-liberation"]);

/// Installs what is missing. With `talkative` it also says that nothing is.
pub(crate) fn run(toolchain: &Toolchain, talkative: bool) -> Result<()> {
    let packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    let sources_missing = !rust_src::is_there(toolchain);
    let linker_missing = !bpf_linker::works(toolchain);
    if !is_installed(BROWSER.0) {
        browser();
    }
    if packages.is_empty() && !sources_missing && !linker_missing {
        if talkative {
            println!("nothing to install: ip, nft, rust-src {} and bpf-linker are there", toolchain.release);
        }
        return Ok(());
    }

    println!("to be installed now:");
    if !packages.is_empty() {
        println!("  packages of this system  {}", packages.join(", "));
    }
    if sources_missing {
        println!("  rust-src {}          Rust's own sources, for the BPF target; {}", toolchain.release, rust_src::HOW);
    }
    if linker_missing {
        println!(
            "  bpf-linker {}        into {}; takes about a minute",
            bpf_linker::VERSION,
            toolchain.programs.display()
        );
    }
    println!();
    if !packages.is_empty() {
        apt::require(&packages)?;
        apt::install(&packages)?;
    }
    if sources_missing {
        rust_src::install(toolchain)?;
    }
    if linker_missing {
        bpf_linker::install(toolchain)?;
    }
    println!("everything is installed\n");
    Ok(())
}

fn browser() {
    let [program, font] = BROWSER.1;
    println!("to be installed now:\n  packages of this system  {program}, {font}\n");
    if let Err(error) = apt::require(&BROWSER.1).and_then(|()| apt::install(&BROWSER.1)) {
        println!("{program} can't be installed, so that tests of pictures are skipped: {error:#}\n");
    }
}

/// Whether a program is in PATH, or where root's PATH has it.
fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.extend([Path::new("/usr/sbin").to_owned(), Path::new("/sbin").to_owned()]);
    folders.iter().any(|folder| folder.join(program).is_file())
}
