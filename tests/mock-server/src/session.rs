//! One client from login to its end: read, hold back, route; and write what others sent it.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use xmpp_parsers::{minidom::Element, ns};

use crate::{
    connection::{Connection, Io},
    ending::{Ending, escape},
    hub::{Bound, Hub, Inbox, Outgoing, SessionKey},
    link::{Direction, Link},
    login::{LoggedIn, Session, login},
    management::{REQUEST, Received, Resumption, Sent},
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
    let Ok(Some(LoggedIn { connection, session })) = timeout(LOGIN_TIMEOUT, login(&hub, tcp)).await else {
        return;
    };
    match session {
        Session::New { jid, bind_result } => {
            let bound = hub.bind(jid, bind_result);
            run(&hub, connection, bound).await;
        }
        // The task that has the session goes on with it.
        Session::Old(session) => session.resume(connection),
    }
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

/// What outlives a connection.
struct Client<'a> {
    hub: &'a Hub,
    key: SessionKey,
    inbox: Inbox,
    cut: Arc<Notify>,
    resumptions: mpsc::UnboundedReceiver<Resumption>,
    received: Received,
    sent: Sent,
}

/// How a connection ended.
enum Left {
    Over,
    /// Without a word; the session may be resumed.
    Lost,
    /// The client has another one.
    Replaced(Box<Resumption>),
}

async fn run(hub: &Hub, mut connection: Connection<Io>, bound: Bound) {
    let Bound { key, inbox, cut, resumptions, evicted } = bound;
    let mut online = Some(Unbind { hub, key: key.clone() });
    if let Some(known) = evicted {
        route::leave(hub, &key.jid, known);
    }
    let (received, sent) = (Received::default(), Sent::default());
    let mut client = Client { hub, key, inbox, cut, resumptions, received, sent };
    let mut first = Vec::new();
    loop {
        let resumption = match client.carry(connection, first, &mut online).await {
            Left::Over => return,
            Left::Lost => client.wait_for_resumption().await,
            Left::Replaced(resumption) => Some(*resumption),
        };
        let Some(resumption) = resumption else { return };
        let Some(resumed) = client.resume(&resumption) else { return };
        (connection, first) = (resumption.connection, resumed);
    }
}

impl Client<'_> {
    /// Serves one connection, on which `first` is said first, to its end.
    async fn carry(
        &mut self,
        connection: Connection<Io>,
        first: Vec<u8>,
        online: &mut Option<Unbind<'_>>,
    ) -> Left {
        let Self { hub, key, inbox, cut, resumptions, received, sent } = self;
        let (reader, writer) = connection.split();
        let (held, arrivals) = mpsc::channel(MAX_HELD);
        let mut read = Box::pin(read(reader, held, hub.links.link(&key.jid, Direction::FromClient)));
        let link = hub.links.link(&key.jid, Direction::ToClient);
        let mut write = Box::pin(write(writer, first, inbox, sent, link));
        let mut deliver = Box::pin(deliver(hub, key, arrivals, received));

        let mut all_read = None;
        let all_written = loop {
            tokio::select! {
                biased;
                // First, because a cut also ends the queue of what is to be written.
                () = cut.notified() => return if hub.is_resumable(key) { Left::Lost } else { Left::Over },
                Some(resumption) = resumptions.recv() => return Left::Replaced(Box::new(resumption)),
                reader = &mut read, if all_read.is_none() => all_read = Some(reader),
                ending = &mut deliver => {
                    if ending == Ending::Lost && hub.is_resumable(key) {
                        return Left::Lost;
                    }
                    hub.end(key, ending);
                    break false;
                }
                ending = &mut write => match ending {
                    // The client has gone, or was cut.
                    Ending::Lost if hub.is_resumable(key) => return Left::Lost,
                    Ending::Lost => return Left::Over,
                    Ending::Footer | Ending::Error { .. } => break true,
                },
            }
        };
        drop((deliver, online.take()));
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
        Left::Over
    }

    /// The client's next connection; `None` if it took too long, or the session was forgotten.
    async fn wait_for_resumption(&mut self) -> Option<Resumption> {
        let patience = self.hub.settings.resumption?;
        tokio::select! {
            biased;
            () = self.cut.notified() => None,
            resumption = self.resumptions.recv() => resumption,
            () = sleep(patience) => None,
        }
    }

    /// What is said first on another connection; `None` if the client has handled more than it got.
    fn resume(&mut self, resumption: &Resumption) -> Option<Vec<u8>> {
        if !self.sent.handle_acked(resumption.h) {
            return None;
        }
        self.inbox.forget_answers();
        let id = escape(&resumption.id);
        let mut first =
            format!("<resumed xmlns='{}' h='{}' previd='{id}'/>", ns::SM, self.received.h()).into_bytes();
        first.extend(self.sent.unacked().flatten());
        first.extend(REQUEST);
        Some(first)
    }
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
        link.open().await;
        let is_last = what.is_err();
        let arrival = Arrival { due: link.due(Instant::now()), what };
        if held.send(arrival).await.is_err() || is_last {
            return connection;
        }
    }
}

/// Routes what was read, in order, each when it is due.
async fn deliver(
    hub: &Hub,
    key: &SessionKey,
    mut arrivals: mpsc::Receiver<Arrival>,
    received: &mut Received,
) -> Ending {
    while let Some(arrival) = arrivals.recv().await {
        if arrival.due > Instant::now() {
            sleep_until(arrival.due).await;
        }
        let handled = arrival.what.and_then(|element| match element.has_ns(ns::SM) {
            true => received.handle(hub, key, &element),
            false => {
                received.handle_stanza();
                route::from_client(hub, key, element)
            }
        });
        if let Err(ending) = handled {
            return ending;
        }
    }
    Ending::Lost
}

/// Writes `batch` and what is queued for the client, in order, each when it is due; returns after the stream's end.
async fn write(
    mut io: WriteHalf<Io>,
    mut batch: Vec<u8>,
    inbox: &mut Inbox,
    sent: &mut Sent,
    mut link: Link,
) -> Ending {
    if write_batch(&mut io, &mut batch, &mut link).await.is_err() {
        return Ending::Lost;
    }
    let mut to_be_acked = false;
    while let Some(outgoing) = inbox.next().await {
        let mut ending = None;
        match outgoing {
            Outgoing::Bytes { since, bytes } => {
                to_be_acked |= sent.push(&bytes);
                let due = link.due(since);
                if due > Instant::now() {
                    if write_batch(&mut io, &mut batch, &mut link).await.is_err() {
                        return Ending::Lost;
                    }
                    sleep_until(due).await;
                }
                batch.extend_from_slice(&bytes);
            }
            Outgoing::Nonza(bytes) => batch.extend_from_slice(&bytes),
            Outgoing::Enabled(bytes) => {
                batch.extend_from_slice(&bytes);
                sent.enable();
            }
            Outgoing::Acked(h) if sent.handle_acked(h) => {}
            Outgoing::Acked(h) => {
                let text = format!("{h} stanzas can't have been handled");
                ending = Some(Ending::error("undefined-condition", text));
            }
            Outgoing::End(last) => ending = Some(last),
        }
        if ending.is_none() && !inbox.is_empty() && batch.len() < WRITE_BATCH {
            continue;
        }
        if std::mem::take(&mut to_be_acked) {
            batch.extend_from_slice(REQUEST);
        }
        if let Some(ending) = &ending {
            batch.extend_from_slice(&ending.to_bytes());
        }
        if write_batch(&mut io, &mut batch, &mut link).await.is_err() {
            return Ending::Lost;
        }
        if let Some(ending) = ending {
            io.shutdown().await.ok();
            return ending;
        }
    }
    Ending::Lost
}

async fn write_batch(io: &mut WriteHalf<Io>, batch: &mut Vec<u8>, link: &mut Link) -> std::io::Result<()> {
    let mut rest = batch.as_slice();
    while !rest.is_empty() {
        link.open().await;
        let chunk = link.ready().await.min(rest.len());
        let (now, later) = rest.split_at(chunk);
        io.write_all(now).await?;
        link.passed(chunk);
        rest = later;
    }
    batch.clear();
    io.flush().await
}
