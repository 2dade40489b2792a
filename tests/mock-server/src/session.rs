//! One client from login to its end: read, hold back, route; and write what others sent it.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use xmpp_parsers::minidom::Element;

use crate::{
    connection::{Connection, Io},
    ending::Ending,
    hub::{Bound, Hub, Inbox, Outgoing, SessionKey},
    link::{Direction, Link},
    login::{LoggedIn, login},
    route,
    xml::Frame,
};

/// A login takes milliseconds on loopback; this bounds a client that stops in the midst of one.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to read the last words and close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Stanzas read and held back by a delay. When it is full, the client is read no further: TCP makes it wait.
const MAX_HELD: usize = 256;

/// Bytes gathered for one write, when more stanzas wait.
const WRITE_BATCH: usize = 64 * 1024;

/// Serves one connection to its end. Dropping it cuts the connection.
pub(crate) async fn serve(hub: Arc<Hub>, tcp: TcpStream) {
    // Nagle's algorithm and delayed acknowledgements together cost 40 ms for each request and reply.
    tcp.set_nodelay(true).ok();
    let Ok(Some(LoggedIn { connection, jid, bind_result })) = timeout(LOGIN_TIMEOUT, login(&hub, tcp)).await
    else {
        return;
    };
    let bound = hub.bind(jid, bind_result);
    run(&hub, connection, bound).await;
}

/// Takes the session offline however its task ends, a panic in a test's intercept included.
struct Unbind<'a> {
    hub: &'a Hub,
    key: SessionKey,
}

impl Drop for Unbind<'_> {
    fn drop(&mut self) {
        let known = self.hub.unbind(&self.key);
        // An intercept that has just panicked is not asked about the presence: a second panic would end the process.
        if let Some(known) = known
            && !std::thread::panicking()
        {
            route::leave(self.hub, &self.key.jid, known);
        }
    }
}

async fn run(hub: &Hub, connection: Connection<Io>, bound: Bound) {
    let Bound { key, inbox, cut, evicted } = bound;
    let online = Unbind { hub, key: key.clone() };
    if let Some(known) = evicted {
        route::leave(hub, &key.jid, known);
    }
    let (reader, writer) = connection.split();
    let (held, arrivals) = mpsc::channel(MAX_HELD);
    let mut read = Box::pin(read(reader, held, hub.links.link(&key.jid, Direction::FromClient)));
    let mut write = Box::pin(write(writer, inbox, hub.links.link(&key.jid, Direction::ToClient)));
    let mut deliver = Box::pin(deliver(hub, &key, arrivals));

    let mut all_read = None;
    let all_written = loop {
        tokio::select! {
            biased;
            // First, because a cut also ends the queue of what is to be written.
            () = cut.notified() => return,
            reader = &mut read, if all_read.is_none() => all_read = Some(reader),
            ending = &mut deliver => {
                hub.end(&key, ending);
                break false;
            }
            // The server has ended the stream, or the client has gone.
            () = &mut write => break true,
        }
    };
    drop((deliver, online));
    let write = async {
        if !all_written {
            write.await;
        }
    };
    let drain = async {
        let mut reader = match all_read {
            Some(reader) => reader,
            None => read.await,
        };
        reader.drain().await;
    };
    timeout(CLOSE_TIMEOUT, async { tokio::join!(write, drain) }).await.ok();
}

/// What came from the client, and when it may go on.
struct Arrival {
    due: Instant,
    what: Result<Element, Ending>,
}

/// Reads until the client ends its stream or breaks a rule, or nobody listens.
async fn read(
    mut connection: Connection<ReadHalf<Io>>,
    held: mpsc::Sender<Arrival>,
    mut link: Link,
) -> Connection<ReadHalf<Io>> {
    loop {
        let what = match connection.next(Some(&mut link)).await {
            Ok(Frame::Element(element)) => Ok(element),
            Ok(Frame::Close | Frame::Open { .. }) => Err(Ending::Footer),
            Err(ending) => Err(ending),
        };
        let is_last = what.is_err();
        let arrival = Arrival { due: link.due(Instant::now()), what };
        if held.send(arrival).await.is_err() || is_last {
            return connection;
        }
    }
}

/// Routes what was read, in order, each when it is due.
async fn deliver(hub: &Hub, key: &SessionKey, mut arrivals: mpsc::Receiver<Arrival>) -> Ending {
    while let Some(arrival) = arrivals.recv().await {
        if arrival.due > Instant::now() {
            sleep_until(arrival.due).await;
        }
        let routed = arrival.what.and_then(|stanza| route::from_client(hub, key, stanza));
        if let Err(ending) = routed {
            return ending;
        }
    }
    Ending::Lost
}

/// Writes what is queued for the client, in order, each when it is due; returns after the stream's end.
async fn write(mut io: WriteHalf<Io>, mut inbox: Inbox, mut link: Link) {
    let mut batch = Vec::new();
    while let Some(outgoing) = inbox.next().await {
        let ending = match outgoing {
            Outgoing::Bytes { since, bytes } => {
                let due = link.due(since);
                if due > Instant::now() {
                    if write_batch(&mut io, &mut batch, &mut link).await.is_err() {
                        return;
                    }
                    sleep_until(due).await;
                }
                batch.extend_from_slice(&bytes);
                None
            }
            Outgoing::End(ending) => {
                batch.extend_from_slice(&ending.to_bytes());
                Some(ending)
            }
        };
        let wait_for_more = ending.is_none() && !inbox.is_empty() && batch.len() < WRITE_BATCH;
        if !wait_for_more && write_batch(&mut io, &mut batch, &mut link).await.is_err() {
            return;
        }
        if ending.is_some() {
            io.shutdown().await.ok();
            return;
        }
    }
}

async fn write_batch(io: &mut WriteHalf<Io>, batch: &mut Vec<u8>, link: &mut Link) -> std::io::Result<()> {
    let mut rest = batch.as_slice();
    while !rest.is_empty() {
        let chunk = link.ready().await.min(rest.len());
        let (now, later) = rest.split_at(chunk);
        io.write_all(now).await?;
        link.passed(chunk);
        rest = later;
    }
    batch.clear();
    io.flush().await
}
