//! What goes on at the listener: accepting, and SOCKS5 with those who connect.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::{self, FuturesUnordered},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{Listener, prepare};
use crate::transport::socks5::{MAX_WANTS, Progress, Request, Server};

/// Connections that have not asked for a DST.ADDR yet. When one more comes, one goes, of the [network](network_of) that has
/// most: whoever connects a thousand times from one network locks nobody of another out. Who has as many networks as there
/// are places still can, and so can who shares the peer's. A peer needs two round trips.
pub(super) const MAX_NEGOTIATING: usize = 128;

/// For the whole of SOCKS5: as long as the most patient peers wait for us (Smack: 10 s), and not so long that a byte now
/// and then is worth an attacker's while.
pub(super) const NEGOTIATION: Duration = Duration::from_secs(10);

/// Before the next attempt to accept, when one fails: without file descriptors they all do, at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Decides who may pass the listener.
pub(crate) trait Gate: Send + Sync + 'static {
    /// Takes a connection whose SOCKS5 client asked for this DST.ADDR (in lower case), or gives it back, for a refusal.
    ///
    /// Who takes it writes `grant`, with [`TcpStream::try_write`], in the moment of taking it, so that the peer's first
    /// bytes can't come before anybody expects them. The socket is known to be writable, and empty: `grant` fits. Called
    /// from [`Listener::serve`], which waits for it: not to block.
    fn admit(&self, dst_addr: &str, connection: TcpStream, grant: &[u8]) -> Result<(), TcpStream>;
}

impl Listener {
    /// Accepts and negotiates, until dropped; and with it all connections that have not passed the gate.
    pub(crate) async fn serve(&self, gate: Arc<dyn Gate>) {
        let accepting = |socket| async move { Some((accept(socket).await, socket)) };
        let mut accepted =
            stream::select_all(self.sockets.iter().map(|socket| stream::unfold(socket, accepting).boxed()));
        let mut negotiations = Negotiations::default();
        loop {
            tokio::select! {
                Some((connection, from)) = accepted.next() => negotiations.begin(connection, from, Arc::clone(&gate)),
                Some(ended) = negotiations.running.next() => negotiations.forget(ended),
                else => return,
            }
        }
    }
}

async fn accept(socket: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match socket.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!("can't accept a SOCKS5 connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that have not passed the gate.
#[derive(Default)]
struct Negotiations {
    running: FuturesUnordered<Abortable<BoxFuture<'static, Serial>>>,
    /// Those that have not been told to end, oldest first.
    live: BTreeMap<Serial, Negotiation>,
    last: Serial,
}

/// Counts connections in the order in which they came.
type Serial = u64;

/// What is known from outside about a connection that has not passed the gate.
struct Negotiation {
    network: IpAddr,
    greeted: Greeted,
    abort: AbortHandle,
}

/// Whether a client has sent a greeting that we could answer.
#[derive(Clone, Default)]
struct Greeted(Arc<AtomicBool>);

impl Greeted {
    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Negotiations {
    fn begin(&mut self, connection: TcpStream, from: SocketAddr, gate: Arc<dyn Gate>) {
        self.last += 1;
        let serial = self.last;
        let greeted = Greeted::default();
        let (abort, registration) = AbortHandle::new_pair();
        let negotiation = negotiate(connection, from, gate, greeted.clone()).map(move |()| serial).boxed();
        self.running.push(Abortable::new(negotiation, registration));
        self.live.insert(serial, Negotiation { network: network_of(from.ip()), greeted, abort });
        if self.live.len() > MAX_NEGOTIATING
            && let Some(excess) = self.one_to_go().and_then(|serial| self.live.remove(&serial))
        {
            excess.abort.abort();
        }
    }

    /// Of the network that has most, one that has not greeted, if there is one, and of several the oldest: this may be the
    /// newcomer, but not if it is the only one of its network. It had no time to greet.
    fn one_to_go(&self) -> Option<Serial> {
        let mut crowd: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for negotiation in self.live.values() {
            *crowd.entry(negotiation.network).or_default() += 1;
        }
        let rank = |serial: Serial, negotiation: &Negotiation| {
            let others = crowd.get(&negotiation.network).map_or(0, |all| all.saturating_sub(1));
            let spared = serial == self.last && others == 0;
            (!spared, others, !negotiation.greeted.is_noted(), Reverse(serial))
        };
        self.live
            .iter()
            .map(|(&serial, negotiation)| (rank(serial, negotiation), serial))
            .max()
            .map(|(_, serial)| serial)
    }

    fn forget<E>(&mut self, ended: Result<Serial, E>) {
        // One that was told to end is forgotten already.
        if let Ok(serial) = ended {
            self.live.remove(&serial);
        }
    }
}

/// Whom an address belongs to, as far as it shows: one of IPv4 stands for itself; of IPv6, everybody has a /64 at least
/// (RFC 6177 #2).
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// Why a connection did not pass.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error("{0}")]
    Refused(&'static str),
    #[error("closed by the client")]
    Closed,
    #[error("not done after {NEGOTIATION:?}")]
    TooSlow,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

async fn negotiate(connection: TcpStream, from: SocketAddr, gate: Arc<dyn Gate>, greeted: Greeted) {
    let outcome = timeout(NEGOTIATION, introduce(connection, gate, &greeted)).await;
    if let Err(why) = outcome.unwrap_or(Err(Dropped::TooSlow)) {
        tracing::debug!("SOCKS5 client dropped ({from}): {why}");
    }
}

/// Leads a client to the gate.
async fn introduce(mut connection: TcpStream, gate: Arc<dyn Gate>, greeted: &Greeted) -> Result<(), Dropped> {
    prepare(&connection)?;
    let request = converse(&mut connection, greeted).await?;
    // tokio's `try_write` fails on a socket of which it has not learned yet that it is writable.
    connection.writable().await?;
    match gate.admit(&request.dst_addr(), connection, &request.granted()) {
        Ok(()) => Ok(()),
        Err(mut connection) => {
            turn_away(&mut connection, &request.refused()).await?;
            Err(Dropped::Refused("nobody expects its DST.ADDR"))
        }
    }
}

/// SOCKS5 up to the client's request.
async fn converse(connection: &mut TcpStream, greeted: &Greeted) -> Result<Request, Dropped> {
    let mut server = Server::new();
    let mut buffer = [0; MAX_WANTS];
    loop {
        let wanted = buffer.get_mut(..server.wants()).unwrap_or_default();
        let length = connection.read(wanted).await?;
        let Some(bytes @ [_, ..]) = wanted.get(..length) else {
            return Err(Dropped::Closed);
        };
        match server.handle(bytes) {
            Progress::More => {}
            Progress::Reply(reply) => {
                greeted.note();
                connection.write_all(&reply).await?;
            }
            Progress::Connect(request) => return Ok(request),
            Progress::Refuse { reply, why } => {
                turn_away(connection, &reply).await?;
                return Err(Dropped::Refused(why));
            }
        }
    }
}

async fn turn_away(connection: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    connection.write_all(reply).await?;
    connection.shutdown().await
}
