//! The session with the server, as tokio-xmpp keeps it: the only file that names its types.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt as _, Stream as _, StreamExt as _, future::BoxFuture};
use jid::{FullJid, Jid};
use tokio::sync::oneshot;
use tokio_xmpp::{
    Client, Event,
    connect::ServerConnector,
    stanzastream::{Event as StanzaEvent, StanzaStage, StanzaState, StanzaStream, StanzaToken, StreamEvent},
    xmlstream::Timeouts,
};
use xmpp_parsers::{stanza::Stanza, stream_features::StreamFeatures};

use super::{
    now,
    while_wanted::{Pace, Wanted, WhileWanted},
};
use crate::{Error, SignallingError};

/// Stanzas that may be on their way to the server's socket. `StanzaStream` is made with a queue of this
/// length, so that handing one over never blocks the task.
const QUEUE: usize = 64;

/// A session with the server.
pub(crate) enum Link {
    /// Ours, unsplit: a split one loses wake-ups when it sends and receives at the same time.
    Stream(Box<StreamLink>),
    /// The bot's own client.
    Client(ClientLink),
}

/// What is heard on a link.
#[expect(clippy::large_enum_variant, reason = "there is one, on the stack of one task")]
pub(crate) enum Heard {
    /// What a bot's client would tell it.
    Event(Event),
    /// The connection is lost, and another one is being tried for.
    Suspended,
}

/// Who wants to know that a stanza was sent.
pub(crate) type Sent = Option<oneshot::Sender<Result<(), Error>>>;

/// Makes the same session with the server from nothing.
type Make = Box<dyn FnMut() -> (Wanted, StanzaStream) + Send>;

/// A connection that was lost, and one that got no further than the login after it: what is left of the session can't
/// be resumed, however often it is tried.
const HOPELESS: usize = 2;

pub(crate) struct StreamLink {
    make: Make,
    stream: StanzaStream,
    /// Ends the attempts to connect with the link.
    wanted: Wanted,
    /// How soon the server is connected to again.
    pace: Pace,
    /// Connections that ended in a row without a session on them.
    lost: usize,
    /// The last JID and features, which a resumption does not repeat.
    bound: Option<(Jid, StreamFeatures)>,
    in_queue: VecDeque<(StanzaToken, Sent)>,
    /// Resolves when the queue gets shorter.
    queue_moves: Option<BoxFuture<'static, ()>>,
}

pub(crate) enum ClientLink {
    Idle(Box<Client>),
    /// `send_stanza` has the client until the stanza is sent.
    Sending(BoxFuture<'static, (Box<Client>, Result<(), Error>)>, Sent),
    Ended,
}

impl Link {
    /// Logs in, and again whenever the session is lost.
    pub(crate) fn login<C: ServerConnector>(jid: Jid, password: String, connector: C) -> Self {
        let pace = Pace::default();
        let for_all = pace.clone();
        let mut make: Make = Box::new(move || {
            let (wanted, connector) = WhileWanted::new(connector.clone(), for_all.clone());
            let (jid, password) = (jid.clone(), password.clone());
            (wanted, StanzaStream::new_c2s(connector, jid, password, Timeouts::default(), QUEUE))
        });
        let (wanted, stream) = make();
        let in_queue = VecDeque::with_capacity(QUEUE);
        Self::Stream(Box::new(StreamLink {
            make,
            stream,
            wanted,
            pace,
            lost: 0,
            bound: None,
            in_queue,
            queue_moves: None,
        }))
    }

    pub(crate) fn client(client: Client) -> Self {
        Self::Client(ClientLink::Idle(Box::new(client)))
    }

    /// The full JID of a client that was online before we got it.
    pub(crate) fn bound_jid(&self) -> Option<FullJid> {
        match self {
            Self::Client(ClientLink::Idle(client)) => client.bound_jid().cloned(),
            Self::Client(_) | Self::Stream(_) => None,
        }
    }

    /// Whether [`Self::send`] can be called; if not, wakes up when it can.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Stream(link) => link.poll_ready(cx),
            Self::Client(link) => link.poll_ready(cx),
        }
    }

    /// Hands a stanza over. Only after [`Self::poll_ready`].
    pub(crate) async fn send(&mut self, stanza: Stanza, sent: Sent) {
        match self {
            Self::Stream(link) => {
                // There is room, so this resolves without waiting for the server.
                let token = link.stream.send(Box::new(stanza)).await;
                link.in_queue.push_back((token, sent));
            }
            Self::Client(link) => link.send(stanza, sent),
        }
    }

    /// Whether it takes another one behind the last, without waiting.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Stream(link) => link.in_queue.len() < QUEUE,
            Self::Client(_) => false,
        }
    }

    /// What comes next; `None` after the end for good. A client does not tell when it lost its connection.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        match self {
            Self::Stream(link) => link.poll_next(cx),
            Self::Client(link) => link.poll_next(cx).map(|event| event.map(Heard::Event)),
        }
    }

    /// Whether everything handed over was written.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Stream(link) => link.poll_idle(cx),
            Self::Client(link) => link.poll_ready(cx),
        }
    }

    /// Whether somebody waits to be told that a stanza was sent.
    pub(crate) fn is_awaited(&self) -> bool {
        match self {
            Self::Stream(link) => link.is_awaited(),
            Self::Client(ClientLink::Sending(_, sent)) => sent.is_some(),
            Self::Client(ClientLink::Idle(_) | ClientLink::Ended) => false,
        }
    }

    /// Ends the session with the server in good order.
    pub(crate) async fn close(self) {
        match self {
            Self::Stream(link) => link.stream.close().await,
            Self::Client(ClientLink::Idle(client)) => {
                if let Err(error) = client.send_end().await {
                    tracing::debug!(%error, "the client did not end in good order");
                }
            }
            Self::Client(ClientLink::Sending(..) | ClientLink::Ended) => {}
        }
    }
}

impl StreamLink {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_shorter_than(QUEUE, cx)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_shorter_than(1, cx)
    }

    fn poll_shorter_than(&mut self, length: usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.take_sent();
            if self.in_queue.len() < length {
                return Poll::Ready(());
            }
            let Some((oldest, _)) = self.in_queue.front() else { return Poll::Ready(()) };
            let mut oldest = oldest.clone();
            let moves = self.queue_moves.get_or_insert_with(|| {
                async move {
                    oldest.wait_for(StanzaStage::Sent).await;
                }
                .boxed()
            });
            match moves.poll_unpin(cx) {
                Poll::Ready(()) => self.queue_moves = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Stanzas leave the queue in order.
    fn take_sent(&mut self) {
        while let Some((token, _)) = self.in_queue.front() {
            let result = match token.state() {
                StanzaState::Queued => return,
                StanzaState::Sent { .. } | StanzaState::Acked { .. } => Ok(()),
                StanzaState::Failed { error } => Err(Error::io(&error.into_io_error())),
                StanzaState::Dropped => Err(Error::Signalling(SignallingError::Offline)),
            };
            self.queue_moves = None;
            if let Some((_, sent)) = self.in_queue.pop_front() {
                report(sent, result);
            }
        }
    }

    fn is_awaited(&self) -> bool {
        self.in_queue.iter().any(|(_, sent)| sent.is_some())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        // Learns of what was sent even if nobody wants to send more; but it need not wake up for what nobody waits for.
        self.take_sent();
        if self.is_awaited() {
            let _ = self.poll_idle(cx);
        }
        loop {
            let event = match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Ready(event) => event,
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(match event {
                None => None,
                Some(StanzaEvent::Stanza(stanza)) => Some(Heard::Event(Event::Stanza(stanza))),
                Some(StanzaEvent::Stream(StreamEvent::Suspended)) => {
                    self.suspended();
                    Some(Heard::Suspended)
                }
                Some(StanzaEvent::Stream(StreamEvent::Resumed)) => {
                    self.lost = 0;
                    self.pace.succeeded(now());
                    match self.bound.clone() {
                        Some((bound_jid, features)) => {
                            Some(Heard::Event(Event::Online { bound_jid, features, resumed: true }))
                        }
                        None => continue,
                    }
                }
                Some(StanzaEvent::Stream(StreamEvent::Reset { bound_jid, features })) => {
                    self.lost = 0;
                    self.pace.succeeded(now());
                    self.bound = Some((bound_jid.clone(), features.clone()));
                    Some(Heard::Event(Event::Online { bound_jid, features, resumed: false }))
                }
            });
        }
    }
}

impl StreamLink {
    /// COMPAT tokio-xmpp 6.0: it takes a `<failed/>` without `h`, with which Prosody refuses to resume a session that it
    /// does not know (XEP-0198 #resumption), for a broken connection, and would log in and try again for ever,
    /// without a pause. A new session starts with nothing to resume.
    fn suspended(&mut self) {
        self.lost += 1;
        if self.lost < HOPELESS {
            return;
        }
        tracing::info!("the session with the server can't be resumed; starting a new one");
        self.lost = 0;
        self.pace.hurry();
        (self.wanted, self.stream) = (self.make)();
        self.queue_moves = None;
        for (_, sent) in self.in_queue.drain(..) {
            report(sent, Err(Error::Signalling(SignallingError::Rebound)));
        }
    }
}

impl ClientLink {
    fn send(&mut self, stanza: Stanza, sent: Sent) {
        let Self::Idle(mut client) = std::mem::replace(self, Self::Ended) else { return };
        let sending = async move {
            let result = client.send_stanza(stanza).await;
            (client, result.map(drop).map_err(|error| Error::io(&error)))
        };
        *self = Self::Sending(sending.boxed(), sent);
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Sending(sending, sent) = self else { return Poll::Ready(()) };
        let Poll::Ready((client, result)) = sending.poll_unpin(cx) else { return Poll::Pending };
        report(sent.take(), result);
        *self = Self::Idle(client);
        Poll::Ready(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let Self::Idle(client) = self else { return Poll::Ready(None) };
        let Poll::Ready(event) = client.poll_next_unpin(cx) else { return Poll::Pending };
        if event.is_none() {
            *self = Self::Ended;
        }
        Poll::Ready(event)
    }
}

fn report(sent: Sent, result: Result<(), Error>) {
    if let Some(sent) = sent {
        // Whoever sent it may have stopped waiting.
        let _ = sent.send(result);
    }
}
