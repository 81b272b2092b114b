//! Servers in namespaces that answer who they are and whom they see, and then echo.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::oneshot,
    task::JoinSet,
};

use super::{Namespace, Transport, namespace::runtime};

/// The longest datagram that a server echoes.
const DATAGRAM: usize = 65_535;

/// A server on any number of ports of one namespace, on all its addresses of both families. It greets each TCP
/// connection with a line (see [`Greeting`]) and echoes what it is sent; it answers each datagram with the line and
/// the datagram. Ends when dropped, with its connections.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a server says first: its name and the client's address as it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Greeting {
    /// The name that the server was started with.
    pub server: String,
    /// The client's address as the server sees it.
    pub client: IpAddr,
}

impl Greeting {
    fn line(&self) -> String {
        format!("{} {}\n", self.server, self.client)
    }

    /// Reads the line at the start of an answer; `None` while it isn't there in full.
    pub(crate) fn parse(answer: &[u8]) -> Option<(Self, &[u8])> {
        let end = answer.iter().position(|byte| *byte == b'\n')?;
        let line = str::from_utf8(&answer[..end]).ok()?;
        let (server, client) = line.split_once(' ')?;
        Some((Self { server: server.to_owned(), client: client.parse().ok()? }, &answer[end + 1..]))
    }
}

impl Server {
    /// Starts it; when this returns, every port is open. `name` must not hold white space.
    ///
    /// # Errors
    /// If a port is taken, or the transport has no ports.
    pub fn start(namespace: &Namespace, name: &str, ports: &[(Transport, u16)]) -> Result<Self> {
        let everywhere = |(transport, port): &(_, u16)| (*transport, (Ipv6Addr::UNSPECIFIED, *port).into());
        Self::start_at(namespace, name, &ports.iter().map(everywhere).collect::<Vec<_>>())
    }

    /// As [`Self::start`], on these addresses only. Where a namespace has several of one family, the answer to a
    /// datagram comes from the one that was asked only if the server is on it.
    ///
    /// # Errors
    /// As [`Self::start`], and if an address isn't the namespace's.
    pub fn start_at(namespace: &Namespace, name: &str, ports: &[(Transport, SocketAddr)]) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (opened, open) = std::sync::mpsc::channel();
        let (name, ports, entrance) = (name.to_owned(), ports.to_vec(), namespace.entrance()?);
        let thread = std::thread::Builder::new()
            .name(format!("server-{name}"))
            .spawn(move || match entrance.enter().and_then(|()| runtime()) {
                Ok(runtime) => runtime.block_on(serve(&name, &ports, stopped, &opened)),
                Err(error) => drop(opened.send(Err(error))),
            })
            .context("cannot start a thread")?;
        // The sender lives in the thread: no answer means that it is gone.
        open.recv().context("the server's thread ended before it opened its ports")??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed; a second one here would abort.
            let _ = thread.join();
        }
    }
}

async fn serve(
    name: &str,
    ports: &[(Transport, SocketAddr)],
    stopped: oneshot::Receiver<()>,
    opened: &std::sync::mpsc::Sender<Result<()>>,
) {
    let mut sockets = JoinSet::new();
    for (transport, at) in ports {
        let result = match transport {
            Transport::Tcp => TcpListener::bind(*at).await.map(|socket| {
                sockets.spawn(accept(socket, name.to_owned()));
            }),
            Transport::Udp => UdpSocket::bind(*at).await.map(|socket| {
                sockets.spawn(answer(socket, name.to_owned()));
            }),
            Transport::Icmp => Err(std::io::Error::other("the kernel answers ICMP echo by itself")),
        };
        if let Err(error) = result.with_context(|| format!("{name} cannot open {transport} at {at}")) {
            drop(opened.send(Err(error)));
            return;
        }
    }
    drop(opened.send(Ok(())));
    // An error means that the sender was dropped, which is the sign to stop.
    let _ = stopped.await;
}

async fn accept(listener: TcpListener, name: String) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((connection, from)) => {
                let greeting = Greeting { server: name.clone(), client: from.ip().to_canonical() };
                connections.spawn(greet_and_echo(connection, greeting));
            }
            // The client gave up before it was let in.
            Err(_) => tokio::task::yield_now().await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn greet_and_echo(mut connection: TcpStream, greeting: Greeting) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    connection.write_all(greeting.line().as_bytes()).await?;
    let (mut reader, mut writer) = connection.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    Ok(())
}

async fn answer(socket: UdpSocket, name: String) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // Errors are earlier answers' that could not be delivered.
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else { continue };
        let greeting = Greeting { server: name.clone(), client: from.ip().to_canonical() };
        let mut answer = greeting.line().into_bytes();
        answer.extend_from_slice(&datagram[..length]);
        let _ = socket.send_to(&answer, from).await;
    }
}
