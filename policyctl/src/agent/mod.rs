//! What agents say of themselves, over their unix sockets, be they here or in a pod of theirs: [`Agent`]. One question a connection, in HTTP/1.0, whose
//! answers end with the connection and come as they are.

pub(crate) mod asked;
mod node;
mod tables;

use std::{
    fmt,
    io::{BufRead, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};

use self::node::Trouble;
pub(crate) use self::{
    node::{image, said},
    tables::{CompiledPod, Of, PROTOCOLS, Ports, Tables, of_table, opens},
};

/// How long an agent may be silent. Its own time-out for an answer is less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where an agent is.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// As it was asked for.
    pub(crate) name: String,
    place: Place,
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

/// Lines of an answer.
pub(crate) type Answer = BufReader<UnixStream>;

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
    pub(crate) fn at(socket: &Path) -> Self {
        Self { name: socket.display().to_string(), place: Place::Socket(socket.to_path_buf()) }
    }

    /// Asks, and reads the head of the answer. `patience` is how long it may be silent after that; for ever if there is
    /// none.
    pub(crate) fn ask(&self, path: &str, patience: Option<Duration>) -> anyhow::Result<Answer> {
        let unreachable = || format!("no agent answers at {}", self.name);
        let (mut connection, trouble) = match &self.place {
            Place::Socket(socket) => (UnixStream::connect(socket).with_context(unreachable)?, Trouble::default()),
            Place::Pod(seat) => seat.open().with_context(unreachable)?,
            Place::Away(why) => bail!("{}: {why}", unreachable()),
        };
        connection.set_read_timeout(Some(PATIENCE)).with_context(unreachable)?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).with_context(unreachable)?;
        let mut answer = BufReader::new(connection);
        let mut line = String::new();
        let read = answer.read_line(&mut line);
        if let Some(trouble) = trouble.get() {
            bail!("{}: {trouble}", unreachable());
        }
        read.with_context(|| self.silent())?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while !line.trim_end().is_empty() && line.ends_with('\n') {
            line.clear();
            answer.read_line(&mut line).with_context(|| self.silent())?;
        }
        if status != "200" {
            let mut text = String::new();
            (&mut answer).take(4096).read_to_string(&mut text).with_context(|| self.silent())?;
            match status.as_str() {
                "" => bail!("what listens at {} is no agent", self.name),
                "404" => bail!("the agent at {} is of an older version, which doesn't tell this", self.name),
                _ => bail!("the agent at {}: {}", self.name, text.trim_end()),
            }
        }
        answer.get_ref().set_read_timeout(patience).with_context(|| self.silent())?;
        Ok(answer)
    }

    fn silent(&self) -> String {
        format!("the agent at {} has said nothing for {} s", self.name, PATIENCE.as_secs())
    }

    /// `/state`
    pub(crate) fn state<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let answer = self.ask("/state", Some(PATIENCE))?;
        serde_json::from_reader(answer).with_context(|| format!("what the agent at {} says can't be read", self.name))
    }

    /// `/v1/objects`
    pub(crate) fn objects(&self) -> anyhow::Result<Objects> {
        let mut answer = self.ask("/v1/objects", Some(PATIENCE))?;
        let head = self.head(&mut answer)?;
        let mut text = Vec::new();
        answer.read_to_end(&mut text).with_context(|| self.silent())?;
        let last = text.trim_ascii_end().iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let end = end(&text[last..]).with_context(|| self.broken_off())?;
        text.truncate(last);
        Ok(Objects { head, text, end })
    }

    fn head(&self, answer: &mut Answer) -> anyhow::Result<Head> {
        #[derive(Deserialize)]
        struct First {
            agent: Head,
        }
        let mut line = String::new();
        answer.read_line(&mut line).with_context(|| self.silent())?;
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
