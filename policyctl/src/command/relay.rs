//! `policyctl relay`: leads from stdin and stdout to an agent's socket, for a policyctl elsewhere that has entered the
//! agent's pod.

use std::{io, os::unix::net::UnixStream, path::PathBuf, process, thread};

use anyhow::Context as _;

use crate::{Failure, Outcome, Status};

/// Flags of `relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent's socket
    #[arg(long, default_value = "/run/sluice/agent.sock", env = "SLUICE_SOCKET")]
    socket: PathBuf,
}

/// Until the agent has said everything, or nobody listens any more.
pub(crate) fn run(args: &Args) -> Outcome {
    let reach = || format!("no agent answers at {}", args.socket.display());
    let mut agent = UnixStream::connect(&args.socket).with_context(reach).map_err(Failure::no_answer)?;
    let mut questions = agent.try_clone().with_context(reach).map_err(Failure::no_answer)?;
    thread::spawn(move || {
        // whoever asked has gone, and with them whoever would hear the answer
        if io::copy(&mut io::stdin().lock(), &mut questions).is_ok() {
            process::exit(0);
        }
    });
    let mut out = Unbuffered(io::stdout());
    io::copy(&mut agent, &mut out).with_context(reach).map_err(Failure::no_answer)?;
    Ok(Status::Answered)
}

/// Lines are to be seen when they come.
struct Unbuffered(io::Stdout);

impl io::Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = self.0.lock();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().flush()
    }
}
