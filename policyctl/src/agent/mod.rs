//! What agents say of themselves, over their unix sockets, be they here or in a pod of theirs: [`Agent`]. One question a connection, in HTTP/1.0, whose
//! answers end with the connection and come as they are.

mod answer;
pub(crate) mod asked;
mod node;
mod tables;

use std::{
    fmt,
    io::{self, BufRead as _, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};

pub(crate) use self::answer::Answer;
use self::node::Trouble;
pub(crate) use self::{
    node::{image, said},
    tables::{CompiledPod, Of, PROTOCOLS, Ports, Tables, of_table, opens},
};

/// Where an agent is.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// As it was asked for.
    pub(crate) name: String,
    place: Place,
    /// How long it may be silent; for ever if that is not limited.
    patience: Option<Duration>,
}

/// How an agent is reached.
#[derive(Clone, Debug)]
enum Place {
    /// Here.
    Socket(PathBuf),
    /// Through the API server.
    Pod(node::Seat),
    /// It isn't; why.
    Away(String),
}

/// What an agent's first line says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Head {
    pub(crate) version: String,
    pub(crate) node: String,
    /// Source checks need all addresses.
    pub(crate) endpoints: bool,
    pub(crate) time: String,
    pub(crate) moment: Moment,
}

/// Which state something was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Moment {
    pub(crate) generation: u64,
    pub(crate) settled: bool,
}

/// The objects that an agent's tables follow from.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) head: Head,
    /// One a line, as the API has them.
    pub(crate) text: Vec<u8>,
    /// The state at the end.
    pub(crate) end: Moment,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Pod(seat) => write!(f, "{}, pod {seat:?}", self.name),
            Place::Socket(_) | Place::Away(_) => f.write_str(&self.name),
        }
    }
}

impl Agent {
    /// The one that listens at `socket`.
    pub(crate) fn at(socket: &Path, patience: Option<Duration>) -> Self {
        Self { name: socket.display().to_string(), place: Place::Socket(socket.to_path_buf()), patience }
    }

    /// Asks, and reads the head of the answer. An answer that goes on (`follows`) may be silent for as long as it likes
    /// after that, and be as long.
    pub(crate) fn ask(&self, path: &str, follows: bool) -> anyhow::Result<Answer> {
        let unreachable = || format!("no agent answers at {}", self.name);
        let (mut connection, trouble) = match &self.place {
            Place::Socket(socket) => (UnixStream::connect(socket).with_context(unreachable)?, Trouble::default()),
            Place::Pod(seat) => seat.open().with_context(unreachable)?,
            Place::Away(why) => bail!("{}: {why}", unreachable()),
        };
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).with_context(unreachable)?;
        let mut answer = Answer::new(connection, &self.name, self.patience).with_context(unreachable)?;
        let head = answer.head();
        if let Some(trouble) = trouble.get() {
            bail!("{}: {trouble}", unreachable());
        }
        let status = head?.split(' ').nth(1).unwrap_or_default().to_owned();
        if status != "200" {
            let mut text = String::new();
            (&mut answer).take(4096).read_to_string(&mut text)?;
            match status.as_str() {
                "" => bail!("what listens at {} is no agent", self.name),
                "404" => bail!("the agent at {} is of an older version, which doesn't tell this", self.name),
                _ => bail!("the agent at {}: {}", self.name, text.trim_end()),
            }
        }
        if follows {
            answer.go_on().with_context(unreachable)?;
        }
        Ok(answer)
    }

    /// `/state`
    pub(crate) fn state<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let answer = self.ask("/state", false)?;
        serde_json::from_reader(answer).map_err(|error| match error.is_io() {
            true => io::Error::from(error).into(),
            false => anyhow::anyhow!("what the agent at {} says can't be read: {error}", self.name),
        })
    }

    /// `/v1/objects`
    pub(crate) fn objects(&self) -> anyhow::Result<Objects> {
        let mut answer = self.ask("/v1/objects", false)?;
        let head = self.first(&mut answer)?;
        let mut text = Vec::new();
        answer.read_to_end(&mut text)?;
        let last = text.trim_ascii_end().iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let end = end(&text[last..]).with_context(|| self.broken_off())?;
        text.truncate(last);
        Ok(Objects { head, text, end })
    }

    /// The first line of an answer.
    fn first(&self, answer: &mut Answer) -> anyhow::Result<Head> {
        #[derive(Deserialize)]
        struct First {
            agent: Head,
        }
        let mut line = String::new();
        answer.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{}", self.broken_off());
        let first: First = serde_json::from_str(&line).with_context(|| self.broken_off())?;
        Ok(first.agent)
    }

    fn broken_off(&self) -> String {
        format!("the agent at {} has broken off; it may have been restarted, so ask again", self.name)
    }
}

/// What the last line says.
fn end(line: &[u8]) -> Option<Moment> {
    #[derive(Deserialize)]
    struct Last {
        end: End,
    }
    #[derive(Deserialize)]
    struct End {
        moment: Moment,
    }
    serde_json::from_slice::<Last>(line).ok().map(|last| last.end.moment)
}
