//! Questions to the network: does a connection come about? Asked with ordinary sockets, many at once.

use std::{
    fmt,
    io::{Error, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Greeting, Namespace};

/// How long one attempt waits. An answer over veths takes well under a millisecond, so this is room for a machine that
/// is busy with something else; shorter than TCP's first repetition, hence the second attempt with a fresh socket.
const ATTEMPT: Duration = Duration::from_millis(400);
/// Attempts before the answer is [`Outcome::Dropped`], where that is what is expected. One that is answered ends the
/// probe.
const ATTEMPTS: usize = 2;
/// Attempts where an answer is expected: only a failure takes this long, and a busy machine must not make one.
const PATIENT_ATTEMPTS: usize = 15;
/// How often an unanswered datagram is sent again within one attempt.
const REPEAT: Duration = Duration::from_millis(100);
/// What a probe sends and wants back.
const PAYLOAD: &[u8] = b"is anybody there?";

/// What a probe is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A connection, a greeting and an echo.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// An echo request and its reply; the port means nothing.
    Icmp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        })
    }
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Where it is asked.
    pub from: &'a Namespace,
    /// The client's address, if it must be one in particular.
    pub source: Option<IpAddr>,
    /// What it is asked with.
    pub transport: Transport,
    /// Whom it is asked.
    pub to: SocketAddr,
    /// What should become of it. Silence counts as [`Outcome::Dropped`] after 800 ms where it is expected, else after 6 s.
    pub expected: Outcome,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It came about, and data went both ways.
    Open,
    /// The other end, or somebody on the way, said no: a reset, or an ICMP error. One that answers the opening of a TCP
    /// connection may be overlooked: the kernel ignores it while `connect` still holds the socket.
    Refused,
    /// Silence.
    Dropped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        })
    }
}

/// The answer to a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// Who answered, and whom it saw; `None` if nobody did, and for ICMP.
    pub greeting: Option<Greeting>,
}

/// Asks one question.
///
/// # Errors
/// If it could not even be asked: no route, no such source address.
pub fn probe(from: &Namespace, transport: Transport, to: SocketAddr, expected: Outcome) -> Result<Answer> {
    let mut answers = probe_all(&[Probe { from, source: None, transport, to, expected }])?;
    answers.pop().context("one question has one answer")
}

/// Asks all questions at once. The answers are in the questions' order.
///
/// # Errors
/// If one could not even be asked: no route, no such source address.
pub fn probe_all(probes: &[Probe<'_>]) -> Result<Vec<Answer>> {
    let mut by_namespace: Vec<(&Namespace, Vec<(usize, Probe<'_>)>)> = Vec::new();
    for (index, probe) in probes.iter().enumerate() {
        match by_namespace.iter_mut().find(|(namespace, _)| namespace.name() == probe.from.name()) {
            Some((_, list)) => list.push((index, *probe)),
            None => by_namespace.push((probe.from, vec![(index, *probe)])),
        }
    }
    let mut answers = vec![None; probes.len()];
    let results = thread::scope(|scope| {
        let threads: Vec<_> = by_namespace
            .iter()
            .map(|(namespace, list)| scope.spawn(move || namespace.run_async(|| ask_all(list))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    for (index, answer) in results.into_iter().flatten() {
        answers[index] = Some(answer);
    }
    answers.into_iter().collect::<Option<_>>().context("each question has an answer")
}

async fn ask_all(probes: &[(usize, Probe<'_>)]) -> Result<Vec<(usize, Answer)>> {
    let mut questions = JoinSet::new();
    for (index, probe) in probes {
        let (index, Probe { from, source, transport, to, expected }) = (*index, *probe);
        let attempts = if expected == Outcome::Dropped { ATTEMPTS } else { PATIENT_ATTEMPTS };
        let name = from.name().to_owned();
        questions.spawn(async move {
            let answer = ask(transport, source, to, attempts).await;
            answer
                .map(|answer| (index, answer))
                .with_context(|| format!("cannot ask {to} over {transport} from {name}"))
        });
    }
    let mut answers = Vec::with_capacity(probes.len());
    while let Some(answer) = questions.join_next().await {
        answers.push(answer.context("a probe panicked")??);
    }
    Ok(answers)
}

async fn ask(transport: Transport, source: Option<IpAddr>, to: SocketAddr, attempts: usize) -> Result<Answer> {
    for _ in 0..attempts {
        let attempt = async {
            match transport {
                Transport::Tcp => ask_tcp(source, to).await,
                Transport::Udp => ask_datagram(bind_udp(source, to)?, transport).await,
                Transport::Icmp => ask_datagram(open_icmp(source, to)?, transport).await,
            }
        };
        match timeout(ATTEMPT, attempt).await {
            Ok(Ok(greeting)) => return Ok(Answer { outcome: Outcome::Open, greeting }),
            Ok(Err(error)) if is_refusal(&error) => {
                return Ok(Answer { outcome: Outcome::Refused, greeting: None });
            }
            Ok(Err(error)) if error.kind() != ErrorKind::TimedOut => return Err(error.into()),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(Answer { outcome: Outcome::Dropped, greeting: None })
}

fn is_refusal(error: &Error) -> bool {
    // EACCES, EHOSTUNREACH: ICMP says 'administratively prohibited'.
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::PermissionDenied
            | ErrorKind::HostUnreachable
    )
}

async fn ask_tcp(source: Option<IpAddr>, to: SocketAddr) -> std::io::Result<Option<Greeting>> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind((source, 0).into())?;
    }
    let mut connection = socket.connect(to).await?;
    connection.write_all(PAYLOAD).await?;
    let mut answer = Vec::new();
    loop {
        if let Some((greeting, echo)) = Greeting::parse(&answer)
            && echo == PAYLOAD
        {
            return Ok(Some(greeting));
        }
        if connection.read_buf(&mut answer).await? == 0 {
            return Err(ErrorKind::ConnectionReset.into());
        }
    }
}

async fn ask_datagram(socket: UdpSocket, transport: Transport) -> std::io::Result<Option<Greeting>> {
    let question = match transport {
        // RFC 792, RFC 4443: type, code, checksum, identifier, sequence. The kernel fills in checksum and identifier.
        Transport::Icmp if socket.peer_addr()?.is_ipv4() => [&[8, 0, 0, 0, 0, 0, 0, 1], PAYLOAD].concat(),
        Transport::Icmp => [&[128, 0, 0, 0, 0, 0, 0, 1], PAYLOAD].concat(),
        Transport::Tcp | Transport::Udp => PAYLOAD.to_vec(),
    };
    let mut answer = [0; 1500];
    loop {
        socket.send(&question).await?;
        let again = Instant::now() + REPEAT;
        let length = tokio::select! {
            length = socket.recv(&mut answer) => length?,
            () = sleep(again - Instant::now()) => continue,
        };
        match transport {
            Transport::Icmp if answer[..length].ends_with(PAYLOAD) => return Ok(None),
            Transport::Icmp => {}
            Transport::Tcp | Transport::Udp => {
                if let Some((greeting, PAYLOAD)) = Greeting::parse(&answer[..length]) {
                    return Ok(Some(greeting));
                }
            }
        }
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn bind_udp(source: Option<IpAddr>, to: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((source.unwrap_or(unspecified(to)), 0))?;
    connect(socket, to)
}

/// An ICMP echo socket (icmp(7)), which std and tokio handle as they handle UDP.
fn open_icmp(source: Option<IpAddr>, to: SocketAddr) -> std::io::Result<UdpSocket> {
    let (family, protocol) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    if let Some(source) = source {
        let address = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(source, 0));
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)?;
    }
    // The port means nothing, but a socket that is connected to port 0 doesn't tell its peer (getpeername(2)).
    connect(socket.into(), SocketAddr::new(to.ip(), 1))
}

fn connect(socket: std::net::UdpSocket, to: SocketAddr) -> std::io::Result<UdpSocket> {
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
