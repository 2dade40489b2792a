//! Where the listener listens, and where it can be reached.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::S5bConfig;

/// How often the system may choose a port before one is free on all addresses. Each choice is nearly always good.
const SYSTEM_CHOICES: usize = 8;

/// Connections that the system holds until they are accepted. More than may be negotiating: those are soon through.
const BACKLOG: i32 = 1024;

/// Waits for peers that connect to our `direct` and `assisted` candidates.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) sockets: Vec<TcpListener>,
    /// What was asked for and is there, wildcards among it.
    bound: Vec<SocketAddr>,
}

impl Listener {
    /// Listens on every address of `config.bind`, or all of the machine's, on one and the same port: the first of
    /// `config.ports` that is free on all.
    ///
    /// Addresses that the machine doesn't have (no IPv6, say) are left out. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Nothing of it is there or free; the text says what was tried.
    pub(crate) fn bind(config: &S5bConfig) -> io::Result<Self> {
        let addresses = wanted(&config.bind);
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the range of ports is empty");
        'ports: for port in config.ports.clone() {
            for _ in 0..if port == 0 { SYSTEM_CHOICES } else { 1 } {
                match Self::bind_all(&addresses, port) {
                    Ok(listener) => return Ok(listener),
                    Err(error) => last = error,
                }
                if !is_taken(&last) {
                    break 'ports;
                }
            }
        }
        let mut tried = String::from("can't listen for SOCKS5 bytestreams on");
        for address in addresses {
            let _ = write!(tried, " {address},");
        }
        let ports = match (config.ports.start(), config.ports.end()) {
            (0, _) => "any port".to_owned(),
            (first, end) if first == end => format!("port {first}"),
            (first, end) => format!("ports {first} to {end}"),
        };
        Err(io::Error::new(last.kind(), format!("{tried} {ports}: {last}")))
    }

    /// The same with one port, or one that the system chooses for the first address.
    fn bind_all(addresses: &[IpAddr], mut port: u16) -> io::Result<Self> {
        let mut listener = Self { sockets: Vec::new(), bound: Vec::new() };
        let mut missing = None;
        for &address in addresses {
            if listener.has_wildcard_for(address) {
                listener.bound.push(SocketAddr::new(address, port));
                continue;
            }
            match listen(address, port) {
                Ok(socket) => {
                    let local = socket.local_addr()?;
                    port = local.port();
                    listener.bound.push(local);
                    listener.sockets.push(socket);
                }
                Err(error) if is_taken(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!("not listening on {address}: {error}");
                    missing = Some(error);
                }
            }
        }
        match missing {
            Some(error) if listener.sockets.is_empty() => Err(error),
            _ => Ok(listener),
        }
    }

    fn has_wildcard_for(&self, address: IpAddr) -> bool {
        self.bound.iter().any(|bound| bound.ip().is_unspecified() && bound.is_ipv4() == address.is_ipv4())
    }

    /// Where it can be reached now: at the addresses that were named, whatever they are, and where all were meant, at those
    /// that the machine's interfaces have and that others can make something of.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let (wildcards, mut addresses): (Vec<_>, Vec<_>) =
            self.bound.iter().partition(|bound| bound.ip().is_unspecified());
        if wildcards.is_empty() {
            return addresses;
        }
        let usable = usable_addresses();
        for wildcard in wildcards {
            for &address in usable.iter().filter(|address| address.is_ipv4() == wildcard.is_ipv4()) {
                let address = SocketAddr::new(address, wildcard.port());
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        addresses
    }
}

/// The addresses to listen on, each once, wildcards first: they include the others of their family.
fn wanted(bind: &[IpAddr]) -> Vec<IpAddr> {
    if bind.is_empty() {
        return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    let mut wanted = Vec::new();
    for address in bind.iter().map(IpAddr::to_canonical) {
        if !wanted.contains(&address) {
            wanted.push(address);
        }
    }
    wanted.sort_by_key(|address| !address.is_unspecified());
    wanted
}

/// Whether another port may do.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn listen(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = with_scope(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own: both on one would make the port taken for the other.
        socket.set_only_v6(true)?;
    }
    // A port of a range can be had again at once after a restart. Windows means something else by it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A link-local IPv6 address is one only together with its interface.
fn with_scope(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            let scope = interfaces().into_iter().find(|interface| interface.ip() == address);
            let scope = scope.and_then(|interface| interface.index).unwrap_or_default();
            SocketAddrV6::new(address, port, 0, scope).into()
        }
        address => SocketAddr::new(address, port),
    }
}

/// The addresses of interfaces that are up, without those that mean nothing, or something else, to other machines.
fn usable_addresses() -> Vec<IpAddr> {
    interfaces()
        .into_iter()
        .filter(|interface| interface.is_oper_up() && !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        .filter(|address| !address.is_unspecified())
        .collect()
}

fn interfaces() -> Vec<if_addrs::Interface> {
    if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!("can't read the addresses of this machine: {error}");
        Vec::new()
    })
}
