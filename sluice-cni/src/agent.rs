//! Questions to the agent over its unix socket: HTTP/1.0, one question a connection.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr},
};
use serde::Deserialize;

use crate::record::Record;

/// How much longer than its own patience an answer of the agent may take.
const GRACE: Duration = Duration::from_millis(500);
/// How often it is tried to connect to an agent that has more callers waiting than it can have. Nothing tells when it has
/// fewer.
const PAUSE: Duration = Duration::from_millis(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nobody listens.
    #[error("no agent listens at {socket}")]
    Absent {
        socket: String,
        #[source]
        source: io::Error,
    },
    /// Somebody does, and says nothing.
    #[error("the agent at {socket} did not answer in time")]
    Silent {
        socket: String,
        #[source]
        source: io::Error,
    },
    /// What it says is not what was asked for.
    #[error("the agent refused: {0}")]
    Refused(String),
}

/// How a pod stands. A state that this plugin has never heard of is no `enforced`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Standing {
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) reason: String,
}

/// Whether pods can be added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Readiness {
    /// Pods whose policies could not be programmed.
    pub(crate) limited: Vec<String>,
}

/// Tells of an interface, and waits at most `patience` for the pod's tables.
pub(crate) fn call(socket: &Path, record: &Record, patience: Duration) -> Result<Standing, Unanswered> {
    let body = serde_json::to_string(record).map_err(|error| Unanswered::Refused(error.to_string()))?;
    let target = format!("PUT /v1/cni?patience={}", patience.as_millis());
    read(&ask(socket, &target, &body, patience + GRACE)?)
}

/// Tells that a sandbox's interface goes: by its name inside, since a sandbox may have several.
pub(crate) fn hang_up(
    socket: &Path,
    container_id: &str,
    interface: &str,
    patience: Duration,
) -> Result<(), Unanswered> {
    let (container_id, interface) = (encoded(container_id), encoded(interface));
    let target = format!("DELETE /v1/cni?containerId={container_id}&containerInterface={interface}");
    ask(socket, &target, "", patience).map(drop)
}

/// As a value of a query (RFC 3986 section 2): interfaces may have any name without `/`, `:` and spaces.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Asks whether pods can be added.
pub(crate) fn readiness(socket: &Path, patience: Duration) -> Result<Readiness, Unanswered> {
    read(&ask(socket, "GET /v1/cni", "", patience)?)
}

fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Unanswered> {
    serde_json::from_str(body).map_err(|error| Unanswered::Refused(format!("it answered {body:?}: {error}")))
}

/// The body of an answer that says yes.
fn ask(socket: &Path, target: &str, body: &str, patience: Duration) -> Result<String, Unanswered> {
    let name = || socket.display().to_string();
    let deadline = Instant::now() + patience;
    let mut connection = connect(socket, deadline).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Unanswered::Silent { socket: name(), source },
        _ => Unanswered::Absent { socket: name(), source },
    })?;
    let mut exchange = || -> io::Result<Vec<u8>> {
        let head = "Host: agent\r\nContent-Type: application/json\r\n";
        let request = format!("{target} HTTP/1.0\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        connection.set_write_timeout(Some(patience.max(GRACE)))?;
        connection.write_all(request.as_bytes())?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // a time-out of zero would be none
            connection.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match connection.read(&mut piece) {
                Ok(0) => return Ok(answer),
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    let answer = exchange().map_err(|source| Unanswered::Silent { socket: name(), source })?;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer.split_once("\r\n\r\n");
    let status = parts.and_then(|(head, _)| head.split(' ').nth(1)?.parse::<u16>().ok());
    match (status, parts) {
        (Some(200..=299), Some((_, body))) => Ok(body.to_owned()),
        (Some(status), Some((_, body))) => Err(Unanswered::Refused(format!("{} ({status})", body.trim()))),
        // it ended before it had answered
        _ => Err(Unanswered::Silent { socket: name(), source: io::ErrorKind::UnexpectedEof.into() }),
    }
}

/// Connects until the deadline. A call that blocks would wait for ever while an agent that hangs has all the callers that
/// it can have (unix_stream_connect in net/unix/af_unix.c).
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connection = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match socket::connect(connection.as_raw_fd(), &address) {
            Err(Errno::EAGAIN) if Instant::now() < deadline => thread::sleep(PAUSE),
            other => break other?,
        }
    }
    let connection = UnixStream::from(connection);
    connection.set_nonblocking(false)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, sync::mpsc, thread};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// What becomes of the question for readiness that is answered so, and what the question was.
    fn answered(answer: &'static str) -> (Result<Readiness, Unanswered>, String) {
        answered_to(answer, |socket| readiness(socket, Duration::from_secs(10)))
    }

    fn answered_to<T>(answer: &'static str, ask: impl FnOnce(&Path) -> T) -> (T, String) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut piece = [0; 512];
                let length = connection.read(&mut piece).unwrap();
                question.extend_from_slice(&piece[..length]);
            }
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(question).unwrap()
        });
        let result = ask(&socket);
        (result, server.join().unwrap())
    }

    #[test]
    fn what_goes_is_named_with_its_interface() {
        let ask = |socket: &Path| hang_up(socket, "c.1", "e&t=0 +", Duration::from_secs(10));
        let (result, question) = answered_to("HTTP/1.0 204 No Content\r\n\r\n", ask);
        result.unwrap();
        let expected = "DELETE /v1/cni?containerId=c.1&containerInterface=e%26t%3D0%20%2B HTTP/1.0\r\n";
        assert!(question.starts_with(expected), "{question}");
    }

    #[test]
    fn answers() {
        let (result, question) = answered("HTTP/1.0 200 OK\r\nx: y\r\n\r\n{\"limited\":[\"a\"],\"more\":1}");
        assert_eq!(result.unwrap(), Readiness { limited: vec!["a".into()] });
        assert!(question.starts_with("GET /v1/cni HTTP/1.0\r\nHost: agent\r\n"), "{question}");
        let (result, _) = answered("HTTP/1.0 503 Service Unavailable\r\n\r\nnot yet\n");
        assert_eq!(result.unwrap_err().to_string(), "the agent refused: not yet (503)");
        assert!(matches!(answered("HTTP/1.0 200 OK\r\n\r\n[]").0, Err(Unanswered::Refused(_))));
        assert!(matches!(answered("").0, Err(Unanswered::Silent { .. })));
    }

    #[test]
    fn nobody_and_somebody_who_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        assert!(matches!(readiness(&socket, SHORT), Err(Unanswered::Absent { .. })));
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(matches!(readiness(&socket, SHORT), Err(Unanswered::Silent { .. })));
    }

    #[test]
    fn an_agent_that_accepts_nobody_any_more_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&listener, socket::Backlog::new(1).unwrap()).unwrap();
        let callers: Vec<UnixStream> = std::iter::from_fn(|| connect(&path, Instant::now()).ok()).collect();
        assert!(!callers.is_empty());
        let (told, answer) = mpsc::channel();
        let question = path.clone();
        thread::spawn(move || told.send(readiness(&question, SHORT)));
        let answer = answer.recv_timeout(Duration::from_secs(10)).expect("it waits for ever");
        assert!(matches!(answer, Err(Unanswered::Silent { .. })), "{answer:?}");
        // as soon as there is room, it is used
        let waiting = thread::spawn(move || readiness(&path, Duration::from_secs(10)));
        let listener = UnixListener::from(listener);
        let accepted: Vec<_> = (0..=callers.len()).map(|_| listener.accept().unwrap()).collect();
        drop(accepted);
        assert!(matches!(waiting.join().unwrap(), Err(Unanswered::Silent { .. })));
    }

    #[test]
    fn a_state_that_is_new_can_be_read() {
        let standing: Standing = read(r#"{"state": "levitating"}"#).unwrap();
        assert_eq!((&*standing.state, &*standing.reason), ("levitating", ""));
    }
}
