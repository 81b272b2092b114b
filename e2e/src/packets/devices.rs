//! The interfaces that test packets pretend to be seen at. Entry point: [`enter_private_network`].
//!
//! A test run with an interface index needs an interface of that index in the caller's network namespace; nothing is
//! ever sent through it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// The index of the first interface; the others follow it.
pub const FIRST: u32 = 100;

/// How many there are.
pub const COUNT: u32 = 320;

/// Moves the calling thread, and those it starts from now on, into a new network namespace and puts the interfaces
/// there. The kernel removes namespace and interfaces with the last thread, however it ends.
///
/// # Errors
/// The caller isn't root, or `ip` is missing.
pub fn enter_private_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace could not be made; test runs need root")?;
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("`ip` could not be started; Debian's package iproute2 has it")?;
    let mut commands = String::new();
    for pair in 0..COUNT / 2 {
        let (index, peer) = (FIRST + 2 * pair, FIRST + 2 * pair + 1);
        commands +=
            &format!("link add sluice-p{index} index {index} type veth peer name sluice-p{peer} index {peer}\n");
    }
    ip.stdin.take().expect("the standard input is piped").write_all(commands.as_bytes())?;
    ensure!(ip.wait()?.success(), "`ip` could not make the interfaces; its words are above");
    Ok(())
}
