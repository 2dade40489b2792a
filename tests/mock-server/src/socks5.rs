//! SOCKS5 as Prosody's mod_proxy65 speaks it: what one read gives has to be exactly one message.

use std::{io, sync::Weak, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::proxy65::Proxy;

/// What Prosody reads at most before two connections are linked.
const READ: usize = 8192;
/// No authentication is needed.
const WELCOME: &[u8] = &[5, 0];
/// No acceptable methods.
const NO_METHOD: &[u8] = &[5, 0xff];
/// VER, CMD = CONNECT, RSV, ATYP = domain name, length of a SHA-1 hash in hexadecimal.
const CONNECT: &[u8] = &[5, 1, 0, 3, 40];
/// VER, REP = general failure, RSV, ATYP, an empty name, a port. It is what Prosody sends.
const FAILURE: &[u8] = &[5, 1, 0, 3, 0, 0, 0];

/// For a message to come. Prosody has no such bound but for its own 14 minutes of silence.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads the greeting and the request, and hands the connection over to wait for its activation.
pub(crate) async fn serve(proxy: Weak<Proxy>, mut tcp: TcpStream) {
    // A client that leaves needs no answer.
    if let Ok(Ok(Some(address))) = timeout(PATIENCE, negotiate(&mut tcp)).await
        && let Some(proxy) = proxy.upgrade()
    {
        proxy.wait(address, tcp);
    }
}

/// The address that the client asked for; `None` if it was refused.
async fn negotiate(tcp: &mut TcpStream) -> io::Result<Option<String>> {
    let mut buffer = [0; READ];
    let count = tcp.read(&mut buffer).await?;
    let greeting = buffer.get(..count).unwrap_or_default();
    if !is_greeting(greeting) {
        return refuse(tcp, NO_METHOD).await;
    }
    tcp.write_all(WELCOME).await?;

    let count = tcp.read(&mut buffer).await?;
    let request = buffer.get(..count).unwrap_or_default();
    let Some(address) = address(request) else {
        return refuse(tcp, FAILURE).await;
    };
    let mut reply = vec![5, 0, 0, 3, 40];
    reply.extend_from_slice(address);
    reply.extend_from_slice(&[0, 0]);
    // Latin-1, as it were: Prosody takes any 40 bytes.
    let address = address.iter().copied().map(char::from).collect();
    tcp.write_all(&reply).await?;
    Ok(Some(address))
}

async fn refuse(tcp: &mut TcpStream, answer: &[u8]) -> io::Result<Option<String>> {
    tcp.write_all(answer).await?;
    Ok(None)
}

/// VER, the number of methods, and these; one of them is 0. As in Prosody, the zero may be anywhere.
fn is_greeting(bytes: &[u8]) -> bool {
    match bytes {
        [5, count, methods @ ..] => {
            *count > 0 && methods.len() == usize::from(*count) && methods.contains(&0)
        }
        _ => false,
    }
}

/// The hash in the request, whose port has to be 0.
fn address(request: &[u8]) -> Option<&[u8]> {
    let address = request.strip_prefix(CONNECT)?.strip_suffix(&[0, 0])?;
    (address.len() == 40).then_some(address)
}
