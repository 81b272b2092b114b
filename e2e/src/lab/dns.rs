//! Asks a name server, as a pod would.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use super::network::DNS_SERVICE as SERVICE;

/// How many A records `server` has for `name` when asked from the calling thread's network.
///
/// # Errors
/// If there is no answer within a second, or it is an error.
pub fn ask(server: IpAddr, name: &str) -> Result<u16> {
    let here: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(here).context("cannot open a socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).context("cannot set a time-out")?;
    socket.connect((server, 53)).with_context(|| format!("cannot reach {server}"))?;
    socket.send(&question(name)?).with_context(|| format!("cannot ask {server}"))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).with_context(|| format!("no answer from {server}"))?;
    let answer = &answer[..length];
    ensure!(answer.len() >= 12, "{server} answers with {} bytes", answer.len());
    let code = answer[3] & 0x0f;
    ensure!(code == 0, "{server} answers with code {code} (RFC 1035, 4.1.1)");
    Ok(u16::from_be_bytes([answer[6], answer[7]]))
}

/// A message as RFC 1035, 4.1 has it: a header, and one question for A records.
fn question(name: &str) -> Result<Vec<u8>> {
    // An id, recursion desired, one question.
    let mut message = vec![0x51, 0x1c, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        message.push(length.with_context(|| format!("{name} is no name"))?);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    Ok(message)
}
