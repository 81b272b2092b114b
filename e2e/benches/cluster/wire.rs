//! Datagrams that are sent all the time from one pod to another, numbered, and which of them have arrived: when a change
//! took effect is seen from that alone. One stream of them is an established flow, in which each is answered; in the other
//! each datagram comes from a socket of its own.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use e2e::{bed::Namespace, moment::Moment, wait};
use nix::{
    sys::socket::{AddressFamily, SockProtocol},
    unistd::gettid,
};

use crate::{
    ear::{Ear, SILENCE},
    priority,
};

/// From one datagram of a stream to the next.
const PERIOD: Duration = Duration::from_micros(200);
/// As many datagrams in a row as have to be lost before a stream counts as closed.
const LOST: u64 = 500;
/// As many as have to arrive before a stream counts as established.
const FLOWING: u64 = 50;
/// The longest that a change may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The port of the established flow, and those of new connections: with the ports that they come from, more than the
/// datagrams of the 30 s for which a flow without an answer is remembered.
const ESTABLISHED: u16 = 9000;
const NEW: std::ops::Range<u16> = 9001..9017;
/// The ports that new connections come from.
const FROM: std::ops::Range<u16> = 10_000..60_000;

/// The streams, in the order of [`Wire::streams`].
pub(crate) const STREAMS: [&str; 2] = ["established", "new"];

/// Both streams.
#[derive(Default)]
pub(crate) struct Wire {
    streams: [Stream; 2],
    answers: AtomicU64,
    /// How often there was nothing to hear: whatever was sent before has been counted or is lost.
    silences: AtomicU64,
    done: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
}

#[derive(Default)]
struct Stream {
    sent: AtomicU64,
    arrived: Mutex<Arrived>,
}

/// What has arrived of a stream since [`Wire::forget`].
#[derive(Clone, Copy, Default)]
struct Arrived {
    count: u64,
    first: Option<Moment>,
    last: Option<Moment>,
    /// The number of the last, which is not forgotten.
    number: u64,
}

impl Wire {
    /// Sends, to an IPv4 address of the server, and hears, on threads of `scope`, until [`Self::end`].
    pub(crate) fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        client: &'s Namespace,
        (server, to): (&Namespace, IpAddr),
    ) -> Result<()> {
        let (ear, echo, sinks) = server.run(|| {
            let bind = |port| UdpSocket::bind((to, port)).with_context(|| format!("cannot bind port {port}"));
            let ear = Ear::open(AddressFamily::Inet, SockProtocol::Udp)?;
            // What nobody listens to would be answered by errors.
            Ok((ear, bind(ESTABLISHED)?, NEW.map(bind).collect::<Result<Vec<_>>>()?))
        })?;
        echo.set_read_timeout(Some(SILENCE)).context("cannot set a time-out")?;
        scope.spawn(move || self.keep(self.hear(&ear)));
        scope.spawn(move || self.echo(&echo));
        scope.spawn(move || {
            let _sinks = sinks;
            self.keep(client.run(|| self.send(to)));
        });
        Ok(())
    }

    /// Ends the threads; the first that failed makes this fail.
    pub(crate) fn end(&self) -> Result<()> {
        self.done.store(true, Ordering::Relaxed);
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// Begins to count anew.
    pub(crate) fn forget(&self) {
        for stream in &self.streams {
            let mut arrived = lock(&stream.arrived);
            *arrived = Arrived { number: arrived.number, ..Arrived::default() };
        }
    }

    /// Waits until both streams flow, and answers come back.
    pub(crate) fn await_flow(&self) -> Result<()> {
        self.forget();
        let answers = self.answers.load(Ordering::Relaxed);
        self.until("datagrams that are allowed don't arrive", || {
            let flow = self.streams.iter().all(|stream| lock(&stream.arrived).count >= FLOWING);
            flow && self.answers.load(Ordering::Relaxed) > answers
        })
    }

    /// Waits until both streams are closed; when the last datagram of each arrived.
    pub(crate) fn await_closed(&self) -> Result<[Option<Moment>; 2]> {
        let is_closed = |stream: &Stream| {
            let sent = stream.sent.load(Ordering::Relaxed);
            sent >= lock(&stream.arrived).number + LOST
        };
        let mut silences = None;
        self.until("datagrams that are refused arrive", || {
            if !self.streams.iter().all(is_closed) {
                silences = None;
                return false;
            }
            let now = self.silences.load(Ordering::Relaxed);
            now >= *silences.get_or_insert(now) + 2
        })?;
        Ok(self.streams.each_ref().map(|stream| lock(&stream.arrived).last))
    }

    /// Waits until both streams are open; when the first datagram of each arrived since [`Self::forget`].
    pub(crate) fn await_open(&self) -> Result<[Option<Moment>; 2]> {
        let first = || self.streams.each_ref().map(|stream| lock(&stream.arrived).first);
        self.until("datagrams that are allowed don't arrive", || first().iter().all(Option::is_some))?;
        Ok(first())
    }

    fn until(&self, otherwise: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        wait::until(
            PATIENCE,
            SILENCE,
            || otherwise.to_owned(),
            || {
                let is_met = condition();
                if !is_met && self.done.load(Ordering::Relaxed) {
                    self.end()?;
                }
                Ok(is_met.then_some(()))
            },
        )
    }

    /// The end of a thread that fails is that of all.
    fn keep(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.failure).get_or_insert(error);
            self.done.store(true, Ordering::Relaxed);
        }
    }

    fn send(&self, to: IpAddr) -> Result<()> {
        priority::raise(gettid());
        let socket = UdpSocket::bind(("0.0.0.0", 0)).context("cannot bind a port")?;
        socket.connect((to, ESTABLISHED)).context("cannot connect")?;
        socket.set_nonblocking(true).context("cannot go on while nothing comes")?;
        let taken = socket.local_addr().context("no address")?.port();
        let mut ways = NEW.flat_map(|to| FROM.map(move |from| (from, to))).cycle().filter(|(from, _)| *from != taken);
        let mut answer = [0; 16];
        let mut next = Instant::now();
        while !self.done.load(Ordering::Relaxed) {
            while socket.recv(&mut answer).is_ok() {
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
            self.streams[0].send(|datagram| socket.send(datagram).is_ok());
            let (from, port) = ways.next().context("there is always another way")?;
            self.streams[1].send(|datagram| {
                let socket = UdpSocket::bind(("0.0.0.0", from));
                socket.is_ok_and(|socket| socket.send_to(datagram, SocketAddr::new(to, port)).is_ok())
            });
            // What couldn't be sent in time is not made up for, and others get their turn however slow sending is.
            next = (next + PERIOD).max(Instant::now() + PERIOD / 4);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn echo(&self, socket: &UdpSocket) {
        let mut datagram = [0; 16];
        while !self.done.load(Ordering::Relaxed) {
            if let Ok((bytes, from)) = socket.recv_from(&mut datagram) {
                // One that is not sent is one that is not answered, of thousands.
                let _ = socket.send_to(&datagram[..bytes], from);
            }
        }
    }

    fn hear(&self, ear: &Ear) -> Result<()> {
        let mut buffer = [0; 128];
        while !self.done.load(Ordering::Relaxed) {
            let Some(heard) = ear.hear(&mut buffer)? else {
                self.silences.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let Some((port, number)) = read(heard.packet) else { continue };
            let stream = match port {
                ESTABLISHED => &self.streams[0],
                port if NEW.contains(&port) => &self.streams[1],
                _ => continue,
            };
            let mut arrived = lock(&stream.arrived);
            arrived.count += 1;
            arrived.first.get_or_insert(heard.at);
            arrived.last = Some(heard.at);
            arrived.number = arrived.number.max(number);
        }
        Ok(())
    }
}

impl Stream {
    /// The numbers begin at 1, and only what was sent has one.
    fn send(&self, send: impl FnOnce(&[u8]) -> bool) {
        let number = self.sent.load(Ordering::Relaxed) + 1;
        if send(&number.to_be_bytes()) {
            self.sent.store(number, Ordering::Relaxed);
        }
    }
}

/// The destination port of a UDP packet, and the number that it carries.
fn read(packet: &[u8]) -> Option<(u16, u64)> {
    let port = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
    Some((port, u64::from_be_bytes(packet.get(8..16)?.try_into().ok()?)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
