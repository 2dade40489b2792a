//! Connecting to a peer's candidate.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_socks::{Error as SocksError, TargetAddr, tcp::Socks5Stream};

use crate::transport::s5b::Dial;

/// Addresses of a host name that are tried. A peer names the host: we don't knock at any number of doors for it.
const MAX_ADDRESSES: usize = 4;

/// What a DST.ADDR can have in SOCKS5, where one byte says its length (RFC 1928 #5).
const MAX_DST_ADDR_BYTES: usize = 255;

/// Connects to a candidate and asks for its DST.ADDRs, each on a connection of its own, until one is granted.
///
/// A name's addresses are tried one after the other, and each gets its share of the time that is left, so that one where
/// nobody answers does not use it up. Only addresses that `dial.reach` admits are connected to.
///
/// Cancel safe: when dropped, nothing is left but perhaps a look-up of the system's that ends by itself.
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
    let found = lookup_host((dial.host.as_str(), dial.port))
        .await
        .map_err(|error| format!("the name has no address: {error}"))?;
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
        ([], Some(barred)) => Err(format!("{} is not to be connected to for a peer", barred.ip())),
        ([], None) => Err("the name has no address".to_owned()),
        ([..], _) => Ok(targets.into_iter().take(MAX_ADDRESSES).collect()),
    }
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

/// Asks at one address for one DST.ADDR after the other. `step` says what it is at.
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
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        *step = "in SOCKS5";
        match Socks5Stream::connect_with_socket(tcp, TargetAddr::Domain(dst_addr.into(), 0)).await {
            Ok(granted) => return Ok(granted.into_inner()),
            Err(error) => refusal = in_words(&error),
        }
    }
    Err(refusal)
}

fn in_words(error: &SocksError) -> String {
    match error {
        SocksError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "closed by the other side in SOCKS5".to_owned()
        }
        error => format!("SOCKS5 failed: {error}"),
    }
}
