//! What goes on at the listener: accepting, and SOCKS5 with those who connect.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

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

use super::Listener;
use crate::transport::socks5::{MAX_WANTS, Progress, Request, Server};

/// Connections that have not asked for a DST.ADDR yet. When one more comes, the oldest goes: those who connect and say
/// nothing lock nobody out. A peer needs two round trips.
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
                Some(connection) = accepted.next() => negotiations.begin(connection, Arc::clone(&gate)),
                Some(ended) = negotiations.running.next() => negotiations.forget(ended),
                else => return,
            }
        }
    }
}

async fn accept(socket: &TcpListener) -> TcpStream {
    loop {
        match socket.accept().await {
            Ok((connection, _)) => return connection,
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
    live: BTreeMap<Serial, AbortHandle>,
    last: Serial,
}

/// Counts connections in the order in which they came.
type Serial = u64;

impl Negotiations {
    fn begin(&mut self, connection: TcpStream, gate: Arc<dyn Gate>) {
        if self.live.len() >= MAX_NEGOTIATING
            && let Some((_, oldest)) = self.live.pop_first()
        {
            oldest.abort();
        }
        self.last += 1;
        let serial = self.last;
        let (handle, registration) = AbortHandle::new_pair();
        let negotiation = negotiate(connection, gate).map(move |()| serial).boxed();
        self.running.push(Abortable::new(negotiation, registration));
        self.live.insert(serial, handle);
    }

    fn forget<E>(&mut self, ended: Result<Serial, E>) {
        // One that was told to end is forgotten already.
        if let Ok(serial) = ended {
            self.live.remove(&serial);
        }
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

async fn negotiate(connection: TcpStream, gate: Arc<dyn Gate>) {
    let peer = connection.peer_addr();
    let outcome = timeout(NEGOTIATION, introduce(connection, gate)).await;
    if let Err(why) = outcome.unwrap_or(Err(Dropped::TooSlow)) {
        let peer = peer.map_or_else(|_| "already gone".to_owned(), |peer| peer.to_string());
        tracing::debug!("SOCKS5 client dropped ({peer}): {why}");
    }
}

/// Leads a client to the gate.
async fn introduce(mut connection: TcpStream, gate: Arc<dyn Gate>) -> Result<(), Dropped> {
    // What an XML stream writes is small, and often waited for.
    connection.set_nodelay(true)?;
    let request = converse(&mut connection).await?;
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
async fn converse(connection: &mut TcpStream) -> Result<Request, Dropped> {
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
            Progress::Reply(reply) => connection.write_all(&reply).await?,
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
