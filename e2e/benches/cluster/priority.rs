//! What is measured by must not wait for a processor behind what is measured: threads that run before all others.

use std::process::{Command, Stdio};

use nix::unistd::Pid;

/// Lets a thread of this process run before all that have no such priority. What it starts has none. Where that can't be
/// had, times include how long the measuring itself waits, and this says so.
pub(crate) fn raise(thread: Pid) {
    let mut chrt = Command::new("chrt");
    chrt.args(["--reset-on-fork", "--fifo", "--pid", "1"]).arg(thread.to_string());
    let status = chrt.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("chrt (util-linux) can't raise a thread's priority: times include the waits of what measures");
    }
}
