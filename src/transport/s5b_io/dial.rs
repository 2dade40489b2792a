//! Connecting to a peer's candidate.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tokio_socks::{Error as SocksError, TargetAddr, tcp::Socks5Stream};

use super::prepare;
use crate::transport::s5b::Dial;

/// What a DST.ADDR can have in SOCKS5, where one byte says its length (RFC 1928 #5).
const MAX_DST_ADDR_BYTES: usize = 255;

/// Bytes of the answer to the greeting (RFC 1928 #3).
const METHOD_ANSWER: usize = 2;

/// Look-ups of names at the same time, of all endpoints of the process: each holds a thread of the runtime's blocking pool
/// (512, for the whole program) until the system gives up, which no time-out of ours hastens. Peers choose the names, and
/// can choose such that nobody answers for: then other names may wait in vain, but addresses, and the rest of the program,
/// do not.
pub(super) const MAX_LOOKUPS: usize = 16;

pub(super) static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// Connects to a candidate and asks for its DST.ADDRs, each on a connection of its own, until one is granted.
///
/// Of a name, one IPv4 and one IPv6 address are tried, one after the other, and each gets its share of the time that is
/// left, so that one where nobody answers does not use it up. Only addresses that `dial.reach` admits are connected to.
/// Whoever does not speak SOCKS5 gets one connection, however many DST.ADDRs there are.
///
/// Cancel safe: when dropped, nothing is left but perhaps a look-up of the system's that ends by itself, and counts among
/// the [`MAX_LOOKUPS`] until then. Waiting for others to end is within `dial.timeout`.
///
/// # Errors
///
/// What became of each address, in words for a person.
pub(crate) async fn dial(dial: &Dial) -> Result<TcpStream, String> {
    check_dst_addrs(&dial.dst_addrs)?;
    let begun = Instant::now();
    let Ok(targets) = timeout(dial.timeout, resolve(dial)).await else {
        return Err("timed out while looking up the name".to_owned());
    };
    connect_to_one(&targets?, &dial.dst_addrs, dial.timeout.saturating_sub(begun.elapsed())).await
}

/// tokio-socks, unlike us, trusts their length.
fn check_dst_addrs(dst_addrs: &[String]) -> Result<(), String> {
    if dst_addrs.is_empty() {
        return Err("no DST.ADDR to ask for".to_owned());
    }
    match dst_addrs.iter().map(String::len).find(|length| !(1..=MAX_DST_ADDR_BYTES).contains(length)) {
        Some(length) => {
            Err(format!("a DST.ADDR of {length} bytes, where SOCKS5 has 1 to {MAX_DST_ADDR_BYTES}"))
        }
        None => Ok(()),
    }
}

/// The addresses to try.
async fn resolve(dial: &Dial) -> Result<Vec<SocketAddr>, String> {
    let found = look_up(&dial.host, dial.port)
        .await
        .map_err(|error| format!("the name has no address: {error}"))?
        .into_iter();
    // ::ffff:a.b.c.d is a.b.c.d: what is checked is what is connected to.
    let (targets, barred): (Vec<_>, Vec<_>) = found
        .map(|address| match address {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
                SocketAddr::new(address.ip().to_canonical(), address.port())
            }
            address => address,
        })
        .partition(|address| dial.reach.admits(address.ip()));
    match (targets.as_slice(), barred.first()) {
        ([], Some(barred)) => {
            Err(format!("{} is a special address, not connected to for others", barred.ip()))
        }
        ([], None) => Err("the name has no address".to_owned()),
        ([..], _) => Ok(one_of_each_family(targets)),
    }
}

async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = host.to_owned();
    let asking = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
    in_a_place(&LOOKUPS, asking).await?
}

/// Runs what blocks when there is a place for it. The place is taken until it ends, whether or not anybody waits for it.
pub(super) async fn in_a_place<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let place = places.acquire().await.map_err(io::Error::other)?;
    let working = spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    Ok(working.await?)
}

/// The first IPv4 and the first IPv6 address. A peer names the host: we don't knock at any number of doors for it.
pub(super) fn one_of_each_family(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut chosen: Vec<SocketAddr> = Vec::new();
    for address in found {
        if chosen.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
            chosen.push(address);
        }
    }
    chosen
}

/// The first of these addresses, in their order, that grants one of the DST.ADDRs.
pub(super) async fn connect_to_one(
    targets: &[SocketAddr],
    dst_addrs: &[String],
    time: Duration,
) -> Result<TcpStream, String> {
    let begun = Instant::now();
    let mut failures = Vec::new();
    for (address, untried) in targets.iter().zip((1..=targets.len()).rev()) {
        let left = time.saturating_sub(begun.elapsed());
        let share = left / u32::try_from(untried).unwrap_or(u32::MAX);
        let mut step = "connecting";
        match timeout(share, connect(*address, dst_addrs, &mut step)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(why)) => failures.push(format!("{address}: {why}")),
            Err(_) => failures.push(format!("{address}: timed out while {step}")),
        }
    }
    Err(failures.join("; "))
}

/// Asks at one address for one DST.ADDR after the other, as long as it refuses them. `step` says what it is at.
async fn connect(
    address: SocketAddr,
    dst_addrs: &[String],
    step: &mut &'static str,
) -> Result<TcpStream, String> {
    let mut refusal = String::new();
    for dst_addr in dst_addrs {
        *step = "connecting";
        let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        // COMPAT Prosody, ejabberd: their proxies want each SOCKS5 message in a segment of its own. tokio-socks makes one
        // write of each, and waits for the reply before the next.
        prepare(&tcp).map_err(|error| error.to_string())?;
        *step = "in SOCKS5";
        let mut server = Server { tcp, heard: 0 };
        let target = TargetAddr::Domain(dst_addr.into(), 0);
        match Socks5Stream::connect_with_socket(&mut server, target).await.map(drop) {
            Ok(()) => return Ok(server.tcp),
            Err(error) if server.refused(&error) => refusal = in_words(&error),
            // Another DST.ADDR would not make a SOCKS5 server of it.
            Err(error) => return Err(in_words(&error)),
        }
    }
    Err(refusal)
}

/// Whoever answers at an address.
struct Server {
    tcp: TcpStream,
    /// Bytes that came.
    heard: usize,
}

impl Server {
    /// Whether an error came after both had agreed to speak SOCKS5: then it is about the DST.ADDR.
    fn refused(&self, error: &SocksError) -> bool {
        // Some close the connection instead of the reply that says no (RFC 1928 #6).
        let closed_on_request = self.heard == METHOD_ANSWER && matches!(error, SocksError::Io(_));
        self.heard > METHOD_ANSWER || closed_on_request
    }
}

impl AsyncRead for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(context, buffer);
        self.heard += buffer.filled().len() - before;
        polled
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

fn in_words(error: &SocksError) -> String {
    match error {
        SocksError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "closed by the other side in SOCKS5".to_owned()
        }
        error => format!("SOCKS5 failed: {error}"),
    }
}
