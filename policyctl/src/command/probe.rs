//! `policyctl probe`: tries to open connections from where it runs, and tells what came back. `verify --probe` runs it in
//! pods. Whether an attempt was let through can be told as far as something answers: see [`Found`].

use std::{
    io::{ErrorKind, Write as _, stdout},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Outcome, Status};

/// Flags of `probe`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to, such as TCP/10.0.0.1:80, the address of IPv6 in brackets
    #[arg(value_name = "PROTOCOL/ADDRESS:PORT", required = true, value_parser = target)]
    targets: Vec<Target>,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    is_tcp: bool,
    to: SocketAddr,
}

fn target(text: &str) -> Result<Target, String> {
    let wrong = || format!("{text:?} is no target such as TCP/10.0.0.1:80 or UDP/[fd00::1]:53");
    let (protocol, to) = text.split_once('/').ok_or_else(wrong)?;
    let is_tcp = match protocol {
        "TCP" => true,
        "UDP" => false,
        _ => return Err(wrong()),
    };
    Ok(Target { is_tcp, to: to.parse().map_err(|_| wrong())? })
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "camelCase")]
pub(crate) enum Found {
    /// TCP: a handshake; UDP: a datagram. So it was let through.
    Answered,
    /// TCP: a reset; UDP: an ICMP error that the port is closed. Somebody got it.
    Refused,
    /// Nothing at all: TCP was dropped on its way. Of UDP that says nothing: servers need not answer.
    Silent,
    /// It did not leave, or there is no way; why.
    Unreachable { why: String },
}

/// One line of what is printed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Which of the targets, from 0.
    pub(crate) target: usize,
    #[serde(flatten)]
    pub(crate) found: Found,
}

/// How long silence lasts before it is taken for one: TCP has sent three times by then.
const PATIENCE: Duration = Duration::from_secs(4);

/// How many attempts there are at a time.
const AT_ONCE: usize = 64;

/// Prints a line for each target.
pub(crate) fn run(args: &Args) -> Outcome {
    let next = AtomicUsize::new(0);
    let out = Mutex::new(stdout());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(args.targets.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(target) = args.targets.get(number) else { return };
                    let line = Line { target: number, found: target.attempt(PATIENCE) };
                    let line = serde_json::to_string(&line).expect("a line has text keys only, as JSON asks for");
                    // nobody listens any more
                    let _ = writeln!(out.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
                }
            });
        }
    });
    Ok(Status::Answered)
}

impl Target {
    fn attempt(self, patience: Duration) -> Found {
        if self.is_tcp {
            return TcpStream::connect_timeout(&self.to, patience)
                .map_or_else(|error| found(&error), |_| Found::Answered);
        }
        datagram(self.to, patience).unwrap_or_else(|error| found(&error))
    }
}

/// Sends some, in case one gets lost; empty, so that no server takes it for a request.
fn datagram(to: SocketAddr, patience: Duration) -> std::io::Result<Found> {
    const TRIES: u32 = 3;
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience / TRIES))?;
    for _ in 0..TRIES {
        socket.send(&[])?;
        match socket.recv(&mut [0]) {
            Ok(_) => return Ok(Found::Answered),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Found::Silent)
}

fn found(error: &std::io::Error) -> Found {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Found::Refused,
        ErrorKind::TimedOut => Found::Silent,
        _ => Found::Unreachable { why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn targets_are_read() {
        let is =
            |text: &str, is_tcp, to: &str| assert_eq!(target(text), Ok(Target { is_tcp, to: to.parse().unwrap() }));
        is("TCP/10.0.0.1:80", true, "10.0.0.1:80");
        is("UDP/[fd00::1]:53", false, "[fd00::1]:53");
        for wrong in ["SCTP/10.0.0.1:80", "10.0.0.1:80", "TCP/10.0.0.1", "TCP/fd00::1:80", "TCP/web:80"] {
            target(wrong).unwrap_err();
        }
    }

    #[test]
    fn attempts_tell_what_comes_back() {
        let patience = Duration::from_millis(600);
        let try_at = |is_tcp, to| Target { is_tcp, to }.attempt(patience);
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let to = listener.local_addr().unwrap();
            assert_eq!(try_at(true, to), Found::Answered);
            drop(listener);
            assert_eq!(try_at(true, to), Found::Refused);
            let deaf = UdpSocket::bind(address).unwrap();
            assert_eq!(try_at(false, deaf.local_addr().unwrap()), Found::Silent);
            let server = UdpSocket::bind(address).unwrap();
            let to = server.local_addr().unwrap();
            let answering = thread::spawn(move || {
                let (_, from) = server.recv_from(&mut [0]).unwrap();
                server.send_to(b"x", from).unwrap();
                server
            });
            assert_eq!(try_at(false, to), Found::Answered);
            drop(answering.join().unwrap());
            assert_eq!(try_at(false, to), Found::Refused);
        }
        let nowhere = try_at(true, "[fe80::1]:80".parse().unwrap());
        assert!(matches!(nowhere, Found::Unreachable { .. }), "{nowhere:?}");
    }
}
