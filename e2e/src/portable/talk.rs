//! Commands in pods that go on, and what they have said so far; among them connections that are open.

use std::{
    io::Read as _,
    net::SocketAddr,
    process::{Child, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::scene::Scene;
use crate::{bed::Transport, wait::holds};

/// How often what was said is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Silence for so long is a connection's end; longer than a busy API server needs to hand on what a command says.
const SILENCE: Duration = Duration::from_secs(3);
/// The longest that a connection which is to be cut may go on, and one that is to go on may pause.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// What comes back over a connection, ten times a second.
const TICK: &str = "tick";
/// What a [`Watch`] says when it has asked everything once, and when something got through.
const ASKED: &str = "asked";
const PASSED: &str = "passed";

/// A command that runs in a pod until this is dropped.
#[derive(Debug)]
pub(super) struct Talk {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Talk {
    /// Starts a script of bash with these arguments.
    pub(super) fn start(scene: &Scene<'_>, pod: &str, script: &str, arguments: &[String]) -> Result<Self> {
        let cluster = scene.cluster();
        let mut kubectl = cluster.kubectl_command();
        kubectl.args([
            "exec",
            "--namespace",
            scene.name(),
            pod,
            "--container=main",
            "--",
            "bash",
            "-c",
            script,
            "bash",
        ]);
        kubectl.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = cluster.spawn(&mut kubectl)?;
        let mut output = child.stdout.take().context("stdout was asked for")?;
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        // Ends with the command.
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                lock(&heard).push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Ok(Self { child, said })
    }

    /// How often it has said a word.
    fn count(&self, word: &str) -> usize {
        lock(&self.said).matches(word).count()
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot ask for kubectl")?.is_none())
    }

    /// Whether it says a word again within `patience`.
    fn says(&self, word: &str, patience: Duration) -> bool {
        let before = self.count(word);
        holds(patience, POLL, || self.count(word) != before)
    }

    fn said(&self) -> String {
        lock(&self.said).trim().to_owned()
    }
}

fn lock(said: &Mutex<String>) -> MutexGuard<'_, String> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Talk {
    fn drop(&mut self) {
        // The command itself goes with its pod.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A connection of a pod over which something is asked and answered all the time.
#[derive(Debug)]
pub(super) struct Stream {
    what: String,
    talk: Talk,
}

impl Stream {
    /// Opens it, and waits until something comes back.
    pub(super) fn open(scene: &Scene<'_>, from: &str, transport: Transport, to: SocketAddr) -> Result<Self> {
        let (device, question) = match transport {
            Transport::Udp => ("udp", format!(r"echo {TICK}\n")),
            _ => ("tcp", format!(r"GET /echo?msg={TICK} HTTP/1.1\r\nHost: sluice\r\n\r\n")),
        };
        // Not by `cat`: one that uses sendfile(2) keeps the pipe that it writes to locked while it waits.
        let script = format!(
            "exec 2>&1; exec 3<>/dev/{device}/$1/$2 || exit; dd bs=4096 <&3 & while printf '{question}' >&3; do sleep 0.1; done"
        );
        let talk = Talk::start(scene, from, &script, &[to.ip().to_string(), to.port().to_string()])?;
        let stream = Self { what: format!("the {transport} connection from {from} to {to}"), talk };
        ensure!(stream.flows(), "nothing comes back over {}: {}", stream.what, stream.talk.said());
        Ok(stream)
    }

    /// Whether anything comes back.
    fn flows(&self) -> bool {
        self.talk.says(TICK, PATIENCE)
    }

    pub(super) fn ensure_flows(&self) -> Result<()> {
        ensure!(self.flows(), "{} was cut, although policies allow it", self.what);
        Ok(())
    }

    /// Until nothing has come back for a while.
    pub(super) fn await_cut(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.talk.says(TICK, SILENCE) {
            ensure!(Instant::now() < deadline, "{} goes on, although no policy allows it", self.what);
        }
        // What has ended says nothing, whatever policies do.
        ensure!(self.talk.runs()?, "{} has ended, which no policy does: {}", self.what, self.talk.said());
        Ok(())
    }
}

/// Asks again and again, over TCP and UDP, what is to be refused.
#[derive(Debug)]
pub(super) struct Watch(Talk);

impl Watch {
    pub(super) fn start(scene: &Scene<'_>, from: &str, to: &[SocketAddr]) -> Result<Self> {
        // A line for each connection that comes about, then one for the round; a round takes a second.
        let tcp = "timeout 1 bash -c \"exec 3<>/dev/tcp/$1/$2\" && echo passed tcp $1";
        let udp = "timeout 1 bash -c \"exec 3<>/dev/udp/$1/$2; echo hostname >&3; head -c 1 <&3 | grep -q .\" && echo passed udp $1";
        let script = format!(
            "exec 2>/dev/null; ask() {{ ({tcp}) & ({udp}) & }}; while :; do for to in \"$@\"; do ask ${{to/,/ }}; done; \
             wait; echo {ASKED}; done"
        );
        let to: Vec<String> = to.iter().map(|to| format!("{},{}", to.ip(), to.port())).collect();
        let watch = Self(Talk::start(scene, from, &script, &to)?);
        watch.ensure_refused()?;
        Ok(watch)
    }

    /// Waits until everything has been asked once more; nothing may have got through since the start.
    pub(super) fn ensure_refused(&self) -> Result<()> {
        // The round that is under way may have begun before.
        for _ in 0..2 {
            ensure!(self.0.says(ASKED, PATIENCE), "nothing is asked any more");
        }
        ensure!(self.0.count(PASSED) == 0, "refused connections came about: {}", self.0.said().replace(ASKED, ""));
        Ok(())
    }
}
