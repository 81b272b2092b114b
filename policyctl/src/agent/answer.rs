//! What an agent says, for as long as it may be silent and as much as it may say: [`Answer`].

use std::{
    io::{self, BufRead, BufReader, Read},
    os::unix::net::UnixStream,
    time::Duration,
};

/// An answer may be so long; what 100,000 pods and 10,000 policies take is far less.
const LONGEST: u64 = 256 << 20;

/// Its first lines may.
const HEAD: u64 = 64 << 10;

/// The lines of an answer. Its errors are whole sentences.
#[derive(Debug)]
pub(crate) struct Answer(BufReader<Limited>);

#[derive(Debug)]
struct Limited {
    stream: UnixStream,
    /// Whose answer it is.
    agent: String,
    patience: Option<Duration>,
    /// So much it may still say.
    left: u64,
}

impl Answer {
    pub(super) fn new(stream: UnixStream, agent: &str, patience: Option<Duration>) -> io::Result<Self> {
        stream.set_read_timeout(patience)?;
        Ok(Self(BufReader::new(Limited { stream, agent: agent.to_owned(), patience, left: HEAD })))
    }

    /// The first line, after which the others are skipped up to the empty one.
    pub(super) fn head(&mut self) -> io::Result<String> {
        let mut first = String::new();
        self.read_line(&mut first)?;
        let mut line = first.clone();
        while !line.trim_end().is_empty() && line.ends_with('\n') {
            line.clear();
            self.read_line(&mut line)?;
        }
        self.0.get_mut().left = LONGEST;
        Ok(first)
    }

    /// From now on it may be silent for as long as it likes, and go on for ever.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        let limited = self.0.get_mut();
        (limited.patience, limited.left) = (None, u64::MAX);
        limited.stream.set_read_timeout(None)
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Answer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let sentence = format!("the agent at {} says more than an agent has to say", self.agent);
            return Err(io::Error::other(sentence));
        }
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match self.stream.read(&mut buffer[..wanted]) {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::other(self.explained(&error))),
        }
    }
}

impl Limited {
    fn explained(&self, error: &io::Error) -> String {
        match (error.kind(), self.patience) {
            (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(patience)) => {
                format!("the agent at {} has said nothing for {} s", self.agent, patience.as_secs_f64())
            }
            _ => format!("the agent at {} can't be read: {error}", self.agent),
        }
    }
}
