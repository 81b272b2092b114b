//! A TCP connection that always has data under way and counts what came back.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt::Linger},
};

use super::Pod;
use crate::wait::holds;

/// Bytes that are under way at a time.
const CHUNK: usize = 16 * 1024;
/// The pause between two chunks, so that several streams and their watchers fit on one core.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct Progress {
    start: Instant,
    echoed: AtomicU64,
    /// Nanoseconds from `start` to the last echo.
    last: AtomicU64,
}

/// A connection to a [`super::Server`], which echoes. Closed when dropped.
#[derive(Debug)]
pub struct Stream {
    connection: TcpStream,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Opens it and starts to send.
    ///
    /// # Errors
    /// If the connection doesn't come about in time.
    pub fn open(from: &Pod, to: SocketAddr, patience: Duration) -> Result<Self> {
        Self::over(from.connect(to, patience)?)
    }

    /// Starts to send over a connection.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn over(connection: TcpStream) -> Result<Self> {
        connection.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        let mut other = connection.try_clone().context("cannot share a socket")?;
        let start = Instant::now();
        let progress = Arc::new(Progress { start, echoed: AtomicU64::new(0), last: AtomicU64::new(0) });
        let counter = Arc::clone(&progress);
        let thread = thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || {
                let chunk = [0; CHUNK];
                let mut echo = [0; CHUNK];
                // The greeting comes first and is counted with the rest; it only shifts the stream.
                while other.write_all(&chunk).is_ok() && other.read_exact(&mut echo).is_ok() {
                    let time = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    counter.last.store(time, Ordering::Relaxed);
                    counter.echoed.fetch_add(CHUNK as u64, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            })
            .context("cannot start a thread")?;
        Ok(Self { connection, progress, thread: Some(thread) })
    }

    /// Bytes that came back so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.progress.echoed.load(Ordering::Relaxed)
    }

    /// When the last byte so far came back; when it was opened, if none did.
    #[must_use]
    pub fn last_progress(&self) -> Instant {
        self.progress.start + Duration::from_nanos(self.progress.last.load(Ordering::Relaxed))
    }

    /// Whether anything comes back within `patience`.
    #[must_use]
    pub fn flows(&self, patience: Duration) -> bool {
        let before = self.bytes();
        holds(patience, PAUSE, || self.bytes() != before)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Without lingering, so that a connection that was cut doesn't keep its namespace alive while the kernel repeats
        // the farewell. The shutdown ends the thread's read and write; reset already is as good.
        let _ = setsockopt(&self.connection, Linger, &linger { l_onoff: 1, l_linger: 0 });
        let _ = self.connection.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
