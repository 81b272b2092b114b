//! A TCP connection that carries a lot: what arrives is compared byte by byte with what was sent.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Namespace, Pod};

/// A prime, so that no packet boundary falls on the same byte twice in a row.
const PATTERN: usize = 65_521;
/// In one call, so that the kernel may make packets as large as the interface takes.
const WRITE: usize = 1 << 20;

fn pattern() -> Vec<u8> {
    (0..PATTERN).map(|at| u8::try_from((at * 7 + at / 251) % 256).expect("less than 256")).collect()
}

/// Accepts connections on a port of a namespace, and counts what arrives. Ends when dropped.
#[derive(Debug)]
pub struct Sink {
    address: IpAddr,
    port: u16,
    namespace: super::namespace::Entrance,
    received: Arc<AtomicU64>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sink {
    /// Opens the port on all addresses of a pod.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn open(pod: &Pod, port: u16) -> Result<Self> {
        let listen = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).context("cannot listen");
        let listener = pod.namespace().run(listen)?;
        let received = Arc::new(AtomicU64::new(0));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (counter, open) = (Arc::clone(&received), Arc::clone(&connections));
        let accept = move || accept(&listener, &counter, &open);
        let thread = thread::Builder::new().name("sink".to_owned()).spawn(accept);
        let address = *pod.addresses().first().context("a pod has an address")?;
        let address = if address.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { Ipv6Addr::LOCALHOST.into() };
        let namespace = pod.namespace().entrance()?;
        let thread = Some(thread.context("cannot start a thread")?);
        Ok(Self { address, port, namespace, received, connections, thread })
    }

    /// Bytes that have arrived so far, over all connections.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// If something arrived that was not sent.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let (entrance, to) = (&self.namespace, SocketAddr::new(self.address, self.port));
        thread::scope(|scope| {
            let knock =
                scope.spawn(|| entrance.enter().and_then(|()| TcpStream::connect(to).context("no one listens")));
            knock.join().map_err(|_| anyhow::anyhow!("the thread that ends the sink panicked"))
        })??;
        // A connection that was cut would never end by itself.
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        thread.join().map_err(|_| anyhow::anyhow!("the sink panicked"))?
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("sink: {error:#}");
        }
    }
}

/// Until the word to end comes, from the pod itself.
fn accept(listener: &TcpListener, counter: &Arc<AtomicU64>, open: &Mutex<Vec<TcpStream>>) -> Result<()> {
    let mut threads = Vec::new();
    loop {
        let (connection, from) = listener.accept().context("cannot accept")?;
        if from.ip().to_canonical().is_loopback() {
            break;
        }
        let other = connection.try_clone().context("cannot share a socket")?;
        open.lock().unwrap_or_else(PoisonError::into_inner).push(other);
        let counter = Arc::clone(counter);
        threads.push(thread::spawn(move || receive(connection, &pattern(), &counter)));
    }
    threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("the sink panicked"))?)
}

/// Until the other end closes, or the connection is reset.
fn receive(mut connection: TcpStream, pattern: &[u8], counter: &AtomicU64) -> Result<()> {
    let mut at = 0;
    let mut buffer = vec![0; PATTERN];
    loop {
        let length = connection.read(&mut buffer[..PATTERN - at]).unwrap_or(0);
        if length == 0 {
            // That everything has arrived; the clone would keep the connection open.
            let _ = connection.shutdown(Shutdown::Both);
            return Ok(());
        }
        ensure!(buffer[..length] == pattern[at..at + length], "what arrived is not what was sent");
        at = (at + length) % PATTERN;
        counter.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// How the kernel gets what is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Copied, by `write`.
    Write,
    /// By reference to the page cache, by `sendfile`.
    SendFile,
}

/// Sends `bytes` from a pod over one connection and waits until the other end has taken them all.
///
/// # Errors
/// If the connection doesn't come about, or stalls for ten seconds.
pub fn send(from: &Pod, to: SocketAddr, bytes: usize, way: Way, scratch: &mut File) -> Result<()> {
    let mut connection = from.connect(to, Duration::from_secs(2))?;
    connection.set_write_timeout(Some(Duration::from_secs(10))).context("cannot set a time-out")?;
    connection.set_read_timeout(Some(Duration::from_secs(10))).context("cannot set a time-out")?;
    let pattern = pattern();
    let mut content = Vec::with_capacity(bytes);
    while content.len() < bytes {
        let left = bytes - content.len();
        content.extend_from_slice(&pattern[..left.min(PATTERN)]);
    }
    match way {
        Way::Write => content.chunks(WRITE).try_for_each(|part| connection.write_all(part)).context("cannot send")?,
        Way::SendFile => {
            scratch.set_len(0).and_then(|()| scratch.rewind()).context("cannot empty the file")?;
            scratch.write_all(&content).and_then(|()| scratch.rewind()).context("cannot fill the file")?;
            // From a file to a socket the standard library uses sendfile(2).
            io::copy(scratch, &mut connection).context("cannot send")?;
        }
    }
    connection.shutdown(Shutdown::Write).context("cannot end the stream")?;
    // The sink closes when it has read to the end.
    connection.read(&mut [0]).context("the other end has not taken everything")?;
    Ok(())
}

/// Sends without end, until the connection dies or `flood` is dropped.
#[derive(Debug)]
pub struct Flood {
    connection: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Starts it.
    ///
    /// # Errors
    /// If the connection doesn't come about.
    pub fn start(from: &Pod, to: SocketAddr) -> Result<Self> {
        let connection = from.connect(to, Duration::from_secs(2))?;
        let mut other = connection.try_clone().context("cannot share a socket")?;
        let content = pattern().repeat(16);
        let send = move || while other.write_all(&content).is_ok() {};
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(send).context("cannot start a thread")?;
        Ok(Self { connection, thread: Some(thread) })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let lingers = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = nix::sys::socket::setsockopt(&self.connection, nix::sys::socket::sockopt::Linger, &lingers);
        let _ = self.connection.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Packets and bytes that an interface has received since it was made. A packet that the kernel hands over in one
/// piece, to be cut later, is one.
///
/// # Errors
/// If there is no such interface.
pub fn received(namespace: &Namespace, interface: &str) -> Result<(u64, u64)> {
    let table =
        namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").context("cannot read net/dev"))?;
    let numbers = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))
        .with_context(|| format!("no interface {interface} in {}", namespace.name()))?;
    let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    Ok((*numbers.get(1).context("no packets")?, *numbers.first().context("no bytes")?))
}
