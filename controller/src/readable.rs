//! Waits for descriptors that the kernel makes readable, each on a thread of its own. Entry point: [`follow`].

use std::{
    ops::ControlFlow,
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::oneshot;

/// Calls `each` whenever `source` is readable, until it breaks or fails, or until this future is dropped. `each` has to
/// read all there is, or to be content with being called again.
pub(crate) async fn follow<T: AsFd + Send + 'static>(
    name: &str,
    mut source: T,
    mut each: impl FnMut(&mut T) -> anyhow::Result<ControlFlow<()>> + Send + 'static,
) -> anyhow::Result<()> {
    // dropping our end wakes the thread up
    let (_ours, theirs) = UnixStream::pair()?;
    let (ended, has_ended) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = loop {
            match wait(&source, &theirs).map(|readable| readable.then(|| each(&mut source))) {
                Ok(Some(Ok(ControlFlow::Continue(())))) => {}
                Ok(Some(Ok(ControlFlow::Break(()))) | None) => break Ok(()),
                Ok(Some(Err(error))) => break Err(error),
                Err(error) => break Err(error.into()),
            }
        };
        // if nobody waits any more, nobody has to know
        let _ = ended.send(result);
    })?;
    has_ended.await.with_context(|| format!("the thread '{name}' panicked"))?
}

/// Waits until `source` is readable; false if `end` was closed.
fn wait(source: &impl AsFd, end: &UnixStream) -> nix::Result<bool> {
    loop {
        let mut both = [PollFd::new(source.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        match poll(&mut both, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error),
        }
        if both[1].any() == Some(true) {
            return Ok(false);
        }
        if both[0].any() == Some(true) {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn what_is_readable_is_read_until_the_end() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let (told, mut heard) = mpsc::unbounded_channel();
        let following = follow("test", reader, move |reader| {
            let mut byte = [0];
            if reader.read(&mut byte)? == 0 {
                return Ok(ControlFlow::Break(()));
            }
            told.send(byte[0])?;
            Ok(ControlFlow::Continue(()))
        });
        let following = tokio::spawn(following);
        writer.write_all(b"ab").unwrap();
        assert_eq!((heard.recv().await, heard.recv().await), (Some(b'a'), Some(b'b')));
        drop(writer);
        following.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_future() {
        let (_writer, reader) = UnixStream::pair().unwrap();
        let (told, mut heard) = mpsc::unbounded_channel::<()>();
        let following = tokio::spawn(follow("test", reader, move |_| {
            told.send(())?;
            Ok(ControlFlow::Continue(()))
        }));
        tokio::task::yield_now().await;
        following.abort();
        // the thread held the sender
        assert_eq!(heard.recv().await, None);
    }

    #[tokio::test]
    async fn an_error_is_told() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        writer.write_all(b"a").unwrap();
        let error = follow("test", reader, |_| anyhow::bail!("broken")).await.unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}
