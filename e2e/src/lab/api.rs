//! The API server, asked from within this process: a kubectl for each of a thousand changes, or for one whose effect is
//! timed, would take too long.
//! `kubectl proxy` does what the kubeconfig asks for, and is reached by a Unix socket, so from any network.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Lab;
use crate::{moment::Moment, wait::retry};

/// The longest time until the proxy listens, and until the API server answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy that runs; ended when dropped.
#[derive(Debug)]
pub struct Api {
    proxy: Child,
    socket: PathBuf,
}

/// What the API server has accepted.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// When it was asked.
    pub asked: Moment,
    /// When the first byte of its answer was here.
    pub at: Moment,
}

impl Api {
    /// Starts the proxy.
    ///
    /// # Errors
    /// If it doesn't listen.
    pub fn open(lab: &Lab) -> Result<Self> {
        let socket = lab.folder().join("api.sock");
        // That of a process that was killed.
        let _ = fs::remove_file(&socket);
        let mut kubectl = lab.cluster().kubectl_command();
        kubectl.arg("proxy").arg(format!("--unix-socket={}", socket.display()));
        let proxy = lab.cluster().spawn(kubectl.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let api = Self { proxy, socket };
        retry(PATIENCE, Duration::from_millis(20), || {
            UnixStream::connect(&api.socket).map(drop).context("kubectl proxy does not listen")
        })?;
        Ok(api)
    }

    /// Changes an object by a merge patch (RFC 7386).
    ///
    /// # Errors
    /// With what the API server says.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Acknowledged> {
        self.ask("PATCH", path, "application/merge-patch+json", patch)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn create(&self, path: &str, object: &Value) -> Result<Acknowledged> {
        self.ask("POST", path, "application/json", object)
    }

    /// Deletes an object, or all of a collection.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn delete(&self, path: &str) -> Result<Acknowledged> {
        self.ask("DELETE", path, "application/json", &Value::Null)
    }

    /// Follows the objects of a collection, from those that are there.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn watch(&self, path: &str) -> Result<Watch> {
        let (connection, _) = self.send("GET", &format!("{path}?watch=1&timeoutSeconds=7200"), "", "")?;
        // It says nothing for as long as nothing happens.
        connection.set_read_timeout(None).context("cannot set a time-out")?;
        let mut lines = BufReader::new(connection.try_clone().context("cannot share a socket")?);
        let mut line = String::new();
        lines.read_line(&mut line).context("no answer")?;
        ensure!(status(&line) == Some(200), "cannot watch {path}: {line}");
        while line.trim_end() != "" {
            line.clear();
            lines.read_line(&mut line).context("no answer")?;
        }
        Ok(Watch { connection, lines })
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Acknowledged> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (mut connection, asked) = self.send(method, path, kind, &body)?;
        let mut first = [0];
        connection.read_exact(&mut first).with_context(|| format!("no answer to {method} {path}"))?;
        let at = Moment::now();
        let mut rest = String::new();
        connection.read_to_string(&mut rest).with_context(|| format!("half an answer to {method} {path}"))?;
        let line = rest.lines().next().unwrap_or_default();
        if !status(line).is_some_and(|status| (200..300).contains(&status)) {
            bail!("{method} {path}: {rest}");
        }
        Ok(Acknowledged { asked, at })
    }

    /// HTTP/1.0: the answer comes in one piece, a watch as it is, and the connection ends with it.
    fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<(UnixStream, Moment)> {
        let mut connection = UnixStream::connect(&self.socket).context("kubectl proxy has ended")?;
        connection.set_read_timeout(Some(PATIENCE)).context("cannot set a time-out")?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let asked = Moment::now();
        connection.write_all(request.as_bytes()).context("kubectl proxy takes no request")?;
        Ok((connection, asked))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.proxy.kill().and_then(|()| self.proxy.wait());
        let _ = fs::remove_file(&self.socket);
    }
}

/// What happens to the objects of a collection.
#[derive(Debug)]
pub struct Watch {
    connection: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Watch {
    /// Ends the iteration from another thread.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn end(&self) -> Result<impl Fn() + Send + use<>> {
        let connection = self.connection.try_clone().context("cannot share a socket")?;
        Ok(move || drop(connection.shutdown(Shutdown::Both)))
    }

    /// The next event and when it was here; `None` when the watch has ended.
    ///
    /// # Errors
    /// If the watch is cut, or sends no JSON.
    pub fn next_event(&mut self) -> Result<Option<(Moment, Value)>> {
        let mut line = String::new();
        let bytes = self.lines.read_line(&mut line).context("the watch is cut")?;
        let at = Moment::now();
        if bytes == 0 {
            return Ok(None);
        }
        Ok(Some((at, serde_json::from_str(&line).context("the watch has no JSON")?)))
    }
}

/// The status of an answer that begins with this line, the first letter of which may be missing.
fn status(line: &str) -> Option<u16> {
    line.split(' ').nth(1)?.parse().ok()
}
