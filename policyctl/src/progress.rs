//! What is going on, for whoever waits in front of a terminal: [`Progress`]. One line on stderr that is written over and
//! taken away at the end; nothing within the first second, nothing into pipes and files.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// The line. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When it is told next; `None` if it never is.
    next: Option<Instant>,
    is_shown: bool,
}

/// How long something takes before it is told of.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line changes.
const PACE: Duration = Duration::from_millis(200);

impl Progress {
    /// Of something that begins now.
    pub(crate) fn begin() -> Self {
        let is_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { next: is_terminal.then(|| Instant::now() + PATIENCE), is_shown: false }
    }

    /// Tells where it is, if it is time to.
    pub(crate) fn tell(&mut self, words: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now >= next) {
            self.next = Some(now + PACE);
            self.is_shown = true;
            write(&format!("\r\x1b[K{}", words()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            write("\r\x1b[K");
        }
    }
}

/// A terminal that is gone needs no progress.
fn write(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
