//! Numbered datagrams between namespaces, of which both sides log every one: [`Sender`] when it sent each, [`Receiver`]
//! when each arrived.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::Namespace;

/// From one datagram of a sender to the next.
const PERIOD: Duration = Duration::from_millis(5);
/// How long the receiver waits for a datagram before it looks whether it is to end.
const SILENCE: Duration = Duration::from_millis(50);
/// Room for what arrives while the receiver waits for a processor.
const BUFFER: usize = 16 << 20;

/// Datagrams that arrived, by their sender: each number with the time of its first arrival.
type Arrivals = BTreeMap<u32, BTreeMap<u64, Instant>>;

/// Which flows a sender's datagrams are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// All of one.
    One,
    /// Each of a flow of its own, from a port that the kernel chooses.
    Each,
}

/// Takes datagrams at a port, at every address of a namespace. Ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    arrivals: Arc<Mutex<Arrivals>>,
    _thread: Thread,
}

/// Sends datagrams all the time. Ends when dropped.
#[derive(Debug)]
pub struct Sender {
    what: String,
    id: u32,
    /// When each was sent, in the order of their numbers.
    sent: Arc<Mutex<Vec<Instant>>>,
    thread: Thread,
}

/// What became of a sender's datagrams.
#[derive(Debug)]
pub struct Tally {
    /// Who sent to whom.
    pub what: String,
    /// How many were sent.
    pub sent: u64,
    /// Those that did not arrive, with the time from the first one's departure.
    pub lost: Vec<(u64, Duration)>,
    /// How many arrived.
    pub arrived: u64,
}

impl Receiver {
    /// Starts it; when this returns, the port is open.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let socket = namespace.run(|| {
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("cannot open UDP port {port}"))
        })?;
        setsockopt(&socket, RcvBufForce, &BUFFER).context("no room for datagrams")?;
        socket.set_read_timeout(Some(SILENCE)).context("cannot set a time-out")?;
        let arrivals = Arc::new(Mutex::new(Arrivals::new()));
        let log = Arc::clone(&arrivals);
        let thread = Thread::start("receiver", move |done| {
            let mut datagram = [0; 64];
            while !done.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut datagram) else { continue };
                let Some((sender, number)) = read(&datagram[..length]) else { continue };
                lock(&log).entry(sender).or_default().entry(number).or_insert_with(Instant::now);
            }
        })?;
        Ok(Self { arrivals, _thread: thread })
    }

    /// What has become of a sender's datagrams until now.
    #[must_use]
    pub fn tally(&self, sender: &Sender) -> Tally {
        let sent = lock(&sender.sent);
        let arrivals = lock(&self.arrivals);
        let arrived = arrivals.get(&sender.id);
        let has_arrived = |number: u64| arrived.is_some_and(|arrived| arrived.contains_key(&number));
        let lost = (0..).zip(sent.iter()).filter(|(number, _)| !has_arrived(*number));
        Tally {
            what: sender.what.clone(),
            sent: sent.len() as u64,
            lost: lost.map(|(number, at)| (number, at.duration_since(sent[0]))).collect(),
            arrived: arrived.map_or(0, |arrived| arrived.len() as u64),
        }
    }
}

impl Sender {
    /// Starts it.
    ///
    /// # Errors
    /// If the namespace can't be entered.
    pub fn start(from: &Namespace, to: SocketAddr, flows: Flows) -> Result<Self> {
        static SENDERS: AtomicU32 = AtomicU32::new(0);
        let id = SENDERS.fetch_add(1, Ordering::Relaxed);
        let what = format!("{} to {to} ({flows:?})", from.name());
        let (entrance, sent) = (from.entrance()?, Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&sent);
        let thread = Thread::start("sender", move |done| {
            if entrance.enter().is_err() {
                return;
            }
            let mut kept = None;
            while !done.load(Ordering::Relaxed) {
                if flows == Flows::Each {
                    kept = None;
                }
                let mut log = lock(&log);
                let number = log.len() as u64;
                log.push(Instant::now());
                drop(log);
                // What can't be sent is lost, which is what the tally says then.
                if let Some(socket) = kept.take().or_else(|| UdpSocket::bind((unspecified(to), 0)).ok()) {
                    let _ = socket.send_to(&datagram(id, number), to);
                    kept = Some(socket);
                }
                thread::sleep(PERIOD);
            }
        })?;
        Ok(Self { what, id, sent, thread })
    }

    /// How many it has sent.
    #[must_use]
    pub fn sent(&self) -> usize {
        lock(&self.sent).len()
    }

    /// Sends no more.
    pub fn end(&mut self) {
        self.thread.end();
    }
}

impl Tally {
    /// Fails unless every datagram has arrived.
    ///
    /// # Errors
    /// With how many were lost, and when.
    pub fn all_arrived(&self) -> Result<()> {
        let Some(((first, since), (last, until))) = self.lost.first().zip(self.lost.last()) else { return Ok(()) };
        anyhow::bail!(
            "{}: {} of {} datagrams are lost, the first of them {first}, {since:.1?} after the beginning, and the last {last}, \
             {until:.1?} after it",
            self.what,
            self.lost.len(),
            self.sent
        )
    }

    /// Fails if a datagram has arrived.
    ///
    /// # Errors
    /// With how many have.
    pub fn none_arrived(&self) -> Result<()> {
        anyhow::ensure!(self.arrived == 0, "{}: {} of {} datagrams have arrived", self.what, self.arrived, self.sent);
        Ok(())
    }
}

/// A thread that ends when this is dropped.
#[derive(Debug)]
struct Thread {
    done: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn start(name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) -> Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&seen));
        Ok(Self { done, handle: Some(thread.context("cannot start a thread")?) })
    }

    fn end(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            // A panic has been printed; a second one here would abort.
            let _ = handle.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end();
    }
}

/// The sender and the number, each big-endian.
fn datagram(sender: u32, number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&sender.to_be_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn read(datagram: &[u8]) -> Option<(u32, u64)> {
    let (sender, number) = datagram.split_first_chunk()?;
    Some((u32::from_be_bytes(*sender), u64::from_be_bytes(number.try_into().ok()?)))
}

fn unspecified(to: SocketAddr) -> std::net::IpAddr {
    if to.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
