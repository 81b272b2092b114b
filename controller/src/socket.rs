//! The agent's unix socket: made with mode 0600 before anybody can connect, and never taken from an agent that lives.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    stat::{Mode, fchmod},
};
use tokio::net::UnixListener;

/// Why the socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something answers there.
    #[error("another agent answers at {0}; only one can run on a node, unless --socket and --pin-dir tell them apart")]
    Answered(PathBuf),
    /// Something else is in its place.
    #[error("{0} is not a socket; remove it, or give --socket another path")]
    Occupied(PathBuf),
    /// The system refuses.
    #[error("the socket {path} can't be {action}")]
    Refused {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`; its folder is made if it isn't there.
    pub fn listen(path: &Path) -> Result<(Self, UnixListener), Error> {
        let refused = |action| move |source| Error::Refused { path: path.to_path_buf(), action, source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(refused("made, because its folder can't be"))?;
        }
        remove_stale(path)?;
        let open = || -> io::Result<std::os::unix::net::UnixListener> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            // on Linux the file that bind makes takes the socket's own mode (net/unix/af_unix.c, unix_bind_bsd)
            fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
            bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?)?;
            listen(&socket, Backlog::new(128)?)?;
            Ok(socket.into())
        };
        let listener = open().and_then(UnixListener::from_std).map_err(refused("made"))?;
        Ok((Self { path: path.to_path_buf() }, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("the socket {} can't be removed: {error}", self.path.display());
        }
    }
}

/// Removes a socket that nobody listens at.
pub fn remove_stale(path: &Path) -> Result<(), Error> {
    let refused = |action| move |source| Error::Refused { path: path.to_path_buf(), action, source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("looked at")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::Occupied(path.to_path_buf()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::Answered(path.to_path_buf())),
        Err(_) => fs::remove_file(path).map_err(refused("removed, though nobody listens at it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_goes_with_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let (socket, _listener) = Socket::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_agents_socket_is_not_taken_and_a_dead_ones_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let (socket, listener) = Socket::listen(&path).unwrap();
        assert!(matches!(Socket::listen(&path), Err(Error::Answered(_))));
        drop(listener);
        // as after a SIGKILL
        std::mem::forget(socket);
        assert!(path.exists());
        Socket::listen(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::listen(&path), Err(Error::Occupied(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
