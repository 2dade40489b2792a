//! The connections of SOCKS5 bytestreams: the listener that waits for the peer's, and the dialling of its candidates
//! (XEP-0065 #direct).
//!
//! Everybody can reach the listener. Nobody gets past it who doesn't ask, in good time, for a DST.ADDR that the [`Gate`]
//! expects: a hash over a sid that only those who saw the negotiation know. That is no proof of who it is: TLS, inside, is.

mod dial;
mod listener;
mod serve;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub(crate) use self::{dial::dial, listener::Listener, serve::Gate};

/// Silence after which the system asks whether the other end is still there, and between one question and the next. Nothing
/// else finds out about a machine that vanished under a stream that only listens.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// Questions without an answer that end a connection.
const KEEPALIVE_RETRIES: u32 = 6;

/// What every connection needs: small writes at once, and an end when the other one is gone.
fn prepare(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let (time, interval) = KEEPALIVE;
    let keepalive =
        TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(connection).set_tcp_keepalive(&keepalive)
}
